//! What several controllers ask of objects: who controls them, whether a pod counts, is ready, is available.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector as Labels, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use serde_json::{Value, json};
use skiff_api::selector::LabelSelector;
use skiff_client::Kind;

/// The index of objects by their controller's UID; those without are under [`orphans_of`] their namespace.
pub const BY_CONTROLLER: &str = "controller";

/// The value under which [`BY_CONTROLLER`] has the objects of a namespace that nobody controls.
pub fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// The values of [`BY_CONTROLLER`].
pub fn controller_values<K: Kind>(object: &K) -> Vec<String> {
    let metadata = object.metadata();
    match controller_of(metadata) {
        Some(owner) => vec![owner.uid.clone()],
        None => vec![orphans_of(metadata.namespace.as_deref().unwrap_or_default())],
    }
}

/// The owner that manages an object.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether an object's controller is the one with this UID.
pub fn is_controlled_by(metadata: &ObjectMeta, uid: &str) -> bool {
    controller_of(metadata).is_some_and(|owner| owner.uid == uid)
}

/// The reference by which an object controls its dependents.
pub fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: name(owner.metadata()).to_owned(),
        uid: uid(owner.metadata()).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The strategic merge patch by which `owner` takes an object on.
pub fn adopt_patch<K: Kind>(owner: &K, object_uid: &str) -> Value {
    json!({"metadata": {"ownerReferences": [controller_reference(owner)], "uid": object_uid}})
}

/// The strategic merge patch by which the owner with a UID lets an object go.
pub fn release_patch(owner_uid: &str, object_uid: &str) -> Value {
    json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": object_uid}})
}

/// `metadata.name`, empty where absent.
pub fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// `metadata.namespace`, empty where absent.
pub fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

/// `metadata.uid`, empty where absent.
pub fn uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}

/// Whether the deletion of an object has begun.
pub fn is_deleting(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// A selector of an object's spec; one that cannot be read selects nothing.
pub fn selector(labels: &Labels) -> LabelSelector {
    LabelSelector::try_from(labels).unwrap_or_else(|_| LabelSelector::nothing())
}

/// A pod's phase, empty where it has none yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether a pod has ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether a pod counts as a replica: it has neither ended nor been asked to.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(&pod.metadata)
}

/// The node that a pod is bound to; empty where it is to none.
pub fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// A pod's condition of a type.
pub fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when a pod is ready, if it is and says so.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = pod_condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether a pod has been ready for long enough, and if it is ready but not yet for long enough, how long that takes.
pub fn availability(pod: &Pod, min_ready: Duration, now: Timestamp) -> (bool, Option<Duration>) {
    if !is_ready(pod) {
        return (false, None);
    }
    if min_ready.is_zero() {
        return (true, None);
    }
    let Some(since) = ready_since(pod) else { return (false, Some(min_ready)) };
    let elapsed = elapsed(since, now);
    if elapsed >= min_ready { (true, None) } else { (false, Some(min_ready - elapsed)) }
}

/// The time from one moment to another, nothing if that is negative.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Whole seconds of an API field; a negative number counts as none.
pub fn seconds(count: impl Into<i64>) -> Duration {
    Duration::from_secs(u64::try_from(count.into()).unwrap_or_default())
}

/// A number, or a share of a total in percent, rounded up or down; never negative.
pub fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(count) => return (*count).max(0),
        IntOrString::String(text) => {
            text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or_default()
        }
    };
    let share = percent.max(0).saturating_mul(i64::from(total));
    let share = if up { share.saturating_add(99) / 100 } else { share / 100 };
    i32::try_from(share).unwrap_or(i32::MAX)
}

/// A count as the API has it.
pub fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
