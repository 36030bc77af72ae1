//! Claim: due devices are decided about, and the wakes that are to go out belong to the caller until their lease ends.

use std::{
    collections::{HashMap, HashSet},
    sync::{LazyLock, atomic::Ordering},
};

use secrecy::SecretString;
use serde::Serialize;

use super::{
    Result, Store,
    call::Call,
    db::{Each, Json, Tx, Word, row, rows},
    history::{self, Lost},
    levels::{self, Key, Level},
    standing::{self, About, Standing, Waiting, select_standings},
    timeline::{self, NewMoment},
};
use crate::domain::{
    breaker::Resting,
    credential::{self, CredentialScope},
    device::{Platform, Transport},
    event::{CancelOn, Class, WakeSpec},
    feed::{FeedName, Position},
    id::{self, AppId, DeviceId},
    policy::{self, CredentialFit, Decision, DeferReason, DropReason},
    push::{Target, Trigger},
    settings::Settings,
    time::Timestamp,
    timeline::{Decided, Moment},
};
use crate::fault;

/// How many of an app's due devices one claim decides about.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// The app.
    pub app: AppId,
    /// At most so many.
    pub devices: usize,
}

/// Which apps a claim is about; a claim of one queue never waits for one of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Apps with few devices due. Their claims go first where there is one writer.
    Express,
    /// Apps with many.
    Bulk,
}

/// So many claims at PostgreSQL may each have hold of as many devices before another's look finds nothing.
const CLAIMANTS: usize = 8;

/// What one look at the due devices has brought.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Calls to make now.
    pub calls: Vec<Call>,
    /// How many devices of each app were decided about.
    pub looked_at: HashMap<AppId, usize>,
}

/// A credential that may serve a device.
struct Serving {
    transport: Transport,
    name: String,
    version: i64,
    scope: CredentialScope,
}

/// What a claim reads beside the devices.
struct Around {
    credentials: HashMap<AppId, Vec<Serving>>,
    alerts: HashMap<(AppId, DeviceId), Waiting>,
    now: Timestamp,
}

/// What a claim writes.
#[derive(Default)]
struct Outbox {
    levels: Vec<Level>,
    calls: Vec<Call>,
    moments: Vec<NewMoment>,
    decisions: Vec<(Class, Decided, &'static str)>,
}

/// What is counted once it is on the disk.
#[derive(Default)]
struct Counts {
    lost: Vec<Transport>,
    decisions: Vec<(Class, Decided, &'static str)>,
}

impl Store {
    /// When something is next due in each app that has anything to be done.
    pub async fn due(&self) -> Result<Vec<(AppId, Timestamp)>> {
        let sql = "select id, due_at from (
                       select a.id, (select l.due_at from levels l where l.app_id = a.id and l.due_at is not null
                                     order by l.due_at limit 1) as due_at
                       from apps a) as apps where due_at is not null";
        let due: Vec<(Word<AppId>, i64)> = self.db().peek_all(sql, ()).await?;
        Ok(due.into_iter().map(|(app, at)| (app.0, Timestamp::from_ms(at))).collect())
    }

    /// Decides about due devices, no more than each app's share, and claims the wakes that are to go out now.
    ///
    /// Each claimed wake has a started attempt and a lease when this returns; a crash from here on leaves `unknown`.
    pub async fn claim_due(&self, shares: &[Share], queue: Queue, resting: &mut Resting) -> Result<Claimed> {
        self.timed("claim", self.claim_within(shares, queue, resting)).await
    }

