//! The control API: what the simulators are, what they received, and what shall go wrong. Plain HTTP/1.1 and JSON, for scripts and curl.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::faults::{Fault, FaultKind, Faults};
use super::inbox::{Inbox, Push};
use super::{Sim, apns::Apns, google::Google};

#[derive(Clone)]
struct Control {
    about: Arc<Value>,
    apns: Arc<Apns>,
    google: Arc<Google>,
    inbox: Arc<Inbox>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushFilter {
    token: Option<String>,
}

/// Whose faults.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Target {
    Apns,
    Fcm,
    Oauth,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFault {
    provider: Target,
    token: Option<String>,
    count: Option<usize>,
    fault: FaultKind,
}

/// What was taken.
#[derive(Serialize)]
struct Queued {
    provider: Target,
    #[serde(flatten)]
    fault: Fault,
}

/// Serves the control API of `sim` on `listener`, until `sim` stops.
pub(super) fn serve(sim: &Sim, listener: TcpListener) {
    let about = json!({
        "what": "Simulators of APNs, FCM and Google's OAuth token endpoint, by reveille sim",
        "apns_url": sim.apns_url(),
        "fcm_url": sim.fcm_url(),
        "token_uri": sim.fcm_credential().get("token_uri"),
        "control_url": sim.control_url(),
        "topics": sim.bundle_ids,
        "project_id": sim.project_id,
        "routes": [
            "GET /", "GET /stats", "GET /pushes?token=", "DELETE /pushes", "GET /faults", "DELETE /faults",
            "POST /faults {provider: apns|fcm|oauth, token?, count?, fault}",
        ],
        "faults": [
            {"status": {"status": 429, "reason": "TooManyRequests", "retry_after": "60"}}, "reset",
            {"go_away": {"reason": "Shutdown"}}, "html_502", {"empty": {"status": 500}}, "black_hole", "lost", {"delay_ms": 500},
        ],
    });
    let control = Control {
        about: Arc::new(about),
        apns: Arc::clone(&sim.apns),
        google: Arc::clone(&sim.google),
        inbox: Arc::clone(&sim.inbox),
    };
    let router = Router::new()
        .route("/", get(|State(control): State<Control>| async move { Json(control.about.as_ref().clone()) }))
        .route("/stats", get(stats))
        .route("/pushes", get(pushes).delete(forget_pushes))
        .route("/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .with_state(control);
    sim.tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the control API of the simulators ended");
        }
    });
}

async fn stats(State(control): State<Control>) -> Json<Value> {
    let counters = |faults: &Faults| {
        json!({ "received": faults.received(), "connections": faults.connections(),
            "refused_streams": faults.refused_streams(), "queued_faults": faults.queued().len() })
    };
    Json(json!({
        "apns": counters(&control.apns.faults),
        "fcm": counters(&control.google.faults),
        "oauth": { "received": control.google.oauth_faults.received(), "issued": control.google.tokens_issued() },
    }))
}

async fn pushes(State(control): State<Control>, Query(filter): Query<PushFilter>) -> Json<Vec<Push>> {
    Json(control.inbox.pushes(filter.token.as_deref()))
}

async fn forget_pushes(State(control): State<Control>) -> StatusCode {
    control.inbox.clear();
    StatusCode::NO_CONTENT
}

async fn list_faults(State(control): State<Control>) -> Json<Value> {
    Json(json!({
        "apns": control.faults(Target::Apns).queued(),
        "fcm": control.faults(Target::Fcm).queued(),
        "oauth": control.faults(Target::Oauth).queued(),
    }))
}

async fn add_fault(State(control): State<Control>, Json(new): Json<NewFault>) -> (StatusCode, Json<Queued>) {
    let fault = Fault { token: new.token, count: new.count, fault: new.fault };
    control.faults(new.provider).answer(fault.clone());
    (StatusCode::CREATED, Json(Queued { provider: new.provider, fault }))
}

async fn clear_faults(State(control): State<Control>) -> StatusCode {
    for target in [Target::Apns, Target::Fcm, Target::Oauth] {
        control.faults(target).clear();
    }
    StatusCode::NO_CONTENT
}

impl Control {
    fn faults(&self, target: Target) -> &Faults {
        match target {
            Target::Apns => &self.apns.faults,
            Target::Fcm => &self.google.faults,
            Target::Oauth => &self.google.oauth_faults,
        }
    }
}
