//! Starts a worker for each pod of the node, tells it what concerns it, and one for each sandbox whose pod is gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_cri::v1::ListPodSandboxRequest;
use k8s_openapi::{
    api::core::v1::{Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use skiff_client::{Change, Key};
use tokio::{
    sync::{mpsc, watch as watch_channel},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    config::{POD_NAME, POD_NAMESPACE, POD_UID},
    rotate,
    statics::{Statics, mirrored},
    worker::{Input, Origin, worker},
};
use crate::{
    context::{Context, Order},
    runtime::watch::{Heard, watch},
};

/// How much may be heard of runtimes before it is taken in.
const HEARD: usize = 256;

struct Manager {
    ctx: Arc<Context>,
    workers: BTreeMap<String, mpsc::Sender<Input>>,
    /// The static pods that are to run.
    statics: Statics,
    /// The namespaces and names of static pods that have a worker.
    static_names: BTreeMap<String, Key>,
    tasks: JoinSet<String>,
    cancel: CancellationToken,
}

/// Keeps the node's pods until cancelled; ends when all workers have.
pub async fn run(ctx: Arc<Context>, mut statics: watch_channel::Receiver<Statics>, cancel: CancellationToken) {
    let (sender, mut heard) = mpsc::channel(HEARD);
    for runtime in ctx.runtimes.all() {
        tokio::spawn(watch(Arc::clone(&runtime.cri), sender.clone(), cancel.clone()));
    }
    let rotating = tokio::spawn(rotate::run(Arc::clone(&ctx)));
    let mut orders = ctx.orders.subscribe();
    let mut changes = ctx.pods.subscribe();
    let mut manager = Manager {
        ctx,
        workers: BTreeMap::new(),
        statics: statics.borrow_and_update().clone(),
        static_names: BTreeMap::new(),
        tasks: JoinSet::new(),
        cancel: cancel.clone(),
    };
    manager.begin_statics().await;
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            change = changes.next() => match change {
                Some(change) => manager.changed(change).await,
                None => break,
            },
            // Orders that were missed are given again while what made them lasts.
            order = orders.recv() => if let Ok(order) = order { manager.order(order) },
            Ok(()) = statics.changed() => {
                manager.statics = statics.borrow_and_update().clone();
                manager.begin_statics().await;
            }
            Some(what) = heard.recv() => manager.heard(what).await,
            Some(ended) = manager.tasks.join_next() => manager.ended(ended).await,
        }
    }
    rotating.abort();
    while manager.tasks.join_next().await.is_some() {}
}

impl Manager {
    async fn changed(&mut self, change: Change<Pod>) {
        match change {
            Change::Added(pod) | Change::Modified { new: pod, .. } => self.wanted(pod).await,
            Change::Deleted(pod) if mirrored(&pod).is_some() => self.mirror(&pod, None).await,
            Change::Deleted(pod) => self.gone(pod.metadata.uid.as_deref().unwrap_or_default()).await,
            Change::Resync => self.resync().await,
        }
    }

    async fn resync(&mut self) {
        if !self.ctx.pods.is_synced() {
            return;
        }
        let pods = self.ctx.pods.list();
        let uids = self.known();
        for uid in self.workers.keys().filter(|uid| !uids.contains(*uid)).cloned().collect::<Vec<_>>() {
            self.gone(&uid).await;
        }
        for pod in pods {
            self.wanted(pod).await;
        }
        self.remove_orphans().await;
    }

    /// The UIDs of all pods that are to run or are in the API.
    fn known(&self) -> BTreeSet<String> {
        let of_api = self.ctx.pods.list();
        let of_api = of_api.iter().filter(|pod| mirrored(pod).is_none());
        of_api.filter_map(|pod| pod.metadata.uid.clone()).chain(self.statics.keys().cloned()).collect()
    }

    /// Ends static pods that are no longer to run and begins those that have no worker yet. A pod that replaces one of
    /// the same name begins when that has ended.
    async fn begin_statics(&mut self) {
        let over = self.static_names.keys().filter(|uid| !self.statics.contains_key(*uid)).cloned();
        for uid in over.collect::<Vec<_>>() {
            self.gone(&uid).await;
        }
        for (uid, pod) in self.statics.clone() {
            let name = Key::of(&*pod);
            if self.workers.contains_key(&uid) || self.static_names.values().any(|known| *known == name) {
                continue;
            }
            self.static_names.insert(uid.clone(), name.clone());
            self.begin(uid, pod, Origin::File);
            if let Some(mirror) = self.ctx.pods.get(&name.namespace, &name.name) {
                self.mirror(&mirror, Some(Arc::clone(&mirror))).await;
            }
        }
    }

