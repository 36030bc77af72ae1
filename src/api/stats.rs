//! Statistics of an app: what its pushes were worth since a moment.

use std::time::Duration;

use axum::{Json as Body, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    auth::Caller,
    extract::Query,
    health::BreakerView,
    problem::{self, Problem, Result},
};
use crate::{
    domain::{key::Scope, stats::Figures, tally::QUARTER, time::Timestamp},
    store::{DeviceCounts, Step},
};

const DAY: Duration = Duration::from_secs(86_400);
/// How far statistics look back at most (contract §7).
const FURTHEST_DAYS: u32 = 30;
/// Steps that one answer has at most: thirty days by the hour.
const STEPS: u64 = 720;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// From when on, at most 30 days ago; a day ago if absent. It is cut down to its quarter of an hour.
    since: Option<Timestamp>,
    /// With it, the answer has a `series`: the same figures for each step of so many seconds, a multiple of 900.
    #[param(minimum = 900, maximum = 2_592_000, value_type = Option<Seconds>)]
    step_s: Option<u64>,
}

/// Seconds, in quarters of an hour.
#[derive(ToSchema)]
#[schema(value_type = u64, multiple_of = 900, minimum = 900, maximum = 2_592_000)]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct Seconds(u64);

/// What an app's pushes were worth.
#[derive(Serialize, ToSchema)]
pub struct Stats {
    /// The beginning of the quarter of an hour that was asked for.
    since: Timestamp,
    until: Timestamp,
    /// Per transport and class; those that nothing was counted for are left out.
    transports: Vec<Figures>,
    /// The same, step by step, oldest first, if `step_s` was given; steps that counted nothing are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Vec<Step>>,
    /// All of the app by status, up to 10 s old.
    devices: DeviceCounts,
    /// Those that stand.
    alarms: Vec<AlarmView>,
    /// The app's credentials whose breakers are not closed.
    credentials: Vec<BreakerView>,
}

/// An alarm that stands.
#[derive(Serialize, ToSchema)]
#[schema(as = Alarm)]
pub struct AlarmView {
    name: String,
    raised_at: Timestamp,
    /// What is known about it; `says` is a sentence for people.
    data: Value,
}

/// Shows what an app's pushes were worth
#[utoipa::path(get, path = "/v1/stats", operation_id = "getStats", tag = "what happened", params(StatsQuery),
    security(("appKey" = ["events:read"]), ("appKey" = ["devices:read"])),
    responses((status = 200, description = "Figures per transport and class, devices and alarms", body = Stats)))]
pub async fn show(State(api): State<Api>, caller: Caller, Query(query): Query<StatsQuery>) -> Result<Body<Stats>> {
    let app = caller.app(&[Scope::EventsRead, Scope::DevicesRead])?;
    let now = api.clock.now();
    let since = query.since.unwrap_or(now - DAY);
    if since > now || since < now - DAY * FURTHEST_DAYS {
        let detail = format!("query: since must lie within the last {FURTHEST_DAYS} days, is {since}");
        return Err(Problem::new(problem::INVALID, detail));
    }
    let step = query.step_s.map(|step_s| step(step_s, now.since(since))).transpose()?;
    let stats = api.store.stats(app, since, step).await?;
    let alarm =
        |alarm: crate::store::Alarm| AlarmView { name: alarm.name, raised_at: alarm.raised_at, data: alarm.data };
    Ok(Body(Stats {
        since: stats.since,
        until: stats.until,
        transports: stats.transports,
        series: stats.series,
        devices: stats.devices,
        alarms: stats.alarms.into_iter().map(alarm).collect(),
        credentials: api.transports.breakers(app).iter().map(BreakerView::of).collect(),
    }))
}

/// A step that cuts a time into parts that can be counted.
fn step(step_s: u64, time: Duration) -> Result<Duration> {
    let quarter_s = QUARTER.as_secs();
    if step_s == 0 || !step_s.is_multiple_of(quarter_s) {
        let detail = format!("query: step_s must be a multiple of {quarter_s}, is {step_s}");
        return Err(Problem::new(problem::INVALID, detail));
    }
    let steps = time.as_secs() / step_s + 1;
    if steps > STEPS + 1 {
        let detail =
            format!("query: step_s must cut the time since `since` into at most {STEPS} steps, {step_s} makes {steps}");
        return Err(Problem::new(problem::INVALID, detail));
    }
    Ok(Duration::from_secs(step_s))
}
