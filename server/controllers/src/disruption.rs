//! PodDisruptionBudgets: how many pods may be evicted now; the API server takes from that as it grants evictions.

pub mod decide;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use serde_json::{Value, json};
use skiff_api::{
    request::{Request, Verb},
    selector::LabelSelector,
    status::ApiError,
};
use skiff_client::{EventType, Informer, Key};

use crate::{
    catalog::Catalog,
    disrupt::{DISRUPTION_TARGET, patch_status},
    frame::{Again, Context, Controller, Frame},
    meta::{controller_of, elapsed, is_deleting, is_terminal, namespace, pod_condition, selector},
};
use decide::{DELETION_TIMEOUT, decide, needs_scale};

/// The controller's identity.
pub const NAME: &str = "disruption-controller";

/// Keys worked on at once.
const WORKERS: usize = 2;

struct Budgets {
    context: Context,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    sets: Arc<Informer<ReplicaSet>>,
    deployments: Arc<Informer<Deployment>>,
    stateful: Arc<Informer<StatefulSet>>,
    replication: Arc<Informer<ReplicationController>>,
    catalog: Catalog,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let of = &context.informers;
    let (budgets, pods) = (of.of::<PodDisruptionBudget>(), of.of::<Pod>());
    let controller = Budgets {
        budgets: Arc::clone(&budgets),
        pods: Arc::clone(&pods),
        sets: of.of(),
        deployments: of.of(),
        stateful: of.of(),
        replication: of.of(),
        catalog: Catalog::new(of),
        context: context.clone(),
    };
    // Without these an owner that is not known yet would count as gone, and its pods could all be evicted.
    let (sets, deployments) = (Arc::clone(&controller.sets), Arc::clone(&controller.deployments));
    let (stateful, replication) = (Arc::clone(&controller.stateful), Arc::clone(&controller.replication));
    let known = futures::future::join4(sets.synced(), deployments.synced(), stateful.synced(), replication.synced());
    if context.cancel.run_until_cancelled(known).await.is_none() {
        return;
    }
    let of_pods = Arc::clone(&budgets);
    let frame = Frame::new(NAME, Arc::new(controller), &context.cancel)
        .watch(&budgets, |budget| vec![Key::of(budget)])
        .watch(&pods, move |pod| budgets_of(pod, &of_pods));
    let stale = Stale { context: context.clone(), pods: Arc::clone(&pods) };
    let stale = Frame::new(NAME, Arc::new(stale), &context.cancel).watch(&pods, |pod| {
        if stale_left(pod, Timestamp::UNIX_EPOCH).is_some() { vec![Key::of(pod)] } else { Vec::new() }
    });
    futures::future::join(frame.run(WORKERS), stale.run(1)).await;
}

fn budgets_of(pod: &Pod, budgets: &Informer<PodDisruptionBudget>) -> Vec<Key> {
    let of_pod = budgets.list_in(namespace(&pod.metadata));
    of_pod
        .iter()
        .filter(|budget| labels(budget).matches(&pod.metadata.labels))
        .map(|budget| Key::of(&**budget))
        .collect()
}

fn labels(budget: &PodDisruptionBudget) -> LabelSelector {
    let labels = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    labels.map_or_else(LabelSelector::nothing, selector)
}

#[async_trait]
impl Controller for Budgets {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(None) };
        let labels = labels(&budget);
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|pod| labels.matches(&pod.metadata.labels));
        let scale = if needs_scale(&budget) { self.scale(&key.namespace, &pods).await } else { Ok(0) };
        let plan = decide(&budget, &pods, scale, Timestamp::now());
        if budget.status.as_ref() == Some(&plan.status) {
            return Ok(plan.again);
        }
        for (is_warning, reason, message) in plan.events {
            let kind = if is_warning { EventType::Warning } else { EventType::Normal };
            self.context.events.event(&*budget, kind, reason, message);
        }
        let changed = PodDisruptionBudget { status: Some(plan.status), ..(*budget).clone() };
        match self.context.client.update_status(&changed).await {
            Ok(budget) => self.budgets.observe(budget),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(plan.again)
    }
}

