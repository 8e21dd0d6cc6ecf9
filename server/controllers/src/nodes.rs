//! Nodes: their ranges of pod addresses, what happens when one is no longer heard of, and what it leaves behind.

pub mod cidr;
pub mod decide;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, MicroTime, Preconditions, Time},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::{EventType, Informer, Key};
use tokio::time::Instant;

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, is_ready, is_terminal, name, namespace, node_of, uid},
};
use cidr::{Cidr, allocate};

/// The identity of the controllers of nodes.
pub const NAME: &str = "node-controller";
/// The identity of the collector of pods.
pub const POD_GC_NAME: &str = "pod-garbage-collector";

/// The namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";

/// The index of pods by node.
pub const BY_NODE: &str = "node";

/// How long pods of a node that is gone are left, in case it comes back under its name.
const QUARANTINE: Duration = Duration::from_secs(40);

/// How many pods are deleted at once.
const PARALLEL: usize = 16;

/// Nodes worked on at once.
const WORKERS: usize = 4;

/// What the controllers of nodes need to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's ranges of pod addresses, each with the prefix of a node's share; none means that nodes have
    /// their ranges from elsewhere.
    pub pod_cidrs: Vec<(String, u8)>,
    /// How long a node may be silent before it counts as lost (kube-controller-manager's
    /// `--node-monitor-grace-period`).
    pub grace_period: Duration,
    /// How many ended pods are kept.
    pub max_ended_pods: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { pod_cidrs: Vec::new(), grace_period: Duration::from_secs(40), max_ended_pods: 12_500 }
    }
}

fn pods_by_node(pod: &Pod) -> Vec<String> {
    vec![node_of(pod).to_owned()]
}

struct Ranges {
    context: Context,
    nodes: Arc<Informer<Node>>,
    clusters: Vec<(Cidr, u8)>,
}

/// Gives every node its ranges of pod addresses.
pub async fn run_ranges(context: Context, config: Config) {
    let clusters = config.pod_cidrs.iter().filter_map(|(text, mask)| Some((Cidr::parse(text)?, *mask))).collect();
    let nodes = context.informers.of::<Node>();
    let cancel = context.cancel.clone();
    let controller = Ranges { context, nodes: Arc::clone(&nodes), clusters };
    // One worker: two must not pick the same range.
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch_if(&nodes, |_, _| false, |node| vec![Key::of(node)])
        .run(1)
        .await;
}

#[async_trait]
impl Controller for Ranges {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(node) = self.nodes.get("", &key.name) else { return Ok(None) };
        let has = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()).is_some_and(|range| !range.is_empty());
        if has || self.clusters.is_empty() {
            return Ok(None);
        }
        let used: Vec<Cidr> = self.nodes.list().iter().flat_map(|node| ranges_of(node)).collect();
        let picked: Option<Vec<String>> =
            self.clusters.iter().map(|(cluster, mask)| Some(allocate(cluster, *mask, &used)?.to_string())).collect();
        let Some(picked) = picked else {
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.context.events.event(&*node, EventType::Normal, "CIDRNotAvailable", message);
            return Err(ApiError::internal("no range of pod addresses is left"));
        };
        let patch = json!({"spec": {"podCIDR": picked.first(), "podCIDRs": picked}});
        let node = self.context.client.patch("", &key.name, None, ContentType::MergePatch, &patch).await?;
        self.nodes.observe(node);
        Ok(None)
    }
}

fn ranges_of(node: &Node) -> Vec<Cidr> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    all.into_iter().chain(spec.and_then(|spec| spec.pod_cidr.clone())).filter_map(|text| Cidr::parse(&text)).collect()
}

/// The last sign of life of a node, and when it was seen here: the clocks of nodes are not trusted.
struct Heard {
    lease: Option<MicroTime>,
    heartbeat: Option<Time>,
    at: Instant,
}

struct Lifecycle {
    context: Context,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    leases: Arc<Informer<Lease>>,
    heard: Mutex<HashMap<String, Heard>>,
    grace_period: Duration,
}