    async fn claim_within(&self, shares: &[Share], queue: Queue, resting: &mut Resting) -> Result<Claimed> {
        let mut tx = match queue {
            Queue::Express => self.db().begin().await?,
            Queue::Bulk => {
                let asked_for = shares.iter().map(|share| share.devices).sum();
                self.inner.bulk.store(asked_for, Ordering::Relaxed);
                self.db().begin_unhurried().await?
            }
        };
        let (mut claimed, mut left, mut counts) = (Claimed::default(), shares.to_vec(), Counts::default());
        while !left.is_empty() {
            let most = (self.db().portion(usize::MAX) / left.len()).max(1);
            let portion: Vec<Share> =
                left.iter().map(|share| Share { devices: share.devices.min(most), ..*share }).collect();
            let found = self.claim_portion(&mut tx, &portion, resting, &mut claimed.calls, &mut counts).await?;
            let found_of = |app: AppId| found.get(&app).copied().unwrap_or(0);
            left.retain(|share| found_of(share.app) >= most && share.devices > most);
            left.iter_mut().for_each(|share| share.devices -= most);
            found.into_iter().for_each(|(app, devices)| *claimed.looked_at.entry(app).or_default() += devices);
            if tx.is_wanted() {
                break;
            }
        }
        fault::point("claim: before the commit");
        tx.commit().await?;
        fault::point("claim: after the commit");
        self.inner.under_way.claimed(&claimed.calls);
        let Counts { lost, decisions } = counts;
        lost.into_iter().for_each(|transport| self.inner.metrics.lost(transport));
        decisions
            .into_iter()
            .for_each(|(class, decided, why)| self.inner.metrics.decided(class, decided.as_str(), why));
        Ok(claimed)
    }

    /// A part of a claim, after which others may be let in; answers how many devices of each app were decided about.
    async fn claim_portion(
        &self,
        tx: &mut Tx,
        shares: &[Share],
        resting: &mut Resting,
        calls: &mut Vec<Call>,
        counts: &mut Counts,
    ) -> Result<HashMap<AppId, usize>> {
        let now = self.inner.clock.now();
        let due = due_rows(tx, now, shares).await?;
        let mut looked_at = HashMap::new();
        due.iter().for_each(|standing| *looked_at.entry(standing.app()).or_default() += 1);
        let lost = due
            .iter()
            .filter_map(|standing| Some(Lost { app: standing.app(), attempt: standing.level.lease.as_deref()? }));
        counts.lost.extend(history::give_up(tx, &lost.collect::<Vec<_>>()).await?);
        let credentials = credentials_of(tx, &due).await?;
        let alerts = waiting_alerts(tx, &due, now).await?;
        let around = Around { credentials, alerts, now };
        let mut outbox = Outbox::default();
        for standing in due {
            let settings = self.inner.settings.get(standing.app(), &standing.overrides);
            self.settle_one(&standing, &settings, &around, resting, &mut outbox);
        }
        levels::write(tx, &outbox.levels).await?;
        history::begin(tx, &outbox.calls).await?;
        timeline::add(tx, &outbox.moments).await?;
        describe(tx, &mut outbox.calls).await?;
        calls.append(&mut outbox.calls);
        counts.decisions.append(&mut outbox.decisions);
        Ok(looked_at)
    }

    /// Whether a claimed call is still wanted, as far as this process knows: a poll may have come since. To be asked right before the call.
    pub fn still_wanted(&self, call: &Call) -> bool {
        self.inner.under_way.still_wanted(call)
    }

