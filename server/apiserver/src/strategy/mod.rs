//! What is particular to a kind: a row of [`table`] for what can be said as data, a [`Strategy`] only where a kind
//! has behaviour of its own.
//!
//! A write goes through [`prepare_create`] or [`prepare_update`] before it is validated: they take away what a
//! client may not set and add what the kind's own rules add. Values that are taken from a pool (a Service's address)
//! are held in [`Context::holds`] and given back when the write does not happen.

mod certificates;
mod jobs;
mod namespaces;
pub mod part;
mod pods;
mod secrets;
pub mod services;
pub mod table;
mod volumes;

use jiff::Timestamp;
use serde_json::Value;
use skiff_api::{kinds::ResourceDef, object::Object, status::FieldError, user::UserInfo};

pub use part::Part;
use services::{Allocators, pool::Hold};
use table::{Generation, Rules, Status};

/// What a strategy is given beside the object.
pub struct Context<'a> {
    /// When the write happens.
    pub now: Timestamp,
    /// Who writes.
    pub user: &'a UserInfo,
    /// The pools of Service addresses and node ports.
    pub allocators: &'a Allocators,
    /// What was taken from the pools; dropped, and so given back, unless the write is done.
    pub holds: Vec<Hold>,
    /// What is wrong with the object, found while preparing it.
    pub errors: Vec<FieldError>,
}

impl<'a> Context<'a> {
    /// A context that holds nothing.
    pub fn new(now: Timestamp, user: &'a UserInfo, allocators: &'a Allocators) -> Self {
        Self { now, user, allocators, holds: Vec::new(), errors: Vec::new() }
    }
}

/// The behaviour of a kind beyond its row in the table.
trait Strategy: Sync {
    /// Completes a new object.
    fn prepare_create(&self, _cx: &mut Context<'_>, _object: &mut Object) {}

    /// Completes a changed object.
    fn prepare_update(&self, _cx: &mut Context<'_>, _object: &mut Object, _old: &Object, _part: Part) {}
}

/// A kind without behaviour of its own.
struct Plain;

impl Strategy for Plain {}

/// The strategy of a resource.
fn strategy(def: &ResourceDef) -> &'static dyn Strategy {
    match (def.gvk.group.as_str(), def.resource.as_str()) {
        ("", "pods") => &pods::Pods,
        ("", "services") => &services::Services,
        ("", "namespaces") => &namespaces::Namespaces,
        ("", "secrets") => &secrets::Secrets,
        ("", "persistentvolumes" | "persistentvolumeclaims") => &volumes::Volumes,
        ("batch", "jobs") => &jobs::Jobs,
        ("certificates.k8s.io", "certificatesigningrequests") => &certificates::Requests,
        _ => &Plain,
    }
}

/// Completes a new object before it is validated.
pub fn prepare_create(def: &ResourceDef, cx: &mut Context<'_>, object: &mut Object) {
    let rules = table::rules(def);
    match rules.status {
        Status::Absent | Status::Given => {}
        Status::Owned("") => drop(object.0.shift_remove("status")),
        Status::Owned(text) => object.set_at(&["status"], serde_json::from_str::<Value>(text).unwrap_or_default()),
    }
    match rules.generation {
        Generation::Absent => drop(object.remove_at(&["metadata", "generation"])),
        _ => object.set_at(&["metadata", "generation"], 1),
    }
    strategy(def).prepare_create(cx, object);
}

/// Completes a changed object before it is validated: what the part may not touch is as it was.
pub fn prepare_update(def: &ResourceDef, cx: &mut Context<'_>, object: &mut Object, old: &Object, part: Part) {
    let rules = table::rules(def);
    part.limit(rules, object, old);
    strategy(def).prepare_update(cx, object, old, part);
    set_generation(rules, object, old, part);
}

/// What is wrong with a change of any kind, beyond what field validation finds: nothing may hold back an object that is
/// already going.
pub fn validate_update(object: &Object, old: &Object) -> Option<FieldError> {
    let had: Vec<&str> = old.finalizers().collect();
    let new: Vec<String> =
        object.finalizers().filter(|name| !had.contains(name)).map(|name| format!("{name:?}")).collect();
    if !old.is_deleting() || new.is_empty() {
        return None;
    }
    let why = "no new finalizers can be added if the object is being deleted, found new finalizers []string{";
    Some(FieldError::forbidden("metadata.finalizers", format!("{why}{}}}", new.join(", "))))
}

/// The generation grows by one where what is wanted of the object changed.
fn set_generation(rules: &Rules, object: &mut Object, old: &Object, part: Part) {
    let changed = match rules.generation {
        // A status may bring annotations along, a controller's notes on the object: they want nothing new of it.
        _ if part == Part::Status => false,
        Generation::Absent => false,
        Generation::Spec => object.at(&["spec"]) != old.at(&["spec"]),
        Generation::SpecAndAnnotations => {
            [["spec"].as_slice(), &["metadata", "annotations"]].iter().any(|path| object.at(path) != old.at(path))
        }
        Generation::Body => wanted(object) != wanted(old),
    };
    match old.at(&["metadata", "generation"]).and_then(Value::as_i64) {
        Some(generation) => object.set_at(&["metadata", "generation"], generation + i64::from(changed)),
        None if changed => object.set_at(&["metadata", "generation"], 1),
        None => drop(object.remove_at(&["metadata", "generation"])),
    }
}

/// Every field that says what is wanted of an object: all but its metadata and status.
fn wanted(object: &Object) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> =
        object.0.iter().filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status")).collect();
    fields.sort_by_key(|(name, _)| *name);
    fields
}
