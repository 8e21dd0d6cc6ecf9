//! Pieces that many printers share.

use serde_json::Value;

use super::Row;
use crate::{quantity::canonical, selector::LabelSelector};

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// How many entries a cell lists before it only counts them.
const LISTED: usize = 3;

impl<'a> Row<'a> {
    /// The object's name.
    pub(super) fn name(&self) -> Value {
        self.object.name().into()
    }

    /// The value at a path; a path of JSON pointer form without its first slash.
    pub(super) fn at(&self, path: &str) -> Option<&'a Value> {
        let mut names = path.split('/');
        let first = self.object.0.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }

    pub(super) fn text(&self, path: &str) -> &'a str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The text at a path, or what stands for its absence.
    pub(super) fn text_or(&self, path: &str, absent: &str) -> String {
        match self.text(path) {
            "" => absent.to_owned(),
            text => text.to_owned(),
        }
    }

    pub(super) fn int(&self, path: &str) -> i64 {
        self.at(path).and_then(Value::as_i64).unwrap_or_default()
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or_default()
    }

    pub(super) fn list(&self, path: &str) -> &'a [Value] {
        self.at(path).map(list).unwrap_or_default()
    }

    /// How many entries a list or a map has.
    pub(super) fn count(&self, path: &str) -> i64 {
        let count = match self.at(path) {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        };
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// Whether a graceful deletion has begun.
    pub(super) fn is_deleting(&self) -> bool {
        self.object.is_deleting()
    }

    /// A condition of the status.
    pub(super) fn condition(&self, kind: &str) -> Option<&'a Value> {
        self.list("status/conditions").iter().find(|condition| field(condition, "type") == kind)
    }

    pub(super) fn has_condition(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| field(condition, "status") == "True")
    }

    /// The names of the containers of a pod template, and their images.
    pub(super) fn containers(&self, pod_spec: &str) -> [Value; 2] {
        let containers = self.list(&format!("{pod_spec}/containers"));
        let join = |name: &str| containers.iter().map(|c| field(c, name)).collect::<Vec<_>>().join(",");
        [join("name").into(), join("image").into()]
    }

    /// A quantity in canonical form; `0` where it is absent.
    pub(super) fn quantity(&self, path: &str) -> String {
        self.at(path).map_or_else(|| "0".to_owned(), quantity)
    }
}

/// A quantity in canonical form.
pub(super) fn quantity(value: &Value) -> String {
    match value {
        Value::String(text) => canonical(text).unwrap_or_else(|| text.clone()),
        other => other.to_string(),
    }
}

/// The text of a field.
pub(super) fn field<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The number of a field.
pub(super) fn number(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// The entries of a list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The entries of a field that is a list.
pub(super) fn list_of<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).map(list).unwrap_or_default()
}

/// A scalar as text, without the quotes of a string.
pub(super) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A map of labels, sorted, or `<none>`.
pub(super) fn labels(map: Option<&Value>) -> String {
    let mut pairs: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", scalar(value)))
        .collect();
    pairs.sort();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// A `LabelSelector`, printed.
pub(super) fn label_selector(selector: Option<&Value>) -> String {
    match LabelSelector::from_value(selector).map(|selector| selector.to_string()) {
        Err(_) => "<error>".to_owned(),
        Ok(text) if text.is_empty() => NONE.to_owned(),
        Ok(text) => text,
    }
}

/// Entries joined by commas; of many the first three and how many more there are.
pub(super) fn some_of(entries: impl IntoIterator<Item = String>, empty: &str) -> String {
    let entries: Vec<String> = entries.into_iter().collect();
    if entries.len() > LISTED {
        return format!("{} + {} more...", entries[..LISTED].join(","), entries.len() - LISTED);
    }
    if entries.is_empty() { empty.to_owned() } else { entries.join(",") }
}

/// Access modes of a volume in short, each once, in a fixed order.
pub(super) fn access_modes(modes: &[Value]) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |long: &str| modes.iter().any(|mode| mode.as_str() == Some(long));
    short.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
