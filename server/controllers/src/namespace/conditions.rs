//! What a namespace's status says of its deletion, in the words of Kubernetes. No I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::NamespaceCondition, apimachinery::pkg::apis::meta::v1::Time};
use skiff_api::request::GroupVersionResource;

/// How far the deletion of a namespace's content is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// How many objects of each resource are left.
    pub remaining: BTreeMap<String, usize>,
    /// How many objects are left that have each finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// What could not be deleted, and why.
    pub failures: Vec<String>,
}

impl Progress {
    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.remaining.is_empty() && self.failures.is_empty()
    }
}

/// `resource.group`, with the dot also for the core group, as the messages have it.
pub fn qualified(resource: &GroupVersionResource) -> String {
    format!("{}.{}", resource.resource, resource.group)
}

/// The conditions, renewed: the time of a transition stays where the status does.
pub fn conditions(mut known: Vec<NamespaceCondition>, progress: &Progress, now: Timestamp) -> Vec<NamespaceCondition> {
    let list = |counts: &BTreeMap<String, usize>, between: &str| {
        counts
            .iter()
            .map(|(name, count)| format!("{name}{between}{count} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let failures = progress.failures.join(", ");
    let remaining = format!("Some resources are remaining: {}", list(&progress.remaining, " has "));
    let finalizers =
        format!("Some content in the namespace has finalizers remaining: {}", list(&progress.finalizers, " in "));
    // Type, whether it holds, reason and message if it does, reason and message if not.
    let all = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "",
            "",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "",
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            !progress.failures.is_empty(),
            "ContentDeletionFailed",
            &failures,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            !progress.remaining.is_empty(),
            "SomeResourcesRemain",
            &remaining,
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            !progress.finalizers.is_empty(),
            "SomeFinalizersRemain",
            &finalizers,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    for (kind, holds, reason, message, no_reason, no_message) in all {
        let (status, reason, message) =
            if holds { ("True", reason, message) } else { ("False", no_reason, no_message) };
        let place = known.iter().position(|condition| condition.type_ == kind);
        let since =
            place.map(|at| &known[at]).filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        };
        match place {
            Some(at) => known[at] = condition,
            None => known.push(condition),
        }
    }
    known
}
