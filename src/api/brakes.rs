//! Mass brakes: which are on, and their release.

use axum::{Json as Body, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    auth::Caller,
    extract::{Json, Path},
    problem::{Problem, Result},
};
use crate::{
    domain::{
        device::{Environment, Transport},
        key::Scope,
    },
    store::{Release, StandingBrake},
};

pub async fn list(State(api): State<Api>, caller: Caller) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::Admin])?;
    let items: Vec<_> = api.store.brakes(app).await?.iter().map(show).collect();
    Ok(Body(json!({"items": items, "next": null})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct ReleaseBody {
    window: Release,
}

pub async fn release(
    State(api): State<Api>,
    caller: Caller,
    Path((transport, environment)): Path<(Transport, Environment)>,
    Json(ReleaseBody { window }): Json<ReleaseBody>,
) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::Admin])?;
    let changed = api.store.release_brake(app, transport, environment, window).await?;
    let changed = changed.ok_or_else(|| Problem::not_found("brake that is on"))?;
    let devices = match window {
        Release::Restore => json!({"restored": changed}),
        Release::Confirm => json!({"confirmed": changed}),
    };
    Ok(Body(json!({"transport": transport, "environment": environment, "window": window, "devices": devices})))
}

fn show(brake: &StandingBrake) -> Value {
    json!({
        "transport": brake.transport, "environment": brake.environment, "kind": brake.kind,
        "engaged_at": brake.engaged_at, "window_from": brake.window_from,
        "devices": {"gone": brake.gone, "quarantined": brake.quarantined},
    })
}
