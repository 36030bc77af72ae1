//! The mass brake (contract §5): answers about push tokens are counted per app, transport and environment, and too many that call them
//! dead put it on, until somebody releases it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use serde::Serialize;

use super::{
    Result, alarms,
    db::{Tx, Word, rows},
};
use crate::domain::{
    alarm,
    brake::{Brake, Counts, WINDOW},
    device::{DeviceStatus, Environment, Transport},
    id::{AppId, DeviceId},
    time::Timestamp,
    verdict::Evidence,
};

/// What one counter covers.
const MINUTE: Duration = Duration::from_secs(60);

/// A provider's answer about a push token; answers about anything else are none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighed {
    pub app: AppId,
    pub device: DeviceId,
    pub transport: Transport,
    pub environment: Environment,
    /// That it is dead, and how surely; `None` if the provider took a push for it.
    pub evidence: Option<Evidence>,
    /// When a provider last took a push for it before.
    pub told_at: Option<Timestamp>,
    /// When it was last called dead before.
    pub condemned_at: Option<Timestamp>,
}

/// Where tokens are counted together.
type Scope = (AppId, Transport, Environment);

/// Scopes with their windows, and what is added to the minutes.
#[derive(Default)]
struct Scales {
    brakes: HashMap<Scope, Brake>,
    minutes: BTreeMap<(Scope, i64), Counts>,
    answered: HashSet<(AppId, DeviceId)>,
    sentences: HashMap<(AppId, DeviceId), DeviceStatus>,
}

/// What weighing has come to.
#[derive(Default)]
pub(super) struct Weighing {
    /// What becomes of each device whose token was called dead.
    pub sentences: HashMap<(AppId, DeviceId), DeviceStatus>,
    /// Brakes that are to be put on: last in the transaction, for alarms are last in the order of locks (decision 8).
    engaged: Vec<(Scope, Evidence, Counts)>,
}

impl Weighing {
    /// Puts on the brakes that are due.
    pub async fn engage(self, tx: &mut Tx, now: Timestamp) -> Result<()> {
        for (scope, kind, counts) in self.engaged {
            engage(tx, scope, kind, counts, now).await?;
        }
        Ok(())
    }
}

/// Counts answers in the order they came, finds the brakes that are due, and says what becomes of each token that was called dead.
pub(super) async fn weigh(tx: &mut Tx, answers: &[Weighed], now: Timestamp) -> Result<Weighing> {
    if answers.is_empty() {
        return Ok(Weighing::default());
    }
    let mut scales = Scales::default();
    // Only who is to judge needs to know what has been counted before.
    if answers.iter().any(|answer| answer.evidence.is_some()) {
        hold(tx, answers, now).await?;
        scales.brakes = brakes(tx, answers, now).await?;
    }
    let on_before: HashSet<Scope> = scales.on().map(|(scope, ..)| scope).collect();
    answers.iter().for_each(|answer| scales.weigh(answer, now));
    scales.write_minutes(tx).await?;
    let mut engaged: Vec<_> = scales.on().filter(|(scope, ..)| !on_before.contains(scope)).collect();
    engaged.sort_by_key(|(scope, ..)| *scope);
    Ok(Weighing { engaged, sentences: scales.sentences })
}

impl Weighed {
    fn scope(&self) -> Scope {
        (self.app, self.transport, self.environment)
    }
}

impl Scales {
    fn weigh(&mut self, answer: &Weighed, now: Timestamp) {
        let (scope, device) = (answer.scope(), (answer.app, answer.device));
        let within = |at: &Timestamp| minute(*at) >= window_from(now).as_ms();
        let brake = self.brakes.entry(scope).or_default();
        if self.answered.insert(device) {
            // A device that was counted already moves on with its newest answer, so that it is counted once in every window.
            match answer.told_at.max(answer.condemned_at).filter(within) {
                Some(before) => self.minutes.entry((scope, minute(before))).or_default().attempted -= 1,
                None => brake.counts.attempted += 1,
            }
            self.minutes.entry((scope, minute(now))).or_default().attempted += 1;
        }
        let Some(evidence) = answer.evidence else {
            return;
        };
        if self.sentences.contains_key(&device) {
            return;
        }
        let sentence = if answer.condemned_at.as_ref().is_some_and(within) {
            brake.sentence()
        } else {
            let counts = self.minutes.entry((scope, minute(now))).or_default();
            match evidence {
                Evidence::Ambiguous => counts.ambiguous += 1,
                Evidence::Clear => counts.clear += 1,
            }
            brake.condemn(evidence)
        };
        self.sentences.insert(device, sentence);
    }

    /// The brakes that are on.
    fn on(&self) -> impl Iterator<Item = (Scope, Evidence, Counts)> {
        self.brakes.iter().filter_map(|(scope, brake)| Some((*scope, brake.kind?, brake.counts)))
    }

