//! Attempts: written when a call starts, completed when it ends, read by people who ask what happened.

use std::{collections::HashSet, sync::LazyLock};

use serde::Serialize;

use super::{
    Result, Store,
    call::{Call, Finished},
    db::{Each, Tx, Word, fields, row, rows},
    devices::Device,
    tallies::Tallies,
};
use crate::domain::{
    device::Transport,
    event::Class,
    feed::Position,
    id::{self, AppId, AttemptId, DeviceId, WakeId},
    push::Outcome,
    tally::Tally,
    time::Timestamp,
};

/// One call to a provider and its outcome (contract §7).
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the words of contract §7")]
pub struct Attempt {
    pub id: AttemptId,
    pub wake: WakeId,
    pub device: DeviceId,
    pub transport: Transport,
    pub class: Class,
    pub tries: i64,
    /// It announces what lies above this,
    pub after: Position,
    /// up to this.
    pub head: Position,
    pub started_at: Timestamp,
    pub duration_ms: Option<i64>,
    /// `None` while the call is under way.
    pub outcome: Option<Outcome>,
    pub status: Option<i64>,
    pub reason: Option<String>,
    pub provider_id: Option<String>,
    pub retry_at: Option<Timestamp>,
    pub bytes: Option<i64>,
}

row! {
    struct AttemptRow {
        id: Word<AttemptId>,
        wake_id: Word<WakeId>,
        device_id: Word<DeviceId>,
        transport: Word<Transport>,
        class: Word<Class>,
        tries: i64,
        after_position: i64,
        head: i64,
        started_at: i64,
        duration_ms: Option<i64>,
        outcome: Option<Word<Outcome>>,
        status: Option<i64>,
        reason: Option<String>,
        provider_id: Option<String>,
        retry_at: Option<i64>,
        bytes: Option<i64>,
    }
}

macro_rules! select_attempts {
    ($($clause:literal)*) => {
        concat!(
            "select t.id, t.wake_id, t.device_id, t.transport, t.class, t.try, t.after_position, t.head, ",
            "t.started_at, t.duration_ms, t.outcome, t.status, t.reason, t.provider_id, t.retry_at, t.bytes from ",
            $($clause),*
        )
    };
}

impl From<AttemptRow> for Attempt {
    fn from(row: AttemptRow) -> Self {
        Self {
            id: row.id.0,
            wake: row.wake_id.0,
            device: row.device_id.0,
            transport: row.transport.0,
            class: row.class.0,
            tries: row.tries,
            after: Position(row.after_position),
            head: Position(row.head),
            started_at: Timestamp::from_ms(row.started_at),
            duration_ms: row.duration_ms,
            outcome: row.outcome.map(|word| word.0),
            status: row.status,
            reason: row.reason,
            provider_id: row.provider_id,
            retry_at: row.retry_at.map(Timestamp::from_ms),
            bytes: row.bytes,
        }
    }
}

/// Which attempts to list.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    /// To this device.
    pub device: Option<DeviceId>,
    /// Of this wake.
    pub wake: Option<WakeId>,
    /// That ended so.
    pub outcome: Option<Outcome>,
    /// Started at or after this.
    pub since: Option<Timestamp>,
}

impl Store {
    /// Attempts, newest first, before the one named.
    pub async fn attempts(
        &self,
        app: AppId,
        filter: AttemptFilter,
        before: &str,
        limit: usize,
    ) -> Result<Vec<Attempt>> {
        // The narrowest index that serves: a wake's, a device's, else the app's.
        let sql = if filter.wake.is_some() {
            select_attempts!(
                "attempts t where t.app_id = $1 and t.wake_id = $2 and ($3 is null or t.device_id = $3)"
                " and ($4 is null or t.outcome = $4) and ($5 is null or t.started_at >= $5) and ($6 = '' or t.id < $6)"
                " order by t.id desc limit $7"
            )
        } else if filter.device.is_some() {
            select_attempts!(
                "attempts t where t.app_id = $1 and t.device_id = $3 and ($2 is null or t.wake_id = $2)"
                " and ($4 is null or t.outcome = $4) and ($5 is null or t.started_at >= $5) and ($6 = '' or t.id < $6)"
                " order by t.id desc limit $7"
            )
        } else {
            select_attempts!(
                "attempts t where t.app_id = $1 and ($2 is null or t.wake_id = $2) and ($3 is null or t.device_id = $3)"
                " and ($4 is null or t.outcome = $4) and ($5 is null or t.started_at >= $5) and ($6 = '' or t.id < $6)"
                " order by t.id desc limit $7"
            )
        };
        let AttemptFilter { device, wake, outcome, since } = filter;
        let since_ms = since.map(Timestamp::as_ms);
        let (wake, device, outcome) = (wake.map(Word), device.map(Word), outcome.map(Word));
        let values = (Word(app), wake, device, outcome, since_ms, before.to_owned(), limit as i64);
        let found: Vec<AttemptRow> = self.db().survey(sql, values).await?;
        Ok(found.into_iter().map(Attempt::from).collect())
    }

