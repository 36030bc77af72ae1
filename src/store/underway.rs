//! Calls that are claimed and not made yet: a poll that comes in between takes them back (contract §3).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{call::Call, visits::Visit};
use crate::domain::{
    event::{CancelOn, Class},
    feed::Position,
    id::DeviceId,
};

/// How far devices have come since they were claimed, for the calls of this process. It holds no more than the calls that may be under way.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<HashMap<(DeviceId, Class), (Position, Position)>>);

impl UnderWay {
    /// These calls are to be made.
    pub fn claimed(&self, calls: &[Call]) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.extend(calls.iter().map(|call| ((call.device, call.class), (Position(0), Position(0)))));
    }

    /// A device has come.
    pub fn visited(&self, visit: &Visit) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for class in [Class::Alert, Class::Background] {
            if let Some((fetched, acked)) = since.get_mut(&(visit.device, class)) {
                *fetched = visit.fetched.max(*fetched);
                *acked = visit.acked.max(*acked);
            }
        }
    }

    /// The call is about to be made: whether it is still wanted.
    pub fn still_wanted(&self, call: &Call) -> bool {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(call.device, call.class));
        let (fetched, acked) = since.unwrap_or_default();
        call.cancel_on == CancelOn::Never || call.confirm.reached(fetched, acked) < call.trigger.head
    }
}
