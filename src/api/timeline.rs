//! A device's timeline: what happened to it and why, for people who ask why a phone did not update.

mod says;

use axum::{Json as Body, extract::State};
use serde_json::{Value, json};

use super::{
    Api, attempts,
    auth::Caller,
    extract::{ListQuery, Path, Query},
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        device::DeviceStatus,
        id::DeviceId,
        key::Scope,
        lag::Present,
        policy::DropReason,
        time::Timestamp,
        timeline::{Decided, Moment, Place},
    },
    store::{Attempt, Device, Entry, Heard, Lagging},
};

/// Rows of a page that does not say how many.
const DEFAULT_ROWS: usize = 50;

pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path(device): Path<DeviceId>,
    Query(query): Query<ListQuery>,
) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::DevicesRead])?;
    let (cursor, limit) = query.page_of(DEFAULT_ROWS)?;
    let place = (!cursor.is_empty()).then(|| cursor.parse::<Place>()).transpose();
    let place = place.map_err(|()| Problem::new(problem::CURSOR_INVALID, "the cursor is not one of a timeline"))?;
    let timeline = api.store.timeline(app, device, place, limit).await?;
    let timeline = timeline.ok_or_else(|| Problem::not_found("device"))?;
    let now = api.clock.now();
    let mut items = Vec::new();
    if place.is_none() {
        items.extend(status(&timeline.device, now));
        items.extend(timeline.lags.iter().filter_map(|lagging| present(lagging, timeline.device.status, now)));
    }
    items.extend(timeline.entries.iter().map(entry));
    Ok(Body(json!({"items": items, "next": timeline.next.map(|place| place.to_string())})))
}

/// That a device is not active, if so.
fn status(device: &Device, now: Timestamp) -> Option<Value> {
    (device.status != DeviceStatus::Active).then(|| {
        json!({
            "at": now,
            "kind": "state",
            "status": device.status,
            "reason": device.status_reason,
            "since": device.status_at,
            "says": says::standing(device),
        })
    })
}

/// How it stands with what a device has not fetched in one class; `None` if its status says it all.
fn present(Lagging { lag, attempt }: &Lagging, status: DeviceStatus, now: Timestamp) -> Option<Value> {
    let present = lag.present(status, now);
    let (decision, reason, until) = match present {
        Present::Called(until) => (Some(Decided::Sent), Some("call under way"), Some(until)),
        Present::Told(again_at) => (Some(Decided::Sent), Some("not fetched"), again_at),
        Present::Retries(until) => (Some(Decided::Deferred), Some("retry"), Some(until)),
        Present::Waits(until, reason) => (Some(Decided::Deferred), reason.map(|reason| reason.as_str()), Some(until)),
        Present::Ended(Some(DropReason::Gone)) if status == DeviceStatus::Gone => return None,
        Present::Ended(reason) => (reason.map(DropReason::decided), reason.map(DropReason::as_str), None),
    };
    Some(json!({
        "at": now,
        "kind": "state",
        "class": lag.class,
        "head": lag.head,
        "told": lag.told,
        "told_at": lag.told_at,
        "wakes": lag.wakes,
        "decision": decision,
        "reason": reason,
        "until": until,
        "says": says::present(lag, present, attempt.as_ref()),
    }))
}

fn entry(entry: &Entry) -> Value {
    match entry {
        Entry::Moment { at, moment, .. } => row(moment, *at),
        Entry::Attempt(attempt) => call(attempt),
        Entry::Event(event) => heard(event),
    }
}

fn row(moment: &Moment, at: Timestamp) -> Value {
    let says = says::moment(moment);
    match moment {
        Moment::Registered { change } => json!({"at": at, "kind": "registered", "change": change, "says": says}),
        Moment::Deferred { class, head, reason, until } => json!({
            "at": at,
            "kind": "deferred",
            "class": class,
            "head": head,
            "decision": Decided::Deferred,
            "reason": reason.as_str(),
            "until": until,
            "says": says,
        }),
        Moment::Dropped { class, head, reason } => json!({
            "at": at,
            "kind": "dropped",
            "class": class,
            "head": head,
            "decision": reason.decided(),
            "reason": reason.as_str(),
            "says": says,
        }),
        Moment::Polled { fetched, acked, wake } => {
            json!({"at": at, "kind": "polled", "fetched": fetched, "acked": acked, "wake": wake, "says": says})
        }
        Moment::Status { status, reason } => {
            json!({"at": at, "kind": "status", "status": status, "reason": reason, "says": says})
        }
    }
}

/// An attempt as everywhere; its first try is the decision to send.
fn call(attempt: &Attempt) -> Value {
    let mut row = attempts::show(attempt);
    row["at"] = json!(attempt.started_at);
    row["kind"] = "attempt".into();
    if attempt.tries == 1 {
        row["decision"] = json!(Decided::Sent);
    }
    row["says"] = says::attempt(attempt).into();
    row
}

fn heard(event: &Heard) -> Value {
    let coalesced = event.wake.is_some_and(|(_, head)| head != event.position);
    json!({
        "at": event.accepted_at,
        "kind": "event",
        "id": event.id,
        "position": event.position,
        "feed": event.feed,
        "type": event.kind,
        "class": event.class,
        "decision": coalesced.then_some(Decided::Coalesced),
        "wake": event.wake.map(|(wake, _)| wake),
        "says": says::event(event),
    })
}
