//! Deployments: one ReplicaSet a revision of the template, sizes moved from the old to the new within the limits of
//! the strategy.

pub mod decide;
pub mod sets;
pub mod status;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use skiff_api::{
    request::ContentType,
    status::{ApiError, Reason},
};
use skiff_client::{EventType, Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{
        BY_CONTROLLER, adopt_patch, controller_of, controller_values, is_controlled_by, is_deleting, is_terminal, name,
        namespace, orphans_of, release_patch, selector, uid,
    },
};
use decide::{Step, View, decide, split};
use sets::{REVISION, same_template, size, sizes};

/// The controller's identity.
pub const NAME: &str = "deployment-controller";

/// Keys worked on at once.
const WORKERS: usize = 5;

/// How many steps one pass takes at most; each is decided on what the one before left.
const MAX_STEPS: usize = 8;

/// The controller.
pub struct Deployments {
    context: Context,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let informers = &context.informers;
    let (deployments, sets, pods) = (informers.of::<Deployment>(), informers.of::<ReplicaSet>(), informers.of::<Pod>());
    sets.index(BY_CONTROLLER, controller_values);
    pods.index(BY_CONTROLLER, controller_values);
    let cancel = context.cancel.clone();
    let (of_orphans, of_pods, sets_of_pods) = (Arc::clone(&deployments), Arc::clone(&deployments), Arc::clone(&sets));
    let controller = Deployments {
        context,
        deployments: Arc::clone(&deployments),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
    };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&deployments, |deployment| vec![Key::of(deployment)])
        .watch(&sets, move |set| keys_of_set(set, &of_orphans))
        .watch_if(
            &pods,
            |old, new| is_terminal(old) != is_terminal(new),
            move |pod| keys_of_pod(pod, &sets_of_pods, &of_pods),
        )
        .run(WORKERS)
        .await;
}

fn keys_of_set(set: &ReplicaSet, deployments: &Informer<Deployment>) -> Vec<Key> {
    match controller_of(&set.metadata) {
        Some(owner) if owner.kind == "Deployment" => vec![Key::new(namespace(&set.metadata), &*owner.name)],
        Some(_) => Vec::new(),
        None => deployments
            .list_in(namespace(&set.metadata))
            .iter()
            .filter(|one| one.spec.as_ref().is_some_and(|spec| selector(&spec.selector).matches(&set.metadata.labels)))
            .map(|one| Key::of(&**one))
            .collect(),
    }
}

/// Only `Recreate` waits for pods.
fn keys_of_pod(pod: &Pod, sets: &Informer<ReplicaSet>, deployments: &Informer<Deployment>) -> Vec<Key> {
    let key = || {
        let space = namespace(&pod.metadata);
        let set = sets.get(space, &controller_of(&pod.metadata)?.name)?;
        let deployment = deployments.get(space, &controller_of(&set.metadata)?.name)?;
        (!sets::is_rolling(&deployment)).then(|| Key::of(&*deployment))
    };
    key().into_iter().collect()
}

#[async_trait]
impl Controller for Deployments {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(None) };
        self.claim(&deployment).await?;
        for _ in 0..MAX_STEPS {
            let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(None) };
            let steps = self.steps(&deployment);
            if steps.is_empty() {
                break;
            }
            for step in steps {
                self.take(&deployment, step).await?;
            }
        }
        self.report(key).await
    }
}

impl Deployments {
    fn owned(&self, deployment: &Deployment) -> Vec<Arc<ReplicaSet>> {
        self.sets.indexed(BY_CONTROLLER, uid(&deployment.metadata))
    }

    fn steps(&self, deployment: &Deployment) -> Vec<Step> {
        let owned = self.owned(deployment);
        let mut view = View { deployment, sets: &owned, old_pods_run: false };
        if !sets::is_rolling(deployment) {
            view.old_pods_run = self.old_pods_run(&split(&view).old);
        }
        decide(&view)
    }

    fn old_pods_run(&self, old: &[Arc<ReplicaSet>]) -> bool {
        old.iter().any(|set| self.pods.indexed(BY_CONTROLLER, uid(&set.metadata)).iter().any(|pod| !is_terminal(pod)))
    }

