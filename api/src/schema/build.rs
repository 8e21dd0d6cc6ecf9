//! Reads OpenAPI JSON into the table of nodes.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Format, ListType, MapType, More, NONE, Node, PatchStrategy, SchemaRef, Schemas, Type};
use crate::kinds::GroupVersionKind;

/// How deep schemas may nest; what lies deeper reads as [`Type::Any`].
const MAX_DEPTH: usize = 100;

/// What stands before a component's name in a reference.
const REFERENCE_PREFIXES: [&str; 2] = ["#/components/schemas/", "#/definitions/"];

/// The schemas of a map of components.
pub(super) fn components(components: &Value) -> Schemas {
    let mut builder = Builder::default();
    let mut named: Vec<(&String, &Value)> = components.as_object().into_iter().flatten().collect();
    named.sort_by(|a, b| a.0.cmp(b.0));
    // Every component gets its node first, so that references may point forwards and in circles.
    for (index, (name, _)) in named.iter().enumerate() {
        let node = builder.push(Node { component: index_of(index), ..Node::default() });
        builder.out.names.push((name.as_str().into(), node));
    }
    for (index, (name, schema)) in named.iter().enumerate() {
        let mut node = builder.read(schema, 0);
        node.component = index_of(index);
        special(name, &mut node);
        let at = builder.out.names[index].1;
        builder.kinds_of(schema, at);
        builder.out.nodes[at as usize] = node;
    }
    builder.finish(NONE)
}

/// The schema of a custom resource.
pub(super) fn custom_resource(schema: &Value) -> Schemas {
    let mut builder = Builder { custom: true, ..Builder::default() };
    let mut root = builder.read(schema, 0);
    builder.add_object_fields(&mut root);
    let root = builder.push(root);
    builder.finish(root)
}

/// Types whose JSON form their schema does not tell.
fn special(name: &str, node: &mut Node) {
    match name {
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => node.format = Format::Time,
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => node.format = Format::MicroTime,
        "io.k8s.apimachinery.pkg.runtime.RawExtension"
        | "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "io.k8s.apimachinery.pkg.apis.meta.v1.Patch" => {
            node.ty = Type::Any;
            node.more.get_or_insert_default().preserve_unknown = true;
        }
        _ => {}
    }
}

/// Table sizes are far below the limit of the index type.
fn index_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}

impl Default for Node {
    fn default() -> Self {
        Self {
            ty: Type::Any,
            format: Format::None,
            target: NONE,
            component: NONE,
            items: NONE,
            additional: NONE,
            properties: Box::default(),
            more: None,
        }
    }
}

/// The table under construction.
#[derive(Default)]
struct Builder {
    out: Schemas,
    words: HashMap<Box<str>, u32>,
    /// Nodes already made, by the text of their schema: most fields of a type look alike.
    made: HashMap<String, u32>,
    /// Nodes already taken over from another set, by their index there.
    imported: HashMap<u32, u32>,
    /// Whether this is a custom resource, whose embedded resources get Kubernetes' metadata.
    custom: bool,
}

impl Builder {
    fn finish(mut self, root: u32) -> Schemas {
        self.out.root = root;
        self.out.nodes.shrink_to_fit();
        self.out.words.shrink_to_fit();
        self.out
    }

    fn push(&mut self, node: Node) -> u32 {
        self.out.nodes.push(node);
        index_of(self.out.nodes.len() - 1)
    }

    fn word(&mut self, text: &str) -> u32 {
        if let Some(known) = self.words.get(text) {
            return *known;
        }
        let index = index_of(self.out.words.len());
        self.out.words.push(text.into());
        self.words.insert(text.into(), index);
        index
    }

    fn words_at(&mut self, schema: &Value, name: &str) -> Vec<u32> {
        let list = schema.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(|text| self.word(text)).collect()
    }

    /// The node of an inline schema, shared with every other of the same text.
    fn node(&mut self, schema: &Value, depth: usize) -> u32 {
        let text = schema.to_string();
        if let Some(known) = self.made.get(&text) {
            return *known;
        }
        let node = self.read(schema, depth);
        let index = self.push(node);
        self.made.insert(text, index);
        index
    }