/// Watches over nodes: what is not heard of becomes `Unknown` and tainted, and pods that do not tolerate that leave.
pub async fn run_lifecycle(context: Context, config: Config) {
    let of = &context.informers;
    let (nodes, pods, leases) = (of.of::<Node>(), of.of::<Pod>(), of.of::<Lease>());
    pods.index(BY_NODE, pods_by_node);
    let cancel = context.cancel.clone();
    let controller = Lifecycle {
        context,
        nodes: Arc::clone(&nodes),
        pods: Arc::clone(&pods),
        leases: Arc::clone(&leases),
        heard: Mutex::default(),
        grace_period: config.grace_period,
    };
    let of_pod = |pod: &Pod| if node_of(pod).is_empty() { Vec::new() } else { vec![Key::new("", node_of(pod))] };
    let of_lease = |lease: &Lease| {
        let is_node = namespace(&lease.metadata) == LEASES;
        if is_node { vec![Key::new("", name(&lease.metadata))] } else { Vec::new() }
    };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&nodes, |node| vec![Key::of(node)])
        .watch_if(&pods, |old, new| node_of(old) != node_of(new), of_pod)
        .watch(&leases, of_lease)
        .run(WORKERS)
        .await;
}

#[async_trait]
impl Controller for Lifecycle {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(mut node) = self.nodes.get("", &key.name) else {
            self.heard.lock().remove(&key.name);
            return Ok(None);
        };
        let silent = self.silent_for(&node);
        let left = self.grace_period.checked_sub(silent).filter(|left| !left.is_zero());
        if left.is_none()
            && let Some(conditions) = decide::lost_conditions(&node, Timestamp::now())
        {
            node = self.write_conditions(&node, &json!(conditions)).await?;
            self.pods_not_ready(&node).await;
        }
        if let Some(taints) = decide::taints(&node, Timestamp::now()) {
            node = self.write_taints(&node, &json!(taints)).await?;
        }
        let next = self.evict(&node).await?;
        Ok([left, next].into_iter().flatten().min())
    }
}

impl Lifecycle {
    /// For how long nothing has been heard of a node.
    fn silent_for(&self, node: &Node) -> Duration {
        let name = name(&node.metadata);
        let lease = self.leases.get(LEASES, name).and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let heartbeat = decide::condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone());
        let mut heard = self.heard.lock();
        let fresh = || Heard { lease: lease.clone(), heartbeat: heartbeat.clone(), at: Instant::now() };
        let known = heard.entry(name.to_owned()).or_insert_with(fresh);
        if known.lease != lease || known.heartbeat != heartbeat {
            *known = fresh();
        }
        known.at.elapsed()
    }

    async fn write_conditions(&self, node: &Node, conditions: &Value) -> Result<Arc<Node>, ApiError> {
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "status": {"conditions": conditions}});
        self.patch(node, Some("status"), &patch).await
    }

    async fn write_taints(&self, node: &Node, taints: &Value) -> Result<Arc<Node>, ApiError> {
        let patch =
            json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        self.patch(node, None, &patch).await
    }

    async fn patch(&self, node: &Node, subresource: Option<&str>, patch: &Value) -> Result<Arc<Node>, ApiError> {
        let client = &self.context.client;
        let node: Node = client.patch("", name(&node.metadata), subresource, ContentType::MergePatch, patch).await?;
        self.nodes.observe(node.clone());
        Ok(Arc::new(node))
    }

    /// Nobody can say that the pods of a lost node are ready. What fails is made good by the node when it is back.
    async fn pods_not_ready(&self, node: &Node) {
        let condition = json!({"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": Time(Timestamp::now())});
        let patch = json!({"status": {"conditions": [condition]}});
        for pod in self.pods.indexed(BY_NODE, name(&node.metadata)).iter().filter(|pod| is_ready(pod)) {
            let (space, name) = (namespace(&pod.metadata), name(&pod.metadata));
            let form = ContentType::StrategicMergePatch;
            match self.context.client.patch::<Pod>(space, name, Some("status"), form, &patch).await {
                Ok(pod) => self.pods.observe(pod),
                Err(error) => tracing::debug!(%error, "cannot say that a pod of a lost node is not ready"),
            }
        }
    }

    async fn evict(&self, node: &Node) -> Result<Again, ApiError> {
        let pods = self.pods.indexed(BY_NODE, name(&node.metadata));
        let (leave, next) = decide::evictions(node, &pods, Timestamp::now());
        let all = leave.into_iter().map(|pod| async move {
            let key = Key::of(&*pod);
            let message = format!("Marking for deletion Pod {key}");
            self.context.events.event(&*pod, EventType::Normal, "TaintManagerEviction", message);
            delete_pod(&self.context, &pod, None).await
        });
        let outcomes: Vec<Result<(), ApiError>> = stream::iter(all).buffer_unordered(PARALLEL).collect().await;
        outcomes.into_iter().collect::<Result<(), _>>()?;
        Ok(next)
    }
}

