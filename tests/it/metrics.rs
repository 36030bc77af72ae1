//! Metrics: what is counted is what happened, and the dashboard and rules that come with the relay ask for what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use reqwest::Method;
use reveille::{
    domain::{
        device::{DeviceStatus, Transport},
        event::Class,
        id,
        push::Meaning,
        tally::Tally,
        time::Timestamp,
    },
    metrics::{Census, Channel, Metrics, Present},
    sim::{Fault, FaultKind},
};
use serde_json::Value;

use crate::support::world::{OPERATOR_KEY, World};

/// All samples of a scrape, as they stand: `name{labels}` and the value.
async fn scrape(world: &World) -> BTreeMap<String, f64> {
    let answer = world.http.get(world.url("/metrics")).bearer_auth(OPERATOR_KEY).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, n)| (name.to_owned(), n.parse().unwrap())).collect()
}

#[track_caller]
fn is(samples: &BTreeMap<String, f64>, name: &str, expected: f64) {
    let like: Vec<_> = samples.iter().filter(|(key, _)| key.starts_with(name.split('{').next().unwrap())).collect();
    assert_eq!(samples.get(name), Some(&expected), "{name}; there is {like:#?}");
}

#[tokio::test]
async fn what_is_counted_is_what_happened() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    world.clock.advance(Duration::from_secs(7));
    let wake = phone.pushes().last().unwrap()["wake"].as_str().unwrap().to_owned();
    phone.get(&format!("/v1/sync?after={}&wake={wake}", phone.cursor())).await.expect(200);
    // Within the gap: deferred.
    world.publish("order:42").await;
    world.settle().await;
    let due = scrape(&world).await;
    is(&due, "reveille_due_devices{}", 0.0);
    world.sim.fcm().answer(Fault::new(FaultKind::Status { status: 503, reason: None, retry_after: Some("30".into()) }));
    world.clock.advance(Duration::from_secs(63));
    let waiting = scrape(&world).await;
    is(&waiting, "reveille_due_devices{}", 1.0);
    is(&waiting, "reveille_oldest_due_age_seconds{}", 10.0);
    world.settle().await;
    let seen = scrape(&world).await;
    is(&seen, &format!("reveille_events_accepted_total{{app=\"{}\"}}", world.app), 2.0);
    is(&seen, "reveille_accept_requests_total{result=\"new\"}", 2.0);
    is(&seen, "reveille_accept_requests_total{result=\"replayed\"}", 0.0);
    is(&seen, "reveille_decisions_total{class=\"background\",decision=\"sent\",reason=\"news\"}", 2.0);
    is(&seen, "reveille_decisions_total{class=\"background\",decision=\"deferred\",reason=\"gap\"}", 1.0);
    is(&seen, "reveille_wakes_total{transport=\"fcm\",class=\"background\"}", 1.0);
    is(&seen, "reveille_attempts_total{transport=\"fcm\",outcome=\"accepted\",meaning=\"accepted\"}", 1.0);
    is(&seen, "reveille_attempts_total{transport=\"fcm\",outcome=\"unavailable\",meaning=\"unavailable\"}", 1.0);
    is(&seen, "reveille_attempts_total{transport=\"apns\",outcome=\"unknown\",meaning=\"unknown\"}", 0.0);
    is(&seen, "reveille_provider_call_duration_seconds_count{transport=\"fcm\"}", 2.0);
    is(&seen, "reveille_provider_token_refreshes_total{transport=\"fcm\",result=\"ok\"}", 1.0);
    is(&seen, "reveille_provider_connections{transport=\"fcm\"}", 1.0);
    is(&seen, "reveille_push_to_fetch_seconds_sum{transport=\"fcm\",class=\"background\"}", 7.0);
    is(&seen, "reveille_wakes_fetched_total{transport=\"fcm\",class=\"background\",within=\"10s\"}", 1.0);
    is(&seen, "reveille_polls_with_news_total{transport=\"fcm\",class=\"background\",cause=\"push\"}", 1.0);
    is(&seen, "reveille_polls_total{route=\"sync\",result=\"page\"}", 1.0);
    is(&seen, "reveille_http_requests_total{method=\"POST\",route=\"/v1/events\",status=\"202\"}", 2.0);
    is(&seen, &format!("reveille_devices{{app=\"{}\",status=\"active\"}}", world.app), 1.0);
    is(&seen, "reveille_calls_under_way", 0.0);
    is(&seen, "reveille_ready", 1.0);
    assert!(seen["reveille_store_operation_duration_seconds_count{operation=\"claim\"}"] >= 2.0);
    assert!(seen["reveille_group_commit_requests_count{queue=\"accept\"}"] >= 2.0);
}