    fn read(&mut self, schema: &Value, depth: usize) -> Node {
        let mut node = Node { ty: type_of(schema), format: format_of(schema), ..Node::default() };
        if depth > MAX_DEPTH {
            return Node { ty: Type::Any, ..node };
        }
        node.target = self.reference(schema);
        if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
            node.properties = self.properties(fields, depth);
        }
        if let Some(items) = schema.get("items") {
            node.items = self.node(items, depth + 1);
        }
        if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object() || **v == Value::Bool(true)) {
            node.additional = self.node(values, depth + 1);
        }
        let more = self.more(schema);
        let embedded = more.embedded_resource;
        if more.says_something() {
            node.more = Some(Box::new(more));
        }
        if self.custom && embedded {
            self.add_object_fields(&mut node);
        }
        node
    }

    fn properties(&mut self, fields: &Map<String, Value>, depth: usize) -> Box<[(u32, u32)]> {
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(b.0));
        sorted.into_iter().map(|(name, field)| (self.word(name), self.node(field, depth + 1))).collect()
    }

    /// The node that the schema refers to, directly or by an `allOf` of one.
    fn reference(&self, schema: &Value) -> u32 {
        let direct = schema.get("$ref");
        let wrapped = || schema.get("allOf").and_then(Value::as_array).filter(|list| list.len() == 1)?[0].get("$ref");
        let Some(path) = direct.or_else(wrapped).and_then(Value::as_str) else { return NONE };
        let name = REFERENCE_PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
        let found = self.out.names.binary_search_by(|(known, _)| known.as_ref().cmp(name));
        found.map_or(NONE, |at| self.out.names[at].1)
    }

    fn more(&mut self, schema: &Value) -> More {
        let text = |name: &str| schema.get(name).and_then(Value::as_str);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        More {
            default: schema.get("default").cloned(),
            enum_values: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            required: self.words_at(schema, "required"),
            list_type: text("x-kubernetes-list-type").map(list_type),
            map_type: text("x-kubernetes-map-type").map(|word| match word {
                "atomic" => MapType::Atomic,
                _ => MapType::Granular,
            }),
            map_keys: self.words_at(schema, "x-kubernetes-list-map-keys"),
            patch: text("x-kubernetes-patch-strategy").map(patch_strategy),
            merge_key: text("x-kubernetes-patch-merge-key").map(|word| self.word(word)),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            nullable: flag("nullable"),
        }
    }

    fn kinds_of(&mut self, schema: &Value, node: u32) {
        let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
        for kind in kinds.into_iter().flatten() {
            let text = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let gvk = GroupVersionKind { group: text("group"), version: text("version"), kind: text("kind") };
            self.out.kinds.insert(gvk, node);
        }
    }

    /// Gives a custom resource the fields that every object has.
    fn add_object_fields(&mut self, node: &mut Node) {
        let Some(model) = Schemas::builtin().by_name("io.k8s.api.core.v1.ConfigMap") else { return };
        let mut fields: Vec<(u32, u32)> = node.properties.to_vec();
        for name in ["apiVersion", "kind", "metadata"] {
            let Some(field) = model.property(name) else { continue };
            let word = self.word(name);
            let index = self.import(field);
            fields.retain(|(known, _)| *known != word);
            fields.push((word, index));
        }
        fields.sort_by(|a, b| self.out.words[a.0 as usize].cmp(&self.out.words[b.0 as usize]));
        node.properties = fields.into_boxed_slice();
    }

    /// Takes a schema of another set over into this one.
    fn import(&mut self, from: SchemaRef<'_>) -> u32 {
        if let Some(known) = self.imported.get(&from.index) {
            return *known;
        }
        let index = self.push(Node::default());
        self.imported.insert(from.index, index);
        let fields: Vec<(u32, u32)> =
            from.properties().map(|(name, field)| (self.word(name), self.import(field))).collect();
        let node = Node {
            ty: from.ty(),
            format: from.format(),
            target: NONE,
            component: NONE,
            items: from.items().map_or(NONE, |items| self.import(items)),
            additional: from.additional().map_or(NONE, |values| self.import(values)),
            properties: fields.into_boxed_slice(),
            more: Some(Box::new(self.import_more(from))),
        };
        self.out.nodes[index as usize] = node;
        index
    }

    fn import_more(&mut self, from: SchemaRef<'_>) -> More {
        More {
            default: from.default().cloned(),
            enum_values: from.enum_values().to_vec(),
            required: from.required().map(|word| self.word(word)).collect(),
            list_type: from.either(|more| more.list_type),
            map_type: from.either(|more| more.map_type),
            map_keys: from.map_keys().map(|word| self.word(word)).collect(),
            patch: from.either(|more| more.patch),
            merge_key: from.merge_key().map(|word| self.word(word)),
            embedded_resource: from.embedded_resource(),
            preserve_unknown: from.preserve_unknown(),
            nullable: from.nullable(),
        }
    }
}

impl More {
    fn says_something(&self) -> bool {
        self.default.is_some()
            || !self.enum_values.is_empty()
            || !self.required.is_empty()
            || self.list_type.is_some()
            || self.map_type.is_some()
            || self.patch.is_some()
            || self.merge_key.is_some()
            || self.embedded_resource
            || self.preserve_unknown
            || self.nullable
    }
}

fn type_of(schema: &Value) -> Type {
    let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
    let int_or_string = schema.get("x-kubernetes-int-or-string").and_then(Value::as_bool).unwrap_or_default();
    if int_or_string || text("format") == "int-or-string" {
        return Type::IntOrString;
    }
    match text("type") {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        _ if is_string_or_number(schema) => Type::Quantity,
        _ => Type::Any,
    }
}

/// The form of `resource.Quantity` in OpenAPI v3: `oneOf: [string, number]`.
fn is_string_or_number(schema: &Value) -> bool {
    let kinds = schema.get("oneOf").and_then(Value::as_array);
    let kinds: Vec<&str> = kinds.into_iter().flatten().filter_map(|s| s.get("type")?.as_str()).collect();
    kinds == ["string", "number"]
}

fn format_of(schema: &Value) -> Format {
    match schema.get("format").and_then(Value::as_str).unwrap_or_default() {
        "int32" => Format::Int32,
        "int64" => Format::Int64,
        "double" | "float" => Format::Double,
        "byte" => Format::Byte,
        _ => Format::None,
    }
}

fn list_type(word: &str) -> ListType {
    match word {
        "set" => ListType::Set,
        "map" => ListType::Map,
        _ => ListType::Atomic,
    }
}

fn patch_strategy(words: &str) -> PatchStrategy {
    let has = |word: &str| words.split(',').any(|given| given == word);
    PatchStrategy { merge: has("merge"), retain_keys: has("retainKeys"), replace: has("replace") }
}
