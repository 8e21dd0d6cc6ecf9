//! Watches over nodes: what is not heard of becomes `Unknown` and tainted, and pods that do not tolerate that leave.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::{EventType, Informer, Key, Queue};
use tokio::time::Instant;

use super::{
    BY_NODE, Config, NAME,
    decide::{self, Execute},
    pods_by_node,
    zones::{Permit, Zones},
};
use crate::{
    disrupt::{disrupted, patch_status},
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, is_ready, name, namespace, node_of, uid},
    pods::delete_options,
};

/// The namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";

/// How many pods are deleted at once.
const PARALLEL: usize = 16;

/// Nodes worked on at once.
const WORKERS: usize = 4;

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
    zones: Mutex<Zones>,
    queue: OnceLock<Arc<Queue<Key>>>,
    grace_period: Duration,
}

/// Runs the controller until cancelled.
pub async fn run_lifecycle(context: Context, config: Config) {
    let of = &context.informers;
    let (nodes, pods, leases) = (of.of::<Node>(), of.of::<Pod>(), of.of::<Lease>());
    pods.index(BY_NODE, pods_by_node);
    let cancel = context.cancel.clone();
    let controller = Arc::new(Lifecycle {
        context,
        nodes: Arc::clone(&nodes),
        pods: Arc::clone(&pods),
        leases: Arc::clone(&leases),
        heard: Mutex::default(),
        zones: Mutex::new(Zones::new(config.rates)),
        queue: OnceLock::new(),
        grace_period: config.grace_period,
    });
    let of_pod = |pod: &Pod| if node_of(pod).is_empty() { Vec::new() } else { vec![Key::new("", node_of(pod))] };
    let of_lease = |lease: &Lease| {
        let is_node = namespace(&lease.metadata) == LEASES;
        if is_node { vec![Key::new("", name(&lease.metadata))] } else { Vec::new() }
    };
    let frame = Frame::new(NAME, Arc::clone(&controller), &cancel)
        .watch(&nodes, |node| vec![Key::of(node)])
        .watch_if(&pods, |old, new| node_of(old) != node_of(new), of_pod)
        .watch(&leases, of_lease);
    controller.queue.get_or_init(|| frame.queue());
    frame.run(WORKERS).await;
}

#[async_trait]
impl Controller for Lifecycle {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(mut node) = self.nodes.get("", &key.name) else {
            self.forget(&key.name);
            return Ok(None);
        };
        let silent = self.silent_for(&node);
        let left = self.grace_period.checked_sub(silent).filter(|left| !left.is_zero());
        if left.is_none()
            && let Some(conditions) = decide::lost_conditions(&node, Timestamp::now())
        {
            node = self.write_conditions(&node, &json!(conditions)).await?;
        }
        self.note(&node).await?;
        let (execute, permit_again) = self.may_execute(&node);
        if let Some(taints) = decide::taints(&node, execute, Timestamp::now()) {
            node = self.write_taints(&node, &json!(taints)).await?;
        }
        let next = self.evict(&node).await?;
        Ok([left, next, permit_again].into_iter().flatten().min())
    }
}

impl Lifecycle {
    fn forget(&self, name: &str) {
        if self.heard.lock().remove(name).is_none() {
            return;
        }
        let look = self.zones.lock().remove(name);
        self.look_at(look);
    }

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

    /// Takes a node's health into account: what changes for its zone, and what is said of its pods.
    async fn note(&self, node: &Node) -> Result<(), ApiError> {
        let status = decide::condition(node, "Ready").map_or("Unknown", |ready| ready.status.as_str());
        let change = self.zones.lock().set(name(&node.metadata), &decide::zone(node), status == "True");
        self.look_at(change.look);
        let node_name = name(&node.metadata);
        if change.was_ready.is_none() {
            let message = format!("Node {node_name} event: Registered Node {node_name} in Controller");
            self.context.events.event(node, EventType::Normal, "RegisteredNode", message);
        }
        let fell = change.was_ready == Some(true) && status != "True";
        if fell {
            let message = format!("Node {node_name} status is now: NodeNotReady");
            self.context.events.event(node, EventType::Normal, "NodeNotReady", message);
        }
        // A node that is heard of says itself what its pods are, after this once.
        if fell || (status == "Unknown" && decide::condition(node, "Ready").is_some()) {
            self.pods_not_ready(node).await?;
        }
        Ok(())
    }

    fn look_at(&self, nodes: Vec<String>) {
        let Some(queue) = self.queue.get() else { return };
        nodes.into_iter().for_each(|name| queue.add(Key::new("", name)));
    }

    /// Whether a node that is not well may lose its pods now, and when to ask again.
    fn may_execute(&self, node: &Node) -> (Execute, Again) {
        if !decide::wants_execution(node) {
            return (Execute::Allow, None);
        }
        let is_known = decide::is_executing(node);
        match self.zones.lock().permit(name(&node.metadata), is_known, Instant::now().into_std()) {
            Permit::Now => (Execute::Allow, None),
            Permit::After(wait) => (Execute::Hold, Some(wait)),
            // Somebody's change will say when.
            Permit::Wait => (Execute::Hold, None),
            Permit::Never => (Execute::Forbid, None),
        }
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

    /// Nobody can say that the pods of a lost node are ready.
    async fn pods_not_ready(&self, node: &Node) -> Result<(), ApiError> {
        let condition = json!({"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": Time(Timestamp::now())});
        let patch = &json!({"status": {"conditions": [condition]}});
        let pods = self.pods.indexed(BY_NODE, name(&node.metadata)).into_iter().filter(|pod| is_ready(pod));
        let all = pods.map(|pod| async move {
            self.context.events.event(&*pod, EventType::Warning, "NodeNotReady", "Node is not ready");
            patch_status(&self.context, &self.pods, &pod, patch).await
        });
        let outcomes: Vec<Result<(), ApiError>> = stream::iter(all).buffer_unordered(PARALLEL).collect().await;
        outcomes.into_iter().collect()
    }

    async fn evict(&self, node: &Node) -> Result<Again, ApiError> {
        if !decide::has_executing_taint(node) {
            return Ok(None);
        }
        let pods = self.pods.indexed(BY_NODE, name(&node.metadata));
        let (leave, next) = decide::evictions(node, &pods, Timestamp::now());
        let all = leave.into_iter().map(|pod| async move { self.evict_pod(&pod).await });
        let outcomes: Vec<Result<(), ApiError>> = stream::iter(all).buffer_unordered(PARALLEL).collect().await;
        outcomes.into_iter().collect::<Result<(), _>>()?;
        Ok(next)
    }

    async fn evict_pod(&self, pod: &Pod) -> Result<(), ApiError> {
        let message = format!("Marking for deletion Pod {}", Key::of(pod));
        self.context.events.event(pod, EventType::Normal, "TaintManagerEviction", message);
        let why = "Taint manager: deleting due to NoExecute taint";
        let status = disrupted(pod, "DeletionByTaintManager", why, Timestamp::now(), None);
        patch_status(&self.context, &self.pods, pod, &status).await?;
        // The watch may have told of its end meanwhile.
        if self.pods.get(namespace(&pod.metadata), name(&pod.metadata)).is_none_or(|pod| is_deleting(&pod.metadata)) {
            return Ok(());
        }
        let options = delete_options(uid(&pod.metadata));
        match self.context.client.delete::<Pod>(namespace(&pod.metadata), name(&pod.metadata), &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}
