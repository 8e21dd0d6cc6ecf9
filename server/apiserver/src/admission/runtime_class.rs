//! RuntimeClass: a pod's class exists, and what the class says of overhead and scheduling holds for the pod.

use serde_json::{Map, Value};
use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// The API group of RuntimeClasses.
const GROUP: &str = "node.k8s.io";

/// Merges a pod's RuntimeClass into it.
pub(super) fn mutate(world: &dyn World, write: &Write<'_>, pod: &mut Object) -> Result<(), ApiError> {
    if !write.is(Operation::Create, "", "pods") {
        return Ok(());
    }
    let name = pod.str_at(&["spec", "runtimeClassName"]).unwrap_or_default();
    let class = if name.is_empty() {
        Object::default()
    } else {
        let found = world.find(GROUP, "runtimeclasses", "", name);
        found.ok_or_else(|| write.forbidden(format!("pod rejected: RuntimeClass {name:?} not found")))?
    };
    merge_overhead(pod, &class).map_err(|why| write.forbidden(why))?;
    merge_node_selector(pod, &class).map_err(|why| write.forbidden(why))?;
    merge_tolerations(pod, &class);
    Ok(())
}

/// The class's overhead becomes the pod's; one that the pod brought must be the same.
fn merge_overhead(pod: &mut Object, class: &Object) -> Result<(), &'static str> {
    let ours = class.at(&["overhead", "podFixed"]).cloned();
    match (pod.at(&["spec", "overhead"]), ours) {
        (Some(given), Some(ours)) if *given != ours => {
            Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        }
        (Some(given), None) if given.as_object().is_some_and(|map| !map.is_empty()) => {
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        }
        (None, Some(ours)) => {
            pod.set_at(&["spec", "overhead"], ours);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The class's node selector is added to the pod's; they must not disagree.
fn merge_node_selector(pod: &mut Object, class: &Object) -> Result<(), String> {
    let Some(ours) = class.at(&["scheduling", "nodeSelector"]).and_then(Value::as_object) else { return Ok(()) };
    let mut merged: Map<String, Value> =
        pod.at(&["spec", "nodeSelector"]).and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in ours {
        match merged.get(key) {
            Some(theirs) if theirs != value => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(theirs)
                ));
            }
            _ => drop(merged.insert(key.clone(), value.clone())),
        }
    }
    pod.set_at(&["spec", "nodeSelector"], merged);
    Ok(())
}

/// The class's tolerations are added to the pod's.
fn merge_tolerations(pod: &mut Object, class: &Object) {
    let Some(ours) = class.at(&["scheduling", "tolerations"]).and_then(Value::as_array) else { return };
    let mut merged = pod.at(&["spec", "tolerations"]).and_then(Value::as_array).cloned().unwrap_or_default();
    for toleration in ours {
        if !merged.contains(toleration) {
            merged.push(toleration.clone());
        }
    }
    pod.set_at(&["spec", "tolerations"], merged);
}
