//! Statistics of an app: what its pushes were worth since a moment.

use std::time::Duration;

use axum::{Json as Body, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    auth::Caller,
    extract::Query,
    health,
    problem::{self, Problem, Result},
};
use crate::domain::{key::Scope, time::Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
/// How far statistics look back at most (contract §7).
const FURTHEST_DAYS: u32 = 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsQuery {
    since: Option<Timestamp>,
}

pub async fn show(State(api): State<Api>, caller: Caller, Query(query): Query<StatsQuery>) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::EventsRead, Scope::DevicesRead])?;
    let now = api.clock.now();
    let since = query.since.unwrap_or(now - DAY);
    if since > now || since < now - DAY * FURTHEST_DAYS {
        let detail = format!("query: since must lie within the last {FURTHEST_DAYS} days, is {since}");
        return Err(Problem::new(problem::INVALID, detail));
    }
    let stats = api.store.stats(app, since).await?;
    let alarms: Vec<_> = (stats.alarms.iter())
        .map(|alarm| json!({"name": alarm.name, "raised_at": alarm.raised_at, "data": alarm.data}))
        .collect();
    Ok(Body(json!({
        "since": stats.since,
        "until": stats.until,
        "transports": stats.transports,
        "devices": stats.devices,
        "alarms": alarms,
        "credentials": api.transports.breakers(app).iter().map(health::show_breaker).collect::<Value>(),
    })))
}
