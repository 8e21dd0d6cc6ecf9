//! Walks over values along their schema: which fields a value has, how two values differ, how they merge.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{
    element,
    set::{FieldSet, Node},
};
use crate::schema::{ListType, MapType, SchemaRef, Type};

/// What a value is to field management.
enum Shape {
    /// Replaced whole.
    Leaf,
    /// Its fields are managed one by one.
    Map,
    /// Its entries are managed one by one.
    List,
}

fn shape(value: &Value, schema: Option<SchemaRef<'_>>) -> Shape {
    match (value, schema) {
        (Value::Object(_), None) => Shape::Map,
        (Value::Object(_), Some(schema)) => {
            let is_opaque = schema.ty() == Type::Any && !schema.preserve_unknown();
            if schema.map_type() == MapType::Atomic || is_opaque { Shape::Leaf } else { Shape::Map }
        }
        (Value::Array(_), Some(schema)) if schema.list_type() != ListType::Atomic => Shape::List,
        _ => Shape::Leaf,
    }
}

fn child<'a>(schema: Option<SchemaRef<'a>>, name: &str) -> Option<SchemaRef<'a>> {
    schema.and_then(|schema| schema.property(name).or_else(|| schema.additional()))
}

/// Steps with the values and schemas that they lead to.
type Children<'v, 'a> = Vec<(String, &'v Value, Option<SchemaRef<'a>>)>;

/// The fields and their values: of a map all but nulls, of a list its entries by their keys, the first of each.
fn children<'v, 'a>(value: &'v Value, schema: Option<SchemaRef<'a>>) -> Children<'v, 'a> {
    match (value, schema) {
        (Value::Object(map), _) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (element::field(name), value, child(schema, name)))
            .collect(),
        (Value::Array(list), Some(schema)) => {
            let mut seen = HashSet::new();
            let all = list.iter().map(|item| (element::entry(item, schema), item, schema.items()));
            all.filter(|(element, ..)| seen.insert(element.clone())).collect()
        }
        _ => Vec::new(),
    }
}

/// The fields that a value sets, as a manager that applies it comes to own them.
pub(super) fn fields_of(value: &Value, schema: SchemaRef<'_>) -> FieldSet {
    owned(value, Some(schema)).below
}

fn owned(value: &Value, schema: Option<SchemaRef<'_>>) -> Node {
    let is_list = match shape(value, schema) {
        Shape::Leaf => return Node { is_member: true, below: FieldSet::default() },
        Shape::Map => false,
        Shape::List => true,
    };
    let mut below = FieldSet::default();
    for (element, value, child) in children(value, schema) {
        let mut node = owned(value, child);
        let is_declared =
            element::field_name(&element).is_some_and(|name| schema.and_then(|s| s.property(name)).is_some());
        let is_empty_map = value.as_object().is_some_and(Map::is_empty);
        node.is_member |= is_list || is_empty_map || !is_declared;
        below.put(element, node);
    }
    Node { is_member: false, below }
}

/// How a new value differs from an old one.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

/// The difference at one path.
#[derive(Default)]
struct Nodes {
    added: Node,
    modified: Node,
    removed: Node,
}

/// Compares two versions of an object.
pub(super) fn compare(old: Option<&Value>, new: &Value, schema: SchemaRef<'_>) -> Difference {
    let nodes = differ(old, Some(new), Some(schema), true);
    Difference { added: nodes.added.below, modified: nodes.modified.below, removed: nodes.removed.below }
}

/// `is_always` tells that the field is there in every object, if only empty, so that it is never added itself.
fn differ(old: Option<&Value>, new: Option<&Value>, schema: Option<SchemaRef<'_>>, is_always: bool) -> Nodes {
    let is_leaf = |value: Option<&Value>| value.is_none_or(|value| matches!(shape(value, schema), Shape::Leaf));
    let mut nodes = Nodes::default();
    match (old, new) {
        (None, None) => return nodes,
        (Some(old), Some(new)) if is_leaf(Some(old)) || is_leaf(Some(new)) => {
            nodes.modified.is_member = old != new;
            return nodes;
        }
        (Some(_), Some(_)) => {}
        (None, Some(_)) => nodes.added.is_member = !is_always || is_leaf(new),
        (Some(_), None) => nodes.removed.is_member = !is_always || is_leaf(old),
    }
    if is_leaf(old) && is_leaf(new) {
        return nodes;
    }
    let below_old = old.map(|old| children(old, schema)).unwrap_or_default();
    let below_new = new.map(|new| children(new, schema)).unwrap_or_default();
    // In what is new as a whole, all is new.
    let skeleton = schema.filter(|_| is_always || (old.is_some() && new.is_some()));
    differ_below(&mut nodes, below_old, below_new, skeleton);
    nodes
}

/// `skeleton` is the schema of the struct whose fields these are, if that struct was there before and after.
fn differ_below(nodes: &mut Nodes, old: Children<'_, '_>, new: Children<'_, '_>, skeleton: Option<SchemaRef<'_>>) {
    let mut before: HashMap<String, &Value> = old.iter().map(|(element, value, _)| (element.clone(), *value)).collect();
    let mut put = |element: String, inner: Nodes| {
        nodes.added.below.put(element.clone(), inner.added);
        nodes.modified.below.put(element.clone(), inner.modified);
        nodes.removed.below.put(element, inner.removed);
    };
    for (element, value, child) in new {
        let inner = differ(before.remove(&element), Some(value), child, is_always_there(skeleton, &element, child));
        put(element, inner);
    }
    for (element, value, child) in old {
        if before.contains_key(&element) {
            let inner = differ(Some(value), None, child, is_always_there(skeleton, &element, child));
            put(element, inner);
        }
    }
}

