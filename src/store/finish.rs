//! Finish: attempts are completed in batches, and draw their consequences only if the wake is still the caller's.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use rand::RngExt;
use serde::Serialize;

use super::{
    Result, Store,
    brake::{self, Weighed},
    call::{Call, Finished},
    db::{Db, Each, Submitted, Tx, Word, rows},
    history::{self, Answer},
    levels::{self, Key, Level, reached},
    settings::SettingsCache,
    standing::{self, Standing},
    tallies::Tallies,
    timeline::{self, NewMoment},
};
use crate::domain::{
    budget::Bucket,
    device::{DeviceStatus, Transport},
    event::Class,
    id::{AppId, DeviceId},
    policy::{self, CredentialFit, Decision, PROBE_EVERY},
    push::{Meaning, Reply},
    settings::{Budget, Settings},
    tally::Tally,
    time::Timestamp,
    timeline::Moment,
    verdict::{self, Answered, Evidence, Verdict},
};
use crate::{fault, metrics::Metrics};

/// Whether a finished call leaves its device due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Something newer waits, or the same wake goes again.
    Now,
    /// Not before a later time, if at all.
    Later,
}

#[derive(Clone, Serialize)]
struct StatusChange<'a> {
    app: AppId,
    device: DeviceId,
    status: DeviceStatus,
    reason: Option<&'a str>,
    verdict: Option<Evidence>,
}

/// A push in the other class than the level's: what it means for that class.
#[derive(Serialize)]
struct ToldOther {
    app: AppId,
    device: DeviceId,
    told: i64,
    at: i64,
    /// Whether the device is still to come for it.
    unanswered: i64,
    /// Only if the push was of that class.
    budget_full_at: Option<i64>,
}

/// An answer and what follows from it; no standing means that the device is no more.
struct Judged<'a> {
    finished: &'a Finished,
    standing: Option<(&'a Standing, Verdict)>,
}

/// All that a batch changes.
#[derive(Default)]
struct Outbox<'a> {
    /// What becomes of the devices whose tokens were called dead.
    sentences: HashMap<(AppId, DeviceId), DeviceStatus>,
    answers: Vec<Answer<'a>>,
    levels: HashMap<(AppId, DeviceId, Class), Level>,
    background: Vec<ToldOther>,
    statuses: HashMap<(AppId, DeviceId), StatusChange<'a>>,
    moments: Vec<NewMoment>,
    tallies: Tallies,
    counts: Counts,
}

/// What is counted once it is on its way to the disk.
#[derive(Default)]
struct Counts {
    ended: Vec<(Transport, Meaning, Duration)>,
    told: Vec<(Transport, Class)>,
    /// Wakes whose news a poll had brought before the provider's answer was heard.
    outrun: Vec<(Transport, Class)>,
}

impl Counts {
    fn tell(self, metrics: &Metrics) {
        self.ended.into_iter().for_each(|(transport, meaning, took)| metrics.called(transport, meaning, took));
        self.told.into_iter().for_each(|(transport, class)| metrics.told(transport, class));
        self.outrun.into_iter().for_each(|(transport, class)| metrics.fetched(transport, class, Duration::ZERO));
    }
}

impl Store {
    /// Completes an attempt and draws the consequences, if the wake is still ours.
    pub async fn finish(&self, finished: Finished) -> Result<()> {
        if self.timed("finish", self.inner.finishes.write(finished)).await? == Due::Now {
            self.ring();
        }
        Ok(())
    }

