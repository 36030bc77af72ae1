//! What must hold whatever went wrong, looked at from outside.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use anyhow::Context;
use reveille::{
    domain::time::Timestamp,
    sim::{Sim, phones::Phone},
};
use serde::Deserialize;

use super::{
    cluster::LEASE,
    load::{Accepted, Load, Pushed},
    trouble::Trouble,
};

const LEASE_MS: i64 = LEASE.as_millis() as i64;
/// How long after the last trouble everything has to be in its place.
const COMES_TO_REST: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events whose counters are asked for.
const ASKED_FOR: usize = 200;

/// A call as the relay has recorded it.
#[derive(Debug, Deserialize)]
struct Attempt {
    wake: String,
    r#try: i64,
    started_at: Timestamp,
    outcome: Option<String>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Attempt>,
    next: Option<String>,
}

/// Figures of a run.
#[derive(Debug, Default)]
pub struct Figures {
    pub attempts: BTreeMap<String, usize>,
    /// Pushes that reached a phone of a wake that had reached it already.
    pub twice: usize,
    /// From the start of a call that nobody heard of again to its repetition.
    pub taken_over_ms: Vec<i64>,
    /// From the answer to a backend to the push at the provider: while nothing was wrong, and while something was.
    pub calm_ms: Vec<i64>,
    pub trouble_ms: Vec<i64>,
    pub rest: Duration,
}

/// Waits until all is at rest, and accuses whatever is not as it must be.
pub async fn judge(load: &Load, sim: &Sim, troubles: &[Trouble]) -> anyhow::Result<Figures> {
    let mut figures = Figures { rest: come_to_rest(load).await, ..Figures::default() };
    everyone_has_read_everything(load);
    let attempts = attempts(load).await?;
    load.ledger.take_pushes(sim);
    let pushes = load.ledger.pushes();
    calls_are_recorded(load, &attempts, &pushes, troubles, &mut figures);
    wakes_keep_their_id(load, &pushes);
    nobody_is_told_what_is_not(load, &pushes);
    counters_agree(load).await?;
    latencies(load, &pushes, troubles, &mut figures);
    Ok(figures)
}

fn of_feeds(load: &Load, feeds: &[String]) -> impl Iterator<Item = (i64, Accepted)> {
    load.ledger.accepted().into_iter().filter(|(_, event)| feeds.contains(&event.feed))
}

fn read(load: &Load, phone: &str) -> Vec<(String, i64)> {
    load.ledger.read(phone).into_iter().filter(|(feed, _)| feed.starts_with("orders:")).collect()
}

/// Until every phone has read what it follows up to the last event that wakes it; answers how long that took.
async fn come_to_rest(load: &Load) -> Duration {
    let began = Instant::now();
    let newest = |phone: &Phone| {
        let accepted = load.ledger.accepted();
        let wakes = accepted.iter().filter(|(_, event)| event.wakes && phone.feeds().contains(&event.feed));
        wakes.map(|(position, _)| *position).max().unwrap_or(0)
    };
    let newest: Vec<i64> = load.phones.iter().map(newest).collect();
    while began.elapsed() < COMES_TO_REST {
        let there = |(phone, newest): (&Phone, &i64)| {
            read(load, phone.name()).last().map_or(0, |(_, position)| *position) >= *newest
        };
        if load.phones.iter().zip(&newest).all(there) && pending(load).await == Some(0) {
            return began.elapsed();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    load.ledger.accuse(format!("after {COMES_TO_REST:?} without trouble it has not come to rest"));
    began.elapsed()
}

/// Calls whose answer is not recorded yet.
async fn pending(load: &Load) -> Option<usize> {
    let newest = load.get("/v1/attempts?limit=500").await.ok()?;
    Some(newest["items"].as_array()?.iter().filter(|attempt| attempt["outcome"].is_null()).count())
}

/// No gap and no repetition. A phone that is only woken may not know yet what wakes nobody.
fn everyone_has_read_everything(load: &Load) {
    for phone in &load.phones {
        let read = read(load, phone.name());
        let through = read.last().map_or(0, |(_, position)| *position);
        let expected: Vec<_> = of_feeds(load, phone.feeds())
            .filter(|(position, _)| *position <= through)
            .map(|(position, event)| (event.feed, position))
            .collect();
        if read != expected {
            let (had, should): (BTreeSet<_>, BTreeSet<_>) = (read.iter().collect(), expected.iter().collect());
            let missed: Vec<_> = should.difference(&had).take(5).collect();
            let invented: Vec<_> = had.difference(&should).take(5).collect();
            load.ledger.accuse(format!("{} missed {missed:?} and read {invented:?} that nobody posted", phone.name()));
        }
        let values: BTreeMap<_, _> = of_feeds(load, phone.feeds())
            .filter(|(position, _)| *position <= through)
            .map(|(position, event)| ((event.feed, event.item), position))
            .collect();
        let known = phone.items().into_iter().filter(|((feed, _), _)| feed.starts_with("orders:"));
        if known.map(|(place, item)| (place, item.position)).collect::<BTreeMap<_, _>>() != values {
            load.ledger.accuse(format!("{} does not hold the newest values", phone.name()));
        }
    }
}

async fn attempts(load: &Load) -> anyhow::Result<Vec<Attempt>> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = load.get(&format!("/v1/attempts?limit=500&cursor={cursor}")).await?;
        let page: List = serde_json::from_value(page).context("a page of attempts")?;
        all.extend(page.items);
        match page.next {
            Some(next) => cursor = next,
            None => return Ok(all),
        }
    }
}

