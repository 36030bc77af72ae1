//! Device tokens: what a phone shows when it polls. A new one does not end the others until it has arrived (contract §4).

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{
    Result, Store,
    db::{Tx, Word},
    devices::{Device, DeviceRow, select_devices},
    levels,
};
use crate::{
    domain::{
        id::{AppId, DeviceId},
        limits,
        time::Timestamp,
    },
    secret,
};

/// An older token ends so long after a newer one is first used …
const AFTER_FIRST_USE: Duration = Duration::from_secs(5 * 60);
/// … and at the latest so long after a newer one was issued.
const AFTER_NEWER: Duration = Duration::from_secs(30 * 86_400);

impl Store {
    /// Whose device token this is; `None` if nobody's, or it has ended. The first use of a token begins the end of older ones.
    pub async fn device_holder(&self, secret: &str) -> Result<Option<Device>> {
        let (hash, now) = (secret::hash(secret), self.inner.clock.now());
        let sql = "select t.used_at, t.created_at from device_tokens t join apps a on a.id = t.app_id
                   where t.secret_hash = $1 and a.deleted_at is null and (t.expires_at is null or t.expires_at > $2)";
        let token: Option<(Option<i64>, i64)> = self.db().fetch_optional(sql, (hash.clone(), now.as_ms())).await?;
        let Some((used_at, issued_at)) = token else {
            return Ok(None);
        };
        let sql = select_devices!(
            "join device_tokens t on t.app_id = d.app_id and t.device_id = d.id where t.secret_hash = $1"
        );
        let row: Option<DeviceRow> = self.db().fetch_optional(sql, (hash.clone(),)).await?;
        let Some(device) = row.map(Device::from) else {
            return Ok(None);
        };
        if used_at.is_none() {
            self.first_use(device.app, device.id, &hash, issued_at, now).await?;
        }
        Ok(Some(device))
    }

    /// A token has arrived where it was sent to.
    pub(super) async fn first_use(
        &self,
        app: AppId,
        device: DeviceId,
        hash: &str,
        issued_at: i64,
        now: Timestamp,
    ) -> Result<()> {
        let mut tx = self.db().begin().await?;
        levels::hold(&mut tx, [(app, device)]).await?;
        let sql = "update device_tokens set used_at = $2 where secret_hash = $1";
        tx.execute(sql, (hash.to_owned(), now.as_ms())).await?;
        let sql = "update device_tokens set expires_at = $4
                   where app_id = $1 and device_id = $2 and created_at < $3 and (expires_at is null or expires_at > $4)";
        let ends_at = (now + AFTER_FIRST_USE).as_ms();
        tx.execute(sql, (Word(app), Word(device), issued_at, ends_at)).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Issues a token; older ones stay, but not too many and not for ever. Answers whether any had to go.
pub(super) async fn issue(tx: &mut Tx, device: &Device, secret: &SecretString, now: Timestamp) -> Result<bool> {
    let (app, id) = (Word(device.app), Word(device.id));
    let sql = "update device_tokens set expires_at = $3
               where app_id = $1 and device_id = $2 and (expires_at is null or expires_at > $3)";
    tx.execute(sql, (app, id, (now + AFTER_NEWER).as_ms())).await?;
    let sql = "delete from device_tokens where app_id = $1 and device_id = $2 and secret_hash not in (
                 select secret_hash from device_tokens where app_id = $1 and device_id = $2
                 order by created_at desc limit $3)";
    let ended = tx.execute(sql, (app, id, limits::OLDER_DEVICE_TOKENS as i64)).await? > 0;
    // Two registrations within a millisecond keep their order.
    let sql = "insert into device_tokens (secret_hash, app_id, device_id, created_at)
               select $1, $2, $3, max(created_at) from
                 (select $4 as created_at union all
                  select created_at + 1 from device_tokens where app_id = $2 and device_id = $3) as times";
    tx.execute(sql, (secret::hash(secret.expose_secret()), app, id, now.as_ms())).await?;
    Ok(ended)
}

/// Ends all tokens of a device but the one just issued.
pub(super) async fn end_all_but(tx: &mut Tx, device: &Device, secret: Option<&SecretString>) -> Result<()> {
    let sql = "delete from device_tokens where app_id = $1 and device_id = $2 and secret_hash <> $3";
    let keep = secret.map(|secret| secret::hash(secret.expose_secret())).unwrap_or_default();
    tx.execute(sql, (Word(device.app), Word(device.id), keep)).await?;
    Ok(())
}