    /// Tells a static pod of its mirror.
    async fn mirror(&self, about: &Pod, mirror: Option<Arc<Pod>>) {
        if let Some(inbox) = mirrored(about).and_then(|uid| self.workers.get(uid)) {
            let _ended = inbox.send(Input::Mirror(mirror)).await;
        }
    }

    async fn wanted(&mut self, pod: Arc<Pod>) {
        if mirrored(&pod).is_some() {
            return self.mirror(&pod, Some(Arc::clone(&pod))).await;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if let Some(inbox) = self.workers.get(&uid)
            && inbox.send(Input::Pod(Arc::clone(&pod))).await.is_ok()
        {
            return;
        }
        self.begin(uid, pod, Origin::Api);
    }

    fn begin(&mut self, uid: String, pod: Arc<Pod>, origin: Origin) {
        let (inbox, task) = worker(Arc::clone(&self.ctx), pod, origin, &self.cancel);
        self.workers.insert(uid.clone(), inbox);
        self.tasks.spawn(async move {
            task.await;
            uid
        });
    }

    async fn gone(&mut self, uid: &str) {
        if let Some(inbox) = self.workers.get(uid) {
            let _ended = inbox.send(Input::Gone).await;
        }
    }

    fn order(&mut self, order: Order) {
        if let Some(inbox) = self.workers.get(&order.uid) {
            let _full = inbox.try_send(Input::End(Box::new(order.ended)));
        }
    }

    async fn ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                // A worker may have been told of the pod again while it ended.
                if self.workers.get(&uid).is_some_and(mpsc::Sender::is_closed) {
                    self.workers.remove(&uid);
                    if self.static_names.remove(&uid).is_some() {
                        self.begin_statics().await;
                    }
                }
            }
            Err(e) => tracing::error!(error = %e, "a pod's worker failed"),
        }
    }

    async fn heard(&mut self, what: Heard) {
        match what {
            Heard::Pod(uid) => {
                if let Some(inbox) = self.workers.get(&uid) {
                    // A full inbox means that the worker is about to look anyway.
                    let _full = inbox.try_send(Input::Heard);
                }
            }
            Heard::All => {
                for inbox in self.workers.values() {
                    let _full = inbox.try_send(Input::Heard);
                }
                self.remove_orphans().await;
            }
            Heard::Gone => tracing::warn!("the container runtime went away"),
        }
    }

    /// Sandboxes whose pods are not known any more get workers that take them away.
    async fn remove_orphans(&mut self) {
        if !self.ctx.pods.is_synced() {
            return;
        }
        let known = self.known();
        for runtime in self.ctx.runtimes.all().to_vec() {
            let Ok(listed) = runtime.cri.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await else {
                continue;
            };
            for sandbox in listed.items {
                let uid = sandbox.labels.get(POD_UID).cloned().unwrap_or_default();
                if !uid.is_empty() && !known.contains(&uid) && !self.workers.contains_key(&uid) {
                    let handler = Some(sandbox.runtime_handler).filter(|handler| !handler.is_empty());
                    // A runtime need not tell which handler made a sandbox: any of its own reaches it.
                    let handler = handler.or(runtime.handlers.first().cloned()).unwrap_or_default();
                    self.begin(uid, Arc::new(orphan(&sandbox.labels, handler)), Origin::Gone);
                }
            }
        }
    }
}

/// What can be said of a pod from its sandbox alone.
fn orphan(labels: &HashMap<String, String>, handler: String) -> Pod {
    let metadata = ObjectMeta {
        name: labels.get(POD_NAME).cloned(),
        namespace: labels.get(POD_NAMESPACE).cloned(),
        uid: labels.get(POD_UID).cloned(),
        ..ObjectMeta::default()
    };
    let runtime_class_name = (!handler.is_empty()).then_some(handler);
    Pod { metadata, spec: Some(PodSpec { runtime_class_name, ..PodSpec::default() }), status: None }
}
