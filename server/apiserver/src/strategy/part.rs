//! The part of an object that a write may touch.

use serde_json::Value;
use skiff_api::object::Object;

use super::table::{Rules, Status};

/// The part of an object that a write may touch, by the subresource that it comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where the kind has a status of its own.
    Main,
    /// The status, and the metadata that clients own.
    Status,
    /// One field.
    Only(&'static [&'static str]),
    /// The resources of a pod's containers.
    Resize,
    /// Everything: the server itself changes the object (a binding, an eviction).
    Whole,
}

/// The metadata that every write of a part brings along.
const WITH_ANY_PART: [&[&str]; 2] = [&["metadata", "managedFields"], &["metadata", "resourceVersion"]];

impl Part {
    /// The part that a subresource stands for; `None` where it is no part of an object.
    pub fn of_subresource(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Main),
            "status" => Some(Self::Status),
            "finalize" => Some(Self::Only(&["spec", "finalizers"])),
            "ephemeralcontainers" => Some(Self::Only(&["spec", "ephemeralContainers"])),
            "approval" => Some(Self::Only(&["status", "conditions"])),
            "resize" => Some(Self::Resize),
            _ => None,
        }
    }

    /// Takes back what a write may not touch.
    pub fn limit(self, rules: &Rules, object: &mut Object, old: &Object) {
        match self {
            Self::Whole => {}
            Self::Main if matches!(rules.status, Status::Absent) => {}
            Self::Main => copy(&["status"], old, object),
            Self::Status => limit_to_status(rules, object, old),
            Self::Only(path) => restrict(object, old, |limited, new| copy(path, new, limited)),
            Self::Resize => restrict(object, old, copy_resources),
        }
    }
}

/// Copies the value at a path, or its absence.
fn copy(path: &[&str], from: &Object, to: &mut Object) {
    match from.at(path) {
        Some(value) => to.set_at(path, value.clone()),
        None => drop(to.remove_at(path)),
    }
}

/// The old object, but for the status, and the metadata as sent; labels stay where the kind keeps them.
fn limit_to_status(rules: &Rules, object: &mut Object, old: &Object) {
    restrict(object, old, |limited, new| {
        copy(&["status"], new, limited);
        if !rules.status_keeps_metadata {
            copy(&["metadata"], new, limited);
        }
    });
    if rules.status_keeps_labels {
        copy(&["metadata", "labels"], old, object);
    }
}

/// The old object with what `bring` brings of the new one.
fn restrict(object: &mut Object, old: &Object, bring: impl FnOnce(&mut Object, &Object)) {
    let new = std::mem::replace(object, old.clone());
    for path in WITH_ANY_PART {
        copy(path, &new, object);
    }
    bring(object, &new);
}

/// Copies the resources of containers of the same name.
fn copy_resources(to: &mut Object, from: &Object) {
    for list in ["containers", "initContainers"] {
        let Some(mut containers) = to.at(&["spec", list]).and_then(Value::as_array).cloned() else { continue };
        let theirs = from.at(&["spec", list]).and_then(Value::as_array);
        for container in &mut containers {
            let same = theirs.into_iter().flatten().find(|other| other.get("name") == container.get("name"));
            for field in ["resources", "resizePolicy"] {
                if let (Some(value), Some(map)) = (same.and_then(|other| other.get(field)), container.as_object_mut()) {
                    map.insert(field.to_owned(), value.clone());
                }
            }
        }
        to.set_at(&["spec", list], containers);
    }
}
