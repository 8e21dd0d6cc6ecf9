//! A place in an object, with its path as Kubernetes prints it, and the list of what is wrong.

use serde_json::Value;

use crate::{names::Faults, object::Object, status::FieldError};

/// How many errors are told of one object.
const MAX_ERRORS: usize = 200;

/// A value that may be absent, and its path.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) path: String,
    pub(super) value: Option<&'a Value>,
    /// The object itself, at the root, which is a map but no [`Value`].
    root: Option<&'a Object>,
}

impl<'a> Cursor<'a> {
    /// The object.
    pub(super) fn root(object: &'a Object) -> Self {
        Self { path: String::new(), value: None, root: Some(object) }
    }

    /// A field.
    pub(super) fn at(&self, name: &str) -> Cursor<'a> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let value = match self.root {
            Some(object) => object.0.get(name),
            None => self.value.and_then(|value| value.get(name)),
        };
        Cursor { path: format!("{}{dot}{name}", self.path), value: value.filter(|value| !value.is_null()), root: None }
    }

    /// The same value under another path: of the form in which the original keeps it.
    pub(super) fn under(self, path: String) -> Self {
        Self { path, ..self }
    }

    /// A field of a field...
    pub(super) fn down(&self, names: &[&str]) -> Cursor<'a> {
        names.iter().fold(self.clone(), |cursor, name| cursor.at(name))
    }

    /// The entries of a list; none where it is absent.
    pub(super) fn entries(&self) -> Vec<Cursor<'a>> {
        let list = self.value.and_then(Value::as_array);
        let entries = list.into_iter().flatten().enumerate();
        entries
            .map(|(index, value)| Cursor { path: format!("{}[{index}]", self.path), value: Some(value), root: None })
            .collect()
    }

    /// The entries of a map with their keys; none where it is absent.
    pub(super) fn pairs(&self) -> Vec<(&'a str, Cursor<'a>)> {
        let map = self.value.and_then(Value::as_object);
        let pairs = map.into_iter().flatten();
        pairs
            .map(|(key, value)| {
                (key.as_str(), Cursor { path: format!("{}[{key}]", self.path), value: Some(value), root: None })
            })
            .collect()
    }

    /// The text; empty where it is none.
    pub(super) fn text(&self) -> &'a str {
        self.value.and_then(Value::as_str).unwrap_or_default()
    }

    /// The number, where it is one.
    pub(super) fn int(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    /// Whether it is true.
    pub(super) fn flag(&self) -> bool {
        self.value.and_then(Value::as_bool).unwrap_or_default()
    }

    /// Whether there is a value.
    pub(super) fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// Whether there is no value, or an empty text, list or map.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        }
    }

    /// The value itself; null where it is absent.
    pub(super) fn json(&self) -> Value {
        self.value.cloned().unwrap_or_default()
    }
}

/// What is wrong.
#[derive(Default)]
pub(super) struct Errors {
    list: Vec<FieldError>,
}

impl Errors {
    pub(super) fn into_list(self) -> Vec<FieldError> {
        self.list
    }

    /// Whether something is already known to be wrong with a field.
    pub(super) fn has(&self, path: &str) -> bool {
        self.list.iter().any(|error| error.path == path)
    }

    pub(super) fn add(&mut self, error: FieldError) {
        if self.list.len() < MAX_ERRORS {
            self.list.push(error);
        }
    }

    pub(super) fn invalid(&mut self, at: &Cursor<'_>, detail: &str) {
        self.add(FieldError::invalid(at.path.as_str(), at.json(), detail));
    }

    pub(super) fn forbidden(&mut self, at: &Cursor<'_>, detail: &str) {
        self.add(FieldError::forbidden(at.path.as_str(), detail));
    }

    /// One error a fault of the text.
    pub(super) fn faults(&mut self, at: &Cursor<'_>, faults: Faults) {
        for fault in faults {
            self.invalid(at, &fault);
        }
    }

    /// The value must be there; says whether it is.
    pub(super) fn require(&mut self, at: &Cursor<'_>, detail: &str) -> bool {
        if at.is_empty() {
            self.add(FieldError::required(at.path.as_str(), detail));
        }
        !at.is_empty()
    }

    /// The text must be there and well formed.
    pub(super) fn name(&mut self, at: &Cursor<'_>, rule: fn(&str) -> Faults) {
        if self.require(at, "") {
            self.faults(at, rule(at.text()));
        }
    }

    /// The text, where there is one, must be well formed.
    pub(super) fn optional_name(&mut self, at: &Cursor<'_>, rule: fn(&str) -> Faults) {
        if !at.is_empty() {
            self.faults(at, rule(at.text()));
        }
    }

    /// The text, where there is one, must be one of some.
    pub(super) fn one_of(&mut self, at: &Cursor<'_>, words: &[&str]) {
        if !at.is_empty() && !words.contains(&at.text()) {
            self.add(FieldError::not_supported(at.path.as_str(), at.json(), words));
        }
    }

    /// The number, where there is one, must not be negative.
    pub(super) fn non_negative(&mut self, at: &Cursor<'_>) {
        if at.int().is_some_and(|number| number < 0) {
            self.invalid(at, "must be greater than or equal to 0");
        }
    }

    /// The number, where there is one, must be above zero.
    pub(super) fn positive(&mut self, at: &Cursor<'_>) {
        if at.int().is_some_and(|number| number <= 0) {
            self.invalid(at, "must be greater than 0");
        }
    }

    /// Entries of a list must differ in a field.
    pub(super) fn unique(&mut self, entries: &[Cursor<'_>], field: &str) {
        let mut seen = std::collections::HashSet::new();
        for entry in entries {
            let at = entry.at(field);
            if !at.is_empty() && !seen.insert(at.text()) {
                self.add(FieldError::duplicate(at.path.as_str(), at.json()));
            }
        }
    }

    /// A field must be as it was.
    pub(super) fn immutable(&mut self, now: &Cursor<'_>, old: &Cursor<'_>) {
        if now.value != old.value && !(now.is_empty() && old.is_empty()) {
            self.invalid(now, "field is immutable");
        }
    }
}
