//! Client certificates: CN is the user, each O a group.
//!
//! The TLS handshake proves that the client holds its certificate's key, and no more: whether the certificate is
//! good is decided once a connection, against the CAs of that moment. So a client with a bad certificate is told
//! 401 in words rather than a TLS alert, a resumed session does not outlive a CA, and, as in Kubernetes, a bad
//! certificate does no harm to a request that has a good token.

use std::{sync::Arc, time::Duration};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use skiff_api::user::UserInfo;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::AUTHENTICATED;

/// What a connection's certificate says.
#[derive(Clone, Debug, Default)]
pub enum PeerIdentity {
    /// There was none.
    #[default]
    None,
    /// It is not valid, or names nobody.
    Invalid,
    /// It is valid.
    User(Certified),
}

/// The user of a valid certificate.
#[derive(Clone, Debug)]
pub struct Certified {
    user: Arc<UserInfo>,
    /// When the certificate ends: connections may live longer.
    not_after: UnixTime,
}

impl Certified {
    /// The user, unless the certificate has ended in the meantime.
    pub fn user_now(&self) -> Option<Arc<UserInfo>> {
        (skiff_client::clock::unix_now() <= self.not_after).then(|| Arc::clone(&self.user))
    }
}

/// Whom the certificates that a client presented name.
pub fn identity(
    chain: Option<&[CertificateDer<'_>]>,
    verifier: &dyn ClientCertVerifier,
    now: UnixTime,
) -> PeerIdentity {
    let Some((end_entity, intermediates)) = chain.and_then(<[_]>::split_first) else { return PeerIdentity::None };
    if let Err(error) = verifier.verify_client_cert(end_entity, intermediates, now) {
        tracing::debug!(%error, "a client certificate is not valid");
        return PeerIdentity::Invalid;
    }
    match X509Certificate::from_der(end_entity) {
        Ok((_, certificate)) => certified(&certificate),
        Err(_) => PeerIdentity::Invalid,
    }
}

fn certified(certificate: &X509Certificate<'_>) -> PeerIdentity {
    let subject = certificate.subject();
    let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
    if name.is_empty() {
        return PeerIdentity::Invalid;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    PeerIdentity::User(Certified {
        user: Arc::new(UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }),
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(ends)),
    })
}

/// Asks for a certificate, checks that the client holds its key, and leaves the rest to [`identity`].
#[derive(Debug)]
pub struct AnyCertificate(pub Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
