//! The rows of a timeline, as contract §7 has them.

use serde::Serialize;
use utoipa::ToSchema;

use super::says;
use crate::{
    api::attempts::AttemptView,
    domain::{
        device::DeviceStatus,
        event::{Class, WakeClass},
        feed::{FeedName, Position},
        id::{EventId, MomentId, WakeId, kind},
        time::Timestamp,
        timeline::{Decided, Moment, Registered},
    },
    store::{Attempt, Entry, Heard},
};

/// Something that happened, or how it stands now.
#[derive(Serialize, ToSchema)]
#[schema(as = TimelineRow)]
pub struct Row {
    at: Timestamp,
    /// One plain sentence.
    says: String,
    #[serde(flatten)]
    what: What,
}

/// What happened.
#[derive(Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum What {
    /// How it stands now.
    State(State),
    /// The backend registered or changed the device.
    Registered {
        #[schema(value_type = kind::Moment)]
        id: MomentId,
        change: Registered,
    },
    /// A wake waits.
    Deferred {
        #[schema(value_type = kind::Moment)]
        id: MomentId,
        class: Class,
        /// Up to where there is news.
        head: Position,
        decision: Decided,
        reason: &'static str,
        /// When it is looked at again.
        until: Timestamp,
    },
    /// A wake came to an end without a call.
    Dropped {
        #[schema(value_type = kind::Moment)]
        id: MomentId,
        class: Class,
        head: Position,
        decision: Decided,
        reason: &'static str,
    },
    /// The device came.
    Polled {
        #[schema(value_type = kind::Moment)]
        id: MomentId,
        /// Up to where it has been given everything.
        fetched: Position,
        /// Up to where it came back with everything.
        acked: Position,
        /// The push that brought it, if it said so.
        #[schema(value_type = Option<kind::Wake>)]
        wake: Option<WakeId>,
    },
    /// Its status changed.
    Status {
        #[schema(value_type = kind::Moment)]
        id: MomentId,
        status: DeviceStatus,
        /// In the provider's or the relay's words.
        reason: Option<String>,
    },
    /// A provider was called.
    Attempt(AttemptRow),
    /// There was news.
    Event {
        #[schema(value_type = kind::Event)]
        id: EventId,
        position: Position,
        feed: FeedName,
        /// The app's own word for what happened.
        #[serde(rename = "type")]
        event_type: String,
        class: WakeClass,
        /// `coalesced` if its wake was for something newer.
        decision: Option<Decided>,
        /// Which wake announced it, as far as a device's timeline shows.
        #[schema(value_type = Option<kind::Wake>)]
        wake: Option<WakeId>,
    },
}

/// How a device stands.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum State {
    /// It is not active.
    Standing { status: DeviceStatus, reason: Option<String>, since: Timestamp },
    /// It has not fetched something.
    Behind {
        class: Class,
        /// Up to where there is news.
        head: Position,
        /// Up to where a provider has accepted a push.
        told: Position,
        told_at: Option<Timestamp>,
        /// Wakes that were accepted since it last came.
        wakes: u32,
        decision: Option<Decided>,
        reason: Option<&'static str>,
        /// When something is done about it; null if nothing is.
        until: Option<Timestamp>,
    },
}

/// A call to a provider.
#[derive(Serialize, ToSchema)]
pub struct AttemptRow {
    #[serde(flatten)]
    attempt: AttemptView,
    /// `sent`, on the first try of a wake.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decided>,
}

impl Row {
    /// How it stands now.
    pub fn now(at: Timestamp, state: State, says: String) -> Self {
        Self { at, says, what: What::State(state) }
    }

    /// What is shown of something that happened.
    pub fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Moment { id, at, moment } => Self { at: *at, says: says::moment(moment), what: told(*id, moment) },
            Entry::Attempt(attempt) => {
                Self { at: attempt.started_at, says: says::attempt(attempt), what: called(attempt) }
            }
            Entry::Event(event) => Self { at: event.accepted_at, says: says::event(event), what: heard(event) },
        }
    }
}

fn told(id: MomentId, moment: &Moment) -> What {
    match moment.clone() {
        Moment::Registered { change } => What::Registered { id, change },
        Moment::Deferred { class, head, reason, until } => {
            What::Deferred { id, class, head, decision: Decided::Deferred, reason: reason.as_str(), until }
        }
        Moment::Dropped { class, head, reason } => {
            What::Dropped { id, class, head, decision: reason.decided(), reason: reason.as_str() }
        }
        Moment::Polled { fetched, acked, wake } => What::Polled { id, fetched, acked, wake },
        Moment::Status { status, reason } => What::Status { id, status, reason },
    }
}

/// An attempt as everywhere; its first try is the decision to send.
fn called(attempt: &Attempt) -> What {
    let decision = (attempt.tries == 1).then_some(Decided::Sent);
    What::Attempt(AttemptRow { attempt: AttemptView::of(attempt), decision })
}

fn heard(event: &Heard) -> What {
    let coalesced = event.wake.is_some_and(|(_, head)| head != event.position);
    What::Event {
        id: event.id,
        position: event.position,
        feed: event.feed.clone(),
        event_type: event.kind.clone(),
        class: event.class,
        decision: coalesced.then_some(Decided::Coalesced),
        wake: event.wake.map(|(wake, _)| wake),
    }
}