async fn delete_pod(context: &Context, pod: &Pod, grace_seconds: Option<i64>) -> Result<(), ApiError> {
    let preconditions = Preconditions { uid: Some(uid(&pod.metadata).to_owned()), ..Preconditions::default() };
    let options = DeleteOptions {
        preconditions: Some(preconditions),
        grace_period_seconds: grace_seconds,
        ..DeleteOptions::default()
    };
    match context.client.delete::<Pod>(namespace(&pod.metadata), name(&pod.metadata), &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

struct PodGc {
    context: Context,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    max_ended: usize,
    /// Since when nodes are missing.
    missing: Mutex<HashMap<String, Instant>>,
}

/// Deletes pods that nobody else will: of nodes that are gone, ended ones beyond a number, and those that were
/// deleted before they had a node.
pub async fn run_pod_gc(context: Context, config: Config) {
    let (nodes, pods) = (context.informers.of::<Node>(), context.informers.of::<Pod>());
    pods.index(BY_NODE, pods_by_node);
    let cancel = context.cancel.clone();
    let max_ended = config.max_ended_pods;
    let missing = Mutex::default();
    let controller = PodGc { context, nodes: Arc::clone(&nodes), pods: Arc::clone(&pods), max_ended, missing };
    Frame::new(POD_GC_NAME, Arc::new(controller), &cancel)
        .watch_if(&nodes, |_, _| false, |node| vec![Key::of(node)])
        .watch_if(&pods, pod_matters, |pod| vec![Key::new("", node_of(pod))])
        .run(1)
        .await;
}

fn pod_matters(old: &Pod, new: &Pod) -> bool {
    node_of(old) != node_of(new)
        || is_terminal(old) != is_terminal(new)
        || is_deleting(&old.metadata) != is_deleting(&new.metadata)
}

#[async_trait]
impl Controller for PodGc {
    /// The key is a node's name, empty for pods without a node.
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        self.drop_ended().await?;
        let pods = self.pods.indexed(BY_NODE, &key.name);
        if key.name.is_empty() {
            for pod in pods.iter().filter(|pod| is_deleting(&pod.metadata)) {
                delete_pod(&self.context, pod, Some(0)).await?;
            }
            return Ok(None);
        }
        if self.nodes.get("", &key.name).is_some() || pods.is_empty() {
            self.missing.lock().remove(&key.name);
            return Ok(None);
        }
        let missing_for = self.missing.lock().entry(key.name.clone()).or_insert_with(Instant::now).elapsed();
        if missing_for < QUARANTINE {
            return Ok(Some(QUARANTINE - missing_for));
        }
        match self.context.client.get::<Node>("", &key.name).await {
            Err(error) if error.is_not_found() => {}
            other => return other.map(|_| None),
        }
        for pod in &pods {
            delete_pod(&self.context, pod, Some(0)).await?;
        }
        Ok(None)
    }
}

impl PodGc {
    async fn drop_ended(&self) -> Result<(), ApiError> {
        if self.pods.len() <= self.max_ended {
            return Ok(());
        }
        let mut ended: Vec<_> = self.pods.list().into_iter().filter(|pod| is_terminal(pod)).collect();
        let excess = ended.len().saturating_sub(self.max_ended);
        ended.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        for pod in ended.iter().take(excess) {
            delete_pod(&self.context, pod, Some(0)).await?;
        }
        Ok(())
    }
}
