//! Claim: due devices are decided about, and the wakes that are to go out belong to the caller until their lease ends.

use std::collections::HashMap;

use secrecy::SecretString;
use serde::Serialize;

use super::{
    Result, Store,
    call::Call,
    db::{Json, Tx, Word, rows},
    history,
    levels::{self, LevelValues},
};
use crate::domain::{
    credential::{self, CredentialScope},
    device::{DeviceStatus, Environment, Platform, TokenKind, Transport},
    event::{CancelOn, Class, WakeSpec},
    feed::{FeedName, Position},
    id::{self, AppId, DeviceId, WakeId},
    policy::{self, Candidate, CredentialFit, Decision, Followed, Situation},
    push::{Target, Trigger},
    time::Timestamp,
};

#[derive(sqlx::FromRow)]
struct DueRow {
    app_id: Word<AppId>,
    device_id: Word<DeviceId>,
    class: Word<Class>,
    head: i64,
    feed: Option<Word<FeedName>>,
    expires_at: i64,
    told: i64,
    passed: i64,
    wake_id: Option<Word<WakeId>>,
    wake_head: Option<i64>,
    wake_feed: Option<Word<FeedName>>,
    wake_expires_at: Option<i64>,
    wake_cancel_on: Option<Word<CancelOn>>,
    tries: i64,
    lease: Option<String>,
    reached: i64,
    app_deleted: bool,
    feed_left: bool,
    transport: Word<Transport>,
    platform: Word<Platform>,
    token: Option<String>,
    token_kind: Word<TokenKind>,
    token_version: i64,
    environment: Word<Environment>,
    topic: Option<String>,
    user_id: Option<String>,
    status: Word<DeviceStatus>,
    status_at: i64,
}

/// What a wake is about: the open one's, or that of the one that would be opened.
struct About {
    wake: WakeId,
    candidate: Candidate,
    feed: Option<FeedName>,
    tries: u32,
}

/// A credential that may serve a device.
struct Serving {
    transport: Transport,
    name: String,
    version: i64,
    scope: CredentialScope,
}

/// An alert that waits: the newest unexpired one of a feed.
#[derive(Clone)]
struct Waiting {
    position: i64,
    feed: FeedName,
    expires_at: i64,
    cancel_on: CancelOn,
}

type Waitings = HashMap<(AppId, DeviceId), Waiting>;

impl Store {
    /// Decides about at most `limit` devices that are due, and claims the wakes that are to go out now.
    ///
    /// Each claimed wake has a started attempt and a lease when this returns; a crash from here on leaves `unknown`.
    pub async fn claim_due(&self, limit: usize) -> Result<Claimed> {
        let now = self.inner.clock.now();
        if self.next_due().await?.is_none_or(|due| due > now) {
            return Ok(Claimed { calls: Vec::new(), looked_at: 0 });
        }
        let mut tx = self.db().begin().await?;
        let due = due_rows(&mut tx, now, limit).await?;
        let credentials = credentials_of(&mut tx, &due).await?;
        let alerts = waiting_alerts(&mut tx, &due, now).await?;
        let (mut levels, mut calls) = (Vec::new(), Vec::new());
        let looked_at = due.len();
        for row in due {
            let about = if row.app_deleted { None } else { row.about(&alerts, now) };
            let (level, call) = self.decide(&row, about, &credentials, now);
            levels.push(level);
            calls.extend(call);
        }
        abandon(&mut tx, &levels).await?;
        levels::write(&mut tx, &levels).await?;
        history::begin(&mut tx, &calls).await?;
        describe(&mut tx, &mut calls).await?;
        tx.commit().await?;
        Ok(Claimed { calls, looked_at })
    }

    /// When something is next due, if anything is.
    pub async fn next_due(&self) -> Result<Option<Timestamp>> {
        let sql = "select due_at from levels where due_at is not null order by due_at limit 1";
        Ok(self.db().fetch_optional::<(i64,)>(sql, ()).await?.map(|(due_at,)| Timestamp::from_ms(due_at)))
    }

    /// One device in one class: what its level becomes, and the call to make.
    fn decide(
        &self,
        row: &DueRow,
        about: Option<About>,
        credentials: &HashMap<AppId, Vec<Serving>>,
        now: Timestamp,
    ) -> (LevelValues, Option<Call>) {
        let Some(about) = about else {
            return (row.idle(), None);
        };
        let serving = serving(credentials.get(&row.app_id.0), row);
        let situation = Situation {
            status: row.status.0,
            status_at: Timestamp::from_ms(row.status_at),
            reached: Position(row.reached),
            told: Position(row.told),
            wake: about.candidate,
            feed: if row.feed_left { Followed::Left } else { Followed::Still },
            credential: if serving.is_some() { CredentialFit::Fits } else { CredentialFit::Missing },
        };
        match (policy::decide(&situation, now), serving, row.token.clone()) {
            (Decision::Send, Some((serving, topic)), Some(token)) => {
                let call = self.call(row, about, serving, topic, token, now);
                let mut level = row.idle();
                level.claim(&call);
                (level, Some(call))
            }
            (Decision::Defer(until, _), ..) => (row.as_it_is(until), None),
            (Decision::Send | Decision::Drop(_), ..) => {
                // An open wake that is dropped makes room for what came after it.
                let more = row.wake_id.is_some() && row.head > about.candidate.head.0;
                (LevelValues { due_at: more.then_some(now.as_ms()), ..row.idle() }, None)
            }
        }
    }

