//! Deletes pods that nobody else will: of nodes that are gone or out of service, ended ones beyond a number, and
//! those that were deleted before they had a node.

pub mod decide;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use skiff_api::status::ApiError;
use skiff_client::{Informer, Key};
use tokio::time::Instant;

use crate::{
    disrupt::{disrupted, patch_status},
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, is_terminal, name, namespace, node_of, uid},
    nodes::{BY_NODE, pods_by_node},
    pods::delete_options,
};
use decide::{Doom, decide, surplus};

/// The identity of the collector of pods.
pub const NAME: &str = "pod-garbage-collector";

/// How long pods of a node that is gone are left, in case it comes back under its name.
const QUARANTINE: Duration = Duration::from_secs(40);

/// How many ended pods are kept by default, kube-controller-manager's `--terminated-pod-gc-threshold`.
pub const MAX_ENDED_PODS: usize = 12_500;

/// How many pods are deleted at once.
const PARALLEL: usize = 16;

/// The key of ended pods; no node is called so.
const ENDED: &str = "/ended";

/// The index of ended pods.
const BY_END: &str = "ended";

struct PodGc {
    context: Context,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    max_ended: usize,
    /// Since when nodes are missing.
    missing: Mutex<HashMap<String, Instant>>,
}

/// Runs the collector until cancelled; it keeps `max_ended` ended pods.
pub async fn run(context: Context, max_ended: usize) {
    let (nodes, pods) = (context.informers.of::<Node>(), context.informers.of::<Pod>());
    pods.index(BY_NODE, pods_by_node);
    pods.index(BY_END, |pod| if is_terminal(pod) { vec![ENDED.to_owned()] } else { Vec::new() });
    let cancel = context.cancel.clone();
    let missing = Mutex::default();
    let controller = PodGc { context, nodes: Arc::clone(&nodes), pods: Arc::clone(&pods), max_ended, missing };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch_if(&nodes, node_matters, |node| vec![Key::of(node)])
        .watch_if(&pods, pod_matters, move |pod| keys_of(pod, max_ended))
        .run(1)
        .await;
}

fn node_matters(old: &Node, new: &Node) -> bool {
    decide::is_out_of_service(old) != decide::is_out_of_service(new)
}

fn pod_matters(old: &Pod, new: &Pod) -> bool {
    node_of(old) != node_of(new)
        || is_terminal(old) != is_terminal(new)
        || is_deleting(&old.metadata) != is_deleting(&new.metadata)
}

fn keys_of(pod: &Pod, max_ended: usize) -> Vec<Key> {
    let mut keys = vec![Key::new("", node_of(pod))];
    if max_ended > 0 && is_terminal(pod) {
        keys.push(Key::new("", ENDED));
    }
    keys
}

#[async_trait]
impl Controller for PodGc {
    /// The key is a node's name, empty for pods without a node.
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        if key.name == ENDED {
            // The whole index is copied only where there is something to do.
            if self.pods.len() > self.max_ended {
                let doomed = surplus(self.pods.indexed(BY_END, ENDED), self.max_ended);
                self.delete_all(doomed.into_iter().map(|pod| (pod, Doom::Ended)).collect()).await?;
            }
            return Ok(None);
        }
        let pods = self.pods.indexed(BY_NODE, &key.name);
        let node = self.nodes.get("", &key.name);
        if node.is_some() || key.name.is_empty() || pods.is_empty() {
            self.missing.lock().remove(&key.name);
            return self.delete_all(decide(&pods, node.as_deref(), false)).await.map(|()| None);
        }
        let missing_for = self.missing.lock().entry(key.name.clone()).or_insert_with(Instant::now).elapsed();
        if missing_for < QUARANTINE {
            return Ok(Some(QUARANTINE - missing_for));
        }
        match self.context.client.get::<Node>("", &key.name).await {
            Err(error) if error.is_not_found() => {}
            other => return other.map(|_| None),
        }
        self.delete_all(decide(&pods, None, true)).await.map(|()| None)
    }
}

impl PodGc {
    async fn delete_all(&self, pods: Vec<(Arc<Pod>, Doom)>) -> Result<(), ApiError> {
        let all = pods.into_iter().map(|(pod, doom)| async move { self.delete(&pod, doom).await });
        let outcomes: Vec<Result<(), ApiError>> = stream::iter(all).buffer_unordered(PARALLEL).collect().await;
        outcomes.into_iter().collect()
    }

    /// Says that the pod has failed, where it has not ended, and deletes it at once.
    async fn delete(&self, pod: &Pod, doom: Doom) -> Result<(), ApiError> {
        if !is_terminal(pod) {
            let message = doom.message();
            let status = disrupted(pod, "DeletionByPodGC", message, Timestamp::now(), Some("Failed"));
            patch_status(&self.context, &self.pods, pod, &status).await?;
        }
        let options = k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions {
            grace_period_seconds: Some(0),
            ..delete_options(uid(&pod.metadata))
        };
        match self.context.client.delete::<Pod>(namespace(&pod.metadata), name(&pod.metadata), &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}
