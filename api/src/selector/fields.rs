//! Requirements on the selectable fields of a kind.

use std::fmt;

use crate::wire::Head;

/// The fields that objects of every kind can be selected by.
const COMMON: [&str; 2] = ["metadata.name", "metadata.namespace"];

/// Selectable fields that are no strings, with the value that an unset one has.
const ZERO_VALUES: [(&str, &str); 4] = [
    ("spec.unschedulable", "false"),
    ("spec.hostNetwork", "false"),
    ("status.replicas", "0"),
    ("status.successful", "0"),
];

/// One requirement on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Term {
    field: String,
    is_equal: bool,
    value: String,
}

/// Requirements on fields that must all hold. Without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// The selector that one field must equal one value.
    pub fn equals(field: &str, value: &str) -> Self {
        Self { terms: vec![Term { field: field.to_owned(), is_equal: true, value: value.to_owned() }] }
    }

    /// Parses the string syntax: `a=b,c==d,e!=f`, with `\,`, `\=` and `\\` in values.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|part| !part.is_empty()) {
            let (field, is_equal, value) =
                split_term(part).ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(Term { field: field.to_owned(), is_equal, value: unescape(value)? });
        }
        Ok(Self { terms })
    }

    /// Fails where a field is not among those that the kind can be selected by.
    pub fn check(&self, selectable: &[&'static str]) -> Result<(), String> {
        let is_known =
            |term: &&Term| COMMON.contains(&term.field.as_str()) || selectable.contains(&term.field.as_str());
        let Some(unknown) = self.terms.iter().find(|term| !is_known(term)) else { return Ok(()) };
        let field = &unknown.field;
        if selectable.is_empty() {
            return Err(format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ));
        }
        Err(format!("field label not supported: {field}"))
    }

    /// Whether an object with this head has the fields required.
    pub fn matches(&self, head: &Head) -> bool {
        self.terms.iter().all(|term| (field_of(head, &term.field) == term.value) == term.is_equal)
    }

    /// The value that a field must have, if there is one.
    pub fn pinned(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.is_equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether there is no requirement.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let operator = if term.is_equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

fn field_of<'a>(head: &'a Head, field: &str) -> &'a str {
    match field {
        "metadata.name" => &head.name,
        "metadata.namespace" => &head.namespace,
        _ => {
            let value = head.fields.iter().find(|(path, _)| *path == field).map_or("", |(_, value)| value);
            if !value.is_empty() {
                return value;
            }
            ZERO_VALUES.iter().find(|(path, _)| *path == field).map_or("", |(_, zero)| zero)
        }
    }
}

/// Splits at commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Field, whether it must be equal, and the value, still escaped.
fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    let at = part.char_indices().find(|(at, c)| *c == '=' || part[*at..].starts_with("!="))?.0;
    let (field, rest) = part.split_at(at);
    let operators = [("!=", false), ("==", true), ("=", true)];
    operators.iter().find_map(|(operator, is_equal)| Some((field, *is_equal, rest.strip_prefix(operator)?)))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(format!("invalid field selector: invalid escape sequence: \\{other}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            // Kubernetes prints the character's number.
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(c))),
            other => out.push(other),
        }
    }
    Ok(out)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}
