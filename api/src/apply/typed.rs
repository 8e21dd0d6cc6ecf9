//! Whether what is applied fits its schema, in the words of the original's `structured-merge-diff`.

use std::collections::HashSet;

use serde_json::Value;

use super::element;
use crate::{
    go,
    schema::{ListType, MapType, SchemaRef, Type},
};

/// How many findings are told of one object.
const MAX_FINDINGS: usize = 100;

/// What does not fit, as `path: words`; empty where all does.
pub(super) fn check(value: &Value, schema: SchemaRef<'_>) -> Vec<String> {
    let mut found = Vec::new();
    any(value, schema, "", &mut found);
    found
}

/// The findings as one sentence.
pub(super) fn sentence(found: &[String]) -> String {
    match found {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    }
}

fn add(found: &mut Vec<String>, path: &str, words: &str) {
    if found.len() < MAX_FINDINGS {
        found.push(if path.is_empty() { words.to_owned() } else { format!("{path}: {words}") });
    }
}

fn any(value: &Value, schema: SchemaRef<'_>, path: &str, found: &mut Vec<String>) {
    let wrong = |words: String, found: &mut Vec<String>| add(found, path, &words);
    match (schema.ty(), value) {
        (_, Value::Null) | (Type::Any, _) => {}
        (Type::Object, Value::Object(map)) => {
            if schema.preserve_unknown() {
                return;
            }
            for (name, field) in map {
                let below = format!("{path}.{name}");
                match schema.property(name).or_else(|| schema.additional()) {
                    Some(inner) => any(field, inner, &below, found),
                    // A struct that is replaced whole is looked into all the same.
                    None if schema.properties().len() == 0 && schema.map_type() == MapType::Atomic => {}
                    None if schema.properties().len() == 0 && schema.additional().is_none() => {}
                    None => add(found, &below, "field not declared in schema"),
                }
            }
        }
        (Type::Array, Value::Array(list)) => entries(list, schema, path, found),
        (Type::Object, other) => wrong(format!("expected map, got &{{{}}}", go::print(other)), found),
        (Type::Array, other) => wrong(format!("expected list, got &{{{}}}", go::print(other)), found),
        (Type::Integer | Type::Number, value) if !value.is_number() => {
            wrong(format!("expected numeric (int or float), got {}", go_type(value)), found);
        }
        (Type::String, value) if !value.is_string() => {
            wrong(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go::print(value)), found);
        }
        (Type::Boolean, value) if !value.is_boolean() => {
            wrong(format!("expected boolean, got &{{{}}}", go::print(value)), found);
        }
        (Type::IntOrString | Type::Quantity, Value::Object(_) | Value::Array(_)) => {
            wrong(format!("expected any scalar, got &{{{}}}", go::print(value)), found);
        }
        _ => {}
    }
}

fn entries(list: &[Value], schema: SchemaRef<'_>, path: &str, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, item) in list.iter().enumerate() {
        let step = match schema.list_type() {
            ListType::Atomic => format!("[{index}]"),
            kind => {
                if let Some(why) = nameless(item, schema, kind) {
                    add(found, path, &format!("element {index}: {why}"));
                    continue;
                }
                let step = element::display(&element::entry(item, schema));
                if !seen.insert(step.clone()) {
                    add(found, path, &format!("duplicate entries for key {step}"));
                }
                step
            }
        };
        if let Some(inner) = schema.items() {
            any(item, inner, &format!("{path}{step}"), found);
        }
    }
}

/// Why an entry of a list cannot be told apart from others.
fn nameless(item: &Value, schema: SchemaRef<'_>, kind: ListType) -> Option<String> {
    if kind == ListType::Set {
        return match item {
            Value::Null => Some("associative list without keys has an element that's an explicit null".to_owned()),
            _ => None,
        };
    }
    let Some(map) = item.as_object() else {
        let what = if item.is_null() { "a null element" } else { "non-map elements" };
        return Some(format!("associative list with keys may not have {what}"));
    };
    let has_default = |key: &str| schema.items().and_then(|items| items.property(key)?.default()).is_some();
    let missing = schema.map_keys().find(|key| map.get(*key).is_none_or(Value::is_null) && !has_default(key))?;
    Some(format!(
        "associative list with keys has an element that omits key field {missing:?} (and doesn't have default value)"
    ))
}

/// The type of a value as Go's `%T` prints it.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
