//! Provider credentials: sealed, bound to their row, and never shown.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret;

use super::{
    Error, Result, Store,
    db::{Json, Word, row, rows},
    follows,
    levels::{self, reached},
};
use crate::{
    domain::{
        credential::{AnyTokenUri, Credential, CredentialScope},
        device::Transport,
        id::{AppId, DeviceId},
        limits,
        time::Timestamp,
    },
    secret,
};

/// What may be shown of a stored credential.
#[derive(Debug, Clone)]
pub struct CredentialInfo {
    /// The provider.
    pub transport: Transport,
    /// `default`, or what the path said.
    pub name: String,
    /// Goes up with every replacement.
    pub version: i64,
    /// Whose it is and what it serves.
    pub scope: CredentialScope,
    /// Of the private key.
    pub fingerprint: String,
    /// When this name was first used.
    pub created_at: Timestamp,
    /// When it was last replaced.
    pub updated_at: Timestamp,
}

row! {
    struct InfoRow {
        transport: Word<Transport>,
        name: String,
        version: i64,
        scope: Json<CredentialScope>,
        fingerprint: String,
        created_at: i64,
        updated_at: i64,
    }
}

impl From<InfoRow> for CredentialInfo {
    fn from(row: InfoRow) -> Self {
        Self {
            transport: row.transport.0,
            name: row.name,
            version: row.version,
            scope: row.scope.0,
            fingerprint: row.fingerprint,
            created_at: Timestamp::from_ms(row.created_at),
            updated_at: Timestamp::from_ms(row.updated_at),
        }
    }
}

/// What came of storing a credential.
#[derive(Debug, Clone)]
pub enum PutCredential {
    /// It is stored.
    Stored {
        /// What may be shown of it.
        info: CredentialInfo,
        /// Whether the name was free before.
        created: bool,
    },
    /// Another one serves some of the same devices.
    Overlaps {
        /// The other's name.
        name: String,
        /// What both would serve.
        what: String,
    },
    /// The app has as many as it may have.
    TooMany,
}

fn place(app: AppId, transport: Transport, name: &str) -> String {
    format!("credential/{app}/{transport}/{name}")
}

/// Devices whose wakes one transaction brings forward.
const HURRIED: i64 = 500;

const SELECT_INFO: &str = "select transport, name, version, scope, fingerprint, created_at, updated_at from credentials
                           where app_id = $1 order by transport, name";

impl Store {
    /// Stores or replaces a credential; `json` is the document it was read from.
    pub async fn put_credential(
        &self,
        app: AppId,
        name: &str,
        credential: &Credential,
        json: &[u8],
    ) -> Result<PutCredential> {
        let (transport, scope, now) = (credential.transport(), credential.scope(), self.inner.clock.now());
        let fingerprint = match credential {
            Credential::Apns(apns) => secret::fingerprint(apns.private_key.expose_secret()),
            Credential::Fcm(fcm) => secret::fingerprint(fcm.private_key.expose_secret()),
        };
        let sealed = self.inner.secrets.seal(&place(app, transport, name), json);
        let sealed = STANDARD.encode(sealed.ok_or_else(|| Error::Corrupt("a credential cannot be sealed".into()))?);
        let mut tx = self.db().begin().await?;
        // Of two that come at once, each sees the other.
        follows::counter(&mut tx, app).await?;
        let others: Vec<InfoRow> = tx.fetch_all(SELECT_INFO, (Word(app),)).await?;
        let mut others: Vec<CredentialInfo> = others.into_iter().map(CredentialInfo::from).collect();
        let previous = others.iter().position(|other| other.transport == transport && other.name == name);
        let previous = previous.map(|index| others.swap_remove(index));
        if let Some((name, what)) =
            others.iter().find_map(|other| Some((other.name.clone(), scope.overlap(&other.scope)?)))
        {
            tx.leave().await?;
            return Ok(PutCredential::Overlaps { name, what });
        }
        if others.len() >= limits::CREDENTIALS {
            tx.leave().await?;
            return Ok(PutCredential::TooMany);
        }
        // The time is part of the version: a name that was deleted and put again is another credential.
        let version = previous.as_ref().map_or(0, |previous| previous.version).max(now.as_ms()) + 1;
        let created_at = previous.as_ref().map_or(now, |previous| previous.created_at);
        let sql = "insert into credentials (app_id, transport, name, version, scope, fingerprint, sealed, created_at, updated_at)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                   on conflict (app_id, transport, name) do update set version = excluded.version, scope = excluded.scope,
                     fingerprint = excluded.fingerprint, sealed = excluded.sealed, updated_at = excluded.updated_at";
        let (app, transport_word) = (Word(app), Word(transport));
        let (scope_json, print) = (Json(scope.clone()), fingerprint.clone());
        let values =
            (app, transport_word, name.to_owned(), version, scope_json, print, sealed, created_at.as_ms(), now.as_ms());
        tx.execute(sql, values).await?;
        tx.commit().await?;
        // On a task of its own: whoever asked may hang up, and what waits must not be left half hurried.
        let (store, app) = (self.clone(), app.0);
        let hurried = self.inner.tasks.spawn(async move { store.hurry_waiting(app, transport).await });
        hurried.await.map_err(|_| Error::Busy)??;
        let info = CredentialInfo {
            transport,
            name: name.to_owned(),
            version,
            scope,
            fingerprint,
            created_at,
            updated_at: now,
        };
        Ok(PutCredential::Stored { info, created: previous.is_none() })
    }

