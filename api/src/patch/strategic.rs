//! Strategic merge patch: a merge patch that knows the schema, and so can merge lists by the key of their entries.
//!
//! Directives: `$patch` (`replace`, `delete`) in a map or in an entry of a list, `$retainKeys`,
//! `$setElementOrder/FIELD` and `$deleteFromPrimitiveList/FIELD`. See the Kubernetes community's
//! `strategic-merge-patch.md`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{
    order::{Places, arrange, identity},
    unprocessable,
};
use crate::{schema::SchemaRef, status::ApiError};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";

/// What is wrong with a strategic merge patch, as Kubernetes words it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("list element types are not identical")]
    MixedList,
    #[error("map: {0} does not contain declared merge key: {1}")]
    NoMergeKey(String, String),
    #[error("cannot merge lists without merge key")]
    UndeclaredMergeKey,
    #[error("merging lists cannot yet be specified in the patch")]
    ListMerge,
    #[error("unknown patch type: {0} in map")]
    PatchType(String),
    #[error("The order in patch list doesn't match {ELEMENT_ORDER} list")]
    OrderMismatch,
}

/// Merges a patch into an object of a schema.
pub fn strategic(
    original: Map<String, Value>,
    patch: Map<String, Value>,
    schema: SchemaRef<'_>,
) -> Result<Map<String, Value>, ApiError> {
    merge_map(original, patch, Some(schema)).map_err(|fault| match fault {
        Fault::ListOfLists => unprocessable(),
        fault => ApiError::bad_request(fault.to_string()),
    })
}

/// The schema of a field of a struct, or of a value of a map.
fn field_schema<'a>(schema: Option<SchemaRef<'a>>, name: &str) -> Option<SchemaRef<'a>> {
    schema.and_then(|schema| schema.property(name).or_else(|| schema.additional()))
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
) -> Result<Map<String, Value>, Fault> {
    if let Some(directive) = patch.shift_remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(Fault::PatchType(directive.to_string())),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (name, value) in patch {
        if let Some(rest) = name.strip_prefix(DELETE_FROM) {
            let field = rest.strip_prefix('/').ok_or(Fault::PrimitiveList)?;
            delete_scalars(original.get_mut(field), &value)?;
        } else if value.is_null() {
            original.shift_remove(&name);
        } else {
            let field = field_schema(schema, &name);
            let merged = match original.get_mut(&name).map(Value::take) {
                Some(old) => merge_value(old, value, field)?,
                None => cleaned(value),
            };
            original.insert(name, merged);
        }
    }
    Ok(original)
}

fn merge_value(old: Value, new: Value, schema: Option<SchemaRef<'_>>) -> Result<Value, Fault> {
    let strategy = schema.map(SchemaRef::patch_strategy).unwrap_or_default();
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if !strategy.replace => {
            Ok(Value::Object(merge_map(old, new, schema)?))
        }
        (Value::Array(old), Value::Array(new)) if strategy.merge => merge_list(old, new, schema).map(Value::Array),
        (_, new) => Ok(cleaned(new)),
    }
}

/// A value that is taken from the patch as it is: without nulls and directives, which mean nothing in an object.
fn cleaned(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let keep = |(name, value): &(String, Value)| !value.is_null() && !is_directive(name);
            Value::Object(map.into_iter().filter(keep).map(|(name, value)| (name, cleaned(value))).collect())
        }
        Value::Array(list) => {
            let is_deletion = |value: &Value| value.get(PATCH).is_some();
            Value::Array(list.into_iter().filter(|value| !is_deletion(value)).map(cleaned).collect())
        }
        other => other,
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH || name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) || name.starts_with(DELETE_FROM)
}

/// `$retainKeys`: the fields not listed go; the patch may set only those listed.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), Fault> {
    let Some(directive) = patch.shift_remove(RETAIN_KEYS) else { return Ok(()) };
    let list = directive.as_array().ok_or(Fault::RetainKeys)?;
    let keys: HashSet<&str> = list.iter().filter_map(Value::as_str).collect();
    let is_known = |(name, value): (&String, &Value)| {
        value.is_null()
            || name.starts_with(DELETE_FROM)
            || name.starts_with(ELEMENT_ORDER)
            || keys.contains(name.as_str())
    };
    if !patch.iter().all(is_known) {
        return Err(Fault::RetainKeys);
    }
    original.retain(|name, _| keys.contains(name.as_str()));
    Ok(())
}

/// Merges every list for which the patch has a `$setElementOrder`, and takes both out of the patch.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
) -> Result<(), Fault> {
    let directives: Vec<String> = patch.keys().filter(|name| name.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.shift_remove(&directive) else { return Err(Fault::ElementOrder) };
        let rest = directive.strip_prefix(ELEMENT_ORDER).and_then(|rest| rest.strip_prefix('/'));
        let field = rest.ok_or(Fault::ElementOrder)?;
        // A null for the list itself removes it, which the ordinary merge does.
        if patch.get(field).is_some_and(Value::is_null) {
            continue;
        }
        let new = patch.shift_remove(field).map(as_list).transpose()?;
        let old = original.get_mut(field).map(|old| as_list(old.take())).transpose()?;
        if old.is_none() && new.is_none() {
            continue;
        }
        let merged = merge_ordered(old, new, &order, field_schema(schema, field))?;
        original.insert(field.to_owned(), Value::Array(merged));
    }
    Ok(())
}