    /// Takes a call back that has not been made: a poll has brought the device what it would have announced.
    pub async fn withdraw(&self, call: &Call) -> Result<()> {
        let now = self.inner.clock.now();
        let mut tx = self.db().begin_unhurried().await?;
        let mut present = present(&mut tx, std::iter::once(call)).await?;
        let sql = "delete from attempts where app_id = $1 and id = $2 and outcome is null";
        tx.execute(sql, (Word(call.app), Word(call.attempt))).await?;
        let lease = call.attempt.to_string();
        if let Some(Standing { mut level, .. }) = present.remove(&call.key())
            && level.lease.as_ref() == Some(&lease)
        {
            // Whatever is left is decided about anew.
            level.close(Some(now));
            levels::write(&mut tx, &[level]).await?;
            let (class, head, reason) = (call.class, call.trigger.head, policy::DropReason::AlreadyFetched);
            let moment = NewMoment::new(call.app, call.device, now, &Moment::Dropped { class, head, reason });
            timeline::add(&mut tx, &[moment]).await?;
        }
        tx.commit().await?;
        self.ring();
        Ok(())
    }
}

/// Finishes a batch of calls, in one transaction unless that is in somebody's way.
pub(super) async fn write(
    db: &Db,
    settings: &SettingsCache,
    now: Timestamp,
    batch: &[Finished],
    bulk: usize,
    metrics: &Metrics,
) -> Result<(Vec<Due>, Submitted)> {
    let portion = db.portion(bulk);
    let (mut due, mut rest, mut submitted) = (Vec::with_capacity(batch.len()), batch, Submitted::default());
    while !rest.is_empty() {
        let (mut tx, mut counts) = (db.begin_unhurried().await?, Vec::new());
        loop {
            let (next, others) = rest.split_at(rest.len().min(portion));
            let (due_now, counted) = write_portion(&mut tx, settings, now, next).await?;
            due.extend(due_now);
            counts.push(counted);
            rest = others;
            if rest.is_empty() || tx.is_wanted() {
                break;
            }
        }
        fault::point("finish: before the commit");
        submitted = tx.submit().await?.and(submitted);
        counts.into_iter().for_each(|counts| counts.tell(metrics));
    }
    Ok((due, submitted))
}

async fn write_portion(
    tx: &mut Tx,
    settings: &SettingsCache,
    now: Timestamp,
    batch: &[Finished],
) -> Result<(Vec<Due>, Counts)> {
    let present = present(tx, batch.iter().map(|finished| &finished.call)).await?;
    let judge = |finished: &Finished, standing: &Standing| {
        verdict::judge(&finished.reply, &answered(&finished.call, standing), now)
    };
    let judged: Vec<Judged<'_>> = (batch.iter())
        .map(|finished| {
            let standing = present.get(&finished.call.key());
            Judged { finished, standing: standing.map(|standing| (standing, judge(finished, standing))) }
        })
        .collect();
    let weighed: Vec<Weighed> = judged.iter().filter_map(Judged::weighed).collect();
    let mut weighing = brake::weigh(tx, &weighed, now).await?;
    let mut outbox = Outbox { sentences: std::mem::take(&mut weighing.sentences), ..Outbox::default() };
    for Judged { finished, standing } in judged {
        let call = &finished.call;
        match standing {
            Some((standing, verdict)) => {
                let settings = settings.get(call.app, &standing.overrides);
                outbox.finish_one(finished, standing, verdict, &settings, now);
            }
            // The device is gone: there is nothing left to draw consequences for.
            None => outbox.answers.push(Answer::new(finished, None)),
        }
    }
    let levels: Vec<Level> = outbox.levels.into_values().collect();
    let completed = history::complete(tx, &outbox.answers).await?;
    for Finished { call, reply, duration } in batch.iter().filter(|finished| completed.contains(&finished.call.attempt))
    {
        outbox.counts.ended.push((call.target.transport, reply.meaning, *duration));
        let outcome = Tally::Attempts(reply.meaning.outcome());
        outbox.tallies.count(call.app, call.target.transport, call.wake_class, call.started_at, outcome, 1);
    }
    levels::write(tx, &levels).await?;
    tell_background(tx, &outbox.background).await?;
    change_statuses(tx, &outbox.statuses.into_values().collect::<Vec<_>>(), now).await?;
    timeline::add(tx, &outbox.moments).await?;
    outbox.tallies.write(tx).await?;
    weighing.engage(tx, now).await?;
    let due_now = levels.iter().any(|level| level.due_at.is_some_and(|due_at| due_at <= now.as_ms()));
    Ok((vec![if due_now { Due::Now } else { Due::Later }; batch.len()], outbox.counts))
}

