//! The server's side of TLS: its certificate and the CAs of its clients, replaced while it runs.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{
    RootCertStore, ServerConfig,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::authn::x509::AnyCertificate;

/// The serving certificate or the client CAs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or its key.
    #[error("the serving certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// A client CA.
    #[error("a client CA's certificate cannot be used")]
    ClientCa(#[source] rustls::Error),
    /// The client CAs together.
    #[error("the client CAs cannot be used")]
    ClientCas(#[source] VerifierBuilderError),
}

/// What the server shows and whom it trusts.
pub struct TlsMaterial {
    /// The serving certificate, then its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// The CAs whose client certificates name users; none: nobody is asked for a certificate.
    pub client_cas: Vec<CertificateDer<'static>>,
}

/// What a connection is accepted with.
#[derive(Clone)]
pub struct Acceptance {
    /// rustls' configuration.
    pub config: Arc<ServerConfig>,
    /// Decides on client certificates; `None` where there is no client CA.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// The TLS set-up of the moment. New connections get the newest.
pub struct ServingTls {
    current: RwLock<Acceptance>,
}

impl ServingTls {
    /// From certificates.
    pub fn new(material: TlsMaterial) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { current: RwLock::new(acceptance(material)?) }))
    }

    /// Uses other certificates from now on; nothing changes where they cannot be used.
    pub fn replace(&self, material: TlsMaterial) -> Result<(), TlsError> {
        let next = acceptance(material)?;
        *self.current.write() = next;
        Ok(())
    }

    /// What the next connection is accepted with.
    pub fn current(&self) -> Acceptance {
        self.current.read().clone()
    }
}

fn acceptance(material: TlsMaterial) -> Result<Acceptance, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in material.client_cas {
        roots.add(ca).map_err(TlsError::ClientCa)?;
    }
    let verifier = match roots.is_empty() {
        true => None,
        false => Some(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(TlsError::ClientCas)?,
        ),
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Certificate)?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(AnyCertificate(Arc::clone(verifier)))),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(material.chain, material.key).map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Acceptance { config: Arc::new(config), verifier })
}
