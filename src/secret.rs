//! Secrets: what is derived from the master key, how secrets are sealed, hashed, signed and shown.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand::Rng;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const NONCE_BYTES: usize = 24;
/// A truncated HMAC-SHA-256: 128 bits, the least that RFC 2104 §5 advises.
const TAG_BYTES: usize = 16;

/// The keys that are derived from the master key, one per purpose (HKDF-SHA-256, RFC 5869).
#[derive(Clone)]
pub struct Secrets {
    sign: [u8; 32],
    seal: [u8; 32],
    user: [u8; 32],
    check: [u8; 32],
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(***)")
    }
}

impl Secrets {
    /// Derives all keys from the master key.
    pub fn derive(master: &SecretBox<[u8; 32]>) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, master.expose_secret());
        let key = |purpose: &str| {
            let mut key = [0; 32];
            #[expect(clippy::expect_used, reason = "HKDF fails only beyond 255 blocks; this is one")]
            hkdf.expand(purpose.as_bytes(), &mut key).expect("one block");
            key
        };
        Self {
            sign: key("reveille/1/sign"),
            seal: key("reveille/1/seal"),
            user: key("reveille/1/user"),
            check: key("reveille/1/check"),
        }
    }

    /// A value that tells whether two databases were made under the same master key, and nothing about the key.
    pub fn key_check(&self) -> String {
        hex(&self.check[..16])
    }

    /// Signs `payload` for `scope` as an opaque text; anyone may read it, nobody can make or move it.
    pub fn sign(&self, scope: &str, payload: &[u8]) -> String {
        let mut bytes = payload.to_vec();
        bytes.extend_from_slice(&mac(&self.sign, scope, payload)[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The payload of a text that [`Secrets::sign`] made for `scope`; `None` for anything else.
    pub fn verify(&self, scope: &str, text: &str) -> Option<Vec<u8>> {
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let tag = bytes.split_off(bytes.len().checked_sub(TAG_BYTES)?);
        let good = mac(&self.sign, scope, &bytes)[..TAG_BYTES].ct_eq(&tag);
        bool::from(good).then_some(bytes)
    }

    /// Encrypts `plain` (XChaCha20-Poly1305), bound to the row that `place` names.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let cipher = XChaCha20Poly1305::new(&self.seal.into());
        let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: place.as_bytes() }).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what [`Secrets::seal`] made for the same `place`; `None` for anything else.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Option<SecretBox<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let cipher = XChaCha20Poly1305::new(&self.seal.into());
        let plain = cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: place.as_bytes() }).ok()?;
        Some(SecretBox::new(Box::new(plain)))
    }

    /// The `for` of a push: eight hex digits that tell a user's pushes from another's (contract §6).
    pub fn user_tag(&self, app: &str, user: &str) -> String {
        hex(&mac(&self.user, app, user.as_bytes())[..4])
    }
}

fn mac(key: &[u8; 32], scope: &str, payload: &[u8]) -> [u8; 32] {
    // HMAC pads a short key with zeros to the hash's block (RFC 2104 §2); doing it here leaves nothing that can fail.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(&(scope.len() as u64).to_be_bytes());
    mac.update(scope.as_bytes());
    mac.update(payload);
    mac.finalize().into_bytes().into()
}

/// A fresh secret of 256 bits behind `prefix`, such as `rk_`.
pub fn generate(prefix: &str) -> SecretString {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)).into()
}

/// How a secret is stored: SHA-256 in hex. The secrets are 256 random bits, so a slow hash would add nothing.
pub fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// The first 128 bits of a [`hash`].
pub fn start_of(hash: &str) -> u128 {
    hash.get(..32).and_then(|digits| u128::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// The first 64 bits of a text's SHA-256.
pub fn short_hash(text: &str) -> u64 {
    Sha256::digest(text.as_bytes()).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// SHA-256 in hex over several parts, each told from the next.
pub fn hash_all(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    hex(&digest.finalize())
}

/// Whether two secrets are equal, in constant time.
pub fn same(a: &str, b: &str) -> bool {
    Sha256::digest(a.as_bytes()).ct_eq(&Sha256::digest(b.as_bytes())).into()
}

/// What may be shown of a push token or key: the first 12 hex digits of its SHA-256.
pub fn fingerprint(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes())[..6])
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(byte: u8) -> Secrets {
        Secrets::derive(&SecretBox::new(Box::new([byte; 32])))
    }

    #[test]
    fn what_is_signed_stays_with_its_scope_and_key() {
        let text = secrets(1).sign("sync:dev_1", b"payload");
        assert_eq!(secrets(1).verify("sync:dev_1", &text).unwrap(), b"payload");
        assert!(secrets(1).verify("sync:dev_2", &text).is_none());
        assert!(secrets(2).verify("sync:dev_1", &text).is_none());
        assert!(secrets(1).verify("sync:dev_1", &text[1..]).is_none());
        assert!(secrets(1).verify("sync:dev_1", "").is_none());
    }

    #[test]
    fn what_is_sealed_opens_in_its_own_row_only() {
        let sealed = secrets(1).seal("app_1/fcm/default", b"key").unwrap();
        assert_eq!(secrets(1).open("app_1/fcm/default", &sealed).unwrap().expose_secret(), b"key");
        assert!(secrets(1).open("app_2/fcm/default", &sealed).is_none());
        assert!(secrets(2).open("app_1/fcm/default", &sealed).is_none());
        assert!(secrets(1).open("app_1/fcm/default", &sealed[..10]).is_none());
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", secrets(7)), "Secrets(***)");
        assert_eq!(fingerprint("token").len(), 12);
    }
}
