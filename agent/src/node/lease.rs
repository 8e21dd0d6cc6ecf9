//! The node's Lease in `kube-node-lease`: what tells the control plane that the node lives.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use serde_json::json;
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::Client;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-node-lease";
/// How long the Lease holds (the kubelet's default).
const DURATION_SECONDS: i32 = 40;
/// How often it is renewed: a quarter of that.
const RENEW: Duration = Duration::from_secs(10);
/// The wait after a renewal failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Renews the Lease until cancelled.
pub(super) async fn keep(client: Client, node: String, node_uid: String, cancel: CancellationToken) {
    loop {
        let delay = match renew(&client, &node, &node_uid).await {
            Ok(()) => RENEW,
            Err(e) => {
                tracing::warn!(error = %e, "the node's Lease could not be renewed");
                AGAIN
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

async fn renew(client: &Client, node: &str, node_uid: &str) -> Result<(), ApiError> {
    let spec = LeaseSpec {
        holder_identity: Some(node.to_owned()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let patch = json!({"spec": spec});
    match client.patch::<Lease>(NAMESPACE, node, None, ContentType::MergePatch, &patch).await {
        Err(e) if e.code == 404 => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: node_uid.to_owned(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(node.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    client.create(&Lease { metadata, spec: Some(spec) }).await.map(drop)
}
