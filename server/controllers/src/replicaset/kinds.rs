//! The two kinds that keep a number of pods: a ReplicationController is read as the ReplicaSet that it would be, as
//! Kubernetes does.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::{
            ReplicationController, ReplicationControllerCondition, ReplicationControllerSpec,
            ReplicationControllerStatus,
        },
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector as Labels,
};
use skiff_api::selector::LabelSelector;
use skiff_client::Kind;

use super::decide::selector_of;

/// A kind that keeps a number of pods.
pub trait Set: Kind {
    /// The object as a ReplicaSet.
    fn as_set(this: &Arc<Self>) -> Arc<ReplicaSet>;

    /// The object with a new status.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;

    /// The labels of its pods.
    fn labels(&self) -> LabelSelector;

    /// Takes out of a status what the kind's own has no room for.
    fn trim(_status: &mut ReplicaSetStatus) {}
}

impl Set for ReplicaSet {
    fn as_set(this: &Arc<Self>) -> Arc<ReplicaSet> {
        Arc::clone(this)
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }

    fn labels(&self) -> LabelSelector {
        selector_of(self)
    }
}

impl Set for ReplicationController {
    fn as_set(this: &Arc<Self>) -> Arc<ReplicaSet> {
        let spec = this.spec.clone().map(set_spec);
        let status = this.status.clone().map(set_status);
        Arc::new(ReplicaSet { metadata: this.metadata.clone(), spec, status })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let condition = |one: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: one.last_transition_time,
            message: one.message,
            reason: one.reason,
            status: one.status,
            type_: one.type_,
        };
        let status = ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        };
        Self { status: Some(status), ..self.clone() }
    }

    fn labels(&self) -> LabelSelector {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.clone());
        labels.filter(|labels| !labels.is_empty()).map_or_else(LabelSelector::nothing, |labels| {
            crate::meta::selector(&Labels { match_labels: Some(labels), match_expressions: None })
        })
    }

    fn trim(status: &mut ReplicaSetStatus) {
        status.terminating_replicas = None;
    }
}

fn set_spec(spec: ReplicationControllerSpec) -> ReplicaSetSpec {
    ReplicaSetSpec {
        min_ready_seconds: spec.min_ready_seconds,
        replicas: spec.replicas,
        selector: Labels { match_labels: spec.selector, match_expressions: None },
        template: spec.template,
    }
}

fn set_status(status: ReplicationControllerStatus) -> ReplicaSetStatus {
    let condition = |one: ReplicationControllerCondition| ReplicaSetCondition {
        last_transition_time: one.last_transition_time,
        message: one.message,
        reason: one.reason,
        status: one.status,
        type_: one.type_,
    };
    ReplicaSetStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
        terminating_replicas: None,
    }
}