    /// Wakes that wait for their repetition need not wait for the old credential's pause, and those that no credential served are due
    /// again: they go with the new one. A quarantined device keeps its day of rest.
    async fn hurry_waiting(&self, app: AppId, transport: Transport) -> Result<()> {
        let of_transport =
            "select id from devices where app_id = $1 and transport = $2 and status <> 'gone' and id > $3
                            order by id limit $4";
        let sql = concat!(
            "update levels set due_at = $2
             from jsonb_each($3) r cross join devices d cross join apps a
             where d.app_id = $1 and d.id = r.atom and a.id = d.app_id
               and levels.app_id = d.app_id and levels.device_id = d.id
               and levels.lease is null and levels.expires_at > $2
               and (levels.head > ",
            reached!(),
            " or levels.told < levels.sticky_head)
               and (levels.due_at is null
                          or (levels.due_at > $2 and d.status <> 'quarantined'
                              and (levels.wake_id is not null or levels.waits_for = 'provider_down')))"
        );
        let mut last = String::new();
        loop {
            let values = (Word(app), Word(transport), last.clone(), HURRIED);
            let devices: Vec<(Word<DeviceId>,)> = self.db().fetch_all(of_transport, values).await?;
            let Some((newest,)) = devices.last() else {
                return Ok(());
            };
            last = newest.0.to_string();
            let devices: Vec<DeviceId> = devices.into_iter().map(|(id,)| id.0).collect();
            let now = self.inner.clock.now().as_ms();
            let mut tx = self.db().begin().await?;
            levels::hold(&mut tx, devices.iter().map(|device| (app, *device))).await?;
            tx.execute(sql, (Word(app), now, rows(&devices)?)).await?;
            tx.commit().await?;
            self.ring();
        }
    }

    /// What may be shown of an app's credentials.
    pub async fn credentials(&self, app: AppId) -> Result<Vec<CredentialInfo>> {
        let rows: Vec<InfoRow> = self.db().fetch_all(SELECT_INFO, (Word(app),)).await?;
        Ok(rows.into_iter().map(CredentialInfo::from).collect())
    }

    /// Takes a credential away.
    pub async fn delete_credential(&self, app: AppId, transport: Transport, name: &str) -> Result<bool> {
        let sql = "delete from credentials where app_id = $1 and transport = $2 and name = $3";
        Ok(self.db().execute(sql, (Word(app), Word(transport), name.to_owned())).await? > 0)
    }

    /// Opens the credential, if it is still there in this version.
    pub async fn open_credential(
        &self,
        app: AppId,
        transport: Transport,
        name: &str,
        version: i64,
    ) -> Result<Option<Credential>> {
        let sql = "select sealed from credentials where app_id = $1 and transport = $2 and name = $3 and version = $4";
        let values = (Word(app), Word(transport), name.to_owned(), version);
        let Some((sealed,)) = self.db().fetch_optional::<(String,)>(sql, values).await? else {
            return Ok(None);
        };
        let unreadable = || Error::Corrupt(format!("{} cannot be opened", place(app, transport, name)));
        let sealed = STANDARD.decode(sealed).map_err(|_| unreadable())?;
        let json = self.inner.secrets.open(&place(app, transport, name), &sealed).ok_or_else(unreadable)?;
        // Which token endpoint is allowed was decided when it was put.
        let credential = Credential::parse(transport, json.expose_secret(), AnyTokenUri::Yes);
        Ok(Some(credential.map_err(|_| unreadable())?))
    }
}