/// Every push that a provider saw is on record, and none more often than there were calls.
fn calls_are_recorded(
    load: &Load,
    attempts: &[Attempt],
    pushes: &[Pushed],
    troubles: &[Trouble],
    figures: &mut Figures,
) {
    let mut of_wake: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    for attempt in attempts {
        let outcome = attempt.outcome.as_deref().unwrap_or("none");
        *figures.attempts.entry(outcome.to_owned()).or_default() += 1;
        of_wake.entry(&attempt.wake).or_default().push(attempt);
    }
    if let Some(unanswered) = figures.attempts.get("none") {
        load.ledger.accuse(format!("{unanswered} attempts have no outcome"));
    }
    for attempts in of_wake.values_mut() {
        attempts.sort_by_key(|attempt| attempt.r#try);
        for pair in attempts.windows(2) {
            // One that is known to have failed is repeated when the policy says.
            if !matches!(pair[0].outcome.as_deref(), Some("unknown" | "accepted")) {
                continue;
            }
            let (from, until) = (pair[0].started_at.as_ms(), pair[1].started_at.as_ms());
            if clock_was_wrong(troubles, from, until) {
                continue;
            }
            figures.taken_over_ms.push(until - from);
            if until - from < LEASE_MS {
                load.ledger.accuse(format!("{} was repeated {} ms after the call began", pair[0].wake, until - from));
            }
        }
    }
    figures.taken_over_ms.sort_unstable();
    let mut seen: HashMap<&str, Vec<&Pushed>> = HashMap::new();
    for push in pushes {
        // What a provider sends back unread is called again within the same attempt.
        if push.delivered || push.status != 0 {
            seen.entry(&push.wake).or_default().push(push);
        }
    }
    for (wake, pushes) in seen {
        let recorded = of_wake.get(wake).map_or(&[][..], Vec::as_slice);
        if pushes.len() > recorded.len() {
            let pushes: Vec<_> = pushes.iter().map(|push| (push.at_ms, push.status, push.delivered)).collect();
            load.ledger.accuse(format!("{wake}: {pushes:?} reached the provider, and {recorded:?} are on record"));
        }
        figures.twice += pushes.iter().filter(|push| push.delivered).count().saturating_sub(1);
    }
}

/// Leases are given and ended by the nodes' own clocks.
fn clock_was_wrong(troubles: &[Trouble], from_ms: i64, until_ms: i64) -> bool {
    let clocks = troubles.iter().filter(|trouble| trouble.what.starts_with("clock"));
    clocks
        .into_iter()
        .any(|trouble| trouble.from_ms - 2 * LEASE_MS <= until_ms && from_ms <= trouble.until_ms + 2 * LEASE_MS)
}

/// A repetition is one for the provider as well (`apns-id`).
fn wakes_keep_their_id(load: &Load, pushes: &[Pushed]) {
    let mut ids: HashMap<(&str, &str), &Option<String>> = HashMap::new();
    for push in pushes {
        let known = ids.entry((&push.wake, &push.token)).or_insert(&push.id);
        if **known != push.id {
            load.ledger.accuse(format!("{}: its apns-id was {known:?} and then {:?}", push.wake, push.id));
        }
    }
}

/// A push announces what a backend has posted.
fn nobody_is_told_what_is_not(load: &Load, pushes: &[Pushed]) {
    let accepted = load.ledger.accepted();
    for push in pushes {
        if !accepted.contains_key(&push.head) {
            load.ledger.accuse(format!("{} announced {}, which is no event", push.wake, push.head));
        }
    }
}

/// The relay says of the newest events what the phones know.
async fn counters_agree(load: &Load) -> anyhow::Result<()> {
    let accepted = load.ledger.accepted();
    let wakes: Vec<(&i64, &Accepted)> = accepted.iter().filter(|(_, event)| event.wakes).collect();
    for (position, event) in wakes.iter().rev().take(ASKED_FOR) {
        let status = load.get(&format!("/v1/events/{}", event.id)).await?;
        let followers = load.phones.iter().filter(|phone| phone.feeds().contains(&event.feed)).count();
        let devices = &status["devices"];
        if status["position"] != **position || devices["targeted"] != followers || devices["fetched"] != followers {
            load.ledger.accuse(format!("{followers} phones have read {position}, and the relay says {devices}"));
        }
    }
    Ok(())
}

/// From the answer to the first push that announces it.
fn latencies(load: &Load, pushes: &[Pushed], troubles: &[Trouble], figures: &mut Figures) {
    let accepted = load.ledger.accepted();
    let mut first: HashMap<(&str, i64), &Pushed> = HashMap::new();
    for push in pushes {
        let known = first.entry((&push.token, push.head)).or_insert(push);
        if push.at_ms < known.at_ms {
            *known = push;
        }
    }
    for ((_, head), push) in first {
        let Some(event) = accepted.get(&head) else { continue };
        let troubled =
            troubles.iter().any(|trouble| trouble.from_ms <= push.at_ms && trouble.until_ms + LEASE_MS >= event.at_ms);
        let took_ms = (push.at_ms - event.at_ms).max(0);
        if troubled { figures.trouble_ms.push(took_ms) } else { figures.calm_ms.push(took_ms) }
    }
    figures.calm_ms.sort_unstable();
    figures.trouble_ms.sort_unstable();
}