    fn call(
        &self,
        row: &DueRow,
        about: About,
        serving: &Serving,
        topic: String,
        token: String,
        now: Timestamp,
    ) -> Call {
        let app = row.app_id.0;
        let for_user = row.user_id.as_deref().map(|user| self.inner.secrets.user_tag(&app.to_string(), user));
        Call {
            app,
            device: row.device_id.0,
            class: row.class.0,
            attempt: id::new(now),
            after: Position(row.reached.max(row.told)),
            tries: about.tries + 1,
            started_at: now,
            lease_ends_at: now + self.inner.options.lease,
            credential: serving.name.clone(),
            credential_version: serving.version,
            target: Target {
                transport: row.transport.0,
                platform: row.platform.0,
                token: SecretString::from(token),
                token_kind: row.token_kind.0,
                environment: row.environment.0,
                topic,
            },
            trigger: Trigger {
                wake: about.wake,
                head: about.candidate.head,
                feed: about.feed,
                href: None,
                for_user,
                alert: None,
                expires_at: about.candidate.expires_at,
            },
            token_version: row.token_version,
            cancel_on: about.candidate.cancel_on,
        }
    }
}

/// What one look at the due devices has brought.
#[derive(Debug)]
pub struct Claimed {
    /// Calls to make now.
    pub calls: Vec<Call>,
    /// Devices that were decided about; as many as asked for means that there may be more.
    pub looked_at: usize,
}

impl DueRow {
    /// The wake that is open, or else the one that would be opened.
    fn about(&self, alerts: &Waitings, now: Timestamp) -> Option<About> {
        if let (Some(wake), Some(head), Some(expires_at)) = (self.wake_id, self.wake_head, self.wake_expires_at) {
            let cancel_on = self.wake_cancel_on.map_or(CancelOn::Fetch, |word| word.0);
            let candidate = Candidate { head: Position(head), expires_at: Timestamp::from_ms(expires_at), cancel_on };
            let tries = u32::try_from(self.tries).unwrap_or(u32::MAX);
            return Some(About { wake: wake.0, candidate, feed: self.wake_feed.clone().map(|f| f.0), tries });
        }
        let (head, feed, expires_at, cancel_on) = match self.class.0 {
            Class::Background => (self.head, self.feed.clone().map(|f| f.0), self.expires_at, CancelOn::Fetch),
            Class::Alert => {
                let alert = alerts.get(&(self.app_id.0, self.device_id.0))?.clone();
                (alert.position, Some(alert.feed), alert.expires_at, alert.cancel_on)
            }
        };
        let candidate = Candidate { head: Position(head), expires_at: Timestamp::from_ms(expires_at), cancel_on };
        Some(About { wake: id::new(now), candidate, feed, tries: 0 })
    }
}

impl DueRow {
    /// Nothing open, nothing due.
    fn idle(&self) -> LevelValues {
        let idle = LevelValues::idle(self.app_id.0, self.device_id.0, self.class.0, self.told);
        LevelValues { lease_before: self.lease.clone(), ..idle }
    }

    /// Whatever is open stays, to be looked at again.
    fn as_it_is(&self, until: Timestamp) -> LevelValues {
        LevelValues {
            due_at: Some(until.as_ms()),
            wake_id: self.wake_id.map(|word| word.0),
            wake_head: self.wake_head,
            wake_feed: self.wake_feed.clone().map(|word| word.0),
            wake_expires_at: self.wake_expires_at,
            wake_cancel_on: self.wake_cancel_on.map(|word| word.0),
            tries: u32::try_from(self.tries).unwrap_or(u32::MAX),
            ..self.idle()
        }
    }
}

async fn due_rows(tx: &mut Tx, now: Timestamp, limit: usize) -> Result<Vec<DueRow>> {
    let sql =
        "select l.app_id, l.device_id, l.class, l.head, l.feed, l.expires_at, l.told, l.passed, l.wake_id, l.wake_head,
                   l.wake_feed, l.wake_expires_at, l.wake_cancel_on, l.tries, l.lease,
                   case a.confirm when 'ack' then d.acked else d.fetched end as reached,
                   a.deleted_at is not null as app_deleted,
                   l.wake_id is not null and l.wake_feed is not null and not exists (
                       select 1 from follows f
                       where f.app_id = l.app_id and f.device_id = l.device_id and f.feed = l.wake_feed) as feed_left,
                   d.transport, d.platform, d.token, d.token_kind,
                   d.token_version, d.environment, d.topic, d.user_id, d.status, d.status_at
               from levels l
               cross join devices d
               join apps a on a.id = d.app_id
               where l.due_at <= $1 and d.app_id = l.app_id and d.id = l.device_id
               order by l.due_at limit $2";
    Ok(tx.fetch_all(sql, (now.as_ms(), limit as i64)).await?)
}

