//! TLS of a client: whom it trusts and who it is.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

use crate::clock::TlsTime;

/// Who a client is.
#[derive(Clone)]
pub enum Identity {
    /// A client certificate and its key, as PEM.
    Certificate {
        /// The certificate, with what lies between it and the CA.
        certificate: String,
        /// Its key.
        key: String,
    },
    /// A bearer token.
    Token(String),
    /// Nobody: `system:anonymous`.
    Anonymous,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Certificate { .. } => "Certificate(..)",
            Self::Token(_) => "Token(..)",
            Self::Anonymous => "Anonymous",
        })
    }
}

/// Why a transport cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The server's URL is none, or not `https`.
    #[error("{0:?} is not the URL of an API server, such as https://10.0.0.1:6443")]
    Url(String),
    /// What should be PEM is not.
    #[error("cannot read the {what} as PEM")]
    Pem {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate in the PEM of the CA.
    #[error("there is no certificate of a CA to verify the server with")]
    NoCa,
    /// The parts are no good for TLS.
    #[error("cannot use the certificates for TLS")]
    Tls(#[from] rustls::Error),
    /// The token is no header value.
    #[error("the token has characters that a header cannot carry")]
    Token,
}

/// The TLS configuration of a client.
pub(super) fn client_config(server_ca: &str, identity: &Identity) -> Result<Arc<ClientConfig>, SetupError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("server's CA", server_ca)? {
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(SetupError::NoCa);
    }
    let builder = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(TlsTime))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        Identity::Certificate { certificate, key } => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|source| SetupError::Pem { what: "client's key", source })?;
            builder.with_client_auth_cert(certificates("client's certificate", certificate)?, key)?
        }
        Identity::Token(_) | Identity::Anonymous => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| SetupError::Pem { what, source })
}
