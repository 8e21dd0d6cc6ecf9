//! TLS of a client: whom it trusts and who it is.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject};

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

/// The name of HTTP/2 in the TLS handshake.
pub(super) const HTTP2: &[u8] = b"h2";

/// The TLS configuration of a client that speaks one protocol.
pub fn client_config(server_ca: &str, identity: &Identity, protocol: &[u8]) -> Result<ClientConfig, SetupError> {
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
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// The TLS configuration of a client that takes any server.
pub(super) fn unverified_config() -> Result<Arc<ClientConfig>, SetupError> {
    let mut config = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(TlsTime))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer::default()))
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config))
}

/// Takes any certificate of a server, but only with its key.
#[derive(Debug)]
pub struct AnyServer(CryptoProvider);

impl Default for AnyServer {
    fn default() -> Self {
        Self(ring::default_provider())
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(what: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| SetupError::Pem { what, source })
}
