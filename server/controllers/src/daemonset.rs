//! DaemonSets: a pod on every node that is to have one.

pub mod decide;
pub mod placement;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus},
    core::v1::{Node, Pod},
};
use skiff_api::{selector::LabelSelector, status::ApiError};
use skiff_client::{EventType, Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{is_active, is_deleting, selector},
    pods::{PodControl, claim, keys_of_owned},
    revisions::{HASH_LABEL, History, hash_of, may_be_outdated, outdated},
};
use decide::{Plan, View, decide};

/// The controller's identity.
pub const NAME: &str = "daemon-set-controller";

/// Keys worked on at once.
const WORKERS: usize = 2;

struct DaemonSets {
    context: Context,
    sets: Arc<Informer<DaemonSet>>,
    nodes: Arc<Informer<Node>>,
    control: PodControl,
    history: History,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let (sets, nodes) = (context.informers.of::<DaemonSet>(), context.informers.of::<Node>());
    let (control, history) = (PodControl::new(&context), History::new(&context));
    let (of_pods, of_nodes, pods) = (Arc::clone(&sets), Arc::clone(&sets), Arc::clone(&control.pods));
    let cancel = context.cancel.clone();
    if cancel.run_until_cancelled(history.synced()).await.is_none() {
        return;
    }
    let controller = DaemonSets { context, sets: Arc::clone(&sets), nodes: Arc::clone(&nodes), control, history };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&sets, |set| vec![Key::of(set)])
        .watch(&pods, move |pod| keys_of_owned(pod, &of_pods, labels))
        .watch_if(&nodes, node_matters, move |_| of_nodes.list().iter().map(|set| Key::of(&**set)).collect())
        .run(WORKERS)
        .await;
}

fn node_matters(old: &Node, new: &Node) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

fn labels(set: &DaemonSet) -> LabelSelector {
    set.spec.as_ref().map_or_else(LabelSelector::nothing, |spec| selector(&spec.selector))
}

#[async_trait]
impl Controller for DaemonSets {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(None) };
        let claimed = claim(&set.metadata, &labels(&set), self.control.claimable(&set.metadata), is_active);
        self.control.claim(&*set, &claimed.adopt, &claimed.release).await?;
        if is_deleting(&set.metadata) {
            return Ok(None);
        }
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let (revision, counted) = self.history.current(&*set, &template, collisions.unwrap_or_default()).await?;
        let collisions = collisions.or((counted > 0).then_some(0)).map(|_| counted);
        let plan = self.decide(&set, &revision, collisions);
        let outcome = self.act(&set, &revision, &plan).await;
        let plan = self.decide(&set, &revision, collisions);
        self.write_status(&set, plan.status).await?;
        outcome?;
        self.forget_history(&set, &revision).await?;
        Ok(plan.again)
    }
}

impl DaemonSets {
    fn pods_of(&self, set: &DaemonSet) -> Vec<Arc<Pod>> {
        claim(&set.metadata, &labels(set), self.control.claimable(&set.metadata), is_active).mine
    }

    fn decide(&self, set: &DaemonSet, revision: &ControllerRevision, collisions: Option<i32>) -> Plan {
        let (nodes, pods) = (self.nodes.list(), self.pods_of(set));
        let is_doomed = |pod: &Pod| self.control.is_doomed(pod);
        let hash = hash_of(revision);
        let view = View { set, nodes: &nodes, pods: &pods, is_doomed: &is_doomed, hash, collisions };
        decide(&view, Timestamp::now())
    }

    async fn act(&self, set: &DaemonSet, revision: &ControllerRevision, plan: &Plan) -> Result<(), ApiError> {
        for (is_warning, reason, message) in &plan.events {
            let kind = if *is_warning { EventType::Warning } else { EventType::Normal };
            self.context.events.event(set, kind, reason, message.as_str());
        }
        let pods = plan.create.iter().map(|node| placement::pod_for(set, node, hash_of(revision))).collect();
        self.control.create_all(set, pods).await?;
        self.control.delete_all(set, &plan.delete).await
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), ApiError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        match self.context.client.update_status(&DaemonSet { status: Some(status), ..set.clone() }).await {
            Ok(set) => self.sets.observe(set),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn forget_history(&self, set: &DaemonSet, current: &ControllerRevision) -> Result<(), ApiError> {
        let revisions = self.history.of(&set.metadata);
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        if !may_be_outdated(&revisions, limit) {
            return Ok(());
        }
        let pods = self.pods_of(set);
        let is_used = |revision: &ControllerRevision| {
            let has = |pod: &Arc<Pod>| {
                let labels = pod.metadata.labels.as_ref();
                labels.and_then(|labels| labels.get(HASH_LABEL)).is_some_and(|hash| hash == hash_of(revision))
            };
            revision.metadata.name == current.metadata.name || pods.iter().any(has)
        };
        self.history.forget(&outdated(&revisions, limit, is_used)).await
    }
}