static PRESENT: LazyLock<Each> =
    LazyLock::new(|| standing::of_levels("order by l.app_id, l.device_id, l.class for update of l"));

/// Where the devices of some calls stand by now; they are held.
async fn present<'a>(
    tx: &mut Tx,
    calls: impl Iterator<Item = &'a Call>,
) -> Result<HashMap<(AppId, DeviceId, Class), Standing>> {
    let (mut devices, mut keys) = (Vec::new(), Vec::new());
    for call in calls {
        devices.push((call.app, call.device));
        keys.push(Key::new(call.app, call.device, call.class));
    }
    // Of a device's other level fan-out alone can write while the device is held, and nothing that is read here.
    if keys.iter().any(|key| key.is_of(Class::Alert)) {
        // What an alert tells is written to the other level as well.
        levels::hold(tx, devices).await?;
    } else {
        levels::hold_devices(tx, &devices).await?;
    }
    let found: Vec<Vec<Standing>> = tx.fetch_each(&PRESENT, &keys).await?;
    Ok(found
        .into_iter()
        .flatten()
        .map(|standing| ((standing.app(), standing.device(), standing.class()), standing))
        .collect())
}

impl Judged<'_> {
    /// What the answer says about the push token, if anything.
    fn weighed(&self) -> Option<Weighed> {
        let (standing, verdict) = self.standing?;
        let evidence = match verdict {
            Verdict::Told => None,
            Verdict::Dead(evidence) => Some(evidence),
            Verdict::RetryAt(_) | Verdict::Quarantine | Verdict::GiveUp(_) => return None,
        };
        Some(Weighed {
            app: standing.app(),
            device: standing.device(),
            transport: standing.transport.0,
            environment: standing.environment.0,
            evidence,
            told_at: standing.level.told_at.max(standing.other_told_at).map(Timestamp::from_ms),
            condemned_at: standing.verdict.map(|_| Timestamp::from_ms(standing.status_at)),
        })
    }
}

impl<'a> Outbox<'a> {
    fn finish_one(
        &mut self,
        finished: &'a Finished,
        standing: &Standing,
        verdict: Verdict,
        settings: &Settings,
        now: Timestamp,
    ) {
        let Finished { call, reply, .. } = finished;
        let retry_at = if let Verdict::RetryAt(at) = verdict { Some(at) } else { None };
        self.answers.push(Answer::new(finished, retry_at));
        let status = self.status_after(call, reply, standing, verdict, now);
        if standing.level.lease.as_deref() == Some(call.attempt.to_string().as_str()) {
            let level = self.level_after(call, standing, verdict, status, settings, now);
            self.levels.insert(call.key(), level);
        }
    }

    /// The device's status after a verdict; noted if it changes.
    fn status_after(
        &mut self,
        call: &Call,
        reply: &'a Reply,
        standing: &Standing,
        verdict: Verdict,
        now: Timestamp,
    ) -> DeviceStatus {
        let (before, key) = (standing.status.0, (call.app, call.device));
        let of_this_token = call.token_version == standing.token_version;
        let sentence = self.sentences.get(&key).copied().unwrap_or(DeviceStatus::Quarantined);
        let (status, evidence) = match verdict {
            Verdict::Dead(evidence) if before != DeviceStatus::Gone => (sentence, Some(evidence)),
            Verdict::Quarantine if before != DeviceStatus::Gone => {
                (DeviceStatus::Quarantined, standing.verdict.map(|word| word.0))
            }
            Verdict::Told if of_this_token && before == DeviceStatus::Quarantined => (DeviceStatus::Active, None),
            _ => return before,
        };
        // Both classes may say something of one device: that it is gone outweighs all else.
        let noted = self.statuses.get(&key).map(|change| change.status);
        if noted == Some(DeviceStatus::Gone) {
            return DeviceStatus::Gone;
        }
        let reason = reply.reason.as_deref().filter(|_| reply.meaning != Meaning::Accepted);
        let change = StatusChange { app: call.app, device: call.device, status, reason, verdict: evidence };
        self.statuses.insert(key, change);
        if status != noted.unwrap_or(before) {
            let reason = reason.map(str::to_owned);
            self.moments.push(NewMoment::new(call.app, call.device, now, &Moment::Status { status, reason }));
        }
        status
    }