#[tokio::test]
async fn a_lease_and_a_lost_call_show() {
    let world = World::start().await;
    let _phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let _never_made = world.claim().await;
    is(&scrape(&world).await, "reveille_leased_devices{}", 1.0);
    world.later(Duration::from_secs(46)).await;
    let seen = scrape(&world).await;
    is(&seen, "reveille_leased_devices{}", 0.0);
    is(&seen, "reveille_attempts_total{transport=\"fcm\",outcome=\"unknown\",meaning=\"unknown\"}", 1.0);
    is(&seen, "reveille_decisions_total{class=\"background\",decision=\"sent\",reason=\"retry\"}", 1.0);
}

#[tokio::test]
async fn only_the_operator_may_look() {
    let world = World::start().await;
    assert_eq!(world.get("/metrics").await.problem(403), "forbidden");
    let answer = world.http.get(world.url("/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(world.call(Method::POST, "/metrics", OPERATOR_KEY, None).await.problem(405), "method-not-allowed");
}

fn operations(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations").join(file)).unwrap()
}

/// Names of the relay's metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    text.match_indices("reveille_").map(|(at, _)| word(&text[at..])).collect()
}

/// A metric's name as its samples have it, from the names and kinds that a scrape announces.
fn sample_names(scraped: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        match kind {
            "counter" => drop(names.insert(format!("{name}_total"))),
            "info" => drop(names.insert(format!("{name}_info"))),
            "histogram" => names.extend(["bucket", "sum", "count"].map(|end| format!("{name}_{end}"))),
            _ => drop(names.insert(name.to_owned())),
        }
    }
    names
}

/// A scrape in which every metric has something to say.
fn everything() -> String {
    let (app, transport, class) = (id::new(Timestamp::from_ms(0)), Transport::Fcm, Class::Alert);
    let (metrics, second) = (Metrics::default(), Duration::from_secs(1));
    metrics.events_accepted(app, 1);
    metrics.decided(class, "sent", "news");
    metrics.called(transport, Meaning::Accepted, second);
    metrics.told(transport, class);
    metrics.fetched(transport, class, second);
    metrics.came(transport, class, Tally::WokeByPush);
    metrics.polled("sync", "page");
    metrics.requests("GET", "/v1/sync").answered(200, second);
    metrics.connected(Channel::Sse, 1);
    metrics.passed_on(Channel::Sse, 1);
    metrics.operated("page", second);
    metrics.failed("page");
    metrics.shared("accept", 1);
    metrics.text(&Present {
        dispatcher_age: Some(second),
        queues: vec![("accept", 1)],
        census: Some(Census {
            devices: vec![(app, DeviceStatus::Active, 1)],
            alarms: vec![(app, 1)],
            wake_rates: vec![(app, transport, 0.5)],
            ..Census::default()
        }),
        ..Present::default()
    })
}

#[test]
fn dashboard_rules_and_table_name_what_there_is() {
    let names = sample_names(&everything());
    assert!(names.len() > 40, "{names:#?}");
    // The table has each metric once, histograms without their endings.
    let base = |name: &String| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    let all: BTreeSet<String> = names.iter().map(base).collect();
    let table: BTreeSet<String> = (operations("metrics.md").lines())
        .filter_map(|line| Some(line.strip_prefix("| `reveille_")?.split('`').next()?.to_owned()))
        .map(|name| format!("reveille_{name}"))
        .collect();
    assert_eq!(table, all, "docs/operations/metrics.md is not the table of what there is");
    let grafana: Value = serde_json::from_str(&operations("grafana.json")).unwrap();
    let mut asked = BTreeSet::new();
    expressions(&grafana, &mut asked);
    assert!(asked.len() > 20, "{asked:?}");
    let rules: BTreeSet<String> = (operations("alerts.yaml").lines())
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(named)
        .collect();
    for name in asked.iter().chain(&rules) {
        assert!(names.contains(name), "{name} is asked for, and there is no such metric");
    }
}

/// The metrics that a dashboard's queries name.
fn expressions(part: &Value, asked: &mut BTreeSet<String>) {
    match part {
        Value::Object(members) => {
            for (name, member) in members {
                if ["expr", "query", "definition"].contains(&name.as_str()) {
                    asked.extend(named(member.as_str().unwrap_or_default()));
                }
                expressions(member, asked);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, asked)),
        _ => {}
    }
}
