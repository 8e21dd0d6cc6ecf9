//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may have which certificates made.
//! Source: `plugin/pkg/admission/certificates` of Kubernetes 1.36.

use serde_json::Value;
use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write, node_restriction::subject};
use crate::authz::{Attributes, Target};

/// The API group.
const GROUP: &str = "certificates.k8s.io";

/// The signer of clients of the API server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Whether a write is an update of a part of a request.
fn is_update(write: &Write<'_>, subresource: &str) -> bool {
    write.operation == Operation::Update
        && write.subresource == subresource
        && write.is_on(GROUP, "certificatesigningrequests")
}

/// Whether the writer has a verb on a signer, by its name or by that of all signers of its domain.
fn may(world: &dyn World, write: &Write<'_>, verb: &str, signer: &str) -> bool {
    let all = signer.split_once('/').map(|(domain, _)| format!("{domain}/*")).unwrap_or_default();
    [signer, all.as_str()].into_iter().filter(|name| !name.is_empty()).any(|name| {
        let target = Target::Resource { group: GROUP, resource: "signers", subresource: "", namespace: "", name };
        world.allows(Attributes { user: write.user, verb, target, fields: "" })
    })
}

fn signer(request: &Object) -> &str {
    request.str_at(&["spec", "signerName"]).unwrap_or_default()
}

/// Refuses an approval by who may not approve for the signer.
pub(super) fn approval(world: &dyn World, write: &Write<'_>, request: &Object) -> Result<(), ApiError> {
    let signer = signer(write.old.unwrap_or(request));
    if !is_update(write, "approval") || may(world, write, "approve", signer) {
        return Ok(());
    }
    Err(write.forbidden(format!("user not permitted to approve requests with signerName {signer:?}")))
}

/// Refuses a certificate by who may not sign for the signer.
pub(super) fn signing(world: &dyn World, write: &Write<'_>, request: &Object) -> Result<(), ApiError> {
    let signer = signer(write.old.unwrap_or(request));
    let certificate =
        |of: &Object| of.at(&["status", "certificate"]).cloned().filter(|value| *value != Value::from(""));
    let failed = |of: &Object| {
        let conditions = of.at(&["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
        conditions.filter(|condition| condition["type"] == "Failed").cloned().collect::<Vec<_>>()
    };
    let touches =
        write.old.is_some_and(|old| certificate(old) != certificate(request) || failed(old) != failed(request));
    if !is_update(write, "status") || !touches || may(world, write, "sign", signer) {
        return Ok(());
    }
    Err(write.forbidden(format!("user not permitted to sign requests with signerName {signer:?}")))
}

/// Refuses requests for certificates of those who may do all.
pub(super) fn restrict_subject(_: &dyn World, write: &Write<'_>, request: &Object) -> Result<(), ApiError> {
    if !write.is(Operation::Create, GROUP, "certificatesigningrequests") || signer(request) != CLIENT_SIGNER {
        return Ok(());
    }
    let masters = crate::authz::MASTERS;
    let asks = subject(request).is_some_and(|subject| subject.organizations.iter().any(|one| one == masters));
    if !asks {
        return Ok(());
    }
    Err(write.forbidden(format!("use of {CLIENT_SIGNER} signer with {masters} group is not allowed")))
}
