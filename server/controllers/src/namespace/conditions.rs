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

/// One condition as it is to be: type, whether it holds, reason and message.
type Said = (&'static str, bool, &'static str, String);

/// The conditions, renewed: the time of a transition stays where the status does.
pub fn conditions(mut known: Vec<NamespaceCondition>, progress: &Progress, now: Timestamp) -> Vec<NamespaceCondition> {
    for (kind, holds, reason, message) in said(progress) {
        let status = if holds { "True" } else { "False" };
        let place = known.iter().position(|condition| condition.type_ == kind);
        let since =
            place.map(|at| &known[at]).filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        };
        match place {
            Some(at) => known[at] = condition,
            None => known.push(condition),
        }
    }
    known
}

/// What there is to say of a progress.
fn said(progress: &Progress) -> [Said; 5] {
    let list = |counts: &BTreeMap<String, usize>, between: &str| {
        let each: Vec<_> =
            counts.iter().map(|(name, count)| format!("{name}{between}{count} resource instances")).collect();
        each.join(", ")
    };
    let either = |kind, holds: bool, bad: (&'static str, String), good: (&'static str, &str)| {
        let (reason, message) = if holds { bad } else { (good.0, good.1.to_owned()) };
        (kind, holds, reason, message)
    };
    let remaining = format!("Some resources are remaining: {}", list(&progress.remaining, " has "));
    let finalizers =
        format!("Some content in the namespace has finalizers remaining: {}", list(&progress.finalizers, " in "));
    let nothing = || ("", String::new());
    let discovered = ("ResourcesDiscovered", "All resources successfully discovered");
    let parsed = ("ParsedGroupVersions", "All legacy kube types successfully parsed");
    let deleted = ("ContentDeleted", "All content successfully deleted, may be waiting on finalization");
    let removed = ("ContentRemoved", "All content successfully removed");
    let finished = ("ContentHasNoFinalizers", "All content-preserving finalizers finished");
    let (failed, left) = (!progress.failures.is_empty(), !progress.remaining.is_empty());
    let failures = ("ContentDeletionFailed", progress.failures.join(", "));
    let held = !progress.finalizers.is_empty();
    [
        either("NamespaceDeletionDiscoveryFailure", false, nothing(), discovered),
        either("NamespaceDeletionGroupVersionParsingFailure", false, nothing(), parsed),
        either("NamespaceDeletionContentFailure", failed, failures, deleted),
        either("NamespaceContentRemaining", left, ("SomeResourcesRemain", remaining), removed),
        either("NamespaceFinalizersRemaining", held, ("SomeFinalizersRemain", finalizers), finished),
    ]
}