    /// The attempts of an app that have started since a moment, newest first, before the one named.
    pub(super) async fn newest_attempts(
        &self,
        app: AppId,
        before: AttemptId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Attempt>> {
        let sql = select_attempts!(
            "attempts t where t.app_id = $1 and t.id < $2 and t.id >= $3 and t.started_at >= $4 order by t.id desc limit $5"
        );
        let least: AttemptId = id::least(since);
        let values = (Word(app), Word(before), Word(least), since.as_ms(), limit as i64);
        let found: Vec<AttemptRow> = self.db().survey(sql, values).await?;
        Ok(found.into_iter().map(Attempt::from).collect())
    }

    /// The attempts of wakes that announced an event, by device and then oldest first, after the pair named.
    pub async fn attempts_for_event(
        &self,
        app: AppId,
        position: Position,
        after: (&str, &str),
        limit: usize,
    ) -> Result<Vec<Attempt>> {
        // Those for this very event, whoever follows by now, and those for a newer one that took it along.
        let sql = concat!(
            select_attempts!(
                "attempts t where t.app_id = $1 and t.head = $2 and (t.device_id > $3 or (t.device_id = $3 and t.id > $4))"
            ),
            " union ",
            select_attempts!(
                "events e
                 join follows f on f.app_id = e.app_id and f.feed = e.feed and f.since < e.position
                 join attempts t on t.app_id = f.app_id and t.device_id = f.device_id
                 where e.app_id = $1 and e.position = $2 and t.head > e.position and t.after_position < e.position
                   and t.class = e.wake_class and (t.device_id > $3 or (t.device_id = $3 and t.id > $4))"
            ),
            " order by device_id, id limit $5"
        );
        let values = (Word(app), position.0, after.0.to_owned(), after.1.to_owned(), limit as i64);
        let found: Vec<AttemptRow> = self.db().survey(sql, values).await?;
        Ok(found.into_iter().map(Attempt::from).collect())
    }
}

/// The attempts of a device, newest first, before the one named.
pub(super) async fn of_device(tx: &mut Tx, device: &Device, before: AttemptId, limit: usize) -> Result<Vec<Attempt>> {
    let sql = select_attempts!(
        "attempts t where t.app_id = $1 and t.device_id = $2 and t.id < $3 order by t.id desc limit $4"
    );
    let values = (Word(device.app), Word(device.id), Word(before), limit as i64);
    Ok(tx.fetch_all::<AttemptRow>(sql, values).await?.into_iter().map(Attempt::from).collect())
}

/// The attempts of a device, oldest first, from the one named on.
pub(super) async fn of_device_from(
    tx: &mut Tx,
    device: &Device,
    from: AttemptId,
    limit: usize,
) -> Result<Vec<Attempt>> {
    let sql =
        select_attempts!("attempts t where t.app_id = $1 and t.device_id = $2 and t.id >= $3 order by t.id limit $4");
    let values = (Word(device.app), Word(device.id), Word(from), limit as i64);
    Ok(tx.fetch_all::<AttemptRow>(sql, values).await?.into_iter().map(Attempt::from).collect())
}

fields! {
    /// An attempt as it starts.
    struct Begun {
        app: Word<AppId>,
        id: Word<AttemptId>,
        wake: Word<WakeId>,
        device: Word<DeviceId>,
        transport: Word<Transport>,
        class: Word<Class>,
        tries: i64,
        after: i64,
        head: i64,
        token_version: i64,
        started_at: i64,
    }
}

static BEGIN: LazyLock<Each> = LazyLock::new(|| {
    Each::of(
        "insert into attempts (app_id, id, wake_id, device_id, transport, class, try, after_position, head, token_version, started_at)
         values ({app}, {id}, {wake}, {device}, {transport}, {class}, {tries:int}, {after:int}, {head:int}, {token_version:int},
             {started_at:int})",
    )
});

/// Writes the attempts of calls that are about to be made.
pub(super) async fn begin(tx: &mut Tx, calls: &[Call]) -> Result<()> {
    let begun: Vec<_> = (calls.iter())
        .map(|call| Begun {
            app: Word(call.app),
            id: Word(call.attempt),
            wake: Word(call.trigger.wake),
            device: Word(call.device),
            transport: Word(call.target.transport),
            class: Word(call.wake_class),
            tries: i64::from(call.tries),
            after: call.after.0,
            head: call.trigger.head.0,
            token_version: call.token_version,
            started_at: call.started_at.as_ms(),
        })
        .collect();
    Ok(tx.execute_each(&BEGIN, &begun).await?)
}

fields! {
    /// How an attempt ended.
    #[derive(Clone, Copy)]
    pub(super) struct Answer<'a> {
        app: Word<AppId>,
        id: Word<AttemptId>,
        duration_ms: i64,
        outcome: Word<Outcome>,
        status: Option<i64>,
        reason: Option<&'a str>,
        provider_id: Option<&'a str>,
        retry_at: Option<i64>,
        bytes: i64,
    }
}

