//! Releasing a mass brake: people say whether the verdicts of its window stand.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Result, Store, alarms,
    db::{Word, rows},
    levels,
    timeline::{self, NewMoment},
};
use crate::domain::{
    alarm,
    device::{DeviceStatus, Environment, Transport},
    id::{AppId, DeviceId},
    time::Timestamp,
    timeline::Moment,
    verdict::Evidence,
};

/// Devices that one transaction changes.
const CHUNK: i64 = 500;

/// A brake that is on.
#[derive(Debug, Clone)]
pub struct StandingBrake {
    /// The provider.
    pub transport: Transport,
    /// Which of Apple's worlds.
    pub environment: Environment,
    /// Which verdicts were too many.
    pub kind: Evidence,
    /// Since when.
    pub engaged_at: Timestamp,
    /// When the window of the verdicts in question began.
    pub window_from: Timestamp,
    /// Devices that were given up since then.
    pub gone: u64,
    /// Devices that are quarantined instead.
    pub quarantined: u64,
}

/// What is to become of the devices that were called dead in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// The fault was ours: all are active again.
    Restore,
    /// They are dead: those that are quarantined for it are gone.
    Confirm,
}

impl Store {
    /// An app's brakes that are on.
    pub async fn brakes(&self, app: AppId) -> Result<Vec<StandingBrake>> {
        type Row = (Word<Transport>, Word<Environment>, Word<Evidence>, i64, i64, i64, i64);
        let sql = "select b.transport, b.environment, b.kind, b.engaged_at, b.window_from,
                       count(case when d.status = 'gone' then 1 end), count(case when d.status = 'quarantined' then 1 end)
                   from brakes b
                   left join devices d on d.app_id = b.app_id and d.transport = b.transport and d.environment = b.environment
                       and d.status_at >= b.window_from and d.verdict is not null
                   where b.app_id = $1
                   group by b.transport, b.environment, b.kind, b.engaged_at, b.window_from
                   order by b.transport, b.environment";
        let found: Vec<Row> = self.db().fetch_all(sql, (Word(app),)).await?;
        let brakes =
            found.into_iter().map(|(transport, environment, kind, engaged_at, window_from, gone, quarantined)| {
                StandingBrake {
                    transport: transport.0,
                    environment: environment.0,
                    kind: kind.0,
                    engaged_at: Timestamp::from_ms(engaged_at),
                    window_from: Timestamp::from_ms(window_from),
                    gone: gone.unsigned_abs(),
                    quarantined: quarantined.unsigned_abs(),
                }
            });
        Ok(brakes.collect())
    }

    /// Releases a brake; answers how many devices changed their status, or `None` if it is not on.
    ///
    /// It is taken off last: should this be broken off, it is still on, and can be released again.
    pub async fn release_brake(
        &self,
        app: AppId,
        transport: Transport,
        environment: Environment,
        release: Release,
    ) -> Result<Option<u64>> {
        let sql = "select window_from from brakes where app_id = $1 and transport = $2 and environment = $3";
        let scope = (Word(app), Word(transport), Word(environment));
        let Some((from,)) = self.db().fetch_optional::<(i64,)>(sql, scope).await? else {
            return Ok(None);
        };
        // What is called dead from now on is another matter, even if it is one of those that are restored here.
        let window = Window { app, transport, environment, from, to: self.inner.clock.now().as_ms() };
        let mut changed = 0;
        while let Some(chunk) = self.release_chunk(window, release).await? {
            changed += chunk;
        }
        let mut tx = self.db().begin().await?;
        // That providers have answered stays true; what they said has been dealt with.
        let sql =
            "update verdicts set ambiguous = 0, clear = 0 where app_id = $1 and transport = $2 and environment = $3";
        tx.execute(sql, scope).await?;
        tx.execute("delete from brakes where app_id = $1 and transport = $2 and environment = $3", scope).await?;
        alarms::end(&mut tx, app, &alarm::mass_brake(transport, environment), self.inner.clock.now()).await?;
        tx.commit().await?;
        Ok(Some(changed))
    }

    /// Changes some of those that are left, and answers how many; `None` if none is.
    async fn release_chunk(&self, window: Window, release: Release) -> Result<Option<u64>> {
        let now = self.inner.clock.now();
        let mut tx = self.db().begin().await?;
        let Window { app, transport, environment, from, to } = window;
        let (sql, concerned, status, reason) = match release {
            Release::Restore => (
                RESTORE,
                &[DeviceStatus::Gone, DeviceStatus::Quarantined][..],
                DeviceStatus::Active,
                "the mass brake was released: the verdict does not stand",
            ),
            Release::Confirm => (
                CONFIRM,
                &[DeviceStatus::Quarantined][..],
                DeviceStatus::Gone,
                "the mass brake was released: the verdict stands",
            ),
        };
        let concerned = rows(concerned)?;
        let values = (Word(app), Word(transport), Word(environment), from, to, concerned.clone(), CHUNK);
        let found: Vec<(Word<DeviceId>,)> = tx.fetch_all(IN_QUESTION, values).await?;
        let found: Vec<DeviceId> = found.into_iter().map(|(id,)| id.0).collect();
        if found.is_empty() {
            return Ok(None);
        }
        levels::hold(&mut tx, found.iter().map(|device| (app, *device))).await?;
        let devices: Vec<(Word<DeviceId>,)> =
            tx.fetch_all(sql, (Word(app), rows(&found)?, concerned, now.as_ms())).await?;
        let devices: Vec<DeviceId> = devices.into_iter().map(|(id,)| id.0).collect();
        if release == Release::Restore {
            levels::look_again(&mut tx, app, &devices, now).await?;
        }
        let moment = Moment::Status { status, reason: Some(reason.to_owned()) };
        let moments: Vec<_> = devices.iter().map(|device| NewMoment::new(app, *device, now, &moment)).collect();
        timeline::add(&mut tx, &moments).await?;
        tx.commit().await?;
        self.ring();
        Ok(Some(devices.len() as u64))
    }
}

/// The devices in question: those that were called dead from one time to another.
#[derive(Clone, Copy)]
struct Window {
    app: AppId,
    transport: Transport,
    environment: Environment,
    from: i64,
    to: i64,
}

const IN_QUESTION: &str = "select d.id from devices d
    where d.app_id = $1 and d.transport = $2 and d.environment = $3 and d.status_at >= $4 and d.status_at <= $5
      and d.verdict is not null and d.status in (select atom from jsonb_each($6)) limit $7";

const RESTORE: &str = "update devices set status = 'active', status_reason = null, verdict = null, status_at = $4
    where app_id = $1 and id in (select atom from jsonb_each($2)) and verdict is not null
      and status in (select atom from jsonb_each($3))
    returning id";

const CONFIRM: &str = "update devices set status = 'gone', status_at = $4
    where app_id = $1 and id in (select atom from jsonb_each($2)) and verdict is not null
      and status in (select atom from jsonb_each($3))
    returning id";
