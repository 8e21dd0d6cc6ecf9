//! Server-side apply: who manages which field, and how an object is merged by that (KEP-555).
//!
//! [`apply()`] merges what a manager wants into the live object: its fields are set, fields that it wanted before and
//! no longer names go unless another manager has them, and a field that another manager has and that would change
//! is a conflict. [`track_update`] notes who changed what by any other write.
//!
//! What is a field of its own and what is replaced whole is told by the schema (`x-kubernetes-list-type`,
//! `x-kubernetes-map-type`). Nothing here reads a clock: the time is an argument.

mod conflict;
mod element;
mod last_applied;
#[cfg(test)]
mod laws;
mod managers;
mod set;
#[cfg(test)]
mod tests;
mod typed;
mod walk;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    kinds::GroupVersionKind,
    object::Object,
    schema::SchemaRef,
    status::{ApiError, Reason},
};
use managers::{Entry, Kind, Managers};
use set::FieldSet;

/// The manager of what an object had before anybody's fields were tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that nobody manages: the server's own, and those that name the object.
const UNMANAGED: [&[&str]; 11] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// A write as far as field management is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// The schema of the object.
    pub schema: SchemaRef<'a>,
    /// Who writes: the `fieldManager` of the request, or else the first word of its user agent.
    pub manager: &'a str,
    /// Through which subresource; empty for none.
    pub subresource: &'a str,
    /// Whether the kind has a `status` subresource, so that the status is not written by other ways.
    pub has_status: bool,
    /// When.
    pub now: Timestamp,
}

impl Operation<'_> {
    /// What this write cannot change, and so does not come to own.
    fn strip(&self, set: &mut FieldSet) {
        for path in UNMANAGED {
            set.remove_member(path);
        }
        match self.subresource {
            "" if self.has_status => set.remove_tree(&["status"]),
            "status" => {
                set.remove_tree(&["spec"]);
                set.remove_tree(&["metadata", "labels"]);
            }
            _ => {}
        }
    }

    fn entry(&self, kind: Kind, api_version: &str, fields: FieldSet) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            kind,
            api_version: api_version.to_owned(),
            time: Some(self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            subresource: self.subresource.to_owned(),
            fields,
        }
    }
}

