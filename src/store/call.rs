//! A call to a provider, from its claim to its answer.

use std::time::Duration;

use super::group::Request;
use crate::domain::{
    event::{CancelOn, Class},
    feed::Position,
    id::{AppId, AttemptId, DeviceId},
    push::{Reply, Target, Trigger},
    settings::Confirm,
    time::Timestamp,
};

/// A call that is to be made now: its attempt is on record, and it is ours until the lease ends.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose.
    pub app: AppId,
    /// To which device.
    pub device: DeviceId,
    /// Whose level it is made for.
    pub class: Class,
    /// How loudly; an alert may be repeated as a background wake.
    pub wake_class: Class,
    /// The attempt on record.
    pub attempt: AttemptId,
    /// The wake announces what lies above this position.
    pub after: Position,
    /// Calls for this wake, this one included.
    pub tries: u32,
    /// When the attempt was written.
    pub started_at: Timestamp,
    /// Until when the wake is ours.
    pub lease_ends_at: Timestamp,
    /// The name of the credential that serves the device.
    pub credential: String,
    /// Its version.
    pub credential_version: i64,
    /// To whom.
    pub target: Target,
    /// What.
    pub trigger: Trigger,
    /// The version of the push token it is made with.
    pub token_version: i64,
    /// Whether a poll that reaches the head takes it back.
    pub cancel_on: CancelOn,
    /// What counts as reaching it.
    pub confirm: Confirm,
    /// The trace of the event that it announces (W3C Trace Context), if it has one.
    pub traceparent: Option<String>,
}

impl Call {
    /// Whose level it is made for.
    pub(super) fn key(&self) -> (AppId, DeviceId, Class) {
        (self.app, self.device, self.class)
    }
}

impl Request for Finished {}

/// A call that has been answered.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The call.
    pub call: Call,
    /// How long it took.
    pub duration: Duration,
    /// What came back.
    pub reply: Reply,
}