    /// Adds what was counted. In the same order always, so that two writers never wait for each other.
    async fn write_minutes(&self, tx: &mut Tx) -> Result<()> {
        #[derive(Serialize)]
        struct Row {
            app: AppId,
            transport: Transport,
            environment: Environment,
            minute: i64,
            attempted: i64,
            ambiguous: i64,
            clear: i64,
        }
        let changed = self.minutes.iter().filter(|(_, counts)| **counts != Counts::default());
        let added: Vec<Row> = changed
            .map(|(((app, transport, environment), minute), counts)| Row {
                app: *app,
                transport: *transport,
                environment: *environment,
                minute: *minute,
                attempted: counts.attempted,
                ambiguous: counts.ambiguous,
                clear: counts.clear,
            })
            .collect();
        if added.is_empty() {
            return Ok(());
        }
        let sql = "insert into verdicts (app_id, transport, environment, minute, attempted, ambiguous, clear)
                   select value->>'app', value->>'transport', value->>'environment', cast(value->>'minute' as bigint),
                       cast(value->>'attempted' as bigint), cast(value->>'ambiguous' as bigint), cast(value->>'clear' as bigint)
                   from jsonb_each($1) where true
                   on conflict (app_id, transport, environment, minute) do update set
                       attempted = verdicts.attempted + excluded.attempted,
                       ambiguous = verdicts.ambiguous + excluded.ambiguous, clear = verdicts.clear + excluded.clear";
        tx.execute(sql, (rows(&added)?,)).await?;
        Ok(())
    }
}

/// Holds the present minute of these answers' scopes: whoever judges in it next sees what is counted here.
async fn hold(tx: &mut Tx, answers: &[Weighed], now: Timestamp) -> Result<()> {
    let scopes: BTreeSet<Scope> = answers.iter().map(Weighed::scope).collect();
    let sql = "insert into verdicts (app_id, transport, environment, minute, attempted, ambiguous, clear)
               select value->>0, value->>1, value->>2, $2, 0, 0, 0 from jsonb_each($1) where true
               on conflict (app_id, transport, environment, minute) do update set attempted = verdicts.attempted";
    tx.execute(sql, (rows(&scopes.into_iter().collect::<Vec<_>>())?, minute(now))).await?;
    Ok(())
}

/// What has been counted in the scopes of these answers, and which brakes are on.
async fn brakes(tx: &mut Tx, answers: &[Weighed], now: Timestamp) -> Result<HashMap<Scope, Brake>> {
    let mut scopes: Vec<Scope> = answers.iter().map(Weighed::scope).collect();
    scopes.sort();
    scopes.dedup();
    type Row = (Word<AppId>, Word<Transport>, Word<Environment>, Option<Word<Evidence>>, i64, i64, i64);
    let sql = "select r.app_id, r.transport, r.environment, b.kind, cast(coalesce(sum(v.attempted), 0) as bigint),
                   cast(coalesce(sum(v.ambiguous), 0) as bigint), cast(coalesce(sum(v.clear), 0) as bigint)
               from (select value->>0 as app_id, value->>1 as transport, value->>2 as environment from jsonb_each($1)) r
               left join brakes b on b.app_id = r.app_id and b.transport = r.transport and b.environment = r.environment
               left join verdicts v on v.app_id = r.app_id and v.transport = r.transport and v.environment = r.environment
                   and v.minute >= $2
               group by r.app_id, r.transport, r.environment, b.kind";
    let found: Vec<Row> = tx.fetch_all(sql, (rows(&scopes)?, window_from(now).as_ms())).await?;
    let known = found.into_iter().map(|(app, transport, environment, kind, attempted, ambiguous, clear)| {
        let counts = Counts { attempted, ambiguous, clear };
        ((app.0, transport.0, environment.0), Brake { counts, kind: kind.map(|word| word.0) })
    });
    Ok(known.collect())
}

/// Puts a brake on, and says so.
async fn engage(tx: &mut Tx, scope: Scope, kind: Evidence, counts: Counts, now: Timestamp) -> Result<()> {
    let (app, transport, environment) = scope;
    let from = window_from(now);
    let sql = "insert into brakes (app_id, transport, environment, kind, window_from, engaged_at)
               values ($1, $2, $3, $4, $5, $6) on conflict (app_id, transport, environment) do nothing";
    let values = (Word(app), Word(transport), Word(environment), Word(kind), from.as_ms(), now.as_ms());
    tx.execute(sql, values).await?;
    tracing::warn!(
        %app, %transport, environment = environment.as_str(), ?kind, attempted = counts.attempted,
        "too many push tokens were called dead at once: until the mass brake is released, devices are quarantined instead of given up"
    );
    let data = alarm::mass_brake_data(transport, environment, kind, from, counts);
    alarms::raise(tx, app, &alarm::mass_brake(transport, environment), data, now).await
}

/// Where a window that ends at `now` begins.
pub(super) fn window_from(now: Timestamp) -> Timestamp {
    Timestamp::from_ms(minute(now - WINDOW))
}

/// The beginning of a minute.
fn minute(at: Timestamp) -> i64 {
    at.floor(MINUTE).as_ms()
}
