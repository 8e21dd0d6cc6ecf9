//! What differs between two values of a type, for the refusal of a change: in the manner of the Go library that the
//! original uses, whose form is, by its own word, not to be relied upon.

use std::fmt::Write as _;

use serde_json::Value;

use crate::schema::SchemaRef;

/// How many lines are told of at most.
const MAX_LINES: usize = 200;
/// How long a value may be that is told of.
const MAX_VALUE_CHARS: usize = 400;

/// The lines that say how a value of a struct changed: `-` what was, `+` what is to be.
pub(super) fn of(old: &Value, new: &Value, schema: SchemaRef<'_>) -> String {
    let mut diff = Diff { text: String::new(), lines: 0, depth: 0 };
    diff.inner("", Some(old), Some(new), Some(schema), &type_name(Some(schema)));
    diff.text
}

struct Diff {
    text: String,
    lines: usize,
    depth: usize,
}

impl Diff {
    fn line(&mut self, sign: char, line: &str) {
        self.lines += 1;
        if self.lines == MAX_LINES {
            self.text.push_str("  ...\n");
        }
        if self.lines < MAX_LINES {
            // A string takes all that is written to it.
            let _ = writeln!(self.text, "{sign} {}{line}", "\t".repeat(self.depth));
        }
    }

    fn same(&mut self, count: &mut usize, what: &str) {
        if *count > 0 {
            self.line(' ', &format!("... // {count} identical {what}"));
        }
        *count = 0;
    }

    /// A member that differs: whole where there is no inside to look into.
    fn member(&mut self, name: &str, old: Option<&Value>, new: Option<&Value>, schema: Option<SchemaRef<'_>>) {
        match (old, new) {
            (Some(Value::Object(_)), Some(Value::Object(_))) | (Some(Value::Array(_)), Some(Value::Array(_))) => {
                self.inner(name, old, new, schema, &type_name(schema));
            }
            _ => {
                for (sign, value) in [('-', old), ('+', new)] {
                    if value.is_some() || !name.is_empty() {
                        self.line(sign, &format!("{name}{},", print(value, schema)));
                    }
                }
            }
        }
    }

    fn inner(
        &mut self,
        name: &str,
        old: Option<&Value>,
        new: Option<&Value>,
        schema: Option<SchemaRef<'_>>,
        type_name: &str,
    ) {
        self.line(' ', &format!("{name}{type_name}{{"));
        self.depth += 1;
        match (old, new) {
            (Some(Value::Array(old)), Some(Value::Array(new))) => self.entries(old, new, schema),
            _ => self.fields(old, new, schema),
        }
        self.depth -= 1;
        self.line(' ', if self.depth == 0 { "}" } else { "}," });
    }

    fn fields(&mut self, old: Option<&Value>, new: Option<&Value>, schema: Option<SchemaRef<'_>>) {
        let values = schema.and_then(SchemaRef::additional);
        let mut same = 0;
        for name in names(old, new, schema) {
            let [before, after] = [old, new].map(|value| value.and_then(|value| value.get(&name)));
            if before == after {
                same += 1;
                continue;
            }
            self.same(&mut same, if values.is_some() { "entries" } else { "fields" });
            match values {
                Some(_) => self.member(&format!("{name:?}: "), before, after, values),
                None => {
                    let field = schema.and_then(|schema| schema.property(&name));
                    self.member(&format!("{}: ", go_name(&name)), before, after, field);
                }
            }
        }
        self.same(&mut same, if values.is_some() { "entries" } else { "fields" });
    }

    fn entries(&mut self, old: &[Value], new: &[Value], schema: Option<SchemaRef<'_>>) {
        let items = schema.and_then(SchemaRef::items);
        let mut same = 0;
        for index in 0..old.len().max(new.len()) {
            let (before, after) = (old.get(index), new.get(index));
            if before == after {
                same += 1;
                continue;
            }
            self.same(&mut same, "elements");
            match (before, after) {
                (Some(Value::Object(_)), Some(Value::Object(_))) => self.inner("", before, after, items, ""),
                _ => self.member("", before, after, items),
            }
        }
        self.same(&mut same, "elements");
    }
}

/// The names of a struct's fields, or of the entries of two maps.
fn names(old: Option<&Value>, new: Option<&Value>, schema: Option<SchemaRef<'_>>) -> Vec<String> {
    let declared: Vec<String> =
        schema.into_iter().flat_map(SchemaRef::properties).map(|(name, _)| name.to_owned()).collect();
    if !declared.is_empty() {
        return declared;
    }
    let maps = [old, new].into_iter().filter_map(|value| value?.as_object());
    let mut names: Vec<String> = maps.flat_map(|map| map.keys().cloned()).collect();
    names.sort();
    names.dedup();
    names
}

/// `hostNetwork` as `HostNetwork`.
fn go_name(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn type_name(schema: Option<SchemaRef<'_>>) -> String {
    let Some(schema) = schema else { return String::new() };
    if let Some(items) = schema.items() {
        return format!("[]{}", type_name(Some(items)));
    }
    if let Some(values) = schema.additional() {
        return format!("map[string]{}", type_name(Some(values)));
    }
    match schema.name().and_then(|name| name.rsplit('.').next()) {
        Some(name) => format!("core.{name}"),
        None => "string".to_owned(),
    }
}

/// A value on one line.
fn print(value: Option<&Value>, schema: Option<SchemaRef<'_>>) -> String {
    let text = match value {
        None | Some(Value::Null) => "nil".to_owned(),
        Some(Value::String(text)) => format!("{text:?}"),
        Some(Value::Array(list)) => {
            let items = schema.and_then(SchemaRef::items);
            let entries: Vec<String> = list.iter().map(|entry| print(Some(entry), items)).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Some(Value::Object(map)) => {
            let values = schema.and_then(SchemaRef::additional);
            let pairs = map.iter().map(|(name, value)| match values {
                Some(_) => format!("{name:?}: {}", print(Some(value), values)),
                None => {
                    let field = schema.and_then(|schema| schema.property(name));
                    format!("{}: {}", go_name(name), print(Some(value), field))
                }
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        Some(other) => other.to_string(),
    };
    if text.chars().count() <= MAX_VALUE_CHARS {
        return text;
    }
    text.chars().take(MAX_VALUE_CHARS).chain("...".chars()).collect()
}
