//! StatefulSets: pods with names, numbers and claims of their own, begun and ended in order.

pub mod decide;
pub mod identity;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus},
    core::v1::{PersistentVolumeClaim, Pod},
};
use skiff_api::{selector::LabelSelector, status::ApiError};
use skiff_client::{EventType, Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{is_active, is_deleting, name, namespace, selector},
    pods::{BURST, PodControl, claim, is_namespace_terminating, keys_of_owned},
    revisions::{History, may_be_outdated, outdated},
};
use decide::{Plan, View, decide};
use identity::{claim_owners, claims_of, has_retention, ordinal_of, pod_for, revision_of};

/// The controller's identity.
pub const NAME: &str = "statefulset-controller";

/// Keys worked on at once.
const WORKERS: usize = 5;

struct StatefulSets {
    context: Context,
    sets: Arc<Informer<StatefulSet>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    control: PodControl,
    history: History,
}

/// The revisions of a set.
struct Revisions {
    update: Arc<ControllerRevision>,
    current: Arc<ControllerRevision>,
    collisions: Option<i32>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let (sets, claims) = (context.informers.of::<StatefulSet>(), context.informers.of::<PersistentVolumeClaim>());
    let (control, history) = (PodControl::new(&context), History::new(&context));
    let (of_pods, pods) = (Arc::clone(&sets), Arc::clone(&control.pods));
    let cancel = context.cancel.clone();
    let known = futures::future::join(history.synced(), claims.synced());
    if cancel.run_until_cancelled(known).await.is_none() {
        return;
    }
    let controller = StatefulSets { context, sets: Arc::clone(&sets), claims, control, history };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&sets, |set| vec![Key::of(set)])
        .watch(&pods, move |pod| keys_of_owned(pod, &of_pods, labels))
        .run(WORKERS)
        .await;
}

fn labels(set: &StatefulSet) -> LabelSelector {
    set.spec.as_ref().map_or_else(LabelSelector::nothing, |spec| selector(&spec.selector))
}

#[async_trait]
impl Controller for StatefulSets {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(None) };
        let adoptable = |pod: &Pod| is_active(pod) && ordinal_of(&set, pod).is_some();
        let claimed = claim(&set.metadata, &labels(&set), self.control.claimable(&set.metadata), adoptable);
        self.control.claim(&*set, &claimed.adopt, &claimed.release).await?;
        if is_deleting(&set.metadata) {
            return Ok(None);
        }
        let revisions = self.revisions(&set).await?;
        let plan = self.decide(&set, &revisions);
        let outcome = self.act(&set, &revisions, &plan).await;
        let plan = self.decide(&set, &revisions);
        self.write_status(&set, plan.status).await?;
        outcome?;
        self.forget_history(&set, &revisions).await?;
        Ok(plan.again)
    }
}

impl StatefulSets {
    fn pods_of(&self, set: &StatefulSet) -> Vec<Arc<Pod>> {
        let adoptable = |pod: &Pod| is_active(pod) && ordinal_of(set, pod).is_some();
        claim(&set.metadata, &labels(set), self.control.claimable(&set.metadata), adoptable).mine
    }

    async fn revisions(&self, set: &StatefulSet) -> Result<Revisions, ApiError> {
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let status = set.status.as_ref();
        let collisions = status.and_then(|status| status.collision_count);
        let (update, counted) = self.history.current(set, &template, collisions.unwrap_or_default()).await?;
        let known = status.and_then(|status| status.current_revision.as_deref()).unwrap_or_default();
        let all = self.history.of(&set.metadata);
        let current = all.iter().find(|revision| name(&revision.metadata) == known).cloned();
        let current = current.unwrap_or_else(|| Arc::clone(&update));
        Ok(Revisions { update, current, collisions: collisions.map(|_| counted).or((counted > 0).then_some(counted)) })
    }

    fn decide(&self, set: &StatefulSet, revisions: &Revisions) -> Plan {
        let pods = self.pods_of(set);
        let is_doomed = |pod: &Pod| self.control.is_doomed(pod);
        let (update, current) = (name(&revisions.update.metadata), name(&revisions.current.metadata));
        let view = View { set, pods: &pods, is_doomed: &is_doomed, update, current, collisions: revisions.collisions };
        decide(&view, Timestamp::now())
    }

