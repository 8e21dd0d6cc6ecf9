//! `pods/NAME/binding` and `bindings`: the scheduler's word on which node runs a pod.

use serde_json::{Value, json};
use skiff_api::{
    object::Object,
    status::{ApiError, FieldError},
};

use super::{
    super::{
        Answer,
        call::Call,
        create, forms, meta,
        update::{self, Proposal},
    },
    success,
};
use crate::{admission::pod_topology, strategy::Part};

/// Why a pod cannot be bound, if it cannot.
fn refusal(pod: &Object) -> Option<String> {
    let name = pod.name();
    if pod.is_deleting() {
        return Some(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = pod.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty()) {
        return Some(format!("pod {name} is already assigned to node {node:?}"));
    }
    let gates = pod.at(&["spec", "schedulingGates"]).and_then(Value::as_array);
    let gated = gates.is_some_and(|gates| !gates.is_empty());
    gated.then(|| format!("pod {name} has non-empty .spec.schedulingGates"))
}

/// The pod once it is bound, with the annotations and labels of its binding.
fn bound(pod: &Object, binding: &Object, node: &str, now: &str) -> Object {
    let mut pod = pod.clone();
    pod.set_at(&["spec", "nodeName"], node);
    for pairs in ["annotations", "labels"] {
        for (key, value) in binding.pairs_at(&["metadata", pairs]) {
            pod.set_at(&["metadata", pairs, key], value);
        }
    }
    let mut conditions = pod.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    }));
    pod.set_at(&["status", "conditions"], conditions);
    pod
}

/// What is wrong with a binding.
fn check(call: &Call<'_>, binding: &Object) -> Result<(), ApiError> {
    let kind = binding.str_at(&["target", "kind"]).unwrap_or_default();
    let mut errors = Vec::new();
    if !["", "Node"].contains(&kind) {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if binding.str_at(&["target", "name"]).unwrap_or_default().is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    create::refuse_invalid(call, binding.name(), &errors)
}

/// Binds a pod to a node, once.
pub(super) async fn bind(call: &Call<'_>) -> Result<Answer, ApiError> {
    let mut binding = forms::decode_as(call, &forms::binding())?;
    meta::place(&call.def, &mut binding, call.namespace())?;
    let name = if call.name().is_empty() { binding.name() } else { call.name() }.to_owned();
    if !binding.name().is_empty() && binding.name() != name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    check(call, &binding)?;
    let pods = call.registry.kinds().resource("", "v1", "pods").cloned().ok_or_else(ApiError::no_such_path)?;
    let call = call.on(pods);
    let node = binding.str_at(&["target", "name"]).unwrap_or_default().to_owned();
    for (name, value) in pod_topology::labels(call.registry, &node) {
        if binding.at(&["metadata", "labels", name]).is_none() {
            binding.set_at(&["metadata", "labels", name], value);
        }
    }
    let now = meta::time(call.now);
    let make = |pod: &Object| {
        let uid = binding.uid();
        if !uid.is_empty() && uid != pod.uid() {
            let there = pod.uid();
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {there}");
            return Err(ApiError::conflict("", "pods/binding", &name, &why));
        }
        match refusal(pod) {
            Some(why) => Err(ApiError::conflict("", "pods/binding", &name, &why)),
            None => Ok(Proposal { object: bound(pod, &binding, &node, &now), pinned: false }),
        }
    };
    match update::change(&call, &name, Part::Whole, &make).await? {
        Some(_) => Ok(success()),
        None => Err(call.not_found(&name)),
    }
}