    /// One device in one class: what its level becomes, the call to make, and the line in its timeline.
    fn settle_one(
        &self,
        standing: &Standing,
        settings: &Settings,
        around: &Around,
        resting: &mut Resting,
        outbox: &mut Outbox,
    ) {
        let now = around.now;
        let alert = around.alerts.get(&(standing.app(), standing.device()));
        let alert = alert.filter(|_| standing.class() == Class::Alert && standing.level.wake_id.is_none());
        let about = if standing.app_deleted { None } else { standing.about(alert, settings) };
        let mut level = standing.level.clone();
        let Some(about) = about else {
            level.close(None);
            outbox.levels.push(level);
            return;
        };
        let serving = around.serving(standing);
        let fit = if serving.is_some() { CredentialFit::Fits } else { CredentialFit::Missing };
        let mut situation = standing.situation(&about, fit, settings, now);
        let mut decision = policy::decide(&situation, now);
        if let (Decision::Send, Some((serving, _))) = (decision, &serving) {
            decision = match outbox.call_under_way(standing, about.candidate.class) {
                Some(until) => Decision::Defer(until, DeferReason::CallUnderWay),
                None => {
                    // Asked last, for to ask is to take the probe of a breaker that is half open.
                    let Serving { transport, name, version, .. } = serving;
                    situation.credential = resting.fit(standing.app(), *transport, name, *version, standing.device());
                    policy::decide(&situation, now)
                }
            };
        }
        let (class, head, about_expires_at) = (standing.class(), about.candidate.head, about.candidate.expires_at);
        let callee = serving.zip(standing.token.clone());
        match (decision, callee) {
            (Decision::Send, Some(((serving, topic), token))) => {
                outbox.decisions.push((about.candidate.class, Decided::Sent, standing.why_sent(&about)));
                let call = self.call(standing, about, serving, topic, token, now);
                level.claim(&call);
                outbox.calls.push(call);
            }
            (Decision::Defer(until, reason), _) => {
                outbox.decisions.push((class, Decided::Deferred, reason.as_str()));
                if level.wait(until, reason) && reason.belongs_in_timeline() {
                    outbox.tell(standing, now, &Moment::Deferred { class, head, reason, until });
                }
            }
            (decision @ (Decision::Send | Decision::Drop(_)), _) => {
                // A device without a token cannot be called, whatever its status says.
                let reason = if let Decision::Drop(reason) = decision { reason } else { DropReason::Gone };
                outbox.decisions.push((class, reason.decided(), reason.as_str()));
                // An open wake that is dropped makes room for what came after it.
                let longer = class == Class::Background && level.expires_at > about_expires_at.as_ms();
                let more = level.wake_id.is_some() && (level.head > head.0 || longer);
                level.close(more.then_some(now));
                if reason.belongs_in_timeline() {
                    outbox.tell(standing, now, &Moment::Dropped { class, head, reason });
                }
            }
        }
        outbox.levels.push(level);
    }

    fn call(
        &self,
        standing: &Standing,
        about: About,
        serving: &Serving,
        topic: String,
        token: String,
        now: Timestamp,
    ) -> Call {
        let (app, head) = (standing.app(), about.candidate.head);
        let (reached, told) = (Position(standing.reached()), Position(standing.level.told));
        let for_user = standing.user_id.as_deref().map(|user| self.inner.secrets.user_tag(&app.to_string(), user));
        Call {
            app,
            device: standing.device(),
            class: standing.class(),
            wake_class: about.candidate.class,
            attempt: id::new(now),
            // A re-wake announces again what has been told and not fetched.
            after: if told < head { reached.max(told) } else { reached },
            tries: about.tries + 1,
            started_at: now,
            lease_ends_at: now + self.inner.options.lease,
            credential: serving.name.clone(),
            credential_version: serving.version,
            target: Target {
                transport: standing.transport.0,
                platform: standing.platform.0,
                token: SecretString::from(token),
                token_kind: standing.token_kind.0,
                environment: standing.environment.0,
                topic,
            },
            trigger: Trigger {
                wake: about.wake.unwrap_or_else(|| id::new(now)),
                head,
                feed: about.feed,
                href: None,
                for_user,
                alert: None,
                expires_at: about.candidate.expires_at,
            },
            token_version: standing.token_version,
            cancel_on: about.candidate.cancel_on,
            confirm: standing.confirm.0,
            traceparent: None,
        }
    }
}

impl Around {
    /// The credential that serves a device, and the topic it is picked by.
    fn serving(&self, standing: &Standing) -> Option<(&Serving, String)> {
        let of_app = self.credentials.get(&standing.app())?;
        let of_transport: Vec<&Serving> = of_app.iter().filter(|c| c.transport == standing.transport.0).collect();
        let candidates = of_transport.iter().map(|serving| (serving.name.as_str(), &serving.scope));
        let (index, topic) = credential::pick(candidates, standing.topic.as_deref(), standing.environment.0)?;
        Some((of_transport.get(index)?, topic))
    }
}

impl Outbox {
    /// Until when the device is being called in the way of a wake of `class`, by this claim or another, on behalf of its other class.
    fn call_under_way(&self, standing: &Standing, class: Class) -> Option<Timestamp> {
        let in_the_way =
            |call: &&Call| call.device == standing.device() && standing.is_in_the_way(call.wake_class, class);
        let by_this = self.calls.iter().find(in_the_way);
        by_this.map(|call| call.lease_ends_at).or_else(|| standing.call_under_way(class))
    }

