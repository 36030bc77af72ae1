//! How far an event has come, derived from its followers' levels.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Result, Store,
    db::{Json, Word, row},
    events::StoredEvent,
    levels::reached,
};
use crate::domain::{id::AppId, time::Timestamp};

/// With more followers than this, counts are kept for [`REFRESH_EVERY`].
const COUNTED_ON_READ: i64 = 1000;
/// After the last wake a device has this long to come before it counts as unreachable.
const SILENT_AFTER: Duration = Duration::from_secs(900);
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventState {
    /// Its fan-out has not ended.
    Accepted,
    /// Some device is still to be told.
    Waking,
    /// No device is pending.
    Settled,
}

/// How many devices an event has reached, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventCounts {
    /// They follow its feed, and did when it was accepted.
    pub targeted: i64,
    /// A wake is due or open.
    pub pending: i64,
    /// A provider accepted a wake for it or for something newer.
    pub told: i64,
    /// A poll has given it.
    pub fetched: i64,
    /// The device came back with it.
    pub acked: i64,
    /// Told by a newer wake only.
    pub coalesced: i64,
    /// Fetched before a wake was needed.
    pub suppressed: i64,
    /// Not told in time.
    pub expired: i64,
    /// Cannot be told, or told as often as the policy says and never came.
    pub unreachable: i64,
    /// When this was counted.
    pub counted_at: Timestamp,
}

row! {
    struct CountRow {
        targeted: i64,
        pending: i64,
        told: i64,
        fetched: i64,
        acked: i64,
        coalesced: i64,
        suppressed: i64,
        expired: i64,
        unreachable: i64,
    }
}

const COUNT: &str = concat!(
    "
    select count(*) as targeted,
        coalesce(cast(sum(case when told = 0 and reached = 0 and pending = 1 then 1 else 0 end) as bigint), 0) as pending,
        coalesce(cast(sum(told) as bigint), 0) as told,
        coalesce(cast(sum(fetched) as bigint), 0) as fetched,
        coalesce(cast(sum(acked) as bigint), 0) as acked,
        coalesce(cast(sum(case when told = 1 and own = 0 then 1 else 0 end) as bigint), 0) as coalesced,
        coalesce(cast(sum(case when told = 0 and reached = 1 then 1 else 0 end) as bigint), 0) as suppressed,
        coalesce(cast(sum(case when told = 0 and reached = 0 and pending = 0 and wakes = 1 and late = 1 then 1 else 0 end)
            as bigint), 0) as expired,
        coalesce(cast(sum(case when reached = 0 and pending = 0 and wakes = 1
            and ((told = 0 and late = 0) or (told = 1 and silent = 1)) then 1 else 0 end) as bigint), 0) as unreachable
    from (
        select case when e.wake_class <> 'none' then 1 else 0 end as wakes,
            case when l.told >= e.position then 1 else 0 end as told,
            case when d.fetched >= e.position then 1 else 0 end as fetched,
            case when d.acked >= e.position then 1 else 0 end as acked,
            case when (",
    reached!(),
    ") >= e.position then 1 else 0 end as reached,
            case when (l.due_at is not null or l.wake_id is not null) and l.head >= e.position then 1
                 when f.device_id > o.after_device then 1 else 0 end as pending,
            case when exists (select 1 from attempts t where t.app_id = f.app_id and t.device_id = f.device_id
                 and t.head = e.position and t.outcome = 'accepted') then 1 else 0 end as own,
            case when e.expires_at <= $3 then 1 else 0 end as late,
            case when l.due_at is null and (e.expires_at <= $3 or l.rewake_from <= $4) then 1 else 0 end as silent
        from events e
        join follows f on f.app_id = e.app_id and f.feed = e.feed and f.since < e.position
        join devices d on d.app_id = f.app_id and d.id = f.device_id
        join apps a on a.id = e.app_id
        left join levels l on l.app_id = f.app_id and l.device_id = f.device_id and l.class = e.wake_class
        left join fanouts o on o.app_id = e.app_id and o.position = e.position
        where e.app_id = $1 and e.position = $2
    ) as followers"
);

impl Store {
    /// Where an event stands, and how many devices it has reached.
    pub async fn event_status(&self, app: AppId, stored: &StoredEvent) -> Result<(EventState, EventCounts)> {
        let (position, now) = (stored.event.position, self.inner.clock.now());
        let sql = "select (select count(*) from fanouts where app_id = $1 and position = $2), e.counts
                   from events e where e.app_id = $1 and e.position = $2";
        let row: Option<(i64, Option<Json<EventCounts>>)> =
            self.db().fetch_optional(sql, (Word(app), position.0)).await?;
        let (fanning_out, kept) = row.unwrap_or_default();
        let kept =
            kept.map(|json| json.0).filter(|counts| fanning_out == 0 && now.since(counts.counted_at) < REFRESH_EVERY);
        let counts = match kept {
            Some(counts) => counts,
            None => {
                let counts = self.count(app, stored, now).await?;
                if fanning_out == 0 && counts.targeted > COUNTED_ON_READ {
                    self.keep_counts(app, stored, counts).await?;
                }
                counts
            }
        };
        let state = match (fanning_out, counts.pending) {
            (0, 0) => EventState::Settled,
            (0, _) => EventState::Waking,
            _ => EventState::Accepted,
        };
        Ok((state, counts))
    }

    async fn count(&self, app: AppId, stored: &StoredEvent, now: Timestamp) -> Result<EventCounts> {
        let position = stored.event.position.0;
        let rows: Vec<CountRow> =
            self.db().survey(COUNT, (Word(app), position, now.as_ms(), (now - SILENT_AFTER).as_ms())).await?;
        let counts = rows.first().map_or_else(EventCounts::default, |row| EventCounts {
            targeted: row.targeted,
            pending: row.pending,
            told: row.told,
            fetched: row.fetched,
            acked: row.acked,
            coalesced: row.coalesced,
            suppressed: row.suppressed,
            expired: row.expired,
            unreachable: row.unreachable,
            counted_at: now,
        });
        Ok(counts)
    }

    async fn keep_counts(&self, app: AppId, stored: &StoredEvent, counts: EventCounts) -> Result<()> {
        let sql = "update events set counts = $3 where app_id = $1 and position = $2";
        self.db().execute(sql, (Word(app), stored.event.position.0, Json(counts))).await?;
        Ok(())
    }
}