    /// The level after a verdict.
    fn level_after(
        &mut self,
        call: &Call,
        standing: &Standing,
        verdict: Verdict,
        status: DeviceStatus,
        settings: &Settings,
        now: Timestamp,
    ) -> Level {
        let mut level = standing.level.clone();
        level.lease = None;
        let again_at = match verdict {
            Verdict::RetryAt(at) => Some(at),
            Verdict::Quarantine => Some(now + PROBE_EVERY),
            Verdict::Dead(_) if status == DeviceStatus::Quarantined => Some(now + PROBE_EVERY),
            Verdict::Told | Verdict::Dead(_) | Verdict::GiveUp(_) => None,
        };
        match (again_at.filter(|at| *at < call.trigger.expires_at), verdict) {
            (Some(at), _) => {
                level.due_at = Some(at.as_ms());
                level.waits_for = None;
                return level;
            }
            (None, Verdict::Told) => {
                level.told(call, standing.reached(), now);
                let (transport, class) = (call.target.transport, call.wake_class);
                self.tallies.count(call.app, transport, class, now, Tally::Wakes, 1);
                self.counts.told.push((transport, class));
                if call.trigger.head.0 <= standing.reached() {
                    self.counts.outrun.push((transport, class));
                    for tally in Tally::of_fetch(Duration::ZERO) {
                        self.tallies.count(call.app, transport, class, now, tally, 1);
                    }
                }
                let budget = settings.policy(standing.platform.0, call.wake_class).budget;
                if call.wake_class == call.class {
                    level.spend(budget, call.started_at);
                }
                self.tell_other_class(call, standing, budget, now);
            }
            (None, _) => level.passed = level.passed.max(call.trigger.head.0),
        }
        level.close(None);
        let from = match verdict {
            Verdict::Dead(_) if status == DeviceStatus::Gone => return level,
            Verdict::GiveUp(from) => from,
            _ => now,
        };
        // What came while the call was under way makes the next wake; which alert that is takes a look at the events.
        let longer = call.class == Class::Background && level.expires_at > call.trigger.expires_at.as_ms();
        let newer = level.head > level.told && (longer || level.head > call.trigger.head.0);
        if !level.wanted(standing.reached()) {
            level.answered();
        } else if verdict == Verdict::Told && (call.class == Class::Background || !newer) {
            let standing = Standing { level: level.clone(), status: Word(status), ..standing.clone() };
            self.look_ahead(standing, &mut level, settings, now);
        } else {
            level.due_at = newer.then_some(from.as_ms());
        }
        level
    }

    /// When a device that has just been told is to be looked at again.
    fn look_ahead(&mut self, standing: Standing, level: &mut Level, settings: &Settings, now: Timestamp) {
        let Some(about) = standing.about(None, settings) else {
            return;
        };
        match policy::decide(&standing.situation(&about, CredentialFit::Fits, settings, now), now) {
            Decision::Send => level.due_at = Some(now.as_ms()),
            Decision::Defer(until, reason) => {
                level.wait(until, reason);
                if reason.belongs_in_timeline() {
                    let (class, head) = (standing.class(), about.candidate.head);
                    let moment = Moment::Deferred { class, head, reason, until };
                    self.moments.push(NewMoment::new(standing.app(), standing.device(), now, &moment));
                }
            }
            Decision::Drop(_) => {}
        }
    }