    fn tell(&mut self, standing: &Standing, now: Timestamp, what: &Moment) {
        self.moments.push(NewMoment::new(standing.app(), standing.device(), now, what));
    }
}

/// Those of whom nobody else has hold. What a crash leaves is taken up when its lease ends.
async fn due_rows(tx: &mut Tx, now: Timestamp, shares: &[Share]) -> Result<Vec<Standing>> {
    let mut due =
        if tx.is_alone() { due_at_once(tx, now, shares).await? } else { due_and_held(tx, now, shares).await? };
    let alerts = alerts_beside(tx, now, &due).await?;
    due.extend(alerts);
    // Alerts first: on iOS a silent wake has to see that one is on its way.
    due.sort_by_key(Standing::class);
    Ok(due)
}

/// Where nobody else writes.
async fn due_at_once(tx: &mut Tx, now: Timestamp, shares: &[Share]) -> Result<Vec<Standing>> {
    let sql = select_standings!(
        "from levels l"
        "where l.app_id = $1 and l.due_at <= $2 and d.app_id = l.app_id and d.id = l.device_id order by l.due_at limit $3"
    );
    let mut due = Vec::new();
    for share in shares {
        due.extend(tx.fetch_all::<Standing>(sql, (Word(share.app), now.as_ms(), share.devices as i64)).await?);
    }
    Ok(due)
}

/// The alerts that are due for the iPhones among some devices and have not been found with them: they may come later in the order, but
/// are to be decided about first.
async fn alerts_beside(tx: &mut Tx, now: Timestamp, due: &[Standing]) -> Result<Vec<Standing>> {
    let found: HashSet<DeviceId> =
        due.iter().filter(|standing| standing.class() == Class::Alert).map(Standing::device).collect();
    let missing: Vec<Key> = (due.iter())
        .filter(|standing| standing.platform.0 == Platform::Ios && standing.other_told.is_some())
        .filter(|standing| standing.class() == Class::Background && !found.contains(&standing.device()))
        .map(|standing| Key::new(standing.app(), standing.device(), Class::Alert))
        .collect();
    due_of(tx, now, missing).await
}

static HELD: LazyLock<Each> = LazyLock::new(|| standing::of_levels("for update of l skip locked"));

/// Those of some levels that are due, and held by nobody else.
async fn due_of(tx: &mut Tx, now: Timestamp, keys: Vec<Key>) -> Result<Vec<Standing>> {
    let found: Vec<Vec<Standing>> = tx.fetch_each(&HELD, &keys).await?;
    let is_due = |standing: &Standing| standing.level.due_at.is_some_and(|due_at| due_at <= now.as_ms());
    Ok(found.into_iter().flatten().filter(is_due).collect())
}

/// What is held is read once it is held: another may have changed it just before.
async fn due_and_held(tx: &mut Tx, now: Timestamp, shares: &[Share]) -> Result<Vec<Standing>> {
    // The first that are due are found before their devices are joined: a planner that thinks of none due would join and sort all.
    let sql = "select l.app_id, l.device_id, l.class
               from (select app_id, device_id, class, due_at from levels where app_id = $1 and due_at <= $2
                     order by due_at limit $4) l
               join devices d on d.app_id = l.app_id and d.id = l.device_id
               order by l.due_at limit $3 for update of d skip locked";
    type Found = (Word<AppId>, Word<DeviceId>, Word<Class>);
    let mut keys = Vec::new();
    for share in shares {
        let (most, looked_at) = (share.devices as i64, (share.devices * CLAIMANTS) as i64);
        let found: Vec<Found> = tx.fetch_all(sql, (Word(share.app), now.as_ms(), most, looked_at)).await?;
        keys.extend(found.into_iter().map(|(app, device, class)| Key::new(app.0, device.0, class.0)));
    }
    due_of(tx, now, keys).await
}

async fn credentials_of(tx: &mut Tx, due: &[Standing]) -> Result<HashMap<AppId, Vec<Serving>>> {
    let mut apps: Vec<String> = due.iter().map(|standing| standing.app().to_string()).collect();
    apps.sort();
    apps.dedup();
    type Row = (Word<AppId>, Word<Transport>, String, i64, Json<CredentialScope>);
    let sql = "select app_id, transport, name, version, scope from credentials where app_id in (select atom from jsonb_each($1))
               order by app_id, transport, name";
    let mut by_app: HashMap<AppId, Vec<Serving>> = HashMap::new();
    for (app, transport, name, version, scope) in tx.fetch_all::<Row>(sql, (rows(&apps)?,)).await? {
        let serving = Serving { transport: transport.0, name, version, scope: scope.0 };
        by_app.entry(app.0).or_default().push(serving);
    }
    Ok(by_app)
}

/// The alert that goes next for each due device: of the newest unexpired one per feed, the oldest, so that none is passed over.
async fn waiting_alerts(tx: &mut Tx, due: &[Standing], now: Timestamp) -> Result<HashMap<(AppId, DeviceId), Waiting>> {
    #[derive(Serialize)]
    struct Floor {
        app: AppId,
        device: DeviceId,
        told: i64,
        reached: i64,
    }
    let floors: Vec<Floor> = (due.iter())
        .filter(|standing| standing.class() == Class::Alert && standing.level.wake_id.is_none())
        .map(|standing| Floor {
            app: standing.app(),
            device: standing.device(),
            told: standing.level.told.max(standing.level.passed),
            reached: standing.reached(),
        })
        .collect();
    if floors.is_empty() {
        return Ok(HashMap::new());
    }
    type Row = (Word<AppId>, Word<DeviceId>, i64, Word<FeedName>, i64, Word<CancelOn>);
    let sql = "select f.app_id, f.device_id, e.position, e.feed, e.expires_at, e.cancel_on
               from jsonb_each($1) r
               cross join follows f
               cross join events e
               where f.app_id = r.value->>'app' and f.device_id = r.value->>'device'
                 and e.app_id = f.app_id and e.position = (
                   select max(x.position) from events x
                   where x.app_id = f.app_id and x.feed = f.feed and x.wake_class = 'alert' and x.position > f.since
                     and x.position > cast(r.value->>'told' as bigint) and x.expires_at > $2
                     and (x.position > cast(r.value->>'reached' as bigint) or x.cancel_on = 'never'))
               order by e.position desc";
    let found: Vec<Row> = tx.fetch_all(sql, (rows(&floors)?, now.as_ms())).await?;
    // The last one written wins, and that is the oldest.
    Ok((found.into_iter())
        .map(|(app, device, position, feed, expires_at, cancel_on)| {
            ((app.0, device.0), Waiting { position, feed: feed.0, expires_at, cancel_on: cancel_on.0 })
        })
        .collect())
}

row! {
    /// What a call says of the event that it announces.
    struct Described {
        feed: Word<FeedName>,
        href: Option<String>,
        wake: Json<WakeSpec>,
        traceparent: Option<String>,
    }
}

/// Fills in what the wakes' events say: the link, and the feed and text of alerts.
async fn describe(tx: &mut Tx, calls: &mut [Call]) -> Result<()> {
    #[derive(Serialize)]
    struct At {
        app: AppId,
        position: Position,
    }
    let at: Vec<At> = calls.iter().map(|call| At { app: call.app, position: call.trigger.head }).collect();
    type Row = (Word<AppId>, i64, Described);
    let sql =
        "select e.app_id, e.position, e.feed, e.href, e.wake, e.traceparent from jsonb_each($1) r cross join events e
               where e.app_id = r.value->>'app' and e.position = cast(r.value->>'position' as bigint)";
    let found: HashMap<(AppId, i64), Described> = (tx.fetch_all::<Row>(sql, (rows(&at)?,)).await?.into_iter())
        .map(|(app, position, event)| ((app.0, position), event))
        .collect();
    for call in calls {
        if let Some(event) = found.get(&(call.app, call.trigger.head.0)) {
            call.trigger.href.clone_from(&event.href);
            call.traceparent.clone_from(&event.traceparent);
            if call.wake_class == Class::Alert {
                call.trigger.alert.clone_from(&event.wake.0.alert);
                call.trigger.feed.get_or_insert_with(|| event.feed.0.clone());
            }
        }
    }
    Ok(())
}
