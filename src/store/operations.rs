//! Operations: erasures that are asked for, worked off by whoever has time, and shown until they are forgotten themselves.

use serde::Serialize;

use super::{
    Error, Result, Store,
    db::{Json, Task, Tx, Word, rows},
    erase::{Erasure, Progress},
    follows,
};
use crate::domain::{
    feed::Position,
    id::{self, AppId, OperationId},
    operation::{OperationKind, OperationState, Removed, Subject},
    time::Timestamp,
};

/// Chunks that the request itself does, so that what is small is over when it is answered.
const CHUNKS_AT_ONCE: u32 = 3;
/// Rows that one transaction takes away, unless chunks are set smaller.
const CHUNK: u32 = 500;

/// An erasure as it is shown: whom it is about is not told.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// Whether it goes on.
    pub state: OperationState,
    /// What it has taken away so far.
    pub removed: Removed,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the last of it was gone.
    pub finished_at: Option<Timestamp>,
}

impl Store {
    /// Erases a user or a feed: what is small at once, the rest goes on by itself. `None` if the app is gone.
    pub async fn erase(&self, app: AppId, subject: Subject) -> Result<Option<Operation>> {
        let now = self.inner.clock.now();
        let id = id::new(now);
        let mut tx = self.db().begin().await?;
        let Some(through) = next_position(&mut tx, app).await? else {
            tx.leave().await?;
            return Ok(None);
        };
        let erasure = Erasure { app, subject, through, asked_at: now };
        let mut removed = Removed::default();
        let mut progress = erasure.chunk(&mut tx, self.rows_per_chunk(), &mut removed, now).await?;
        keep(&mut tx, id, &erasure, removed, progress).await?;
        tx.commit().await?;
        for _ in 1..CHUNKS_AT_ONCE {
            if progress != Progress::More {
                break;
            }
            progress = self.erase_chunk(app, id).await?;
        }
        match progress {
            Progress::More => self.inner.erasing.notify_one(),
            Progress::Erased => self.leave_no_trace().await?,
            Progress::Nothing => {}
        }
        self.operation(app, id).await
    }

    /// One operation.
    pub async fn operation(&self, app: AppId, id: OperationId) -> Result<Option<Operation>> {
        type Row = (Word<OperationKind>, Json<Removed>, i64, Option<i64>);
        let sql = "select kind, removed, created_at, finished_at from operations where app_id = $1 and id = $2";
        let row: Option<Row> = self.db().fetch_optional(sql, (Word(app), Word(id))).await?;
        Ok(row.map(|(kind, removed, created_at, finished_at)| Operation {
            id,
            kind: kind.0,
            state: if finished_at.is_some() { OperationState::Done } else { OperationState::Running },
            removed: removed.0,
            created_at: Timestamp::from_ms(created_at),
            finished_at: finished_at.map(Timestamp::from_ms),
        }))
    }

    /// Works off a chunk of the erasure that was asked for first; answers whether there may be more.
    pub async fn go_on_erasing(&self) -> Result<bool> {
        let Some(turn) = self.db().turn(Task::Erase).await? else {
            return Ok(false);
        };
        let erased = self.erase_next().await;
        turn.end().await?;
        erased
    }

    async fn erase_next(&self) -> Result<bool> {
        let sql = "select o.app_id, o.id from operations o join apps a on a.id = o.app_id
                   where o.finished_at is null and o.subject is not null and a.deleted_at is null
                   order by o.created_at, o.id limit 1";
        let next: Option<(Word<AppId>, Word<OperationId>)> = self.db().fetch_optional(sql, ()).await?;
        if let Some((app, id)) = next {
            self.erase_chunk(app.0, id.0).await?;
            return Ok(true);
        }
        self.leave_no_trace().await?;
        Ok(false)
    }

    /// Waits until an erasure goes on after its request.
    pub async fn erasing(&self) {
        self.inner.erasing.notified().await;
    }

