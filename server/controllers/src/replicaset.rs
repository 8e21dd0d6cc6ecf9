//! ReplicaSets: keeps as many pods as asked for.

pub mod decide;
pub mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::{EventType, Informer, Key};
use tokio::task::JoinSet;

use crate::{
    frame::{Again, Context, Controller, Doomed, Frame},
    meta::{
        BY_CONTROLLER, adopt_patch, controller_of, controller_values, name, namespace, orphans_of, release_patch, uid,
    },
};
use decide::{Decision, View, decide, pod_of, same, status, wanted};

/// The controller's identity.
pub const NAME: &str = "replicaset-controller";

/// How many pods are created at once at first; twice as many after each batch that succeeds, so that a template that
/// is refused is refused once and not 500 times.
const FIRST_BATCH: usize = 1;

/// How many requests are under way at once.
const PARALLEL: usize = 64;

/// Keys worked on at once.
const WORKERS: usize = 5;

/// The controller.
pub struct ReplicaSets {
    context: Context,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    doomed: Arc<Doomed>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let (sets, pods) = (context.informers.of::<ReplicaSet>(), context.informers.of::<Pod>());
    pods.index(BY_CONTROLLER, controller_values);
    sets.index(BY_CONTROLLER, controller_values);
    let doomed = Arc::new(Doomed::default());
    let mut tasks = JoinSet::new();
    doomed.follow(&pods, &mut tasks);
    let sets_of_orphans = Arc::clone(&sets);
    let cancel = context.cancel.clone();
    let controller = Arc::new(ReplicaSets { context, sets: Arc::clone(&sets), pods: Arc::clone(&pods), doomed });
    Frame::new(NAME, controller, &cancel)
        .watch(&sets, |set| vec![Key::of(set)])
        .watch(&pods, move |pod| keys_of_pod(pod, &sets_of_orphans))
        .run(WORKERS)
        .await;
}

/// The set that controls a pod, or those that may want one that nobody controls.
fn keys_of_pod(pod: &Pod, sets: &Informer<ReplicaSet>) -> Vec<Key> {
    match controller_of(&pod.metadata) {
        Some(owner) if owner.kind == "ReplicaSet" => vec![Key::new(namespace(&pod.metadata), &*owner.name)],
        Some(_) => Vec::new(),
        None => sets
            .list_in(namespace(&pod.metadata))
            .iter()
            .filter(|set| {
                set.spec
                    .as_ref()
                    .is_some_and(|spec| crate::meta::selector(&spec.selector).matches(&pod.metadata.labels))
            })
            .map(|set| Key::of(&**set))
            .collect(),
    }
}

#[async_trait]
impl Controller for ReplicaSets {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(None) };
        let is_doomed = |uid: &str| self.doomed.contains(uid);
        let view = View { set: &set, pods: self.claimable(&set), related: self.related(&set), is_doomed: &is_doomed };
        let decision = decide(&view, Timestamp::now());
        self.claim(&set, &decision).await?;
        let outcome = self.manage(&set, &decision).await;
        let again = self.report(&set, &decision, outcome.as_ref().err()).await?;
        outcome.map(|()| again)
    }
}