/// The object that results when a manager applies what it wants, with `metadata.managedFields` told anew. Where
/// nothing changes the live object is given back as it is.
///
/// `applied` is what the manager sent, without defaults. Errors: 409 with every conflict, unless forced; 400 where
/// `applied` carries `managedFields`; 500, as in Kubernetes, where it does not fit the schema or lists an entry twice.
///
/// What `kubectl apply` noted on the object before it applied by the server is no conflict for `kubectl`.
pub fn apply(
    operation: &Operation<'_>,
    live: Option<&Object>,
    applied: &Object,
    force: bool,
) -> Result<Object, ApiError> {
    if applied.at(&["metadata", "managedFields"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let wanted = Value::Object(applied.0.clone());
    let misfits = typed::check(&wanted, operation.schema);
    if !misfits.is_empty() {
        return Err(misfit(applied, &typed::sentence(&misfits)));
    }
    let mut applied_to = merge_in(operation, live, applied, wanted, force)?;
    if operation.manager == last_applied::KUBECTL {
        last_applied::refresh(&mut applied_to, applied);
    }
    Ok(applied_to)
}

/// 500: what is applied does not fit its kind.
fn misfit(applied: &Object, why: &str) -> ApiError {
    let GroupVersionKind { group, version, kind } = GroupVersionKind::parse(applied.api_version(), applied.kind());
    let (namespace, name) = (applied.namespace(), applied.name());
    let whole =
        format!("failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={kind}): {why}");
    ApiError::new(Reason::Unknown, whole)
}

fn merge_in(
    operation: &Operation<'_>,
    live: Option<&Object>,
    applied: &Object,
    wanted: Value,
    force: bool,
) -> Result<Object, ApiError> {
    let mut fields = walk::fields_of(&wanted, operation.schema);
    operation.strip(&mut fields);

    let mut managers = managers_before(operation, live);
    let before = managers.clone();
    let entry = operation.entry(Kind::Apply, applied.api_version(), fields);
    let last = managers.replace(entry);
    let old = live.map(|live| without_managers(live.clone()));
    let merged = match &old {
        Some(old) => walk::merge(old.clone(), wanted, operation.schema),
        None => wanted,
    };
    let merged = prune(merged, last.as_ref(), &managers, operation);
    let difference = walk::compare(old.as_ref(), &merged, operation.schema);
    let mut changed = difference.added;
    changed.unite(&difference.modified);
    let allowed = live.filter(|_| operation.manager == last_applied::KUBECTL);
    let allowed = allowed.and_then(|live| last_applied::fields(operation, live)).unwrap_or_default();
    take_over(&mut managers, (&changed, &difference.removed), &allowed, operation, force)?;

    let is_same = changed.is_empty() && difference.removed.is_empty() && managers.same_fields(&before);
    match live {
        Some(live) if is_same => Ok(live.clone()),
        _ => Ok(with_managers(merged, &managers)),
    }
}

/// Who manages what before an apply. An object that nobody's fields are known of is taken to be one manager's.
fn managers_before(operation: &Operation<'_>, live: Option<&Object>) -> Managers {
    let Some(live) = live else { return Managers::default() };
    let mut managers = Managers::of(live);
    if managers.is_empty() {
        let mut fields = walk::compare(None, &without_managers(live.clone()), operation.schema).added;
        operation.strip(&mut fields);
        let before = Operation { manager: BEFORE_FIRST_APPLY, subresource: "", ..*operation };
        managers.insert(before.entry(Kind::Update, live.api_version(), fields));
    }
    managers
}

/// Removes the fields that the manager applied before and that now nobody manages.
fn prune(merged: Value, last: Option<&FieldSet>, managers: &Managers, operation: &Operation<'_>) -> Value {
    let Some(last) = last else { return merged };
    let mut owned = FieldSet::default();
    for entry in managers.iter() {
        owned.unite(&entry.fields);
    }
    let mut pruned = merged;
    walk::remove(&mut pruned, &last.unowned(&owned), &owned, operation.schema);
    pruned
}

/// Takes what changes from the other managers, or says with whom it conflicts.
/// Fields in `allowed` are no conflict.
fn take_over(
    managers: &mut Managers,
    (changed, removed): (&FieldSet, &FieldSet),
    allowed: &FieldSet,
    operation: &Operation<'_>,
    force: bool,
) -> Result<(), ApiError> {
    let is_self = |entry: &Entry| entry.is(operation.manager, Kind::Apply, operation.subresource, "");
    let conflicts: Vec<(&Entry, FieldSet)> = managers
        .iter()
        .filter(|entry| !is_self(entry))
        .map(|entry| {
            let mut shared = entry.fields.intersection(changed);
            shared.subtract(allowed);
            (entry, shared)
        })
        .filter(|(_, shared)| !shared.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflict::error(&conflicts));
    }
    for entry in managers.iter_mut().filter(|entry| !is_self(entry)) {
        entry.fields.subtract(changed);
        entry.fields.subtract(removed);
    }
    managers.drop_empty();
    Ok(())
}

/// Notes in `metadata.managedFields` of a new version who changed which fields by a write that is no apply.
///
/// A client clears what is known by setting `managedFields` to a list of one empty entry. What nobody's fields are
/// known of stays so until it is applied.
pub fn track_update(operation: &Operation<'_>, old: Option<&Object>, new: &mut Object) {
    if operation.subresource.is_empty() && managers::is_reset(new) {
        new.remove_at(&["metadata", "managedFields"]);
        return;
    }
    // A subresource cannot set who manages what.
    let own = if operation.subresource.is_empty() { Managers::of(new) } else { Managers::default() };
    let mut managers = own;
    if managers.is_empty() {
        managers = old.map(Managers::of).unwrap_or_default();
    }
    let value = without_managers(std::mem::take(new));
    if managers.is_empty() && old.is_some() {
        *new = with_managers(value, &managers);
        return;
    }
    let old = old.map(|old| without_managers(old.clone()));
    let difference = walk::compare(old.as_ref(), &value, operation.schema);
    let mut changed = difference.added;
    changed.unite(&difference.modified);
    operation.strip(&mut changed);
    for entry in managers.iter_mut() {
        entry.fields.subtract(&changed);
        entry.fields.subtract(&difference.removed);
    }
    if !changed.is_empty() {
        let api_version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        managers.insert(operation.entry(Kind::Update, &api_version, changed));
    }
    managers.drop_empty();
    managers.cap();
    *new = with_managers(value, &managers);
}

/// The object without its `managedFields`.
fn without_managers(mut object: Object) -> Value {
    object.remove_at(&["metadata", "managedFields"]);
    Value::Object(object.0)
}

fn with_managers(value: Value, managers: &Managers) -> Object {
    let Value::Object(map) = value else { return Object::default() };
    let mut object = Object(map);
    if managers.is_empty() {
        object.remove_at(&["metadata", "managedFields"]);
    } else {
        object.set_at(&["metadata", "managedFields"], managers.to_value());
    }
    object
}
