//! Mass brakes: which are on, and their release.

use axum::{Json as Body, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api,
    auth::Caller,
    extract::{self, Json, List, Path},
    problem::{Problem, Result},
};
use crate::{
    domain::{
        device::{Environment, Transport},
        key::Scope,
        time::Timestamp,
        verdict::Evidence,
    },
    store::{Release, StandingBrake},
};

/// A mass brake that is on.
#[derive(Serialize, ToSchema)]
#[schema(as = Brake)]
pub struct BrakeView {
    transport: Transport,
    environment: Environment,
    /// Which kind of verdict engaged it.
    kind: Evidence,
    engaged_at: Timestamp,
    /// Verdicts since then are restored or confirmed by its release.
    window_from: Timestamp,
    devices: Braked,
}

/// Devices with a verdict in the window, by what they have become.
#[derive(Serialize, ToSchema)]
pub struct Braked {
    gone: u64,
    quarantined: u64,
}

impl From<StandingBrake> for BrakeView {
    fn from(brake: StandingBrake) -> Self {
        Self {
            transport: brake.transport,
            environment: brake.environment,
            kind: brake.kind,
            engaged_at: brake.engaged_at,
            window_from: brake.window_from,
            devices: Braked { gone: brake.gone, quarantined: brake.quarantined },
        }
    }
}

/// Lists the mass brakes that are on
///
/// While a brake is on, no verdict of a provider makes a device gone; it is quarantined instead.
#[utoipa::path(get, path = "/v1/brakes", operation_id = "listBrakes", tag = "devices", security(("appKey" = ["admin"])),
    responses((status = 200, description = "All that are on", body = List<BrakeView>)))]
pub async fn list(State(api): State<Api>, caller: Caller) -> Result<Body<List<BrakeView>>> {
    let app = caller.app(&[Scope::Admin])?;
    Ok(extract::whole(api.store.brakes(app).await?.into_iter().map(BrakeView::from)))
}

/// What becomes of the devices in a brake's window.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(examples(json!({"window": "restore"})))]
pub struct ReleaseBody {
    window: Release,
}

/// A brake's release.
#[derive(Serialize, ToSchema)]
pub struct Released {
    transport: Transport,
    environment: Environment,
    window: Release,
    devices: Changed,
}

/// How many devices have changed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Changed {
    /// Active again.
    Restored(u64),
    /// Quarantined until now, and gone from now on.
    Confirmed(u64),
}

/// Releases a mass brake
#[utoipa::path(post, path = "/v1/brakes/{transport}/{environment}/release", operation_id = "releaseBrake", tag = "devices",
    security(("appKey" = ["admin"])), request_body = ReleaseBody,
    params(("transport" = Transport, Path, description = "The provider"),
        ("environment" = Environment, Path, description = "APNs' environment; `production` for FCM")),
    responses((status = 200, description = "It is off", body = Released)))]
pub async fn release(
    State(api): State<Api>,
    caller: Caller,
    Path((transport, environment)): Path<(Transport, Environment)>,
    Json(ReleaseBody { window }): Json<ReleaseBody>,
) -> Result<Body<Released>> {
    let app = caller.app(&[Scope::Admin])?;
    let changed = api.store.release_brake(app, transport, environment, window).await?;
    let changed = changed.ok_or_else(|| Problem::not_found("brake that is on"))?;
    let devices = match window {
        Release::Restore => Changed::Restored(changed),
        Release::Confirm => Changed::Confirmed(changed),
    };
    Ok(Body(Released { transport, environment, window, devices }))
}
