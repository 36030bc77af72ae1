//! Activity: what happens in an app, for people who watch.

use axum::{Json as Body, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    auth::Caller,
    extract::{self, List, Query},
    problem::Result,
    timeline::rows::Row,
};
use crate::{
    domain::{
        id::{DeviceId, kind},
        key::Scope,
        time::Timestamp,
    },
    store::{Entry, Happening},
};

/// Rows of a page that does not say how many.
const DEFAULT_ROWS: usize = 50;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ActivityQuery {
    /// Nothing that happened before this.
    since: Option<Timestamp>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// How many rows the page has at most; 50 if absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Something that happened, and to whom.
#[derive(Serialize, ToSchema)]
#[schema(as = Happening)]
pub struct HappeningView {
    /// To which device; an attempt says it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<kind::Device>)]
    device: Option<DeviceId>,
    /// The device's installation id, if it is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    installation_id: Option<String>,
    #[serde(flatten)]
    row: Row,
}

impl HappeningView {
    fn of(happening: &Happening) -> Self {
        let device = if let Entry::Moment { .. } = happening.entry { happening.device } else { None };
        Self { device, installation_id: happening.installation_id.clone(), row: Row::of(&happening.entry) }
    }
}

/// Tells what happens in the app
///
/// Events, attempts, polls, decisions and changes of status, newest first: the rows of all timelines, but how devices stand now. Who
/// watches asks again and again with a `since` a little before the last time: an attempt is there when it starts, and complete when it
/// has ended; its `id` stays.
#[utoipa::path(get, path = "/v1/activity", operation_id = "listActivity", tag = "what happened", security(("appKey" = ["devices:read"])),
    params(ActivityQuery),
    responses((status = 200, description = "What happened; a page may be short although `next` is given",
        body = List<HappeningView>)))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ActivityQuery>,
) -> Result<Body<List<HappeningView>>> {
    let app = caller.app(&[Scope::DevicesRead])?;
    let limit = extract::limit(query.limit, DEFAULT_ROWS)?;
    let cursor = query.cursor.filter(|cursor| !cursor.is_empty());
    let place = cursor.map(|cursor| cursor.parse()).transpose().map_err(|()| extract::wrong_cursor())?;
    let activity = api.store.activity(app, place, query.since, limit).await?;
    let items = activity.happenings.iter().map(HappeningView::of).collect();
    Ok(Body(List { items, next: activity.next.map(|place| place.to_string()) }))
}
