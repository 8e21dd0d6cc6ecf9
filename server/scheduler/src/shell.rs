//! The loop around the core: one task that follows nodes, pods and namespaces, schedules, and hands bindings to
//! tasks of their own. A pod that is to be bound counts on its node at once; if the binding fails it no longer does.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::json;
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::{Change, Client, EventRecorder, EventType, Informer, backoff::random, informer::Subscription};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    decide::{Choice, Unschedulable, World, schedule},
    prepare::{Preparation, Volumes},
    queue::SchedulingQueue,
    snapshot::{PodInfo, Snapshot},
};

/// How many bindings are under way at once, without those that wait for their volumes.
const MAX_BINDING: usize = 64;

/// How many pods are scheduled before changes are looked at again.
const BATCH: usize = 32;

/// How a binding ended.
struct Bound {
    pod: Arc<PodInfo>,
    outcome: Result<(), ApiError>,
}

/// What is under way.
#[derive(Default)]
struct Bindings {
    quick: JoinSet<Bound>,
    /// Of pods that wait for volumes first, which may take minutes.
    with_volumes: JoinSet<Bound>,
}

pub(crate) struct Shell {
    pub(crate) client: Client,
    pub(crate) events: EventRecorder,
    pub(crate) config: Config,
    pub(crate) pods: Arc<Informer<Pod>>,
    pub(crate) nodes: Arc<Informer<Node>>,
    pub(crate) namespaces: Arc<Informer<Namespace>>,
    pub(crate) storage: Volumes,
    pub(crate) snapshot: Snapshot,
    pub(crate) queue: SchedulingQueue,
}

