//! Snapshots: the newest state per key, a page at a time, all of one moment's cursor.

use axum::{
    Json as Body,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    auth::Caller,
    extract::{Path, Query},
    page::{CursorProblem, SNAPSHOT, feed_snapshot},
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        cursor::{self, Scope as CursorScope},
        feed::{FeedName, Position},
        key::Scope,
    },
    store::{SnapshotItem, SnapshotPage},
};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SnapshotQuery {
    /// `next_page` of the page before.
    page: Option<String>,
}

/// Where the next page begins, and the moment the first one was read at.
#[derive(Serialize, Deserialize)]
struct Place {
    epoch: i64,
    through: Position,
    feed: String,
    key: String,
}

/// Reads the newest state of all feeds that the device follows
///
/// Apply an item if its position is higher than what you hold; keys that you hold at a position up to `through` and that are absent are
/// deleted; then poll after `as_of`.
#[utoipa::path(get, path = "/v1/sync/snapshot", operation_id = "getSnapshot", tag = "polling", security(("deviceToken" = [])), params(SnapshotQuery),
    responses((status = 200, description = "The newest event per key, a page at a time", body = SnapshotView),
        (status = 400, description = "`cursor-invalid`", body = CursorProblem, content_type = "application/problem+json"),
        (status = 410, description = "`epoch-changed`: start with the first page", body = CursorProblem,
            content_type = "application/problem+json")))]
pub async fn of_device(State(api): State<Api>, caller: Caller, Query(query): Query<SnapshotQuery>) -> Result<Response> {
    let device = caller.device()?;
    api.limiters.poll(device.id)?;
    let id = device.id.to_string();
    let place_scope = format!("snapshot/{id}");
    // The cursor is read before the data: what comes in between is seen again by the poll after it.
    let place = match &query.page {
        Some(page) => api.open_place(&place_scope, page, SNAPSHOT)?,
        None => api.first_place(api.store.counter(device.app).await?),
    };
    let page = api.store.snapshot(device.app, device.id, (&place.feed, &place.key)).await?;
    Ok(api.answer_snapshot(page, &place, &place_scope, &CursorScope::Sync { device: &id }))
}

/// Reads the newest state of one feed
#[utoipa::path(get, path = "/v1/feeds/{feed}/snapshot", operation_id = "getFeedSnapshot", tag = "polling",
    security(("deviceToken" = []), ("appKey" = ["events:read"])),
    params(("feed" = FeedName, Path, description = "The feed"), SnapshotQuery),
    responses((status = 200, description = "The newest event per key, a page at a time", body = SnapshotView),
        (status = 400, description = "`cursor-invalid`", body = CursorProblem, content_type = "application/problem+json"),
        (status = 410, description = "`epoch-changed`: start with the first page", body = CursorProblem,
            content_type = "application/problem+json")))]
pub async fn of_feed(
    State(api): State<Api>,
    caller: Caller,
    Path(feed): Path<FeedName>,
    Query(query): Query<SnapshotQuery>,
) -> Result<Response> {
    let app = match &caller {
        Caller::Device(device) => {
            api.limiters.poll(device.id)?;
            if !api.store.follows(device.app, device.id, &feed).await? {
                return Err(Problem::not_found("feed"));
            }
            device.app
        }
        caller => caller.app(&[Scope::EventsRead])?,
    };
    let id = app.to_string();
    let place_scope = format!("snapshot/{id}/{feed}");
    let place = match &query.page {
        Some(page) => api.open_place(&place_scope, page, &feed_snapshot(&feed))?,
        None => api.first_place(api.store.counter(app).await?),
    };
    let page = api.store.feed_snapshot(app, &feed, &place.key).await?;
    Ok(api.answer_snapshot(page, &place, &place_scope, &CursorScope::Feed { app: &id, feed: &feed }))
}

impl Api {
    fn first_place(&self, through: Position) -> Place {
        Place { epoch: self.store.epoch().0, through, feed: String::new(), key: String::new() }
    }

    fn open_place(&self, scope: &str, page: &str, snapshot: &str) -> Result<Place> {
        let invalid = || {
            Problem::new(problem::CURSOR_INVALID, "the page is not one of this snapshot's").with("snapshot", snapshot)
        };
        let payload = self.secrets.verify(scope, page).ok_or_else(invalid)?;
        let place: Place = serde_json::from_slice(&payload).map_err(|_| invalid())?;
        if place.epoch != self.store.epoch().0 {
            return Err(Problem::new(problem::EPOCH_CHANGED, problem::EPOCH_CHANGED.help).with("snapshot", snapshot));
        }
        Ok(place)
    }

    fn answer_snapshot(
        &self,
        page: SnapshotPage,
        place: &Place,
        place_scope: &str,
        scope: &CursorScope<'_>,
    ) -> Response {
        let next_page = page.items.last().filter(|_| page.has_more).map(|last| {
            let next = json!(Place {
                epoch: place.epoch,
                through: place.through,
                feed: last.feed.to_string(),
                key: last.key.clone(),
            });
            self.secrets.sign(place_scope, next.to_string().as_bytes())
        });
        let view = SnapshotView {
            as_of: cursor::seal(&self.secrets, scope, self.store.epoch(), place.through),
            through: place.through,
            items: page.items.iter().map(ItemView::of).collect(),
            next_page,
        };
        Body(view).into_response()
    }
}

/// A page of the newest state.
#[derive(Serialize, ToSchema)]
#[schema(as = Snapshot)]
pub struct SnapshotView<'a> {
    /// The cursor to poll after.
    as_of: String,
    /// Its position.
    through: Position,
    items: Vec<ItemView<'a>>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page: Option<String>,
}

/// The newest state of one key.
#[derive(Serialize, ToSchema)]
#[schema(as = SnapshotItem)]
pub struct ItemView<'a> {
    feed: &'a FeedName,
    key: &'a str,
    position: Position,
    #[serde(rename = "type")]
    kind: &'a str,
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    href: Option<&'a str>,
}

impl<'a> ItemView<'a> {
    fn of(item: &'a SnapshotItem) -> Self {
        Self {
            feed: &item.feed,
            key: &item.key,
            position: item.position,
            kind: &item.kind,
            data: item.data.as_deref(),
            href: item.href.as_deref(),
        }
    }
}
