//! What a CertificateSigningRequest needs next. No I/O.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::{
    Authority, Order,
    request::{Asked, check_client_usages, not_after_seconds},
};
use crate::meta::elapsed;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

const HOUR: Duration = Duration::from_secs(60 * 60);

/// How long requests are kept that are issued, denied or failed.
const KEEP_SETTLED: Duration = HOUR;
/// How long requests are kept that nobody has said anything of.
const KEEP_PENDING: Duration = Duration::from_secs(24 * 60 * 60);

/// How long certificates last at most, kube-controller-manager's `--cluster-signing-duration`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long they last at least.
const SHORTEST: Duration = Duration::from_secs(10 * 60);

/// A permission that lets a request be approved without anybody looking at it: to create a subresource of
/// CertificateSigningRequests.
#[derive(Debug, PartialEq, Eq)]
pub struct Permission {
    /// The subresource.
    pub subresource: &'static str,
    /// What the approval says.
    pub message: &'static str,
}

/// Of a kubelet that asks for its own name.
pub static SELF_NODE_CLIENT: Permission = Permission {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
/// Of who may ask for any kubelet, above all with a bootstrap token.
pub static NODE_CLIENT: Permission = Permission {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// Who comes with a bootstrap token, or the server's.
const BOOTSTRAPPERS: &str = "system:bootstrappers";

/// Of whom there is to be only one: a node's name and the key that it joins with.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    /// The node's name.
    pub node: String,
    /// The SHA-256 of its public key.
    pub key_sha256: String,
}

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing for now.
    Wait,
    /// Nobody needs it any more.
    Delete,
    /// Approve it if who asks has one of these permissions, and where a name is claimed, has that.
    Review(Vec<&'static Permission>, Option<Claim>),
    /// Approve it, a node's own serving certificate, if none of these addresses is another node's.
    Serve(Vec<IpAddr>),
    /// The signer does not sign such.
    Fail(String),
    /// Sign it.
    Sign(Order),
}

/// Decides on a request, and says when it is to be looked at again.
pub fn decide(request: &CertificateSigningRequest, now: Timestamp) -> (Step, Option<Duration>) {
    let left = time_left(request, now);
    if left.is_some_and(|left| left.is_zero()) {
        return (Step::Delete, None);
    }
    (next(request), left)
}

fn next(request: &CertificateSigningRequest) -> Step {
    if is_issued(request) || has(request, "Denied") || has(request, "Failed") {
        return Step::Wait;
    }
    let signer = request.spec.signer_name.as_str();
    let is_approved = has(request, "Approved");
    let is_mine = matches!(signer, CLIENT | KUBELET_CLIENT | KUBELET_SERVING | LEGACY);
    if !is_mine || (!is_approved && !matches!(signer, KUBELET_CLIENT | KUBELET_SERVING)) {
        return Step::Wait;
    }
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    match Asked::read(&request.spec.request.0) {
        Ok(asked) if is_approved => order(request, asked),
        Ok(asked) if signer == KUBELET_SERVING => serve(request, asked, usages),
        Ok(asked) if asked.check_kubelet_client(usages).is_ok() => review(request, asked),
        Ok(_) => Step::Wait,
        Err(why) if is_approved => Step::Fail(why),
        Err(_) => Step::Wait,
    }
}

fn is_own(request: &CertificateSigningRequest, asked: &Asked) -> bool {
    request.spec.username.as_ref() == Some(&asked.common_name)
}

fn review(request: &CertificateSigningRequest, asked: Asked) -> Step {
    if is_own(request, &asked) {
        return Step::Review(vec![&SELF_NODE_CLIENT, &NODE_CLIENT], None);
    }
    let groups = request.spec.groups.as_deref().unwrap_or_default();
    let joins = groups.iter().any(|group| group == BOOTSTRAPPERS);
    let claim = joins.then(|| Claim { node: asked.node().to_owned(), key_sha256: asked.key_sha256 });
    Step::Review(vec![&NODE_CLIENT], claim)
}

/// Kubernetes leaves serving certificates for people to approve, since their names may be anybody's. Here a node gets
/// one for its own name and addresses.
fn serve(request: &CertificateSigningRequest, asked: Asked, usages: &[String]) -> Step {
    let own_name = asked.dns_names.iter().all(|name| name == asked.node());
    if asked.check_kubelet_serving(usages).is_ok() && is_own(request, &asked) && own_name {
        Step::Serve(asked.addresses)
    } else {
        Step::Wait
    }
}

fn order(request: &CertificateSigningRequest, asked: Asked) -> Step {
    let usages = request.spec.usages.clone().unwrap_or_default();
    let (authority, verdict) = match request.spec.signer_name.as_str() {
        CLIENT => (Authority::Client, check_client_usages(&usages)),
        KUBELET_CLIENT => (Authority::Client, asked.check_kubelet_client(&usages)),
        KUBELET_SERVING => (Authority::Node, asked.check_kubelet_serving(&usages)),
        // What it signs is not honoured by the API server, so that it is not for the authority of clients.
        _ => (Authority::Server, Ok(())),
    };
    match verdict {
        Ok(()) => Step::Sign(Order { authority, request_der: asked.der, usages, lifetime: lifetime(request) }),
        Err(why) => Step::Fail(why),
    }
}

fn lifetime(request: &CertificateSigningRequest) -> Duration {
    let asked = request.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    asked.map_or(LONGEST, |seconds| Duration::from_secs(seconds).clamp(SHORTEST, LONGEST))
}

/// How long a request is still kept; `None` for ever.
fn time_left(request: &CertificateSigningRequest, now: Timestamp) -> Option<Duration> {
    let until = |since: Option<Timestamp>, keep: Duration| since.map(|since| keep.saturating_sub(elapsed(since, now)));
    let updated = |condition: &CertificateSigningRequestCondition| condition.last_update_time.as_ref().map(|t| t.0);
    let conditions = || request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if conditions().next().is_none() {
        return until(request.metadata.creation_timestamp.as_ref().map(|time| time.0), KEEP_PENDING);
    }
    let settled = |condition: &&CertificateSigningRequestCondition| match condition.type_.as_str() {
        "Approved" => is_issued(request),
        kind => matches!(kind, "Denied" | "Failed"),
    };
    let kept = conditions().filter(settled).filter_map(|condition| until(updated(condition), KEEP_SETTLED)).min();
    let valid = certificate(request)
        .and_then(not_after_seconds)
        .map(|end| Duration::from_secs(u64::try_from(end.saturating_sub(now.as_second())).unwrap_or_default()));
    [kept, valid].into_iter().flatten().min()
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let bytes = &request.status.as_ref()?.certificate.as_ref()?.0;
    (!bytes.is_empty()).then_some(bytes.as_slice())
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    certificate(request).is_some()
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status != "False")
}
