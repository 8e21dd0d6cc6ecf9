//! Cells that a column alone describes: those of custom resources, and name and age of kinds without a printer.

use serde_json::Value;

use super::{Row, format::scalar};
use crate::kinds::Column;

/// How many steps a path may have.
const MAX_STEPS: usize = 64;
/// How many values a path may select.
const MAX_VALUES: usize = 1000;

/// The cell of a column.
pub(super) fn cell(column: &Column, row: &Row<'_>) -> Value {
    if !column.json_path.is_empty() {
        return at_path(column, row);
    }
    match column.name.as_str() {
        "Name" => row.name(),
        "Age" => row.age().into(),
        "Created At" => row.text("metadata/creationTimestamp").into(),
        _ => Value::Null,
    }
}

fn at_path(column: &Column, row: &Row<'_>) -> Value {
    let object = Value::Object(row.object.0.clone());
    let values = json_path(&column.json_path, &object);
    let Some(first) = values.first() else { return Value::Null };
    match column.kind.as_str() {
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        "date" => match first.as_str() {
            Some(time) => row.since(Some(time)).into(),
            None => Value::Null,
        },
        _ => values.iter().map(|value| scalar(value)).collect::<Vec<_>>().join(",").into(),
    }
}

/// The values that a path selects: the part of kubectl's JSONPath that columns of custom resources use (`.a.b`,
/// `['a']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`). What cannot be read selects nothing.
pub fn json_path<'v>(path: &str, value: &'v Value) -> Vec<&'v Value> {
    let trimmed = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let mut selected = vec![value];
    let mut rest = trimmed;
    for _ in 0..MAX_STEPS {
        if rest.is_empty() {
            return selected;
        }
        let Some((step, after)) = step(rest) else { return Vec::new() };
        selected = selected.into_iter().flat_map(|value| step.select(value)).take(MAX_VALUES).collect();
        rest = after;
    }
    Vec::new()
}

enum Step<'p> {
    Field(String),
    Index(i64),
    All,
    /// Entries of which a field equals (or does not equal) a value.
    Filter {
        field: &'p str,
        is_equal: bool,
        value: &'p str,
    },
}

fn step(rest: &str) -> Option<(Step<'_>, &str)> {
    if let Some(inner) = rest.strip_prefix('[') {
        let end = inner.find(']')?;
        return Some((bracket(&inner[..end])?, &inner[end + 1..]));
    }
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    let mut name = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return Some((field_step(name), &rest[at..])),
            c => name.push(c),
        }
    }
    Some((field_step(name), ""))
}

fn field_step<'p>(name: String) -> Step<'p> {
    if name == "*" { Step::All } else { Step::Field(name) }
}

fn bracket(inner: &str) -> Option<Step<'_>> {
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(name) = inner.strip_prefix('\'').and_then(|name| name.strip_suffix('\'')) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (field, is_equal, value) = match condition.split_once("==") {
            Some((field, value)) => (field, true, value),
            None => condition.split_once("!=").map(|(field, value)| (field, false, value))?,
        };
        let field = field.trim().strip_prefix("@.")?;
        return Some(Step::Filter { field, is_equal, value: value.trim().trim_matches(['"', '\'']) });
    }
    inner.parse().ok().map(Step::Index)
}

impl Step<'_> {
    fn select<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Field(name), value) => value.get(name).into_iter().collect(),
            (Self::All, Value::Array(list)) => list.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Index(index), Value::Array(list)) => {
                let from_end = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
                let at = if *index < 0 { list.len().checked_sub(from_end) } else { Some(from_end) };
                at.and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::Filter { field, is_equal, value }, Value::Array(list)) => {
                let has =
                    |entry: &&Value| entry.get(*field).is_some_and(|found| (scalar(found) == *value) == *is_equal);
                list.iter().filter(has).collect()
            }
            _ => Vec::new(),
        }
    }
}
