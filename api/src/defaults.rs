//! The values that Kubernetes gives to fields that a client leaves out.
//!
//! Defaults belong to types, not to kinds: a probe is defaulted alike in a pod and in a Deployment's template. So
//! one walk over the object, guided by its schema, looks every type up in a table: [`table::RULES`] holds what is
//! data, [`code`] what depends on other fields. Children come before their parents. Applying twice changes nothing.
//!
//! The rules are those of `pkg/apis/*/v1/defaults.go` and of the `+default` markers of the API types.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value};

use crate::{
    kinds::GroupVersionKind,
    object::Object,
    schema::{SchemaRef, Schemas},
};

mod code;
mod scaling;
mod table;
mod workloads;

/// A default that depends on other fields of the same type.
type Code = fn(&mut Map<String, Value>);

/// What a type has by default.
#[derive(Default)]
struct Rule {
    fields: Vec<(&'static str, Value)>,
    code: Option<Code>,
}

static BY_TYPE: LazyLock<HashMap<String, Rule>> = LazyLock::new(|| {
    let mut rules: HashMap<String, Rule> = HashMap::new();
    for (name, fields) in table::RULES {
        let parsed = fields.iter().map(|(field, json)| (*field, crate::data::json(json)));
        rules.entry(table::full_name(name)).or_default().fields.extend(parsed);
    }
    for (name, code) in table::CODE {
        rules.entry(table::full_name(name)).or_default().code = Some(*code);
    }
    rules
});

/// Sets the defaults of a built-in kind. An object of another kind stays as it is.
pub fn apply(gvk: &GroupVersionKind, object: &mut Object) {
    let Some(schema) = Schemas::builtin().of_kind(gvk) else { return };
    let mut value = Value::Object(std::mem::take(&mut object.0));
    walk(&mut value, schema);
    if let Value::Object(map) = value {
        object.0 = map;
    }
}

fn walk(value: &mut Value, schema: SchemaRef<'_>) {
    match value {
        Value::Object(map) => walk_object(map, schema),
        Value::Array(list) => {
            let Some(items) = schema.items() else { return };
            list.iter_mut().for_each(|entry| walk(entry, items));
        }
        _ => {}
    }
}

fn walk_object(map: &mut Map<String, Value>, schema: SchemaRef<'_>) {
    let rule = schema.name().and_then(|name| BY_TYPE.get(name));
    // What the table puts in may itself have defaults, so it comes before the children.
    for (field, default) in rule.iter().flat_map(|rule| &rule.fields) {
        if is_unset(map.get(*field)) {
            map.insert((*field).to_owned(), default.clone());
        }
    }
    for (name, value) in map.iter_mut() {
        if let Some(field) = schema.property(name).or_else(|| schema.additional()) {
            walk(value, field);
        }
    }
    if let Some(code) = rule.and_then(|rule| rule.code) {
        code(map);
    }
}

/// Whether a field counts as left out: absent, null or empty text.
fn is_unset(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

/// Sets a field that is unset.
fn set_default(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if is_unset(map.get(field)) {
        map.insert(field.to_owned(), value.into());
    }
}

/// The text of a field; empty where it has none.
fn text<'a>(map: &'a Map<String, Value>, field: &str) -> &'a str {
    map.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The object in a field, made where it is absent.
fn child<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    if is_unset(map.get(field)) {
        map.insert(field.to_owned(), Value::Object(Map::new()));
    }
    map.get_mut(field)?.as_object_mut()
}

#[cfg(test)]
mod tests;
