//! One trace for one update: from the backend's request through the wake and the provider's call to the poll that confirmed it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value as AnyValue, trace::v1::Span,
};
use prost::Message as _;
use reveille::sim::{Sim, SimConfig};
use serde_json::json;

use crate::support::served::{Served, free_port, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

pub type Spans = Arc<Mutex<Vec<Span>>>;

/// A collector of traces (OTLP over HTTP), and what it has been sent.
pub async fn collector() -> (String, Spans) {
    let spans = Spans::default();
    let take = async |State(spans): State<Spans>, body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let sent = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        spans.lock().unwrap().extend(sent.flat_map(|scope| scope.spans));
    };
    let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(n)) => n.to_string(),
        other => panic!("{}: {name} is {other:?}", span.name),
    }
}

#[tokio::test]
async fn one_update_is_one_trace() {
    let (collector, spans) = collector().await;
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let relay = Served::with(folder.path(), &sim, free_port(), 45, &[("REVEILLE_OTLP_URL", &collector)]).await;
    let key = relay.app_with_fcm(&sim).await;
    let device = json!({"installation_id": "pixel", "transport": "fcm", "token": "the-token", "feeds": ["order:42"]});
    let device = relay.post("/v1/devices", &key, device).await;
    let (id, token) = (device["id"].as_str().unwrap(), device["device_token"].as_str().unwrap());

    let event = relay.http.post(format!("{}/v1/events", relay.url)).bearer_auth(&key);
    let event = event.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    let event = event.json(&json!({"feed": "order:42", "type": "order.updated", "data": {"status": "packed"}}));
    assert_eq!(event.send().await.unwrap().status(), 202);
    let push = within(Duration::from_secs(10), "a push", async || sim.pushes().into_iter().next()).await;
    let wake = push.trigger().unwrap()["wake"].clone();
    relay.get(&format!("/v1/sync?wake={wake}"), token).await;

    let of_update =
        || -> Vec<Span> { spans.lock().unwrap().iter().filter(|span| hex(&span.trace_id) == TRACE).cloned().collect() };
    let limit = Duration::from_secs(20);
    let told = within(limit, "the poll in its trace", async || {
        Some(of_update()).filter(|told| told.iter().any(|span| span.name == "fetched") && told.len() >= 4)
    });
    let told = told.await;
    let named =
        |name: &str| told.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}: {told:#?}"));
    let (request, woken, call, fetched) =
        (named("POST /v1/events"), named("wake"), named("push over fcm"), named("fetched"));
    assert_eq!(hex(&request.parent_span_id), PARENT, "it goes on from the backend's own span");
    assert_eq!(attribute(request, "http.response.status_code"), "202");
    assert_eq!(woken.parent_span_id, request.span_id);
    assert_eq!([attribute(woken, "reveille.wake"), attribute(woken, "reveille.device")], [wake.clone(), id.to_owned()]);
    assert_eq!(call.parent_span_id, woken.span_id);
    assert_eq!(
        [attribute(call, "reveille.outcome"), attribute(call, "http.response.status_code")],
        ["accepted", "200"]
    );
    assert_eq!(fetched.parent_span_id, request.span_id);
    assert_eq!([attribute(fetched, "reveille.device"), attribute(fetched, "reveille.wake")], [id.to_owned(), wake]);
    assert_eq!(fetched.links.len(), 1, "the poll's own trace is one click away");
    sim.stop().await;
}

#[tokio::test]
async fn a_malformed_traceparent_is_passed_over_and_a_collector_that_is_away_stops_nothing() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let away = format!("http://127.0.0.1:{}", free_port());
    let relay = Served::with(folder.path(), &sim, free_port(), 45, &[("REVEILLE_OTLP_URL", &away)]).await;
    let key = relay.app_with_fcm(&sim).await;
    for traceparent in ["nonsense", "00-00000000000000000000000000000000-0000000000000000-00", ""] {
        let event = relay.http.post(format!("{}/v1/events", relay.url)).bearer_auth(&key);
        let event =
            event.header("traceparent", traceparent).json(&json!({"feed": "order:42", "type": "order.updated"}));
        assert_eq!(event.send().await.unwrap().status(), 202, "{traceparent:?}");
    }
    sim.stop().await;
}
