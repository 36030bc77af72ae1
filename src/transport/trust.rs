//! Whom we trust: the public roots, and one more authority if the operator says so.

use std::sync::Arc;

use anyhow::Context;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

/// A TLS client that trusts Mozilla's roots and the certificates in `extra_pem`.
///
/// # Errors
/// What is given is no PEM, or no certificate of an authority.
pub fn client_config(extra_pem: Option<&[u8]>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(pem) = extra_pem {
        let mut found = 0_usize;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.context("the extra CA is not PEM")?;
            roots.add(certificate).context("the extra CA is not a certificate authority")?;
            found += 1;
        }
        anyhow::ensure!(found > 0, "the extra CA holds no certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
