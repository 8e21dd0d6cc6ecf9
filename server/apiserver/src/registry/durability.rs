//! How soon a write must be on disk: at once, but for Events and for what only renews a Lease or a node's status.

use serde_json::{Map, Value};
use skiff_api::{
    kinds::{Durability, ResourceDef},
    object::Object,
};

/// The fields that a renewal changes.
const RENEWED: [&str; 4] = ["renewTime", "lastHeartbeatTime", "managedFields", "resourceVersion"];

/// The durability of a write that puts `new` in the place of `old`. Whoever takes a Lease over is told so only when it
/// is on disk: a power loss must not give it back to its last holder.
pub(super) fn of(
    def: &ResourceDef,
    subresource: Option<&str>,
    old: Option<&Object>,
    new: Option<&Object>,
) -> Durability {
    match (def.gvk.group.as_str(), def.resource.as_str(), subresource) {
        ("coordination.k8s.io", "leases", _) | ("", "nodes", Some("status")) => match (old, new) {
            (Some(old), Some(new)) if is_renewal(&old.0, &new.0) => Durability::Heartbeat,
            _ => Durability::Synced,
        },
        _ => def.durability,
    }
}

/// Whether two objects differ in nothing but the fields of a renewal, wherever these are.
fn is_renewal(old: &Map<String, Value>, new: &Map<String, Value>) -> bool {
    let kept = |key: &str| !RENEWED.contains(&key);
    let same = |(key, value): (&String, &Value)| {
        !kept(key)
            || match (old.get(key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => is_renewal(old, new),
                (Some(Value::Array(old)), Value::Array(new)) => {
                    old.len() == new.len() && old.iter().zip(new).all(is_item_renewal)
                }
                (old, new) => old == Some(new),
            }
    };
    new.iter().all(same) && old.keys().all(|key| !kept(key) || new.contains_key(key))
}

fn is_item_renewal((old, new): (&Value, &Value)) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => is_renewal(old, new),
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;
    use skiff_api::kinds::Kinds;

    use super::*;

    fn check(resource: (&str, &str, Option<&str>), old: Option<Value>, new: Option<Value>, expected: Durability) {
        let (group, resource, subresource) = resource;
        let def = Kinds::builtin().resource(group, "v1", resource).unwrap();
        let object = |value: Option<Value>| value.map(|value| Object::from_typed(&value).unwrap());
        let (old, new) = (object(old), object(new));
        assert_eq!(of(def, subresource, old.as_ref(), new.as_ref()), expected, "{old:?} to {new:?}");
    }

    #[test]
    fn renewals_may_wait_and_takeovers_may_not() {
        let leases = ("coordination.k8s.io", "leases", None);
        let lease = |holder: &str, time: u8, finalizers: &[&str]| {
            let metadata = json!({"name": "a", "resourceVersion": time.to_string(), "finalizers": finalizers});
            Some(json!({"metadata": metadata, "spec": {"holderIdentity": holder, "renewTime": time}}))
        };
        check(leases, lease("a", 1, &[]), lease("a", 2, &[]), Durability::Heartbeat);
        check(leases, lease("a", 1, &[]), lease("b", 2, &[]), Durability::Synced);
        check(leases, lease("a", 1, &["x"]), lease("a", 2, &[]), Durability::Synced);
        check(leases, None, lease("a", 1, &[]), Durability::Synced);
        check(leases, lease("a", 1, &[]), None, Durability::Synced);
    }

    #[test]
    fn a_node_that_is_no_longer_ready_is_no_heartbeat() {
        let status = ("", "nodes", Some("status"));
        let node = |ready: &str, time: u8| {
            let conditions = json!([{"type": "Ready", "status": ready, "lastHeartbeatTime": time}]);
            Some(json!({"status": {"conditions": conditions}}))
        };
        check(status, node("True", 1), node("True", 2), Durability::Heartbeat);
        check(status, node("True", 1), node("False", 2), Durability::Synced);
        check(("", "nodes", None), node("True", 1), node("True", 2), Durability::Synced);
        check(("", "events", None), None, node("True", 1), Durability::Heartbeat);
    }
}
