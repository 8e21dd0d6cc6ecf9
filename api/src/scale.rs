//! The `scale` subresource: how many replicas a workload has and should have, in one form for all kinds
//! (`autoscaling/v1` `Scale`).

use serde_json::{Map, Value, json};

use crate::{
    object::Object,
    selector::LabelSelector,
    status::{ApiError, FieldError},
};

/// The `Scale` of a deployment, replica set, stateful set or replication controller.
pub fn of(object: &Object) -> Object {
    let mut metadata = Map::new();
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", name]) {
            metadata.insert(name.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    // Nothing to do is not printed, as in Kubernetes.
    if let Some(replicas) = object.int_at(&["spec", "replicas"]).filter(|replicas| *replicas != 0) {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    let mut status = Map::new();
    status.insert("replicas".to_owned(), object.int_at(&["status", "replicas"]).unwrap_or_default().into());
    let selector = selector(object);
    if !selector.is_empty() {
        status.insert("selector".to_owned(), selector.into());
    }
    let scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": metadata, "spec": spec, "status": status,
    });
    match scale {
        Value::Object(map) => Object(map),
        _ => Object::default(),
    }
}

/// The selector of the workload's pods as a string. A replication controller's is a plain map.
fn selector(object: &Object) -> String {
    let path = ["spec", "selector"];
    let is_map = object.kind() == "ReplicationController";
    if is_map {
        return LabelSelector::from_pairs(object.pairs_at(&path)).to_string();
    }
    LabelSelector::from_value(object.at(&path)).map(|selector| selector.to_string()).unwrap_or_default()
}

/// The workload with the number of replicas that a `Scale` asks for. A `Scale` that names another object, or was
/// read from another version of this one, is refused.
pub fn apply(object: &Object, scale: &Object, group: &str, resource: &str) -> Result<Object, ApiError> {
    let name = object.name();
    let given = scale.str_at(&["metadata", "resourceVersion"]).unwrap_or_default();
    let current = object.str_at(&["metadata", "resourceVersion"]).unwrap_or_default();
    let uid = scale.uid();
    if !scale.name().is_empty() && scale.name() != name {
        let message = format!("the name of the object ({}) does not match the name on the URL ({name})", scale.name());
        return Err(ApiError::bad_request(message));
    }
    if !uid.is_empty() && uid != object.uid() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object.uid());
        return Err(ApiError::conflict(group, resource, name, &why));
    }
    if !given.is_empty() && given != current {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::conflict(group, resource, name, why));
    }
    let replicas = scale.int_at(&["spec", "replicas"]).unwrap_or_default();
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid("autoscaling", "Scale", name, &[error]));
    }
    let mut scaled = object.clone();
    scaled.set_at(&["spec", "replicas"], replicas);
    Ok(scaled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn object(value: Value) -> Object {
        serde_json::from_value::<Map<String, Value>>(value).map(Object).unwrap()
    }

    fn deployment() -> Object {
        object(json!({
            "kind": "Deployment", "apiVersion": "apps/v1",
            "metadata": {"name": "web", "namespace": "d", "uid": "u", "resourceVersion": "7"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": 2},
        }))
    }

    #[test]
    fn a_workload_is_scaled_by_its_scale() {
        let mut scale = of(&deployment());
        assert_eq!(scale.str_at(&["status", "selector"]), Some("app=web"));
        assert_eq!((scale.int_at(&["spec", "replicas"]), scale.int_at(&["status", "replicas"])), (Some(3), Some(2)));
        scale.set_at(&["spec", "replicas"], 5);
        let scaled = apply(&deployment(), &scale, "apps", "deployments").unwrap();
        assert_eq!(scaled.int_at(&["spec", "replicas"]), Some(5));
    }

    #[test]
    fn a_scale_that_does_not_fit_is_refused() {
        let code = |path: &[&str], value: Value| {
            let mut scale = of(&deployment());
            scale.set_at(path, value);
            apply(&deployment(), &scale, "apps", "deployments").unwrap_err().code
        };
        assert_eq!(code(&["metadata", "resourceVersion"], "6".into()), 409);
        assert_eq!(code(&["metadata", "uid"], "x".into()), 409);
        assert_eq!(code(&["metadata", "name"], "x".into()), 400);
        assert_eq!(code(&["spec", "replicas"], (-1).into()), 422);
    }

    #[test]
    fn a_replication_controllers_selector_is_a_map() {
        let controller = object(json!({"kind": "ReplicationController", "spec": {"selector": {"b": "2", "a": "1"}}}));
        assert_eq!(of(&controller).str_at(&["status", "selector"]), Some("a=1,b=2"));
    }
}
