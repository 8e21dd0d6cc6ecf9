//! CertificateSigningRequests: kubelets' own are approved, what is approved is signed, what is old is deleted.
//!
//! Who signs is behind [`Signer`]: the control plane's own authorities. The signers are Kubernetes' four:
//! `kubernetes.io/kube-apiserver-client`, `kubernetes.io/kube-apiserver-client-kubelet`,
//! `kubernetes.io/kubelet-serving` and `kubernetes.io/legacy-unknown`. Requests to other signers are left to them.

pub mod decide;
pub mod request;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
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
use decide::{Permission, Step, decide};

/// The controller's identity.
pub const NAME: &str = "certificate-controller";

/// Requests worked on at once.
const WORKERS: usize = 2;

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The authority that clients of the API server are known by.
    Client,
    /// The authority of servers: the kubelets' HTTPS API.
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
    signer: Arc<dyn Signer>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context, signer: Arc<dyn Signer>) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let cancel = context.cancel.clone();
    let controller = Requests { context, requests: Arc::clone(&requests), signer };
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
            Step::Review(permissions) => self.review(&request, &permissions).await?,
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

    /// Approves if who asks has one of the permissions.
    async fn review(
        &self,
        request: &CertificateSigningRequest,
        permissions: &[&'static Permission],
    ) -> Result<(), ApiError> {
        for permission in permissions {
            let review = self.context.client.create(&access_review(request, permission)).await?;
            if !review.status.is_some_and(|status| status.allowed) {
                continue;
            }
            let mut approved = request.clone();
            let conditions = approved.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.push(condition("Approved", "AutoApproved", permission.message.to_owned()));
            let written = self.context.client.update_subresource(&approved, Some("approval")).await?;
            self.requests.observe(written);
            return Ok(());
        }
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
