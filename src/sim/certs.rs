//! What the simulators are known by: their own CA, a server certificate, and the keys their clients must sign with.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Names and days of the certificates; nobody else signs with this CA, and it is in no trust store.
const CA_NAME: &str = "Reveille simulator CA";

/// The Apple team that owns the simulated signing key (10 characters, as Apple's).
pub const TEAM_ID: &str = "SIMTEAM001";

/// Everything secret and public that identifies one simulator.
pub struct Identity {
    pub(super) ca_pem: String,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) server_key: PrivateKeyDer<'static>,
    pub(super) apns_key: SigningKey,
    pub(super) google_key: SigningKey,
}

/// A private key as the provider's console would hand it out, and the public half the simulator checks signatures with.
#[derive(Clone)]
pub(super) struct SigningKey {
    pub key_id: String,
    pub private_pem: String,
    pub public_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("apns_key_id", &self.apns_key.key_id).finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes a CA, a server certificate for `localhost`, the loopback addresses and `extra_names`, and a fresh P-256 key for
    /// APNs. The RSA key of the service account is made once per process, because making one takes long.
    ///
    /// # Errors
    /// When a name is no valid DNS name, or the cryptography library refuses.
    pub fn generate(extra_names: &[String]) -> anyhow::Result<Self> {
        let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, CA_NAME);
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_cert = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let server_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
        names.extend_from_slice(extra_names);
        let mut server = CertificateParams::new(names).context("a name for the simulator's certificate is invalid")?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.use_authority_key_identifier_extension = true;
        let server_cert = server.signed_by(&server_key, &issuer)?;

        let apns = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self {
            ca_pem: ca_cert.pem(),
            chain: vec![server_cert.der().clone()],
            server_key: PrivatePkcs8KeyDer::from(server_key.serialize_der()).into(),
            apns_key: SigningKey::of(&apns, key_id(&apns, 10).to_uppercase()),
            google_key: google_key()?,
        })
    }

    /// The server side of TLS with this identity, offering `alpn` in that order.
    ///
    /// # Errors
    /// When rustls refuses the certificate.
    pub(super) fn tls(&self, alpn: &[&[u8]]) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.server_key.clone_key())?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl SigningKey {
    fn of(pair: &KeyPair, key_id: String) -> Self {
        Self { key_id, private_pem: pair.serialize_pem(), public_pem: pair.public_key_pem() }
    }
}

fn google_key() -> anyhow::Result<SigningKey> {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key.clone());
    }
    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let id = key_id(&pair, 40);
    Ok(KEY.get_or_init(|| SigningKey::of(&pair, id)).clone())
}

/// The first `digits` hex digits of the hash of the public key: the same key always has the same id.
fn key_id(pair: &KeyPair, digits: usize) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(pair.public_key_raw());
    hash.iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .take(digits)
        .filter_map(|d| char::from_digit(u32::from(d), 16))
        .collect()
}
