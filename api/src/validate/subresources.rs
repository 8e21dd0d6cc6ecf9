//! Parts of a pod that a subresource may change where the pod itself may not.

use std::str::FromStr;

use serde_json::Value;

use super::{
    containers,
    cursor::{Cursor, Errors},
    pods, resources,
};
use crate::{object::Object, quantity::Quantity, status::FieldError};

/// The annotation of a pod that a node has from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn is_static(pod: &Cursor<'_>) -> bool {
    pod.down(&["metadata", "annotations"]).at(MIRROR).is_set()
}

/// What is wrong with a change of a pod's ephemeral containers: they are added, and never changed or removed.
pub fn ephemeral_containers(pod: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (now, before) = (Cursor::root(pod), Cursor::root(old));
    if is_static(&before) {
        errors.add(FieldError::forbidden("", "static pods do not support ephemeral containers"));
        return errors.into_list();
    }
    let spec = now.at("spec");
    let list = spec.at("ephemeralContainers");
    let volumes = pods::names_of(&spec.at("volumes").entries());
    containers::all(&spec, &volumes, &mut errors);
    let names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.at(list).entries())
        .map(|container| container.at("name").text())
        .collect();
    for container in list.entries() {
        let target = container.at("targetContainerName");
        if !target.is_empty() && !names.contains(&target.text()) {
            let (path, kind) = (target.path.clone(), crate::status::FieldErrorKind::NotFound);
            errors.add(FieldError { path, kind, value: target.json(), detail: String::new() });
        }
    }
    for was in before.down(&["spec", "ephemeralContainers"]).entries() {
        let name = was.at("name").text();
        let same = list.entries().into_iter().find(|container| container.at("name").text() == name);
        match same {
            None => errors.forbidden(&list, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(container) if container.value != was.value => {
                errors.forbidden(&list, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
    errors.into_list()
}

/// What is wrong with a change of the resources of a pod's containers. `class` and `old_class` are the pod's classes
/// of service after and before.
pub fn resize(pod: &Object, old: &Object, class: &str, old_class: &str) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (now, before) = (Cursor::root(pod), Cursor::root(old));
    if is_static(&before) {
        errors.add(FieldError::forbidden("", "static pods cannot be resized"));
        return errors.into_list();
    }
    let spec = now.at("spec");
    if class != old_class {
        let words = "Pod QOS Class may not change as a result of resizing";
        errors.add(FieldError::invalid("spec", class, words));
    }
    for list in ["containers", "initContainers"] {
        for (container, was) in spec.at(list).entries().iter().zip(before.down(&["spec", list]).entries()) {
            resources::check(&container.at("resources"), &mut errors);
            resized(&container.at("resources"), &was.at("resources"), list, container, &mut errors);
        }
    }
    errors.into_list()
}

fn resized(now: &Cursor<'_>, was: &Cursor<'_>, list: &str, container: &Cursor<'_>, errors: &mut Errors) {
    let restarts = list == "containers" || container.at("restartPolicy").text() == "Always";
    if !restarts && now.value != was.value {
        errors.forbidden(now, "resources for non-sidecar init containers are immutable");
        return;
    }
    for field in ["limits", "requests"] {
        let (after, before) = (now.at(field), was.at(field));
        let removed = before.pairs().into_iter().any(|(name, _)| !after.at(name).is_set());
        if removed {
            errors.forbidden(&after, &format!("resource {field} cannot be removed"));
        }
        for (name, value) in after.pairs() {
            let same = amount(value.value) == amount(before.at(name).value);
            if !same && !["cpu", "memory"].contains(&name) {
                errors.forbidden(now, "only cpu and memory resources are mutable");
            }
        }
    }
}

fn amount(value: Option<&Value>) -> Option<Quantity> {
    Quantity::from_str(value?.as_str()?).ok()
}
