//! Asks the cluster for certificates, by CertificateSigningRequests as a kubelet does.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use skiff_api::status::ApiError;
use skiff_client::{Client, backoff};
use tokio::time::Instant;

use super::JoinError;

/// The first and the longest wait between two looks at a request.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How long a request may be unanswered before it is told what may be wrong.
const QUIET: Duration = Duration::from_secs(10);
/// How long it may be unanswered at all; then another is made.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a certificate is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To ask the API server as the node.
    Client,
    /// To serve the node's API at an address.
    Serving(IpAddr),
}

impl Purpose {
    fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving(_) => "kubernetes.io/kubelet-serving",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Client => "client auth",
            Self::Serving(_) => "server auth",
        }
    }
}

/// The request in PEM.
fn pem(key: &KeyPair, node: &str, purpose: Purpose) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    if let Purpose::Serving(address) = purpose {
        params.subject_alt_names.push(SanType::DnsName(node.try_into()?));
        if !address.is_loopback() {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
    }
    params.serialize_request(key)?.pem()
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Pending,
    Issued(String),
    Refused(String),
}

fn outcome(request: &CertificateSigningRequest) -> Outcome {
    let Some(status) = &request.status else { return Outcome::Pending };
    let refusal = status.conditions.iter().flatten().find(|one| matches!(one.type_.as_str(), "Denied" | "Failed"));
    if let Some(condition) = refusal {
        return Outcome::Refused(condition.message.clone().unwrap_or_default());
    }
    match status.certificate.as_ref().map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()) {
        Some(pem) if !pem.is_empty() => Outcome::Issued(pem),
        _ => Outcome::Pending,
    }
}

/// Asks for a certificate and waits for it.
pub(super) async fn certificate(
    client: &Client,
    key: &KeyPair,
    node: &str,
    purpose: Purpose,
) -> Result<String, JoinError> {
    let request = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("node-csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem(key, node, purpose).map_err(JoinError::Key)?.into_bytes()),
            signer_name: purpose.signer().to_owned(),
            usages: Some(vec!["digital signature".to_owned(), purpose.usage().to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let made = client.create(&request).await.map_err(JoinError::of)?;
    let name = made.metadata.name.unwrap_or_default();
    let (began, mut again, mut told) = (Instant::now(), backoff::Backoff::new(LOOK.0, LOOK.1), false);
    loop {
        tokio::time::sleep(again.next(backoff::random())).await;
        let request = client.get::<CertificateSigningRequest>("", &name).await.map_err(JoinError::of)?;
        match outcome(&request) {
            Outcome::Issued(pem) => return Ok(pem),
            Outcome::Refused(why) => return Err(JoinError::Denied(why)),
            Outcome::Pending if began.elapsed() > PATIENCE => {
                let message = format!("nobody has answered the certificate request {name}");
                return Err(JoinError::Away(ApiError::new(skiff_api::status::Reason::Timeout, message)));
            }
            Outcome::Pending if !told && began.elapsed() > QUIET => {
                tracing::warn!(
                    "the certificate request {name} waits to be approved: `kubectl certificate approve {name}`"
                );
                told = true;
            }
            Outcome::Pending => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_became_of_a_request() {
        let of = |status: Value| {
            outcome(
                &serde_json::from_value(json!({"spec": {"request": "", "signerName": ""}, "status": status})).unwrap(),
            )
        };
        assert_eq!(of(json!({})), Outcome::Pending);
        assert_eq!(of(json!({"conditions": [{"type": "Approved", "status": "True"}]})), Outcome::Pending);
        assert_eq!(
            of(json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="})),
            Outcome::Issued("x".to_owned())
        );
        let denied = json!({"conditions": [{"type": "Denied", "status": "True", "message": "taken"}]});
        assert_eq!(of(denied), Outcome::Refused("taken".to_owned()));
    }
}
