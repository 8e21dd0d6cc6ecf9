//! Steps of a path to a field, in the form that `FieldsV1` gives them: `f:name`, `k:{"name":"a"}`, `v:"x"`, `i:0`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::schema::{ListType, SchemaRef};

/// The step to a field of a struct or an entry of a map.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The name of a step to a field.
pub(super) fn field_name(element: &str) -> Option<&str> {
    element.strip_prefix("f:")
}

/// The step to an entry of a list that is a set or has keys. A key that the entry lacks is its default.
pub(super) fn entry(item: &Value, list: SchemaRef<'_>) -> String {
    if list.list_type() == ListType::Set {
        return format!("v:{item}");
    }
    let default = |key: &str| list.items().and_then(|items| items.property(key)?.default().cloned());
    let keys: BTreeMap<&str, Value> = list
        .map_keys()
        .map(|key| (key, item.get(key).cloned().or_else(|| default(key)).unwrap_or_default()))
        .filter(|(_, value)| !value.is_null())
        .collect();
    format!("k:{}", serde_json::to_string(&keys).unwrap_or_default())
}

/// A step as it was read, in the one form that this module prints.
pub(super) fn normalized(element: &str) -> String {
    if let Some(keys) =
        element.strip_prefix("k:").and_then(|text| serde_json::from_str::<BTreeMap<String, Value>>(text).ok())
    {
        return format!("k:{}", serde_json::to_string(&keys).unwrap_or_default());
    }
    match element.strip_prefix("v:").and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        Some(value) => format!("v:{value}"),
        None => element.to_owned(),
    }
}

/// A step as messages show it: `.name`, `[name="a"]`, `[="x"]`, `[0]`.
pub(super) fn display(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("i", index)) => format!("[{index}]"),
        Some(("k", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let shown: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", shown.join(","))
        }
        _ => element.to_owned(),
    }
}
