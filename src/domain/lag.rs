//! News that a device has not fetched: what has been done about it, for who asks why.

use super::{
    device::DeviceStatus,
    event::Class,
    feed::Position,
    id::WakeId,
    policy::{DeferReason, DropReason},
    time::Timestamp,
};

/// News in one class that a device has not fetched, and what has been done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The class.
    pub class: Class,
    /// Up to where there is news.
    pub head: Position,
    /// Up to where a provider has accepted a push.
    pub told: Position,
    /// When it last did so in this class.
    pub told_at: Option<Timestamp>,
    /// Wakes of this class that were accepted since the device last came.
    pub wakes: u32,
    /// Until when waking for it is worth while.
    pub expires_at: Timestamp,
    /// When it is looked at again.
    pub due_at: Option<Timestamp>,
    /// Why not before.
    pub waits_for: Option<DeferReason>,
    /// The wake that is open, if one is.
    pub wake: Option<OpenWake>,
    /// Why the newest wake that ended without a call did so, if it was for all of this.
    pub dropped: Option<DropReason>,
}

/// A wake that has been claimed and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenWake {
    /// Its id.
    pub id: WakeId,
    /// Whether a call is under way, or was when the relay died.
    pub called: bool,
}

/// How it stands with news that a device has not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// A provider is being called, or was when the relay died; then the call is repeated at this time.
    Called(Timestamp),
    /// A provider has accepted a push for all of it, and the device has not come. The next wake, if there is one, is at this time.
    Told(Option<Timestamp>),
    /// The provider is asked again at this time.
    Retries(Timestamp),
    /// It waits until this time, for this reason if one is known yet.
    Waits(Timestamp, Option<DeferReason>),
    /// No wake goes out, for this reason if it has been kept.
    Ended(Option<DropReason>),
}

impl Lag {
    /// How it stands.
    pub fn present(&self, status: DeviceStatus, now: Timestamp) -> Present {
        match (self.wake, self.due_at) {
            (Some(OpenWake { called: true, .. }), Some(until)) => Present::Called(until),
            (_, again_at) if self.told >= self.head => Present::Told(again_at),
            (Some(_), Some(at)) if self.waits_for.is_none() => Present::Retries(at),
            (_, Some(until)) => Present::Waits(until, self.waits_for),
            (_, None) => Present::Ended(self.dropped.or(match status {
                DeviceStatus::Gone => Some(DropReason::Gone),
                DeviceStatus::Stale if self.class == Class::Background => Some(DropReason::Stale),
                _ if now >= self.expires_at => Some(DropReason::Expired),
                DeviceStatus::Active | DeviceStatus::Quarantined | DeviceStatus::Stale => None,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);
    const THEN: Timestamp = Timestamp::from_ms(1_000_060_000);

    #[test]
    fn presents_by_table() {
        use Present::{Called, Ended, Retries, Told, Waits};
        let lag = Lag {
            class: Class::Background,
            head: Position(7),
            told: Position(3),
            told_at: None,
            wakes: 0,
            expires_at: THEN,
            due_at: Some(THEN),
            waits_for: None,
            wake: None,
            dropped: None,
        };
        let open = |called| Some(OpenWake { id: id::new(NOW), called });
        let gap = Some(DeferReason::Gap);
        let none = Some(DropReason::NoCredential);
        let active = DeviceStatus::Active;
        for (name, lag, status, expected) in [
            ("has just come up", lag.clone(), active, Waits(THEN, None)),
            ("waits", Lag { waits_for: gap, ..lag.clone() }, active, Waits(THEN, gap)),
            ("is sent", Lag { wake: open(true), ..lag.clone() }, active, Called(THEN)),
            ("is to be sent again", Lag { wake: open(false), ..lag.clone() }, active, Retries(THEN)),
            ("again, but waits", Lag { wake: open(false), waits_for: gap, ..lag.clone() }, active, Waits(THEN, gap)),
            ("told", Lag { told: Position(7), ..lag.clone() }, active, Told(Some(THEN))),
            ("told for good", Lag { told: Position(7), due_at: None, ..lag.clone() }, active, Told(None)),
            ("told again", Lag { told: Position(7), wake: open(true), ..lag.clone() }, active, Called(THEN)),
            ("as kept", Lag { due_at: None, dropped: none, ..lag.clone() }, active, Ended(none)),
            ("nothing kept", Lag { due_at: None, ..lag.clone() }, active, Ended(None)),
            (
                "too late",
                Lag { due_at: None, expires_at: NOW, ..lag.clone() },
                active,
                Ended(Some(DropReason::Expired)),
            ),
            ("gone", Lag { due_at: None, ..lag.clone() }, DeviceStatus::Gone, Ended(Some(DropReason::Gone))),
            ("stale", Lag { due_at: None, ..lag.clone() }, DeviceStatus::Stale, Ended(Some(DropReason::Stale))),
            (
                "stale, but it is visible",
                Lag { due_at: None, class: Class::Alert, ..lag.clone() },
                DeviceStatus::Stale,
                Ended(None),
            ),
        ] {
            assert_eq!(lag.present(status, NOW), expected, "{name}");
        }
    }
}