    async fn act(&self, set: &StatefulSet, revisions: &Revisions, plan: &Plan) -> Result<(), ApiError> {
        if set.spec.as_ref().is_some_and(has_retention) {
            self.own_claims(set, plan).await?;
        }
        for (ordinal, is_current) in plan.create.iter().take(BURST) {
            let revision = if *is_current { &revisions.current } else { &revisions.update };
            self.create_claims(set, *ordinal).await?;
            self.create(set, &pod_for(set, *ordinal, revision)).await?;
        }
        for pod in &plan.ended {
            let (space, set_name, pod_name) = (namespace(&set.metadata), name(&set.metadata), name(&pod.metadata));
            let message = format!("StatefulSet {space}/{set_name} is recreating failed Pod {pod_name}");
            self.context.events.event(set, EventType::Warning, "RecreatingFailedPod", message);
        }
        self.control.delete_all(set, &plan.delete).await
    }

    async fn create(&self, set: &StatefulSet, pod: &Pod) -> Result<(), ApiError> {
        let (set_name, pod_name) = (name(&set.metadata), name(&pod.metadata));
        match self.context.client.create(pod).await {
            Ok(made) => {
                self.control.pods.observe(made);
                let message = format!("create Pod {pod_name} in StatefulSet {set_name} successful");
                self.context.events.event(set, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // One that is there already is seen sooner or later; one of another's is waited for.
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("create Pod {pod_name} in StatefulSet {set_name} failed error: {error}");
                self.context.events.event(set, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn create_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), ApiError> {
        let (set_name, space) = (name(&set.metadata), namespace(&set.metadata));
        for (_, mut claim) in claims_of(set, ordinal) {
            let claim_name = name(&claim.metadata).to_owned();
            if self.claims.get(space, &claim_name).is_some() {
                continue;
            }
            if let Some(owners) = claim_owners(set, &claim, None, false) {
                claim.metadata.owner_references = Some(owners);
            }
            let pod_name = format!("{set_name}-{ordinal}");
            match self.context.client.create(&claim).await {
                Ok(made) => {
                    self.claims.observe(made);
                    let message = format!("create Claim {claim_name} Pod {pod_name} in StatefulSet {set_name} success");
                    self.context.events.event(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if error.is_already_exists() || is_namespace_terminating(&error) => {}
                Err(error) => {
                    let message = format!(
                        "create Claim {claim_name} for Pod {pod_name} in StatefulSet {set_name} failed error: {error}"
                    );
                    self.context.events.event(set, EventType::Warning, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives claims the owners with which they are to go.
    async fn own_claims(&self, set: &StatefulSet, plan: &Plan) -> Result<(), ApiError> {
        for pod in self.pods_of(set) {
            let Some(ordinal) = ordinal_of(set, &pod) else { continue };
            let condemned = plan.condemned.iter().any(|other| other.metadata.uid == pod.metadata.uid);
            for (_, claim) in claims_of(set, ordinal) {
                let Some(known) = self.claims.get(namespace(&set.metadata), name(&claim.metadata)) else { continue };
                let Some(owners) = claim_owners(set, &known, Some(&pod), condemned) else { continue };
                let mut changed = (*known).clone();
                changed.metadata.owner_references = Some(owners);
                match self.context.client.update(&changed).await {
                    Ok(claim) => self.claims.observe(claim),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), ApiError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        match self.context.client.update_status(&StatefulSet { status: Some(status), ..set.clone() }).await {
            Ok(set) => self.sets.observe(set),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn forget_history(&self, set: &StatefulSet, revisions: &Revisions) -> Result<(), ApiError> {
        let (all, limit) =
            (self.history.of(&set.metadata), set.spec.as_ref().and_then(|spec| spec.revision_history_limit));
        if !may_be_outdated(&all, limit) {
            return Ok(());
        }
        let pods = self.pods_of(set);
        let is_used = |revision: &ControllerRevision| {
            let own = name(&revision.metadata);
            let in_use = [&revisions.update, &revisions.current].iter().any(|used| name(&used.metadata) == own);
            in_use || pods.iter().any(|pod| revision_of(pod) == own)
        };
        self.history.forget(&outdated(&all, limit, is_used)).await
    }
}