/// Whether Kubernetes prints a struct or list of this field in every object, even an empty one.
fn is_always_there(parent: Option<SchemaRef<'_>>, element: &str, field: Option<SchemaRef<'_>>) -> bool {
    let Some(name) = element::field_name(element) else { return false };
    let is_printed = |field: SchemaRef<'_>| {
        field.default().and_then(Value::as_object).is_some_and(Map::is_empty)
            || parent.is_some_and(|parent| parent.required().any(|required| required == name))
    };
    let is_declared = parent.is_some_and(|parent| parent.property(name).is_some());
    is_declared && field.is_some_and(is_printed)
}

/// Merges what is applied into what is there.
pub(super) fn merge(live: Value, applied: Value, schema: SchemaRef<'_>) -> Value {
    merge_any(live, applied, Some(schema))
}

fn merge_any(live: Value, applied: Value, schema: Option<SchemaRef<'_>>) -> Value {
    match (shape(&live, schema), shape(&applied, schema)) {
        (Shape::Map, Shape::Map) => merge_maps(live, applied, schema),
        (Shape::List, Shape::List) => merge_lists(live, applied, schema),
        _ => applied,
    }
}

fn merge_maps(live: Value, applied: Value, schema: Option<SchemaRef<'_>>) -> Value {
    let (Value::Object(mut map), Value::Object(applied)) = (live, applied) else { return Value::Null };
    for (name, value) in applied.into_iter().filter(|(_, value)| !value.is_null()) {
        let merged = match map.get_mut(&name).map(Value::take) {
            Some(old) => merge_any(old, value, child(schema, &name)),
            None => value,
        };
        map.insert(name, merged);
    }
    Value::Object(map)
}

/// Entries keep the order in which they are applied; those that only the live list has keep their places between.
fn merge_lists(live: Value, applied: Value, schema: Option<SchemaRef<'_>>) -> Value {
    let (Value::Array(live), Value::Array(applied), Some(schema)) = (live, applied, schema) else { return Value::Null };
    let mut order: Vec<String> = Vec::with_capacity(applied.len());
    let mut wanted: HashMap<String, Value> = HashMap::with_capacity(applied.len());
    for item in applied {
        let element = element::entry(&item, schema);
        order.push(element.clone());
        wanted.insert(element, item);
    }
    let mut present: HashMap<String, Value> = HashMap::new();
    let live: Vec<(String, Value)> = live.into_iter().map(|item| (element::entry(&item, schema), item)).collect();
    for (element, item) in &live {
        if wanted.contains_key(element) {
            present.entry(element.clone()).or_insert_with(|| item.clone());
        }
    }
    let shared: HashSet<String> = present.keys().cloned().collect();
    let mut order = order.into_iter().peekable();
    let mut merged = Vec::with_capacity(live.len());
    let mut take = |element: &str, merged: &mut Vec<Value>| {
        let Some(item) = wanted.remove(element) else { return };
        merged.push(match present.remove(element) {
            Some(old) => merge_any(old, item, schema.items()),
            None => item,
        });
    };
    let mut taken = HashSet::new();
    for (element, item) in live {
        if !shared.contains(&element) {
            merged.push(item);
            continue;
        }
        while !taken.contains(&element) {
            let Some(next) = order.next() else { break };
            take(&next, &mut merged);
            taken.insert(next);
        }
    }
    order.for_each(|next| take(&next, &mut merged));
    Value::Array(merged)
}

/// Removes fields from a value. What becomes empty by it goes as well, unless somebody owns it.
pub(super) fn remove(value: &mut Value, fields: &FieldSet, owned: &FieldSet, schema: SchemaRef<'_>) {
    remove_any(value, fields, owned, Some(schema));
}

fn remove_any(value: &mut Value, fields: &FieldSet, owned: &FieldSet, schema: Option<SchemaRef<'_>>) {
    match (shape(value, schema), value) {
        (Shape::Map, Value::Object(map)) => {
            for (element, node) in fields.iter() {
                let Some(name) = element::field_name(element) else { continue };
                if removes(map.get_mut(name), node, owned.get(element), child(schema, name)) {
                    map.shift_remove(name);
                }
            }
        }
        (Shape::List, Value::Array(list)) => {
            let Some(schema) = schema else { return };
            list.retain_mut(|item| {
                let element = element::entry(item, schema);
                let node = fields.get(&element);
                !node.is_some_and(|node| removes(Some(item), node, owned.get(&element), schema.items()))
            });
        }
        _ => {}
    }
}

/// Removes what is below a path; whether the path itself must go too.
fn removes(value: Option<&mut Value>, node: &Node, owned: Option<&Node>, schema: Option<SchemaRef<'_>>) -> bool {
    let Some(value) = value else { return false };
    if node.is_member {
        return true;
    }
    let nobody = Node::default();
    let owned = owned.unwrap_or(&nobody);
    remove_any(value, &node.below, &owned.below, schema);
    let is_empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    is_empty && !owned.is_member
}
