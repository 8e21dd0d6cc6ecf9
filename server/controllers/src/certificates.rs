//! CertificateSigningRequests: kubelets' own are approved, what is approved is signed, what is old is deleted.
//! [`names`]: whose a node's name is.
//!
//! Who signs is behind [`Signer`]: the control plane's own authorities. The signers are Kubernetes' four:
//! `kubernetes.io/kube-apiserver-client`, `kubernetes.io/kube-apiserver-client-kubelet`,
//! `kubernetes.io/kubelet-serving` and `kubernetes.io/legacy-unknown`. Requests to other signers are left to them.

pub mod decide;
pub mod names;
pub mod request;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use skiff_api::status::ApiError;
use skiff_client::{Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{name, uid},
    pods::delete_options,
};
use decide::{Claim, Permission, Step, decide};

/// The controller's identity.
pub const NAME: &str = "certificate-controller";

/// Requests worked on at once.
const WORKERS: usize = 2;

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The authority that clients of the API server are known by.
    Client,
    /// The authority of the kubelets' HTTPS API.
    Node,
    /// The authority of other servers.
    Server,
}

/// What is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// By whom.
    pub authority: Authority,
    /// The request, PKCS #10 in DER; its own signature has been verified.
    pub request_der: Vec<u8>,
    /// What the key may be used for, in the words of the API (`digital signature`, `client auth`...).
    pub usages: Vec<String>,
    /// For how long.
    pub lifetime: Duration,
}

/// Signs certificates.
pub trait Signer: Send + Sync + 'static {
    /// The certificate as PEM, or why there is none.
    fn sign(&self, order: &Order) -> Result<String, String>;
}

struct Requests {
    context: Context,
    requests: Arc<Informer<CertificateSigningRequest>>,
    nodes: Arc<Informer<Node>>,
    signer: Arc<dyn Signer>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context, signer: Arc<dyn Signer>) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let nodes = context.informers.of::<Node>();
    let cancel = context.cancel.clone();
    let controller = Requests { context, requests: Arc::clone(&requests), nodes, signer };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&requests, |request| vec![Key::of(request)])
        .run(WORKERS)
        .await;
}

#[async_trait]
impl Controller for Requests {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(request) = self.requests.get("", &key.name) else { return Ok(None) };
        let (step, again) = decide(&request, Timestamp::now());
        match step {
            Step::Wait => {}
            Step::Delete => self.delete(&request).await?,
            Step::Review(permissions, claim) => self.review(&request, &permissions, claim.as_ref()).await?,
            Step::Serve(addresses) => self.serve(&request, &addresses).await?,
            Step::Fail(message) => self.fail(&request, "SignerValidationFailure", message).await?,
            Step::Sign(order) => self.sign(&request, &order).await?,
        }
        Ok(again)
    }
}

impl Requests {
    async fn delete(&self, request: &CertificateSigningRequest) -> Result<(), ApiError> {
        let options = delete_options(uid(&request.metadata));
        let deleted = self.context.client.delete::<CertificateSigningRequest>("", name(&request.metadata), &options);
        match deleted.await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Approves if who asks has one of the permissions; denies where the name that is claimed is another's.
    async fn review(
        &self,
        request: &CertificateSigningRequest,
        permissions: &[&'static Permission],
        claim: Option<&Claim>,
    ) -> Result<(), ApiError> {
        for permission in permissions {
            let review = self.context.client.create(&access_review(request, permission)).await?;
            if !review.status.is_some_and(|status| status.allowed) {
                continue;
            }
            if let Some(Claim { node, key_sha256 }) = claim
                && !names::claim(&self.context.client, node, key_sha256).await?
            {
                return self.judge(request, condition("Denied", "NodeNameTaken", name_taken(node))).await;
            }
            return self.judge(request, condition("Approved", "AutoApproved", permission.message.to_owned())).await;
        }
        Ok(())
    }

    /// Approves a node's own serving certificate, unless it is for an address of another node.
    async fn serve(&self, request: &CertificateSigningRequest, addresses: &[IpAddr]) -> Result<(), ApiError> {
        self.nodes.synced().await;
        let own = request.spec.username.as_deref().and_then(|user| user.strip_prefix("system:node:"));
        let others = self.nodes.list();
        let mut others = others.iter().filter(|node| node.metadata.name.as_deref() != own);
        let has = |node: &Node| addresses.iter().any(|address| addresses_of(node).any(|one| one == *address));
        if others.any(|node| has(node)) {
            return Ok(());
        }
        let message = "Auto approving self kubelet serving certificate: its names are the node's own.".to_owned();
        self.judge(request, condition("Approved", "AutoApproved", message)).await
    }

    /// Approves or denies.
    async fn judge(
        &self,
        request: &CertificateSigningRequest,
        condition: CertificateSigningRequestCondition,
    ) -> Result<(), ApiError> {
        let mut judged = request.clone();
        judged.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        self.requests.observe(self.context.client.update_subresource(&judged, Some("approval")).await?);
        Ok(())
    }

    async fn sign(&self, request: &CertificateSigningRequest, order: &Order) -> Result<(), ApiError> {
        match self.signer.sign(order) {
            Ok(pem) => {
                let mut signed = request.clone();
                signed.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
                self.write_status(&signed).await
            }
            Err(why) => self.fail(request, "SignerFailure", why).await,
        }
    }

    async fn fail(&self, request: &CertificateSigningRequest, reason: &str, message: String) -> Result<(), ApiError> {
        let mut failed = request.clone();
        let conditions = failed.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.push(condition("Failed", reason, message));
        self.write_status(&failed).await
    }

    async fn write_status(&self, request: &CertificateSigningRequest) -> Result<(), ApiError> {
        self.requests.observe(self.context.client.update_status(request).await?);
        Ok(())
    }
}

/// What who joins is told; the agent shows it.
fn name_taken(node: &str) -> String {
    format!(
        "the node {node} has joined before, with another key: remove it first (kubectl delete node {node}; without a \
         Node: kubectl delete configmap -n kube-system {node}.node-key.skiff), or join under another --node-name"
    )
}

fn addresses_of(node: &Node) -> impl Iterator<Item = IpAddr> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    addresses.iter().filter_map(|address| address.address.parse().ok())
}

fn condition(kind: &str, reason: &str, message: String) -> CertificateSigningRequestCondition {
    let now = Some(Time(Timestamp::now()));
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: now.clone(),
        last_transition_time: now,
    }
}

/// Asks whether who made the request may create what stands for the permission.
fn access_review(request: &CertificateSigningRequest, permission: &Permission) -> SubjectAccessReview {
    let spec = &request.spec;
    let attributes = ResourceAttributes {
        group: Some("certificates.k8s.io".to_owned()),
        resource: Some("certificatesigningrequests".to_owned()),
        subresource: Some(permission.subresource.to_owned()),
        verb: Some("create".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: spec.username.clone(),
        uid: spec.uid.clone(),
        groups: spec.groups.clone(),
        extra: spec.extra.clone(),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}
