//! Apps and their keys.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Error, Result, Store,
    db::{Json, Word, retry, row},
    live,
};
use crate::{
    domain::{
        id::{self, AppId, KeyId},
        key::Scope,
        settings::Settings,
        time::Timestamp,
    },
    secret,
};

/// A tenant.
#[derive(Debug, Clone)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// A name for people.
    pub name: String,
    /// Its settings, defaults filled in.
    pub settings: Settings,
    /// What was set, without the defaults.
    pub overrides: Value,
    /// When it was made.
    pub created_at: Timestamp,
}

row! {
    struct AppRow {
        id: Word<AppId>,
        name: String,
        overrides: Json<Value>,
        created_at: i64,
    }
}

impl TryFrom<AppRow> for App {
    type Error = Error;

    fn try_from(row: AppRow) -> Result<Self> {
        let settings =
            Settings::of(&row.overrides.0).map_err(|errors| Error::Corrupt(format!("settings: {errors:?}")))?;
        Ok(Self {
            id: row.id.0,
            name: row.name,
            settings,
            overrides: row.overrides.0,
            created_at: Timestamp::from_ms(row.created_at),
        })
    }
}

/// An app key, without its secret.
#[derive(Debug, Clone)]
pub struct AppKey {
    /// Its id.
    pub id: KeyId,
    /// A name for people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

row! {
    struct KeyRow {
        id: Word<KeyId>,
        name: String,
        scopes: Json<Vec<Scope>>,
        created_at: i64,
        expires_at: Option<i64>,
    }
}

impl From<KeyRow> for AppKey {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id.0,
            name: row.name,
            scopes: row.scopes.0,
            created_at: Timestamp::from_ms(row.created_at),
            expires_at: row.expires_at.map(Timestamp::from_ms),
        }
    }
}

