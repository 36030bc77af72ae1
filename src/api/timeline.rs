//! A device's timeline: what happened to it and why, for people who ask why a phone did not update.

pub mod rows;
mod says;

use axum::{Json as Body, extract::State};

use self::rows::{Row, State as Stands};
use super::{
    Api,
    auth::Caller,
    extract::{self, List, ListQuery, Path, Query},
    problem::{Problem, Result},
};
use crate::{
    domain::{
        device::DeviceStatus,
        id::{DeviceId, kind},
        key::Scope,
        lag::Present,
        policy::DropReason,
        time::Timestamp,
        timeline::{Decided, Place},
    },
    store::{Device, Lagging},
};

/// Rows of a page that does not say how many.
const DEFAULT_ROWS: usize = 50;

/// Tells what happened to a device, and why
///
/// Newest first: registrations, events that moved its head, decisions with their reason, attempts with the provider's words, polls and
/// acks, changes of status. The first page begins with how it stands now, beside its `limit`.
#[utoipa::path(get, path = "/v1/devices/{device}/timeline", operation_id = "getTimeline", tag = "what happened", security(("appKey" = ["devices:read"])),
    params(("device" = kind::Device, Path, description = "The device"), ListQuery),
    responses((status = 200, description = "What happened; a page may be short although `next` is given", body = List<Row>)))]
pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path(device): Path<DeviceId>,
    Query(query): Query<ListQuery>,
) -> Result<Body<List<Row>>> {
    let app = caller.app(&[Scope::DevicesRead])?;
    let (cursor, limit) = query.page_of(DEFAULT_ROWS)?;
    let place = (!cursor.is_empty()).then(|| cursor.parse::<Place>()).transpose();
    let place = place.map_err(|()| extract::wrong_cursor())?;
    let timeline = api.store.timeline(app, device, place, limit).await?;
    let timeline = timeline.ok_or_else(|| Problem::not_found("device"))?;
    let now = api.clock.now();
    let mut items = Vec::new();
    if place.is_none() {
        items.extend(status(&timeline.device, now));
        items.extend(timeline.lags.iter().filter_map(|lagging| present(lagging, timeline.device.status, now)));
    }
    items.extend(timeline.entries.iter().map(Row::of));
    Ok(Body(List { items, next: timeline.next.map(|place| place.to_string()) }))
}

/// That a device is not active, if so.
fn status(device: &Device, now: Timestamp) -> Option<Row> {
    let state =
        || Stands::Standing { status: device.status, reason: device.status_reason.clone(), since: device.status_at };
    (device.status != DeviceStatus::Active).then(|| Row::now(now, state(), says::standing(device)))
}

/// How it stands with what a device has not fetched in one class; `None` if its status says it all.
fn present(Lagging { lag, attempt }: &Lagging, status: DeviceStatus, now: Timestamp) -> Option<Row> {
    let present = lag.present(status, now);
    let (decision, reason, until) = match present {
        Present::Called(until) => (Some(Decided::Sent), Some("call under way"), Some(until)),
        Present::Told(again_at) => (Some(Decided::Sent), Some("not fetched"), again_at),
        Present::Retries(until) => (Some(Decided::Deferred), Some("retry"), Some(until)),
        Present::Waits(until, reason) => (Some(Decided::Deferred), reason.map(|reason| reason.as_str()), Some(until)),
        Present::Ended(Some(DropReason::Gone)) if status == DeviceStatus::Gone => return None,
        Present::Ended(reason) => (reason.map(DropReason::decided), reason.map(DropReason::as_str), None),
    };
    let state = Stands::Behind {
        class: lag.class,
        head: lag.head,
        told: lag.told,
        told_at: lag.told_at,
        wakes: lag.wakes,
        decision,
        reason,
        until,
    };
    Some(Row::now(now, state, says::present(lag, present, attempt.as_ref())))
}