    /// An accepted alert tells the background class too: the phone comes for either. What goes out as background counts there.
    fn tell_other_class(&mut self, call: &Call, standing: &Standing, budget: Budget, now: Timestamp) {
        if call.class != Class::Alert {
            return;
        }
        let budget_full_at = (call.wake_class == Class::Background).then(|| {
            let bucket = Bucket { full_at: Timestamp::from_ms(standing.other_budget_full_at.unwrap_or_default()) };
            bucket.spent(budget, call.started_at).full_at.as_ms()
        });
        let unanswered = i64::from(call.trigger.head.0 > standing.reached());
        let (app, device, told) = (call.app, call.device, call.trigger.head.0);
        self.background.push(ToldOther { app, device, told, at: now.as_ms(), unanswered, budget_full_at });
    }
}

fn answered(call: &Call, standing: &Standing) -> Answered {
    Answered {
        transport: call.target.transport,
        started_at: call.started_at,
        token_version: call.token_version,
        tries: call.tries,
        expires_at: call.trigger.expires_at,
        current_token_version: standing.token_version,
        registered_at: Timestamp::from_ms(standing.registered_at),
        jitter: rand::rng().random_range(0.0..1.0),
    }
}

async fn tell_background(tx: &mut Tx, told: &[ToldOther]) -> Result<()> {
    let (pushed, told): (Vec<_>, Vec<_>) = told.iter().partition(|told| told.budget_full_at.is_some());
    if !told.is_empty() {
        // Silent news that the alert has told of goes on by its own list from there: it may be worth waking for longer than the alert.
        let sql = concat!(
            "update levels set told = cast(r.value->>'told' as bigint),
                 wakes_unfetched = case when levels.wakes_unfetched = 0 and levels.head > ",
            reached!("levels"),
            " then cast(r.value->>'unanswered' as bigint) else levels.wakes_unfetched end,
                 rewake_from = case when levels.wakes_unfetched = 0 then cast(r.value->>'at' as bigint) else levels.rewake_from end
             from jsonb_each($1) r
             where levels.app_id = r.value->>'app' and levels.device_id = r.value->>'device'
               and levels.class = 'background' and levels.told < cast(r.value->>'told' as bigint)"
        );
        tx.execute(sql, (rows(&told)?,)).await?;
    }
    if !pushed.is_empty() {
        let sql =
            "insert into levels (app_id, device_id, class, head, sticky_head, expires_at, told, told_at, rewake_from,
                       wakes_unfetched, budget_full_at)
                   select value->>'app', value->>'device', 'background', 0, 0, 0, cast(value->>'told' as bigint),
                       cast(value->>'at' as bigint), cast(value->>'at' as bigint), cast(value->>'unanswered' as bigint),
                       cast(value->>'budget_full_at' as bigint)
                   from jsonb_each($1) where true
                   on conflict (app_id, device_id, class) do update set
                       told = case when excluded.told > levels.told then excluded.told else levels.told end,
                       told_at = excluded.told_at, rewake_from = excluded.rewake_from,
                       wakes_unfetched = levels.wakes_unfetched + excluded.wakes_unfetched,
                       budget_full_at = excluded.budget_full_at";
        tx.execute(sql, (rows(&pushed)?,)).await?;
    }
    Ok(())
}

async fn change_statuses(tx: &mut Tx, changes: &[StatusChange<'_>], now: Timestamp) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let sql = "update devices set status = r.value->>'status', status_reason = r.value->>'reason', status_at = $2,
                   verdict = r.value->>'verdict'
               from jsonb_each($1) r where devices.app_id = r.value->>'app' and devices.id = r.value->>'device'";
    tx.execute(sql, (rows(changes)?, now.as_ms())).await?;
    Ok(())
}