    /// Takes on sets that match and are nobody's, lets go those that no longer match.
    async fn claim(&self, deployment: &Deployment) -> Result<(), ApiError> {
        let Some(spec) = deployment.spec.as_ref().filter(|_| !is_deleting(&deployment.metadata)) else { return Ok(()) };
        let labels = selector(&spec.selector);
        for set in self.owned(deployment).iter().filter(|set| !labels.matches(&set.metadata.labels)) {
            self.patch(set, release_patch(uid(&deployment.metadata), uid(&set.metadata))).await?;
        }
        let orphans = self.sets.indexed(BY_CONTROLLER, &orphans_of(namespace(&deployment.metadata)));
        let wanted = |set: &&Arc<ReplicaSet>| labels.matches(&set.metadata.labels) && !is_deleting(&set.metadata);
        for set in orphans.iter().filter(wanted) {
            let fresh: Deployment =
                self.context.client.get(namespace(&deployment.metadata), name(&deployment.metadata)).await?;
            if fresh.metadata.uid == deployment.metadata.uid && !is_deleting(&fresh.metadata) {
                self.patch(set, adopt_patch(deployment, uid(&set.metadata))).await?;
            }
        }
        Ok(())
    }

    async fn patch(&self, set: &ReplicaSet, patch: serde_json::Value) -> Result<(), ApiError> {
        let (namespace, name) = (namespace(&set.metadata), name(&set.metadata));
        let form = ContentType::StrategicMergePatch;
        self.sets.observe(self.context.client.patch(namespace, name, None, form, &patch).await?);
        Ok(())
    }

    async fn take(&self, deployment: &Deployment, step: Step) -> Result<(), ApiError> {
        match step {
            Step::Create(set) => self.create(deployment, *set).await,
            Step::Update(set) => {
                self.sets.observe(self.context.client.update(&*set).await?);
                Ok(())
            }
            Step::Revision(revision) => {
                let mut changed = deployment.clone();
                changed.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision.to_string());
                // By way of the status, as Kubernetes does: a change of annotations by any other way is a new generation.
                self.deployments.observe(self.context.client.update_status(&changed).await?);
                Ok(())
            }
            Step::Scale { set, to } => self.scale(deployment, &set, to).await,
            Step::Delete(set) => self.delete(&set).await,
        }
    }

    async fn create(&self, deployment: &Deployment, set: ReplicaSet) -> Result<(), ApiError> {
        match self.context.client.create(&set).await {
            Ok(created) => {
                if size(&created) > 0 {
                    let message =
                        format!("Scaled up replica set {} from 0 to {}", name(&created.metadata), size(&created));
                    self.context.events.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
                }
                self.sets.observe(created);
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.resolve_collision(deployment, &set, error).await,
            Err(error) if crate::pods::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", name(&set.metadata));
                self.context.events.event(deployment, EventType::Warning, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    /// A set of that name is there: our own that the informer does not show yet, or another template's with the
    /// same hash, in which case the next name is another.
    async fn resolve_collision(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        error: ApiError,
    ) -> Result<(), ApiError> {
        let known: ReplicaSet = self.context.client.get(namespace(&set.metadata), name(&set.metadata)).await?;
        let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        if is_controlled_by(&known.metadata, uid(&deployment.metadata))
            && same_template(&template(&known), &template(set))
        {
            self.sets.observe(known);
            return Ok(());
        }
        let mut changed = deployment.clone();
        let status = changed.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default().saturating_add(1));
        self.deployments.observe(self.context.client.update_status(&changed).await?);
        Err(ApiError { reason: Reason::Conflict, ..error })
    }

    async fn scale(&self, deployment: &Deployment, set: &ReplicaSet, to: i32) -> Result<(), ApiError> {
        let from = size(set);
        let mut changed = set.clone();
        changed.metadata.annotations.get_or_insert_default().extend(sizes(deployment));
        changed.spec.get_or_insert_default().replicas = Some(to);
        let changed = self.context.client.update(&changed).await?;
        if from != to {
            let way = if to > from { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {} from {from} to {to}", name(&set.metadata));
            self.context.events.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
        }
        self.sets.observe(changed);
        Ok(())
    }

    async fn delete(&self, set: &ReplicaSet) -> Result<(), ApiError> {
        let preconditions = Preconditions { uid: set.metadata.uid.clone(), ..Preconditions::default() };
        let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
        match self.context.client.delete::<ReplicaSet>(namespace(&set.metadata), name(&set.metadata), &options).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn report(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(None) };
        let owned = self.owned(&deployment);
        let view = View { deployment: &deployment, sets: &owned, old_pods_run: false };
        let (status, again) =
            status::status(&deployment, &split(&view), is_deleting(&deployment.metadata), Timestamp::now());
        if !deployment.status.as_ref().is_some_and(|old| status::same(old, &status)) {
            self.write_status(&deployment, status).await?;
        }
        Ok(again.map(|delay| delay.max(Duration::from_secs(1))))
    }

    async fn write_status(&self, deployment: &Deployment, status: DeploymentStatus) -> Result<(), ApiError> {
        let deployment = Deployment { status: Some(status), ..deployment.clone() };
        match self.context.client.update_status(&deployment).await {
            Ok(deployment) => self.deployments.observe(deployment),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
