//! Sets of fields, as `managedFields` holds them (`FieldsV1`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element;

/// How deep a set may be nested: as deep as an object that comes over the wire.
const MAX_DEPTH: usize = 128;

/// A set of fields, as a tree by the steps of their paths. No branch is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    nodes: BTreeMap<String, Node>,
}

/// What a set has at one path and below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the path itself is in the set.
    pub(super) is_member: bool,
    /// The paths below.
    pub(super) below: FieldSet,
}

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter()
    }

    pub(super) fn get(&self, element: &str) -> Option<&Node> {
        self.nodes.get(element)
    }

    /// Adds what is at a step, if it is anything.
    pub(super) fn put(&mut self, element: String, node: Node) {
        if !node.is_empty() {
            self.nodes.insert(element, node);
        }
    }

    /// Adds all of another set.
    pub(super) fn unite(&mut self, other: &Self) {
        for (element, theirs) in &other.nodes {
            let ours = self.nodes.entry(element.clone()).or_default();
            ours.is_member |= theirs.is_member;
            ours.below.unite(&theirs.below);
        }
    }

    /// Takes out what another set has.
    pub(super) fn subtract(&mut self, other: &Self) {
        for (element, theirs) in &other.nodes {
            let Some(ours) = self.nodes.get_mut(element) else { continue };
            ours.is_member &= !theirs.is_member;
            ours.below.subtract(&theirs.below);
            if ours.is_empty() {
                self.nodes.remove(element);
            }
        }
    }

    /// What both have.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (element, ours) in &self.nodes {
            let Some(theirs) = other.nodes.get(element) else { continue };
            let below = ours.below.intersection(&theirs.below);
            both.put(element.clone(), Node { is_member: ours.is_member && theirs.is_member, below });
        }
        both
    }

    /// The members of which another set has neither the path nor anything below it.
    pub(super) fn unowned(&self, owned: &Self) -> Self {
        let mut out = Self::default();
        for (element, ours) in &self.nodes {
            let node = match owned.nodes.get(element) {
                None if ours.is_member => Node { is_member: true, below: Self::default() },
                None => Node { is_member: false, below: ours.below.unowned(&Self::default()) },
                Some(theirs) => Node { is_member: false, below: ours.below.unowned(&theirs.below) },
            };
            out.put(element.clone(), node);
        }
        out
    }

    /// Takes out one path of field names, but not what is below it.
    pub(super) fn remove_member(&mut self, path: &[&str]) {
        self.change(path, &|node| node.is_member = false);
    }

    /// Takes out a path of field names and all below it.
    pub(super) fn remove_tree(&mut self, path: &[&str]) {
        self.change(path, &|node| *node = Node::default());
    }

    fn change(&mut self, path: &[&str], act: &dyn Fn(&mut Node)) {
        let Some((first, rest)) = path.split_first() else { return };
        let element = element::field(first);
        let Some(node) = self.nodes.get_mut(&element) else { return };
        if rest.is_empty() {
            act(node);
        } else {
            node.below.change(rest, act);
        }
        if node.is_empty() {
            self.nodes.remove(&element);
        }
    }

    /// The members, as messages show them.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        for (element, node) in &self.nodes {
            let path = format!("{prefix}{}", element::display(element));
            node.below.collect_paths(&path, paths);
            if node.is_member {
                paths.push(path);
            }
        }
    }

    /// The set as `FieldsV1`.
    pub(super) fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (element, node) in &self.nodes {
            let mut below = node.below.to_value();
            if let (true, Value::Object(inner)) = (node.is_member && !node.below.is_empty(), &mut below) {
                inner.shift_insert(0, ".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.clone(), below);
        }
        Value::Object(map)
    }

    /// Reads `FieldsV1`.
    pub(super) fn of_value(value: &Value) -> Self {
        Self::read(value, MAX_DEPTH)
    }

    fn read(value: &Value, depth: usize) -> Self {
        let mut set = Self::default();
        let Some(map) = value.as_object().filter(|_| depth > 0) else { return set };
        for (element, below) in map.iter().filter(|(element, _)| *element != ".") {
            let is_leaf = below.as_object().is_none_or(Map::is_empty);
            let node = Node { is_member: is_leaf || below.get(".").is_some(), below: Self::read(below, depth - 1) };
            set.put(element::normalized(element), node);
        }
        set
    }
}