impl Budgets {
    /// How many pods the controllers of these pods want to have.
    async fn scale(&self, space: &str, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut scales: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            let owner = self.root(space, owner);
            if !scales.contains_key(&owner.uid) {
                let scale = self.scale_of(space, &owner).await?;
                scales.insert(owner.uid, scale);
            }
        }
        Ok(scales.values().fold(0, |sum, scale| sum.saturating_add(*scale)))
    }

    /// The Deployment of a ReplicaSet that has one, else the owner itself.
    fn root(&self, space: &str, owner: &OwnerReference) -> OwnerReference {
        let set = (owner.kind == "ReplicaSet").then(|| self.sets.get(space, &owner.name)).flatten();
        let above = set.and_then(|set| controller_of(&set.metadata).cloned());
        above.filter(|above| above.kind == "Deployment").unwrap_or_else(|| owner.clone())
    }

    async fn scale_of(&self, space: &str, owner: &OwnerReference) -> Result<i32, String> {
        let name = owner.name.as_str();
        let replicas = match owner.kind.as_str() {
            "Deployment" => {
                self.deployments.get(space, name).map(|one| one.spec.as_ref().and_then(|spec| spec.replicas))
            }
            "ReplicaSet" => self.sets.get(space, name).map(|one| one.spec.as_ref().and_then(|spec| spec.replicas)),
            "StatefulSet" => self.stateful.get(space, name).map(|one| one.spec.as_ref().and_then(|spec| spec.replicas)),
            "ReplicationController" => {
                self.replication.get(space, name).map(|one| one.spec.as_ref().and_then(|spec| spec.replicas))
            }
            _ => return self.scale_by_subresource(space, owner).await,
        };
        // What is gone wants nothing more.
        Ok(replicas.map_or(0, |replicas| replicas.unwrap_or(1)))
    }

    async fn scale_by_subresource(&self, space: &str, owner: &OwnerReference) -> Result<i32, String> {
        let missing = || format!("{}.{} does not implement the scale subresource", owner.kind, owner.api_version);
        let known = self.catalog.of_owner(&owner.api_version, &owner.kind).ok_or_else(missing)?;
        let request = Request {
            subresource: Some("scale".to_owned()),
            ..Request::new(Verb::Get, known.resource, space, &owner.name)
        };
        let scale = self.context.client.raw(request).await.map_err(|_| missing())?;
        let scale: Value = serde_json::from_slice(&scale).map_err(|error| error.to_string())?;
        Ok(scale["spec"]["replicas"].as_i64().and_then(|count| i32::try_from(count).ok()).unwrap_or_default())
    }
}

/// Pods that were to be ended and were not: their condition no longer holds.
struct Stale {
    context: Context,
    pods: Arc<Informer<Pod>>,
}

/// How long a pod may still be said to be about to end; `None` where it is not, or does end.
fn stale_left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let condition = pod_condition(pod, DISRUPTION_TARGET).filter(|condition| condition.status == "True")?;
    let since = condition.last_transition_time.as_ref().map_or(now, |time| time.0);
    let stays = !is_deleting(&pod.metadata) && !is_terminal(pod);
    stays.then(|| DELETION_TIMEOUT.saturating_sub(elapsed(since, now)))
}

#[async_trait]
impl Controller for Stale {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(None) };
        let now = Timestamp::now();
        match stale_left(&pod, now) {
            Some(left) if left.is_zero() => {
                let condition = json!({"type": DISRUPTION_TARGET, "status": "False", "lastTransitionTime": Time(now)});
                let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
                patch_status(&self.context, &self.pods, &pod, &patch).await?;
                Ok(None)
            }
            left => Ok(left),
        }
    }
}