impl ReplicaSets {
    fn claimable(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.indexed(BY_CONTROLLER, uid(&set.metadata));
        pods.extend(self.pods.indexed(BY_CONTROLLER, &orphans_of(namespace(&set.metadata))));
        pods
    }

    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(&set.metadata) else {
            return self.pods.indexed(BY_CONTROLLER, uid(&set.metadata));
        };
        let siblings = self.sets.indexed(BY_CONTROLLER, &owner.uid);
        siblings.iter().flat_map(|set| self.pods.indexed(BY_CONTROLLER, uid(&set.metadata))).collect()
    }

    async fn claim(&self, set: &ReplicaSet, decision: &Decision) -> Result<(), ApiError> {
        if !decision.adopt.is_empty() {
            self.check_alive(set).await?;
        }
        for pod in &decision.adopt {
            self.patch(pod, adopt_patch(set, uid(&pod.metadata))).await?;
        }
        for pod in &decision.release {
            self.patch(pod, release_patch(uid(&set.metadata), uid(&pod.metadata))).await?;
        }
        Ok(())
    }

    /// Before others' pods are taken on: the set must still be there, by the server's word.
    async fn check_alive(&self, set: &ReplicaSet) -> Result<(), ApiError> {
        let fresh: ReplicaSet = self.context.client.get(namespace(&set.metadata), name(&set.metadata)).await?;
        if fresh.metadata.uid != set.metadata.uid || fresh.metadata.deletion_timestamp.is_some() {
            return Err(ApiError::conflict("apps", "replicasets", name(&set.metadata), "it is going"));
        }
        Ok(())
    }

    async fn patch(&self, pod: &Pod, patch: serde_json::Value) -> Result<(), ApiError> {
        let (namespace, name) = (namespace(&pod.metadata), name(&pod.metadata));
        let client = &self.context.client;
        match client.patch(namespace, name, None, ContentType::StrategicMergePatch, &patch).await {
            Ok(pod) => self.pods.observe(pod),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn manage(&self, set: &ReplicaSet, decision: &Decision) -> Result<(), ApiError> {
        self.create(set, decision.create).await?;
        let deletions = decision.delete.iter().cloned().map(|pod| async move { self.delete(set, &pod).await });
        let outcomes: Vec<_> = stream::iter(deletions).buffer_unordered(PARALLEL).collect().await;
        outcomes.into_iter().collect()
    }

    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), ApiError> {
        let pod = pod_of(set);
        let (mut left, mut batch) = (count, FIRST_BATCH);
        while left > 0 {
            let now = batch.min(left);
            let creations = (0..now).map(|_| self.create_one(set, &pod));
            let outcomes: Vec<_> = stream::iter(creations).buffer_unordered(PARALLEL).collect().await;
            outcomes.into_iter().collect::<Result<(), _>>()?;
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), ApiError> {
        match self.context.client.create(pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", name(&created.metadata));
                self.context.events.event(set, EventType::Normal, "SuccessfulCreate", message);
                self.pods.observe(created);
                Ok(())
            }
            // The namespace is going, and this set with it.
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                self.context.events.event(set, EventType::Warning, "FailedCreate", format!("Error creating: {error}"));
                Err(error)
            }
        }
    }

    async fn delete(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), ApiError> {
        let (uid, name) = (uid(&pod.metadata), name(&pod.metadata));
        let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
        let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
        // Before the request: the watch may tell of the deletion before the answer comes.
        self.doomed.add(uid);
        match self.context.client.delete::<Pod>(namespace(&pod.metadata), name, &options).await {
            Ok(_) => {
                self.context.events.event(set, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {
                // The watch may have told of the deletion before it was noted above.
                if self
                    .pods
                    .get(namespace(&pod.metadata), name)
                    .is_none_or(|pod| crate::meta::uid(&pod.metadata) != uid)
                {
                    self.doomed.forget(uid);
                }
                Ok(())
            }
            Err(error) => {
                self.doomed.forget(uid);
                self.context.events.event(set, EventType::Warning, "FailedDelete", format!("Error deleting: {error}"));
                Err(error)
            }
        }
    }

    /// Writes the status if it says something new. A pass that created or deleted looks anew at what there is.
    async fn report(
        &self,
        set: &Arc<ReplicaSet>,
        before: &Decision,
        failure: Option<&ApiError>,
    ) -> Result<Again, ApiError> {
        let now = Timestamp::now();
        let is_doomed = |uid: &str| self.doomed.contains(uid);
        let view = View { set, pods: self.claimable(set), related: Vec::new(), is_doomed: &is_doomed };
        let after = decide(&view, now);
        let reason = if before.active.len() > wanted(set) { "FailedDelete" } else { "FailedCreate" };
        let (new, again) = status(set, &after, failure.map(|error| (reason, error.to_string())), now);
        if set.status.as_ref().is_some_and(|old| same(old, &new)) {
            return Ok(again);
        }
        self.write_status(set, new).await?;
        Ok(again)
    }

    async fn write_status(&self, set: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), ApiError> {
        let set = ReplicaSet { status: Some(status), ..set.clone() };
        match self.context.client.update_status(&set).await {
            Ok(set) => self.sets.observe(set),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether a creation was refused because its namespace is being deleted.
pub fn is_namespace_terminating(error: &ApiError) -> bool {
    error.details["causes"].as_array().into_iter().flatten().any(|cause| cause["reason"] == "NamespaceTerminating")
}
