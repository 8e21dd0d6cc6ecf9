//! A Deployment's status: counts, and the conditions `Available`, `Progressing` and `ReplicaFailure`, with the
//! reasons and messages of Kubernetes. No I/O.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    decide::Split,
    sets::{available, max_unavailable, size, sum, wanted},
};
use crate::meta::{elapsed, name, seconds};

/// The status, and when to look again because a deadline passes.
pub fn status(
    deployment: &Deployment,
    split: &Split,
    scaling: bool,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let mut status = counts(deployment, split);
    let mut conditions = Conditions { list: status.conditions.take().unwrap_or_default(), now };
    let enough = status.available_replicas.unwrap_or_default() >= wanted(deployment) - max_unavailable(deployment);
    if enough {
        conditions.set("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set("Available", "False", "MinimumReplicasUnavailable", message);
    }
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let again = match deadline(deployment) {
        Some(_) if paused => {
            pause(&mut conditions);
            None
        }
        Some(deadline) if !scaling => progress(deployment, split, &status, deadline, &mut conditions),
        _ => None,
    };
    match failure(split) {
        Some(failed) => conditions.set("ReplicaFailure", &failed.0, &failed.1, &failed.2),
        None => conditions.list.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    status.conditions = Some(conditions.list);
    (status, again)
}

/// Whether two statuses say the same; absent counts are zero, and when a condition was last looked at is not news.
pub fn same(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let numbers = |s: &DeploymentStatus| {
        [
            s.replicas,
            s.updated_replicas,
            s.ready_replicas,
            s.available_replicas,
            s.unavailable_replicas,
            s.terminating_replicas,
        ]
        .map(Option::unwrap_or_default)
    };
    numbers(a) == numbers(b)
        && (a.observed_generation, a.collision_count) == (b.observed_generation, b.collision_count)
        && a.conditions.as_deref().unwrap_or(&[]) == b.conditions.as_deref().unwrap_or(&[])
}

fn counts(deployment: &Deployment, split: &Split) -> DeploymentStatus {
    let all: Vec<&Arc<ReplicaSet>> = split.old.iter().chain(&split.new).collect();
    let all = || all.iter().copied();
    let replicas = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    let going =
        |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or_default();
    let available = sum(all(), available);
    let old = deployment.status.clone().unwrap_or_default();
    DeploymentStatus {
        replicas: Some(sum(all(), replicas)),
        updated_replicas: Some(split.new.as_ref().map_or(0, |set| replicas(set))),
        ready_replicas: Some(sum(all(), ready)),
        available_replicas: Some(available),
        unavailable_replicas: Some((sum(all(), size) - available).max(0)),
        terminating_replicas: Some(sum(all(), going)),
        observed_generation: deployment.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
    }
}

fn deadline(deployment: &Deployment) -> Option<Duration> {
    let deadline = deployment.spec.as_ref()?.progress_deadline_seconds.unwrap_or(600);
    (deadline != i32::MAX).then(|| seconds(deadline))
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    /// Sets a condition unless it says the same already.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        if !self.get(kind).is_some_and(|known| known.status == status && known.reason.as_deref() == Some(reason)) {
            self.renew(kind, status, reason, message);
        }
    }

    /// Sets a condition in any case; the time of its transition stays if its status does.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let known = self.get(kind).filter(|known| known.status == status);
        let since = known.and_then(|known| known.last_transition_time.clone()).unwrap_or(Time(self.now));
        self.list.retain(|condition| condition.type_ != kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since),
        });
    }
}

fn pause(conditions: &mut Conditions) {
    conditions.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
}

fn progress(
    deployment: &Deployment,
    split: &Split,
    new: &DeploymentStatus,
    deadline: Duration,
    conditions: &mut Conditions,
) -> Option<Duration> {
    let what = match &split.new {
        Some(set) => format!("ReplicaSet {:?}", name(&set.metadata)),
        None => format!("Deployment {:?}", name(&deployment.metadata)),
    };
    let reason = conditions.get("Progressing").and_then(|known| known.reason.clone()).unwrap_or_default();
    if reason == "DeploymentPaused" {
        conditions.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed");
    }
    if is_complete(deployment, new) {
        let message = format!("{what} has successfully progressed.");
        conditions.set("Progressing", "True", "NewReplicaSetAvailable", &message);
        return None;
    }
    let done = reason == "NewReplicaSetAvailable" && new.replicas == new.updated_replicas;
    if done {
        // A finished rollout that loses a pod is not a rollout that hangs.
        return None;
    }
    if reason.is_empty() {
        let message = match &split.new {
            Some(set) => format!("Created new replica set {:?}", name(&set.metadata)),
            None => "Deployment is progressing.".to_owned(),
        };
        conditions.set("Progressing", "True", "NewReplicaSetCreated", &message);
    } else if has_progressed(&deployment.status.clone().unwrap_or_default(), new) {
        conditions.renew("Progressing", "True", "ReplicaSetUpdated", &format!("{what} is progressing."));
    } else if let Some(left) = left(conditions, deadline) {
        return Some(left);
    } else {
        let message = format!("{what} has timed out progressing.");
        conditions.set("Progressing", "False", "ProgressDeadlineExceeded", &message);
        return None;
    }
    Some(deadline + Duration::from_secs(1))
}

/// How long until the deadline since the last progress passes; `None` if it has.
fn left(conditions: &Conditions, deadline: Duration) -> Option<Duration> {
    let known = conditions.get("Progressing")?;
    if matches!(known.reason.as_deref(), Some("ProgressDeadlineExceeded")) {
        return None;
    }
    let since = known.last_update_time.as_ref().map_or(conditions.now, |time| time.0);
    deadline.checked_sub(elapsed(since, conditions.now)).filter(|left| !left.is_zero())
}

fn is_complete(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let wanted = Some(wanted(deployment));
    new.updated_replicas == wanted && new.replicas == wanted && new.available_replicas == wanted
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or_default();
    let rest = |status: &DeploymentStatus| n(status.replicas) - n(status.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || rest(new) < rest(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// What keeps the sets from making pods: the new one's word counts first.
fn failure(split: &Split) -> Option<(String, String, String)> {
    split.new.iter().chain(&split.old).find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let failed = conditions.iter().find(|condition| condition.type_ == "ReplicaFailure")?;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Some((failed.status.clone(), text(&failed.reason), text(&failed.message)))
    })
}
