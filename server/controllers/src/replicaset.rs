//! ReplicaSets and ReplicationControllers: keeps as many pods as asked for. One controller for both; what differs is
//! in [`kinds`].

pub mod decide;
pub mod kinds;
pub mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetStatus},
    core::v1::Pod,
};
use skiff_api::status::ApiError;
use skiff_client::{Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{BY_CONTROLLER, controller_of, controller_reference, controller_values, uid},
    pods::{PodControl, keys_of_owned},
};
use decide::{Decision, View, decide, pod_of, same, selector_of, status, wanted};
use kinds::Set;

/// The identity of the controller of ReplicaSets.
pub const NAME: &str = "replicaset-controller";
/// The identity of the controller of ReplicationControllers.
pub const REPLICATION_NAME: &str = "replication-controller";

/// Keys worked on at once.
const WORKERS: usize = 5;

/// The controller of one of the kinds.
struct Sets<K> {
    context: Context,
    sets: Arc<Informer<K>>,
    control: PodControl,
}

/// Runs the controller of ReplicaSets until cancelled.
pub async fn run(context: Context) {
    run_kind::<ReplicaSet>(NAME, context).await;
}

/// Runs the controller of ReplicationControllers until cancelled.
pub async fn run_replication(context: Context) {
    run_kind::<k8s_openapi::api::core::v1::ReplicationController>(REPLICATION_NAME, context).await;
}

async fn run_kind<K: Set>(name: &'static str, context: Context) {
    let (sets, control) = (context.informers.of::<K>(), PodControl::new(&context));
    sets.index(BY_CONTROLLER, controller_values);
    let (of_pods, pods) = (Arc::clone(&sets), Arc::clone(&control.pods));
    let cancel = context.cancel.clone();
    let controller = Arc::new(Sets { context, sets: Arc::clone(&sets), control });
    Frame::new(name, controller, &cancel)
        .watch(&sets, |set| vec![Key::of(set)])
        .watch(&pods, move |pod| keys_of_owned(pod, &of_pods, K::labels))
        .run(WORKERS)
        .await;
}

#[async_trait]
impl<K: Set> Controller for Sets<K> {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(own) = self.sets.get(&key.namespace, &key.name) else { return Ok(None) };
        let set = K::as_set(&own);
        let decision = self.decide(&set, self.related(&set));
        self.control.claim(&*own, &decision.adopt, &decision.release).await?;
        let outcome = self.manage(&own, &set, &decision).await;
        let again = self.report(&own, &set, &decision, outcome.as_ref().err()).await?;
        outcome.map(|()| again)
    }
}

impl<K: Set> Sets<K> {
    fn decide(&self, set: &ReplicaSet, related: Vec<Arc<Pod>>) -> Decision {
        let is_doomed = |pod: &Pod| self.control.is_doomed(pod);
        let pods = self.control.claimable(&set.metadata);
        let labels = selector_of(set);
        decide(&View { set, labels, pods, related, is_doomed: &is_doomed }, Timestamp::now())
    }

    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods_of = |uid: &str| self.control.pods.indexed(BY_CONTROLLER, uid);
        let Some(owner) = controller_of(&set.metadata) else { return pods_of(uid(&set.metadata)) };
        let siblings = self.sets.indexed(BY_CONTROLLER, &owner.uid);
        siblings.iter().flat_map(|set| pods_of(uid(set.metadata()))).collect()
    }

    async fn manage(&self, own: &K, set: &ReplicaSet, decision: &Decision) -> Result<(), ApiError> {
        if decision.create > 0 {
            let pod = pod_of(set, controller_reference(own));
            self.control.create_all(own, vec![pod; decision.create]).await?;
        }
        self.control.delete_all(own, &decision.delete).await
    }

    /// Writes the status if it says something new. A pass that created or deleted looks anew at what there is.
    async fn report(
        &self,
        own: &Arc<K>,
        set: &ReplicaSet,
        before: &Decision,
        failure: Option<&ApiError>,
    ) -> Result<Again, ApiError> {
        let after = self.decide(set, Vec::new());
        let reason = if before.active.len() > wanted(set) { "FailedDelete" } else { "FailedCreate" };
        let failure = failure.map(|error| (reason, error.to_string()));
        let (mut new, again) = status(set, &after, failure, Timestamp::now());
        K::trim(&mut new);
        if set.status.as_ref().is_some_and(|old| same(old, &new)) {
            return Ok(again);
        }
        self.write_status(own, new).await?;
        Ok(again)
    }

    async fn write_status(&self, own: &K, status: ReplicaSetStatus) -> Result<(), ApiError> {
        match self.context.client.update_status(&own.with_status(status)).await {
            Ok(set) => self.sets.observe(set),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