async fn credentials_of(tx: &mut Tx, due: &[DueRow]) -> Result<HashMap<AppId, Vec<Serving>>> {
    let mut apps: Vec<String> = due.iter().map(|row| row.app_id.0.to_string()).collect();
    apps.sort();
    apps.dedup();
    type Row = (Word<AppId>, Word<Transport>, String, i64, Json<CredentialScope>);
    let sql = "select app_id, transport, name, version, scope from credentials where app_id in (select value from json_each($1))
               order by app_id, transport, name";
    let mut by_app: HashMap<AppId, Vec<Serving>> = HashMap::new();
    for (app, transport, name, version, scope) in tx.fetch_all::<Row>(sql, (rows(&apps)?,)).await? {
        let serving = Serving { transport: transport.0, name, version, scope: scope.0 };
        by_app.entry(app.0).or_default().push(serving);
    }
    Ok(by_app)
}

fn serving<'a>(credentials: Option<&'a Vec<Serving>>, row: &DueRow) -> Option<(&'a Serving, String)> {
    let of_transport: Vec<&Serving> = credentials?.iter().filter(|c| c.transport == row.transport.0).collect();
    let candidates = of_transport.iter().map(|serving| (serving.name.as_str(), &serving.scope));
    let (index, topic) = credential::pick(candidates, row.topic.as_deref(), row.environment.0)?;
    Some((of_transport.get(index)?, topic))
}

/// The alert that goes next for each due device: of the newest unexpired one per feed, the oldest, so that none is passed over.
async fn waiting_alerts(tx: &mut Tx, due: &[DueRow], now: Timestamp) -> Result<Waitings> {
    #[derive(Serialize)]
    struct Floor {
        app: AppId,
        device: DeviceId,
        told: i64,
        reached: i64,
    }
    let floors: Vec<Floor> = (due.iter())
        .filter(|row| row.class.0 == Class::Alert && row.wake_id.is_none())
        .map(|row| Floor {
            app: row.app_id.0,
            device: row.device_id.0,
            told: row.told.max(row.passed),
            reached: row.reached,
        })
        .collect();
    if floors.is_empty() {
        return Ok(HashMap::new());
    }
    type Row = (Word<AppId>, Word<DeviceId>, i64, Word<FeedName>, i64, Word<CancelOn>);
    let sql = "select f.app_id, f.device_id, e.position, e.feed, e.expires_at, e.cancel_on
               from json_each($1) r
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

/// Attempts whose lease ran out without an answer are `unknown`.
async fn abandon(tx: &mut Tx, levels: &[LevelValues]) -> Result<()> {
    let abandoned: Vec<_> = levels.iter().filter(|level| level.lease_before.is_some()).collect();
    if abandoned.is_empty() {
        return Ok(());
    }
    let sql = "update attempts set outcome = 'unknown', reason = 'no answer was recorded before the lease ended'
               from json_each($1) r
               where attempts.app_id = r.value->>'app' and attempts.id = r.value->>'lease_before' and attempts.outcome is null";
    tx.execute(sql, (rows(&abandoned)?,)).await?;
    Ok(())
}

/// Fills in what the wakes' events say: the link, and the text of alerts.
async fn describe(tx: &mut Tx, calls: &mut [Call]) -> Result<()> {
    #[derive(Serialize)]
    struct At {
        app: AppId,
        position: Position,
    }
    let at: Vec<At> = calls.iter().map(|call| At { app: call.app, position: call.trigger.head }).collect();
    type Row = (Word<AppId>, i64, Option<String>, Json<WakeSpec>);
    let sql = "select e.app_id, e.position, e.href, e.wake from json_each($1) r cross join events e
               where e.app_id = r.value->>'app' and e.position = cast(r.value->>'position' as bigint)";
    let found: HashMap<(AppId, i64), (Option<String>, WakeSpec)> =
        (tx.fetch_all::<Row>(sql, (rows(&at)?,)).await?.into_iter())
            .map(|(app, position, href, wake)| ((app.0, position), (href, wake.0)))
            .collect();
    for call in calls {
        if let Some((href, wake)) = found.get(&(call.app, call.trigger.head.0)) {
            call.trigger.href.clone_from(href);
            call.trigger.alert = wake.alert.clone().filter(|_| call.class == Class::Alert);
        }
    }
    Ok(())
}
