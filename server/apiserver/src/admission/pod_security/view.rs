//! A pod as the checks look at it.

use std::collections::BTreeSet;

use serde_json::Value;

/// A pod, or a template of one.
pub(super) struct PodView<'a> {
    pod: &'a Value,
    spec: &'a Value,
}

/// Nothing, to look into.
static NOTHING: Value = Value::Null;

/// The value at a path of fields, separated by `/`; null where there is none.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').try_fold(value, |value, field| value.get(field)).unwrap_or(&NOTHING)
}

/// The entries of a list.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// A word for one, or for many.
pub(super) fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// Words in quotes, with commas between.
pub(super) fn quoted<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|word| format!("\"{}\"", word.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// Who sets something: the pod, some of its containers, or both.
pub(super) fn setters(pod: bool, names: &[&str]) -> String {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(names));
    }
    setters.join(" and ")
}

impl<'a> PodView<'a> {
    /// Of a pod or template.
    pub(super) fn of(pod: &'a Value) -> Self {
        Self { pod, spec: at(pod, "spec") }
    }

    /// The spec.
    pub(super) fn spec(&self) -> &'a Value {
        self.spec
    }

    /// The annotations.
    pub(super) fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let map = at(self.pod, "metadata/annotations").as_object();
        map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// All containers: init containers first, ephemeral ones last.
    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |name| list(spec, name))
    }

    /// The names of the containers for which something holds.
    pub(super) fn names_where(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| holds(container)).map(|container| text(container, "name")).collect()
    }

    /// The names of the containers of which `bad` gives something, and all that it gives, sorted.
    pub(super) fn collect(&self, bad: impl Fn(&Value) -> Vec<String>) -> (Vec<&'a str>, BTreeSet<String>) {
        let (mut names, mut all) = (Vec::new(), BTreeSet::new());
        for container in self.containers() {
            let found = bad(container);
            if !found.is_empty() {
                names.push(text(container, "name"));
                all.extend(found);
            }
        }
        (names, all)
    }

    /// Whether the pod is for Windows.
    pub(super) fn is_windows(&self) -> bool {
        text(self.spec, "os/name") == "windows"
    }

    /// Whether the pod's users are not the host's.
    pub(super) fn has_own_users(&self) -> bool {
        *at(self.spec, "hostUsers") == Value::Bool(false)
    }
}