/// Who came with an app key.
#[derive(Debug, Clone)]
pub struct KeyHolder {
    /// The app it belongs to.
    pub app: AppId,
    /// The key.
    pub key: KeyId,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl Store {
    /// Makes an app.
    pub async fn create_app(&self, name: &str, overrides: Value, settings: Settings) -> Result<App> {
        let created_at = self.inner.clock.now();
        let id = id::new(created_at);
        let sql = "insert into apps (id, name, overrides, confirm, created_at) values ($1, $2, $3, $4, $5)";
        let values = (Word(id), name.to_owned(), Json(overrides.clone()), Word(settings.confirm), created_at.as_ms());
        self.db().execute(sql, values).await?;
        Ok(App { id, name: name.to_owned(), settings, overrides, created_at })
    }

    /// Apps in the order they were made, after the one named.
    pub async fn apps(&self, after: &str, limit: usize) -> Result<Vec<App>> {
        let sql = "select id, name, overrides, created_at from apps where deleted_at is null and id > $1 order by id limit $2";
        let rows: Vec<AppRow> = self.db().fetch_all(sql, (after.to_owned(), limit as i64)).await?;
        rows.into_iter().map(App::try_from).collect()
    }

    /// One app.
    pub async fn app(&self, id: AppId) -> Result<Option<App>> {
        let sql = "select id, name, overrides, created_at from apps where deleted_at is null and id = $1";
        self.db().fetch_optional::<AppRow>(sql, (Word(id),)).await?.map(App::try_from).transpose()
    }

    /// An app's settings, defaults filled in.
    pub async fn settings(&self, id: AppId) -> Result<Option<Arc<Settings>>> {
        let sql = "select overrides from apps where deleted_at is null and id = $1";
        let found: Option<(String,)> = self.db().fetch_optional(sql, (Word(id),)).await?;
        Ok(found.map(|(overrides,)| self.inner.settings.get(id, &overrides)))
    }

    /// Replaces an app's name and settings.
    pub async fn update_app(&self, app: &App) -> Result<bool> {
        let sql = "update apps set name = $2, overrides = $3, confirm = $4 where id = $1 and deleted_at is null";
        let values = (Word(app.id), app.name.clone(), Json(app.overrides.clone()), Word(app.settings.confirm));
        Ok(self.db().execute(sql, values).await? > 0)
    }

    /// Ends an app at once; the janitor takes its rows away in chunks.
    pub async fn delete_app(&self, id: AppId) -> Result<bool> {
        let sql = "update apps set deleted_at = $2 where id = $1 and deleted_at is null";
        let deleted = self.db().execute(sql, (Word(id), self.inner.clock.now().as_ms())).await? > 0;
        self.ring();
        Ok(deleted)
    }

    /// Keeps a new key; only the hash of `secret` is stored.
    pub async fn create_key(
        &self,
        app: AppId,
        name: &str,
        scopes: Vec<Scope>,
        expires_at: Option<Timestamp>,
        secret: &str,
    ) -> Result<AppKey> {
        let created_at = self.inner.clock.now();
        let id = id::new(created_at);
        let sql = "insert into app_keys (app_id, id, name, secret_hash, scopes, created_at, expires_at)
                   values ($1, $2, $3, $4, $5, $6, $7)";
        let (hash, scope_list) = (secret::hash(secret), Json(scopes.clone()));
        let expires_ms = expires_at.map(Timestamp::as_ms);
        let values = (Word(app), Word(id), name.to_owned(), hash, scope_list, created_at.as_ms(), expires_ms);
        self.db().execute(sql, values).await?;
        Ok(AppKey { id, name: name.to_owned(), scopes, created_at, expires_at })
    }

    /// An app's keys in the order they were made, after the one named.
    pub async fn keys(&self, app: AppId, after: &str, limit: usize) -> Result<Vec<AppKey>> {
        let sql = "select id, name, scopes, created_at, expires_at from app_keys
                   where app_id = $1 and id > $2 order by id limit $3";
        let rows: Vec<KeyRow> = self.db().fetch_all(sql, (Word(app), after.to_owned(), limit as i64)).await?;
        Ok(rows.into_iter().map(AppKey::from).collect())
    }

    /// One key.
    pub async fn key(&self, app: AppId, key: KeyId) -> Result<Option<AppKey>> {
        let sql = "select id, name, scopes, created_at, expires_at from app_keys where app_id = $1 and id = $2";
        let row: Option<KeyRow> = self.db().fetch_optional(sql, (Word(app), Word(key))).await?;
        Ok(row.map(AppKey::from))
    }

    /// Ends a key.
    pub async fn delete_key(&self, app: AppId, key: KeyId) -> Result<bool> {
        let deleted = retry(|| self.try_delete_key(app, key)).await?;
        if deleted {
            self.ring();
        }
        Ok(deleted)
    }

    async fn try_delete_key(&self, app: AppId, key: KeyId) -> Result<bool> {
        let mut tx = self.db().begin().await?;
        live::changed(&mut tx, app, &[key.to_string()], self.inner.clock.now()).await?;
        let sql = "delete from app_keys where app_id = $1 and id = $2";
        if tx.execute(sql, (Word(app), Word(key))).await? == 0 {
            tx.leave().await?;
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Who holds this app key; `None` if nobody does, or it has expired.
    pub async fn key_holder(&self, secret: &str) -> Result<Option<KeyHolder>> {
        let sql = "select k.app_id, k.id, k.scopes from app_keys k join apps a on a.id = k.app_id
                   where k.secret_hash = $1 and a.deleted_at is null and (k.expires_at is null or k.expires_at > $2)";
        let values = (secret::hash(secret), self.inner.clock.now().as_ms());
        // What its holder is answered is read or written after this.
        type Row = (Word<AppId>, Word<KeyId>, Json<Vec<Scope>>);
        let row: Option<Row> = self.db().peek_optional(sql, values).await?;
        if row.is_none() {
            self.db().until_on_disk().await?;
        }
        Ok(row.map(|(app, key, scopes)| KeyHolder { app: app.0, key: key.0, scopes: scopes.0 }))
    }
}