    /// One more chunk, unless another has done the last one meanwhile.
    async fn erase_chunk(&self, app: AppId, id: OperationId) -> Result<Progress> {
        let now = self.inner.clock.now();
        let mut tx = self.db().begin_unhurried().await?;
        follows::counter(&mut tx, app).await?;
        type Row = (Word<OperationKind>, String, i64, i64, Json<Removed>);
        let sql = "select kind, subject, through, created_at, removed from operations
                   where app_id = $1 and id = $2 and subject is not null";
        let row: Option<Row> = tx.fetch_optional(sql, (Word(app), Word(id))).await?;
        let Some((kind, subject, through, created_at, Json(mut removed))) = row else {
            return Ok(Progress::Erased);
        };
        let subject = Subject::kept(kind.0, &subject).map_err(|_| Error::Corrupt(format!("subject of {id}")))?;
        let asked_at = Timestamp::from_ms(created_at);
        let erasure = Erasure { app, subject, through: Position(through), asked_at };
        let progress = erasure.chunk(&mut tx, self.rows_per_chunk(), &mut removed, now).await?;
        let sql = "update operations set removed = $3, subject = $4 where app_id = $1 and id = $2";
        let subject = (progress == Progress::More).then(|| erasure.subject.name());
        tx.execute(sql, (Word(app), Word(id), Json(removed), subject)).await?;
        tx.commit().await?;
        // The chunks before it have found something, if this one has not.
        Ok(if progress == Progress::More { Progress::More } else { Progress::Erased })
    }

    /// Finishes what is erased, once the files hold nothing of it either.
    async fn leave_no_trace(&self) -> Result<()> {
        #[derive(Serialize)]
        struct Key {
            app: Word<AppId>,
            id: Word<OperationId>,
        }
        let sql = "select app_id, id from operations where finished_at is null and subject is null limit $1";
        let erased: Vec<(Word<AppId>, Word<OperationId>)> = self.db().fetch_all(sql, (i64::from(CHUNK),)).await?;
        if erased.is_empty() || !self.db().overwrite_deleted().await? {
            return Ok(());
        }
        let erased: Vec<_> = erased.into_iter().map(|(app, id)| Key { app, id }).collect();
        let sql = "update operations set finished_at = $2 from jsonb_each($1) r
                   where operations.app_id = r.value->>'app' and operations.id = r.value->>'id'
                     and operations.finished_at is null";
        self.db().execute(sql, (rows(&erased)?, self.inner.clock.now().as_ms())).await?;
        Ok(())
    }

    /// At most so many rows go in one transaction.
    pub(super) fn rows_per_chunk(&self) -> u32 {
        self.inner.options.fanout_chunk.clamp(1, CHUNK)
    }
}

/// Takes a position: all that has a lower one is older. Holds the app's counter row; `None` if the app is gone.
pub(super) async fn next_position(tx: &mut Tx, app: AppId) -> Result<Option<Position>> {
    let Some(Position(head)) = follows::counter(tx, app).await? else {
        return Ok(None);
    };
    tx.execute("update apps set head = head + 1 where id = $1", (Word(app),)).await?;
    Ok(Some(Position(head + 1)))
}

/// Keeps an operation whose first chunk is done. Its subject is kept only if there is more.
pub(super) async fn keep(
    tx: &mut Tx,
    id: OperationId,
    erasure: &Erasure,
    removed: Removed,
    progress: Progress,
) -> Result<()> {
    let asked_at = erasure.asked_at.as_ms();
    let subject = (progress == Progress::More).then(|| erasure.subject.name());
    let finished_at = (progress == Progress::Nothing).then_some(asked_at);
    let sql = "insert into operations (app_id, id, kind, subject, through, removed, created_at, finished_at)
               values ($1, $2, $3, $4, $5, $6, $7, $8)";
    let (app, kind) = (Word(erasure.app), Word(erasure.subject.kind()));
    let values = (app, Word(id), kind, subject, erasure.through.0, Json(removed), asked_at, finished_at);
    tx.execute(sql, values).await?;
    Ok(())
}