fn as_list(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(Fault::ElementOrder),
    }
}

fn merge_ordered(
    old: Option<Vec<Value>>,
    new: Option<Vec<Value>>,
    order: &[Value],
    schema: Option<SchemaRef<'_>>,
) -> Result<Vec<Value>, Fault> {
    let key = schema.and_then(SchemaRef::merge_key);
    let patch_order = Places::of(order, key)?;
    check_order(new.as_deref().unwrap_or_default(), &patch_order, key)?;
    let server_order = Places::of(old.as_deref().unwrap_or_default(), key)?;
    let merged = match (old, new) {
        (Some(old), Some(new)) => match merge_value(old.into(), new.into(), schema)? {
            Value::Array(list) => list,
            _ => Vec::new(),
        },
        (Some(old), None) => old,
        (None, new) => without_directives(new.unwrap_or_default()),
    };
    arrange(merged, &patch_order, &server_order, key)
}

fn without_directives(list: Vec<Value>) -> Vec<Value> {
    match cleaned(Value::Array(list)) {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

/// The entries of the patch must be in the order list, in the same order. Deletions need not be there.
fn check_order(patch: &[Value], order: &Places, key: Option<&str>) -> Result<(), Fault> {
    let mut last = None;
    for entry in patch.iter().filter(|entry| entry.get(PATCH).is_none()) {
        let place = order.get(&identity(entry, key)?).ok_or(Fault::OrderMismatch)?;
        if last.is_some_and(|last| place < last) {
            return Err(Fault::OrderMismatch);
        }
        last = Some(place);
    }
    Ok(())
}

/// `$deleteFromPrimitiveList/FIELD`: takes scalars out of a list.
fn delete_scalars(list: Option<&mut Value>, deleted: &Value) -> Result<(), Fault> {
    let deleted = deleted.as_array().ok_or(Fault::PrimitiveList)?;
    let deleted: HashSet<String> = deleted.iter().map(Value::to_string).collect();
    if let Some(Value::Array(list)) = list {
        list.retain(|entry| !deleted.contains(&entry.to_string()));
    }
    Ok(())
}

fn merge_list(old: Vec<Value>, new: Vec<Value>, schema: Option<SchemaRef<'_>>) -> Result<Vec<Value>, Fault> {
    let Some(has_maps) = has_maps(&old, &new)? else { return Ok(old) };
    if !has_maps {
        let (patch_order, server_order) = (Places::of(&new, None)?, Places::of(&old, None)?);
        let mut seen = HashSet::new();
        let both = old.into_iter().chain(new).filter(|entry| seen.insert(entry.to_string())).collect();
        return arrange(both, &patch_order, &server_order, None);
    }
    let key = schema.and_then(SchemaRef::merge_key).ok_or(Fault::UndeclaredMergeKey)?;
    let (old, new) = apply_list_directives(old, new, key)?;
    let (patch_order, server_order) = (Places::of(&new, Some(key))?, Places::of(&old, Some(key))?);
    let merged = merge_entries(old, new, key, schema.and_then(SchemaRef::items))?;
    arrange(merged, &patch_order, &server_order, Some(key))
}

/// Whether the entries of both lists are objects; `None` where there are no entries.
fn has_maps(old: &[Value], new: &[Value]) -> Result<Option<bool>, Fault> {
    let mut kinds = old.iter().chain(new).map(Value::is_object);
    if old.iter().chain(new).any(Value::is_array) {
        return Err(Fault::ListOfLists);
    }
    let Some(first) = kinds.next() else { return Ok(None) };
    if kinds.all(|kind| kind == first) { Ok(Some(first)) } else { Err(Fault::MixedList) }
}

/// Does what entries with `$patch` say, and takes them out.
fn apply_list_directives(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Fault> {
    let mut entries = Vec::with_capacity(new.len());
    let mut deleted = HashSet::new();
    let mut replaces = false;
    for entry in new {
        match entry.get(PATCH) {
            None => entries.push(entry),
            Some(Value::String(word)) if word == "delete" => drop(deleted.insert(identity(&entry, Some(key))?)),
            Some(Value::String(word)) if word == "replace" => replaces = true,
            Some(Value::String(word)) if word == "merge" => return Err(Fault::ListMerge),
            Some(other) => return Err(Fault::PatchType(other.to_string())),
        }
    }
    if replaces {
        return Ok((Vec::new(), entries));
    }
    if !deleted.is_empty() {
        old.retain(|entry| !identity(entry, Some(key)).is_ok_and(|identity| deleted.contains(&identity)));
    }
    Ok((old, entries))
}

fn merge_entries(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
    schema: Option<SchemaRef<'_>>,
) -> Result<Vec<Value>, Fault> {
    let mut places = HashMap::with_capacity(old.len());
    for (index, entry) in old.iter().enumerate() {
        places.entry(identity(entry, Some(key))?).or_insert(index);
    }
    for entry in new {
        let identity = identity(&entry, Some(key))?;
        match (places.get(&identity).and_then(|place| old.get_mut(*place)), entry) {
            (Some(slot), Value::Object(patch)) => {
                let Value::Object(original) = slot.take() else { return Err(Fault::MixedList) };
                *slot = Value::Object(merge_map(original, patch, schema)?);
            }
            (_, entry) => {
                places.insert(identity, old.len());
                old.push(cleaned(entry));
            }
        }
    }
    Ok(old)
}
