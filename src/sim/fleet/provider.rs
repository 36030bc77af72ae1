//! APNs and FCM as far as a phone feels them: what they keep for it, what they replace, and how often FCM lets a collapsible push through.
//!
//! Sources: [A-send] Apple, "Sending notification requests to APNs"; [F-quota] Firebase, "FCM throttling and quotas"; [F-prio] Firebase,
//! "Set and manage message priority".

use std::time::Duration;

use super::habits::Habits;
use crate::domain::{device::Platform, event::Class, time::Timestamp};

/// Collapsible pushes per app and phone: so many at once, then one more per so long, delayed and not refused [F-quota].
const FCM_COLLAPSIBLE: (u32, Duration) = (20, Duration::from_mins(3));

/// What a provider keeps for one phone; pushes go by their number.
#[derive(Debug)]
pub(super) struct Provider {
    platform: Platform,
    /// FCM: the newest collapsible push. APNs: the newest push of whatever class, for it stores one per app and device [A-send].
    newest: Option<usize>,
    /// FCM: alerts, which do not collapse.
    alerts: Vec<usize>,
    throttle: Allowance,
}

impl Provider {
    /// One that keeps nothing yet.
    pub fn new(platform: Platform) -> Self {
        let throttle = Allowance::new(FCM_COLLAPSIBLE.0, FCM_COLLAPSIBLE.1);
        Self { platform, newest: None, alerts: Vec::new(), throttle }
    }

    /// Takes a push over; answers which earlier one it replaces.
    pub fn take(&mut self, push: usize, class: Class) -> Option<usize> {
        match (self.platform, class) {
            (Platform::Ios, _) | (_, Class::Background) => self.newest.replace(push),
            (_, Class::Alert) => {
                self.alerts.push(push);
                None
            }
        }
    }

    /// Hands over what can be delivered now.
    pub fn hand_over(&mut self, phone: &Habits, now: Timestamp) -> Vec<usize> {
        if phone.offline.hold(now) {
            return Vec::new();
        }
        let mut handed = std::mem::take(&mut self.alerts);
        let lets_through = match self.platform {
            Platform::Ios => true,
            Platform::Android | Platform::Web => {
                self.newest.is_some() && phone.awake.hold(now) && self.throttle.take(now)
            }
        };
        if lets_through {
            handed.extend(self.newest.take());
        }
        handed
    }

    /// When something more can be handed over, if ever.
    pub fn next_at(&self, phone: &Habits, now: Timestamp) -> Option<Timestamp> {
        let online = phone.offline.next_outside(now);
        let newest = self.newest.and_then(|_| match self.platform {
            Platform::Ios => Some(online),
            // Normal priority waits for the end of Doze or a maintenance window, high priority for nothing [F-prio].
            Platform::Android | Platform::Web => phone.can_run(self.throttle.next_at(now)),
        });
        let alert = (!self.alerts.is_empty()).then_some(online);
        [newest, alert].into_iter().flatten().min()
    }
}

/// A token bucket of the outside world's; the relay's own is another, so that a mistake in one does not hide in the other.
#[derive(Debug)]
pub(super) struct Allowance {
    most: u32,
    left: u32,
    one_more: Duration,
    /// Since when the next token has been on its way.
    since: Timestamp,
}

impl Allowance {
    /// A full one: so many at once, one more after every so long.
    pub fn new(most: u32, one_more: Duration) -> Self {
        Self { most, left: most, one_more, since: super::START }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        while self.left < self.most && self.since + self.one_more <= now {
            self.since = self.since + self.one_more;
            self.left += 1;
        }
        if self.left == self.most {
            self.since = now;
        }
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        true
    }

    /// From when on there is one.
    pub fn next_at(&self, now: Timestamp) -> Timestamp {
        if self.left > 0 { now } else { now.max(self.since + self.one_more) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fleet::{START, dice::Dice, dice::Stream, spans::Spans};

    const MINUTE: Duration = Duration::from_mins(1);

    fn phone(platform: Platform) -> Habits {
        let mut phone = Habits::new(platform, START + MINUTE * 600, &mut Dice::new(1, Stream::Habits, &[]));
        phone.offline = Spans::covering(vec![(START + MINUTE * 10, START + MINUTE * 20)]);
        phone.awake = Spans::covering(vec![(START, START + MINUTE * 12), (START + MINUTE * 30, START + MINUTE * 600)]);
        phone
    }

    #[test]
    fn an_allowance_gives_a_burst_and_then_one_at_a_time() {
        let mut allowance = Allowance::new(2, MINUTE * 3);
        let taken: Vec<bool> = (0..10).map(|minute| allowance.take(START + MINUTE * minute)).collect();
        assert_eq!(taken, [true, true, false, true, false, false, true, false, false, true]);
        assert_eq!(allowance.next_at(START + MINUTE * 10), START + MINUTE * 12);
    }

    #[test]
    fn apple_keeps_the_newest_of_either_class() {
        let (phone, mut apns) = (phone(Platform::Ios), Provider::new(Platform::Ios));
        assert_eq!(apns.take(1, Class::Alert), None);
        assert_eq!(apns.hand_over(&phone, START + MINUTE * 10), [0usize; 0], "it is offline");
        assert_eq!(apns.take(2, Class::Background), Some(1), "the alert is lost");
        assert_eq!(apns.next_at(&phone, START + MINUTE * 10), Some(START + MINUTE * 20));
        assert_eq!(apns.hand_over(&phone, START + MINUTE * 20), [2]);
        assert_eq!(apns.next_at(&phone, START + MINUTE * 20), None);
    }

    #[test]
    fn google_keeps_alerts_and_holds_the_rest_back_in_doze() {
        let (phone, mut fcm) = (phone(Platform::Android), Provider::new(Platform::Android));
        let during = START + MINUTE * 11;
        assert_eq!([fcm.take(1, Class::Alert), fcm.take(2, Class::Background)], [None, None]);
        assert_eq!(fcm.take(3, Class::Background), Some(2));
        assert_eq!(fcm.hand_over(&phone, during), [0usize; 0]);
        assert_eq!(fcm.next_at(&phone, during), Some(START + MINUTE * 20));
        assert_eq!(fcm.hand_over(&phone, START + MINUTE * 20), [1], "the alert wakes it");
        assert_eq!(fcm.next_at(&phone, START + MINUTE * 20), Some(START + MINUTE * 30));
        assert_eq!(fcm.hand_over(&phone, START + MINUTE * 30), [3]);
    }

    #[test]
    fn google_lets_twenty_collapsible_pushes_through_at_once() {
        let (phone, mut fcm) = (phone(Platform::Android), Provider::new(Platform::Android));
        for push in 0..21 {
            fcm.take(push, Class::Background);
            assert_eq!(fcm.hand_over(&phone, START + MINUTE * 40).len(), usize::from(push < 20));
        }
        assert_eq!(fcm.next_at(&phone, START + MINUTE * 40), Some(START + MINUTE * 43));
    }
}