impl Shell {
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let synced = futures::future::join3(self.nodes.synced(), self.pods.synced(), self.namespaces.synced());
        let synced = futures::future::join(synced, self.storage.synced());
        if cancel.run_until_cancelled(synced).await.is_none() {
            return;
        }
        let (mut nodes, mut pods) = (self.nodes.subscribe(), self.pods.subscribe());
        let (mut claims, mut volumes) = (self.storage.claims.subscribe(), self.storage.volumes.subscribe());
        let mut classes = self.storage.classes.subscribe();
        let mut bindings = Bindings::default();
        loop {
            self.catch_up(&mut nodes, &mut pods);
            while let Some(ended) = bindings.quick.try_join_next() {
                self.bound(ended.ok());
            }
            if self.schedule_some(&mut bindings) {
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.queue.due().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(change) = nodes.next() => self.node_changed(change),
                Some(change) = pods.next() => self.pod_changed(change),
                Some(_) = claims.next() => self.queue.something_changed(),
                Some(_) = volumes.next() => self.queue.something_changed(),
                Some(_) = classes.next() => self.queue.something_changed(),
                Some(ended) = bindings.quick.join_next() => self.bound(ended.ok()),
                Some(ended) = bindings.with_volumes.join_next() => self.bound(ended.ok()),
                () = tokio::time::sleep_until(due), if bindings.quick.len() < MAX_BINDING => {}
            }
        }
    }

    fn catch_up(&mut self, nodes: &mut Subscription<Node>, pods: &mut Subscription<Pod>) {
        while let Some(change) = nodes.try_next() {
            self.node_changed(change);
        }
        while let Some(change) = pods.try_next() {
            self.pod_changed(change);
        }
    }

    fn node_changed(&mut self, change: Change<Node>) {
        match change {
            Change::Resync => {
                let all = self.nodes.list();
                let names: Vec<String> = self.snapshot.nodes().map(|node| node.name().to_owned()).collect();
                names
                    .iter()
                    .filter(|name| self.nodes.get("", name).is_none())
                    .for_each(|name| self.snapshot.remove_node(name));
                all.iter().for_each(|node| self.snapshot.set_node(node));
                self.queue.something_changed();
            }
            Change::Added(node) => {
                self.snapshot.set_node(&node);
                self.queue.something_changed();
            }
            Change::Modified { old, new } => {
                self.snapshot.set_node(&new);
                if may_help(&old, &new) {
                    self.queue.something_changed();
                }
            }
            Change::Deleted(node) => self.snapshot.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        match change {
            Change::Resync => self.resync_pods(),
            Change::Added(pod) => self.see(None, pod),
            Change::Modified { old, new } => self.see(Some(&old), new),
            Change::Deleted(pod) => self.forget(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    fn resync_pods(&mut self) {
        let all = self.pods.list();
        let there: std::collections::HashSet<&str> = all.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let gone: Vec<String> = self.snapshot.pod_uids().filter(|uid| !there.contains(uid.as_str())).cloned().collect();
        gone.iter().for_each(|uid| self.forget(uid));
        self.queue.retain(|uid| there.contains(uid));
        for pod in &all {
            self.see(None, Arc::clone(pod));
        }
    }

    fn forget(&mut self, uid: &str) {
        self.queue.remove(uid);
        if self.snapshot.remove_pod(uid) {
            self.queue.something_changed();
        }
    }

    /// A pod as it is now. Only a change of what scheduling reads makes it worth another attempt at once.
    fn see(&mut self, old: Option<&Pod>, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if is_over(&pod) {
            return self.forget(&uid);
        }
        match bound_to(&pod) {
            Some(node) => {
                self.queue.remove(&uid);
                let node = node.to_owned();
                let unchanged =
                    old.is_some_and(|old| old.spec == pod.spec && old.metadata.labels == pod.metadata.labels);
                let is_there = self.snapshot.node_of(&uid).is_some_and(|known| known.name() == node);
                if !(unchanged && is_there) {
                    self.snapshot.add_pod(Arc::new(PodInfo::new(pod)), &node);
                }
            }
            // It has been assumed to be on a node, and its binding is under way.
            None if self.snapshot.node_of(&uid).is_some() => {}
            None if pod.metadata.deletion_timestamp.is_some() || !self.is_ours(&pod) => self.queue.remove(&uid),
            None => {
                let same = old.is_some_and(|old| old.spec == pod.spec && old.metadata.labels == pod.metadata.labels);
                let info = Arc::new(PodInfo::new(pod));
                if same { self.queue.refresh(info) } else { self.queue.upsert(info) }
            }
        }
    }

    /// Whether the pod is this scheduler's and nothing holds it back.
    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let name = spec.scheduler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default-scheduler");
        name == self.config.scheduler_name && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
    }

    /// Schedules some pods. Whether there may be more to schedule at once.
    fn schedule_some(&mut self, bindings: &mut Bindings) -> bool {
        for _ in 0..BATCH {
            if bindings.quick.len() >= MAX_BINDING {
                return false;
            }
            let Some(pod) = self.queue.next(Instant::now()) else { return false };
            self.schedule_one(pod, bindings);
        }
        true
    }

    fn schedule_one(&mut self, pod: Arc<PodInfo>, bindings: &mut Bindings) {
        let namespaces = &self.namespaces;
        let labels = |name: &str| namespaces.get("", name).map(|one| one.metadata.labels.clone().unwrap_or_default());
        let world = World { namespaces: &labels, storage: &self.storage };
        match schedule(&pod, &self.snapshot, world, random()) {
            Ok(choice) => {
                let preparation = self.preparation(&choice);
                self.snapshot.add_pod(Arc::clone(&pod), &choice.node);
                let (client, events) = (self.client.clone(), self.events.clone());
                let Some(preparation) = preparation else {
                    bindings.quick.spawn(bind(client, events, pod, choice.node));
                    return;
                };
                self.storage.promise(&pod, &choice);
                bindings.with_volumes.spawn(async move {
                    match preparation.run(&choice.steps).await {
                        Ok(()) => bind(client, events, pod, choice.node).await,
                        Err(error) => {
                            let message = format!("running PreBind plugin \"VolumeBinding\": {error}");
                            events.event(&*pod.pod, EventType::Warning, "FailedScheduling", message);
                            Bound { pod, outcome: Err(error) }
                        }
                    }
                });
            }
            Err(why) => {
                self.queue.unschedulable(pod.uid(), Instant::now());
                self.report(&pod, &why, &mut bindings.quick);
            }
        }
    }

    /// What is to be done for a pod's volumes before it is bound; `None` for nothing.
    fn preparation(&self, choice: &Choice) -> Option<Preparation> {
        let node = self.snapshot.node(&choice.node).filter(|_| !choice.steps.is_empty())?;
        let (claims, volumes) = (Arc::clone(&self.storage.claims), Arc::clone(&self.storage.volumes));
        Some(Preparation { client: self.client.clone(), claims, volumes, node: Arc::clone(&node.node) })
    }

    fn report(&self, pod: &Arc<PodInfo>, why: &Unschedulable, bindings: &mut JoinSet<Bound>) {
        let message = why.to_string();
        self.events.event(&*pod.pod, EventType::Warning, "FailedScheduling", message.clone());
        let known = pod.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut known = known.into_iter().filter(|condition| condition.type_ == "PodScheduled");
        if known.any(|known| known.status == "False" && known.message.as_deref() == Some(&message)) {
            return;
        }
        let (client, pod) = (self.client.clone(), Arc::clone(pod));
        bindings.spawn(async move {
            let outcome = write_condition(&client, &pod.pod, &message).await;
            if let Err(error) = outcome {
                tracing::debug!(%error, "cannot say that a pod is unschedulable");
            }
            Bound { pod, outcome: Ok(()) }
        });
    }

    fn bound(&mut self, ended: Option<Bound>) {
        let Some(Bound { pod, outcome }) = ended else { return };
        self.storage.release(pod.uid());
        let Err(error) = outcome else { return };
        tracing::debug!(%error, pod = pod.uid(), "a binding failed");
        // If it has been bound meanwhile, by whomever, the informer says so and that counts.
        let (namespace, name) = (pod.namespace(), pod.pod.metadata.name.as_deref().unwrap_or_default());
        let now = self.pods.get(namespace, name).filter(|now| now.metadata.uid == pod.pod.metadata.uid);
        if now.as_ref().is_some_and(|now| bound_to(now).is_some()) {
            return;
        }
        self.snapshot.remove_pod(pod.uid());
        self.queue.something_changed();
        if now.is_some() {
            self.queue.failed(pod.uid(), Instant::now());
        } else {
            self.queue.remove(pod.uid());
        }
    }
}

fn bound_to(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a change of a node may let pods in that it did not take before. Heartbeats do not.
fn may_help(old: &Node, new: &Node) -> bool {
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.unschedulable, spec.taints.clone()));
    let allocatable = |node: &Node| node.status.as_ref().map(|status| status.allocatable.clone());
    spec(old) != spec(new) || allocatable(old) != allocatable(new) || old.metadata.labels != new.metadata.labels
}

async fn bind(client: Client, events: EventRecorder, pod: Arc<PodInfo>, node: String) -> Bound {
    let metadata = &pod.pod.metadata;
    let binding = Binding {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.clone()),
            ..ObjectReference::default()
        },
    };
    let (namespace, name) = (pod.namespace(), metadata.name.as_deref().unwrap_or_default());
    let outcome = client.create_subresource::<Pod, _>(namespace, name, "binding", &binding).await.map(drop);
    if outcome.is_ok() {
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        events.event(&*pod.pod, EventType::Normal, "Scheduled", message);
    }
    Bound { pod, outcome }
}

async fn write_condition(client: &Client, pod: &Pod, message: &str) -> Result<(), ApiError> {
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": Time(Timestamp::now()),
    });
    let patch = json!({"status": {"conditions": [condition]}});
    let metadata = &pod.metadata;
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let form = ContentType::StrategicMergePatch;
    client.patch::<Pod>(namespace, name, Some("status"), form, &patch).await.map(drop)
}
