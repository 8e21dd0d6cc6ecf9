//! The node itself: registers, says how it is, renews its Lease, hands its podCIDR to the runtimes.

pub(crate) mod guard;
mod images;
mod lease;
mod limits;
mod local_path;
mod machine;
mod network;
pub mod pressure;
pub mod settings;
mod status;
pub(crate) mod usage;

use std::{sync::Arc, time::Duration};

use k8s_cri::v1::{ListImagesRequest, StatusRequest};
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;
use skiff_api::{
    request::{ContentType, Options},
    status::ApiError,
};
use skiff_client::{Client, EventType, Informer, Informers, backoff};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::runtime::router::Runtimes;
pub use machine::Machine;
pub use status::{Facts, RuntimeHealth, architecture};

/// How often the runtimes are asked how they are, and the Lease is renewed (the kubelet's default).
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often the status is written though nothing changed (the kubelet's default).
const REPORT: Duration = Duration::from_secs(300);
/// The first and the longest wait for an API server that does not answer.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// The node's task.
pub struct NodeKeeper {
    /// The API server.
    pub client: Client,
    /// What does not change of the node.
    pub facts: Facts,
    /// The container runtimes.
    pub runtimes: Runtimes,
    /// Set once the runtimes know the node's podCIDR: pods can be started.
    pub network: watch::Sender<bool>,
    /// What is short on the node.
    pub conditions: watch::Receiver<pressure::Conditions>,
    /// Set once the node was told to be Ready.
    pub ready: watch::Sender<bool>,
    /// For events about the node.
    pub recorder: skiff_client::EventRecorder,
}

impl NodeKeeper {
    /// Keeps the node until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut configured = None;
        let node = tokio::select! {
            () = cancel.cancelled() => return,
            node = self.register(&mut configured) => node,
        };
        let uid = node.metadata.uid.clone().unwrap_or_default();
        let lease = tokio::spawn(lease::keep(self.client.clone(), self.facts.name.clone(), uid, cancel.clone()));
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.keep(node, configured, &cancel) => {}
        }
        let _ended = lease.await;
    }

    /// Makes the Node object, or takes over the one that is there; tries until the API server answers.
    /// Meanwhile pods can run if the node's range is known from before.
    async fn register(&self, configured: &mut Option<String>) -> Node {
        let mut delay = backoff::Backoff::new(AGAIN.0, AGAIN.1);
        loop {
            match self.try_register().await {
                Ok(node) => return node,
                Err(e) => tracing::warn!(error = %e, "the node cannot register yet"),
            }
            if configured.is_none()
                && let Ok(kept) = self.client.get::<Node>("", &self.facts.name).await
            {
                self.configure(&kept, configured).await;
            }
            tokio::time::sleep(delay.next(backoff::random())).await;
        }
    }

    async fn try_register(&self) -> Result<Node, ApiError> {
        let health = self.health(None).await;
        let status = status::status(&self.facts, &health, None, jiff::Timestamp::now());
        let (labels, annotations) = (self.facts.labels(), self.facts.annotations());
        let mut all = self.facts.labels.clone();
        all.extend(labels.clone());
        let given = annotations.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        let metadata = ObjectMeta {
            name: Some(self.facts.name.clone()),
            labels: Some(all),
            annotations: Some(given.collect()),
            ..ObjectMeta::default()
        };
        let taints = Some(self.facts.taints.clone()).filter(|taints| !taints.is_empty());
        let spec = NodeSpec { taints, ..NodeSpec::default() };
        let node = Node { metadata, spec: Some(spec), status: Some(status) };
        match self.client.create(&node).await {
            Ok(node) => {
                self.recorder.event(&node, EventType::Normal, "Starting", "Starting kubelet.");
                Ok(node)
            }
            Err(e) if e.reason == skiff_api::status::Reason::AlreadyExists => {
                let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
                self.client.patch("", &self.facts.name, None, ContentType::MergePatch, &patch).await
            }
            Err(e) => Err(e),
        }
    }

    async fn keep(&self, mut node: Node, mut configured: Option<String>, cancel: &CancellationToken) {
        let informers = Informers::new(self.client.clone(), cancel.child_token());
        let selector = Some(format!("metadata.name={}", self.facts.name));
        let informer = informers.select::<Node>(None, &Options { field_selector: selector, ..Options::default() });
        let mut changes = informer.subscribe();
        if let Some(folder) = self.facts.local_path.clone() {
            let remover = local_path::Remover { client: self.client.clone(), folder, nodes: Arc::clone(&informer) };
            tokio::spawn(remover.run(cancel.child_token()));
        }
        let mut conditions = self.conditions.clone();
        let mut tick = tokio::time::interval(HEARTBEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = Instant::now();
        let mut again = backoff::Backoff::new(AGAIN.0, AGAIN.1);
        loop {
            let cidr = self.configure(&node, &mut configured).await;
            let health = self.health(cidr.as_deref()).await;
            let due = written.elapsed() >= REPORT;
            match self.report(&node, &health, due).await {
                Ok(Some(newer)) => {
                    written = Instant::now();
                    again.reset();
                    node = newer;
                }
                Ok(None) => {}
                Err(e) => {
                    tracing::warn!(error = %e, "the node's status could not be written");
                    tokio::time::sleep(again.next(backoff::random())).await;
                    continue;
                }
            }
            self.ready.send_replace(health.is_ready());
            tokio::select! {
                _ = tick.tick() => {}
                Ok(()) = conditions.changed() => {}
                change = changes.next() => if change.is_none() { return },
            }
            node = newest(node, &informer);
        }
    }

    /// Tells the runtimes the node's podCIDR once it is known.
    async fn configure(&self, node: &Node, configured: &mut Option<String>) -> Option<String> {
        let cidr = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone()).filter(|cidr| !cidr.is_empty())?;
        if configured.as_ref() != Some(&cidr) {
            if let Err(e) = network::set_up(&self.runtimes, &cidr).await {
                tracing::error!(error = &e as &dyn std::error::Error, "the pods have no network");
                return None;
            }
            *configured = Some(cidr.clone());
            self.network.send_replace(true);
        }
        Some(cidr)
    }

    /// How the runtimes are.
    async fn health(&self, cidr: Option<&str>) -> RuntimeHealth {
        let mut health = RuntimeHealth::new(cidr.is_some());
        health.short = *self.conditions.borrow();
        for runtime in self.runtimes.all() {
            match runtime.cri.status(StatusRequest { verbose: false }).await {
                Ok(answer) => {
                    health.add(answer);
                    let listed = runtime.cri.list_images(ListImagesRequest { filter: None }).await;
                    health.add_images(&listed.map(|answer| answer.images).unwrap_or_default());
                }
                Err(e) => health.away(&e.to_string()),
            }
        }
        health
    }

    /// Writes the status if it changed or is due; the node as it is then.
    async fn report(&self, node: &Node, health: &RuntimeHealth, due: bool) -> Result<Option<Node>, ApiError> {
        let before = node.status.as_ref();
        let status = status::status(&self.facts, health, before, jiff::Timestamp::now());
        if !due && before.is_some_and(|before| status::same(before, &status)) {
            return Ok(None);
        }
        let status = serde_json::to_value(&status).map_err(ApiError::internal)?;
        let patch = json!({"status": status});
        let form = ContentType::StrategicMergePatch;
        let node: Node = self.client.patch("", &self.facts.name, Some("status"), form, &patch).await?;
        Ok(Some(node))
    }
}

/// The newer of the node at hand and the informer's.
fn newest(node: Node, informer: &Arc<Informer<Node>>) -> Node {
    let version =
        |node: &Node| node.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    let name = node.metadata.name.clone().unwrap_or_default();
    match informer.get("", &name) {
        Some(newer) if version(&newer) > version(&node) => (*newer).clone(),
        _ => node,
    }
}