impl<'a> Answer<'a> {
    /// Of a call, with the time of its repetition if there is one.
    pub fn new(finished: &'a Finished, retry_at: Option<Timestamp>) -> Self {
        let reply = &finished.reply;
        Self {
            app: Word(finished.call.app),
            id: Word(finished.call.attempt),
            duration_ms: i64::try_from(finished.duration.as_millis()).unwrap_or(i64::MAX),
            outcome: Word(reply.meaning.outcome()),
            status: reply.status.map(i64::from),
            reason: reply.reason.as_deref(),
            provider_id: reply.provider_id.as_deref(),
            retry_at: retry_at.map(Timestamp::as_ms),
            bytes: i64::from(reply.bytes),
        }
    }
}

/// Completes attempts; answers which of them had not ended before. A late answer is the truth, also about an attempt that was given up as
/// `unknown`.
pub(super) async fn complete(tx: &mut Tx, answers: &[Answer<'_>]) -> Result<HashSet<AttemptId>> {
    macro_rules! complete {
        ($rest:literal) => {
            concat!(
                "update attempts set
                     duration_ms = {duration_ms:int}, outcome = {outcome}, status = {status:int}, reason = {reason},
                     provider_id = {provider_id}, retry_at = {retry_at:int}, bytes = {bytes:int}
                 {rows} where attempts.app_id = {app} and attempts.id = {id} ",
                $rest
            )
        };
    }
    static COMPLETE: LazyLock<Each> = LazyLock::new(|| Each::answering(complete!("and attempts.outcome is null")));
    static COMPLETE_LATE: LazyLock<Each> = LazyLock::new(|| Each::of(complete!("")));
    let completed = tx.change_each(&COMPLETE, answers).await?;
    let completed: HashSet<AttemptId> =
        completed.into_iter().filter_map(|index| Some(answers.get(index)?.id.0)).collect();
    let late: Vec<_> = answers.iter().filter(|answer| !completed.contains(&answer.id.0)).copied().collect();
    tx.execute_each(&COMPLETE_LATE, &late).await?;
    Ok(completed)
}

/// An attempt that nobody will hear of any more.
#[derive(Serialize)]
pub(super) struct Lost<'a> {
    pub app: AppId,
    pub attempt: &'a str,
}

/// Attempts whose lease ran out without an answer are `unknown`; answers by which way each had gone.
pub(super) async fn give_up(tx: &mut Tx, lost: &[Lost<'_>]) -> Result<Vec<Transport>> {
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "update attempts set outcome = 'unknown', reason = 'no answer was recorded before the lease ended'
               from jsonb_each($1) r
               where attempts.app_id = r.value->>'app' and attempts.id = r.value->>'attempt' and attempts.outcome is null
               returning attempts.app_id, attempts.transport, attempts.class, attempts.started_at";
    type Row = (Word<AppId>, Word<Transport>, Word<Class>, i64);
    let (mut tallies, mut ways) = (Tallies::default(), Vec::new());
    for (app, transport, class, started_at) in tx.fetch_all::<Row>(sql, (rows(lost)?,)).await? {
        let at = Timestamp::from_ms(started_at);
        tallies.count(app.0, transport.0, class.0, at, Tally::Attempts(Outcome::Unknown), 1);
        ways.push(transport.0);
    }
    tallies.write(tx).await?;
    Ok(ways)
}
