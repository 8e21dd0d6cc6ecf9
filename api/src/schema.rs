//! What fields a kind has: the schemas of the built-in kinds and those of custom resources, in one compact form.
//!
//! A schema is read from OpenAPI v3 JSON with the `x-kubernetes-*` extensions, once, into a table of nodes; a
//! [`SchemaRef`] is an index into it. Descriptions are not kept: who wants prose asks [`crate::openapi`].
//!
//! A field whose schema is a reference (`allOf: [$ref]`) has attributes of its own (default, list type, patch
//! strategy) beside those of the type it refers to; accessors answer with the field's own where it has any.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::Value;

use crate::kinds::GroupVersionKind;

mod build;

/// The type of a value, as far as decoding needs to tell them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// Anything: a raw extension, `JSON`, a field without a type.
    #[default]
    Any,
    /// An object; with [`SchemaRef::properties`] or, as a map, with [`SchemaRef::additional`].
    Object,
    /// A list of [`SchemaRef::items`].
    Array,
    /// A string; see [`SchemaRef::format`].
    String,
    /// A whole number; see [`SchemaRef::format`].
    Integer,
    /// A number.
    Number,
    /// A boolean.
    Boolean,
    /// A 32-bit whole number or a string (`intstr.IntOrString`).
    IntOrString,
    /// `resource.Quantity`: a string, or a number which reads as its decimal string.
    Quantity,
}

/// The format of a string or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// None, or one that decoding does not need to know.
    #[default]
    None,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `double` or `float`
    Double,
    /// `byte`: base64 text
    Byte,
    /// `metav1.Time`: RFC 3339 with seconds
    Time,
    /// `metav1.MicroTime`: RFC 3339 with microseconds
    MicroTime,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// The list is replaced whole (also where the schema says nothing).
    #[default]
    Atomic,
    /// Scalars without duplicates.
    Set,
    /// Objects that [`SchemaRef::map_keys`] tell apart.
    Map,
}

/// `x-kubernetes-map-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    /// Entries are owned one by one (also where the schema says nothing).
    #[default]
    Granular,
    /// The map or struct is replaced whole.
    Atomic,
}

/// `x-kubernetes-patch-strategy` of a strategic merge patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Entries of the list are merged by [`SchemaRef::merge_key`], or as a set where there is none.
    pub merge: bool,
    /// `$retainKeys` may name the only keys to keep.
    pub retain_keys: bool,
    /// The value replaces what is there.
    pub replace: bool,
}

/// A set of schemas that may refer to each other.
#[derive(Debug, Default)]
pub struct Schemas {
    nodes: Vec<Node>,
    words: Vec<Box<str>>,
    /// Component names, sorted, each with its node.
    names: Vec<(Box<str>, u32)>,
    kinds: HashMap<GroupVersionKind, u32>,
    root: u32,
}

/// No node, or no word.
const NONE: u32 = u32::MAX;

/// One schema. Properties are sorted by name.
#[derive(Debug)]
struct Node {
    ty: Type,
    format: Format,
    /// The node that a reference stands for.
    target: u32,
    /// The index into `names` of the component that this node is.
    component: u32,
    items: u32,
    additional: u32,
    properties: Box<[(u32, u32)]>,
    more: Option<Box<More>>,
}

/// What few nodes have.
#[derive(Debug, Default)]
struct More {
    default: Option<Value>,
    enum_values: Vec<Value>,
    required: Vec<u32>,
    list_type: Option<ListType>,
    map_type: Option<MapType>,
    map_keys: Vec<u32>,
    patch: Option<PatchStrategy>,
    merge_key: Option<u32>,
    embedded_resource: bool,
    preserve_unknown: bool,
    nullable: bool,
}

/// The compressed schemas of the built-in kinds.
pub(crate) static BUILTIN_GZ: &[u8] = include_bytes!("../data/schemas.json.gz");

static BUILTIN: LazyLock<Schemas> = LazyLock::new(|| Schemas::of_components(&crate::data::json_gz(BUILTIN_GZ)));

impl Schemas {
    /// The schemas of the built-in kinds.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// The schemas of a map of OpenAPI components, `{name: schema}`; references name components of the same map.
    pub fn of_components(components: &Value) -> Self {
        build::components(components)
    }

    /// The schema of a custom resource, from a CustomResourceDefinition's `openAPIV3Schema`: its [`Self::root`]
    /// has `apiVersion`, `kind` and Kubernetes' own `metadata`, and so have embedded resources.
    pub fn of_custom_resource(schema: &Value) -> Self {
        build::custom_resource(schema)
    }

    /// The schema that [`Self::of_custom_resource`] was made for.
    pub fn root(&self) -> Option<SchemaRef<'_>> {
        self.node(self.root)
    }

    /// The schema of a kind.
    pub fn of_kind(&self, gvk: &GroupVersionKind) -> Option<SchemaRef<'_>> {
        self.node(*self.kinds.get(gvk)?)
    }

    /// The schema of a component, e.g. `io.k8s.api.core.v1.PodSpec`.
    pub fn by_name(&self, name: &str) -> Option<SchemaRef<'_>> {
        let at = self.names.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        self.node(self.names[at].1)
    }

    fn node(&self, index: u32) -> Option<SchemaRef<'_>> {
        (index != NONE && (index as usize) < self.nodes.len()).then_some(SchemaRef { schemas: self, index })
    }

    fn word(&self, index: u32) -> &str {
        &self.words[index as usize]
    }
}

/// One schema of a set: cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct SchemaRef<'a> {
    schemas: &'a Schemas,
    index: u32,
}

impl<'a> SchemaRef<'a> {
    /// The node of the field itself.
    fn site(self) -> &'a Node {
        &self.schemas.nodes[self.index as usize]
    }

    /// The node of the type, behind any references.
    fn body(self) -> &'a Node {
        let mut node = self.site();
        // A chain of references is no longer than the table; one that goes round ends here too.
        for _ in 0..self.schemas.nodes.len() {
            if node.target == NONE {
                break;
            }
            node = &self.schemas.nodes[node.target as usize];
        }
        node
    }

    /// What the field says, or else what its type says.
    fn either<T>(self, read: impl Fn(&'a More) -> Option<T>) -> Option<T> {
        let of = |node: &'a Node| node.more.as_deref().and_then(&read);
        of(self.site()).or_else(|| of(self.body()))
    }

    fn words(self, read: impl Fn(&'a More) -> &'a [u32]) -> impl ExactSizeIterator<Item = &'a str> {
        let list = self.either(|more| Some(read(more)).filter(|list| !list.is_empty())).unwrap_or_default();
        list.iter().map(move |word| self.schemas.word(*word))
    }

    /// The name of the component that this schema is or refers to.
    pub fn name(self) -> Option<&'a str> {
        let component = self.body().component;
        (component != NONE).then(|| self.schemas.names[component as usize].0.as_ref())
    }

    /// The type.
    pub fn ty(self) -> Type {
        self.body().ty
    }

    /// The format.
    pub fn format(self) -> Format {
        self.body().format
    }

    /// The schema of a field.
    pub fn property(self, name: &str) -> Option<SchemaRef<'a>> {
        let fields = &self.body().properties;
        let at = fields.binary_search_by(|(word, _)| self.schemas.word(*word).cmp(name)).ok()?;
        self.schemas.node(fields[at].1)
    }

    /// All fields, sorted by name.
    pub fn properties(self) -> impl ExactSizeIterator<Item = (&'a str, SchemaRef<'a>)> {
        let schemas = self.schemas;
        self.body()
            .properties
            .iter()
            .map(move |(word, node)| (schemas.word(*word), SchemaRef { schemas, index: *node }))
    }

    /// The schema of a list's entries.
    pub fn items(self) -> Option<SchemaRef<'a>> {
        self.schemas.node(self.body().items)
    }

    /// The schema of a map's values.
    pub fn additional(self) -> Option<SchemaRef<'a>> {
        self.schemas.node(self.body().additional)
    }

    /// How a strategic merge patch treats the field.
    pub fn patch_strategy(self) -> PatchStrategy {
        self.either(|more| more.patch).unwrap_or_default()
    }

    /// The field that tells entries of a merged list apart in a strategic merge patch.
    pub fn merge_key(self) -> Option<&'a str> {
        self.either(|more| more.merge_key).map(|word| self.schemas.word(word))
    }

    /// How server-side apply treats a list.
    pub fn list_type(self) -> ListType {
        self.either(|more| more.list_type).unwrap_or_default()
    }

    /// How server-side apply treats a map or a struct.
    pub fn map_type(self) -> MapType {
        self.either(|more| more.map_type).unwrap_or_default()
    }

    /// The fields that tell entries of a [`ListType::Map`] list apart.
    pub fn map_keys(self) -> impl ExactSizeIterator<Item = &'a str> {
        self.words(|more| &more.map_keys)
    }

    /// The fields that must be present.
    pub fn required(self) -> impl ExactSizeIterator<Item = &'a str> {
        self.words(|more| &more.required)
    }

    /// The default. In built-in schemas an empty one (`{}`, `""`, `0`, `false`) is what Go prints for an unset
    /// field that is always printed, not a rule of the API.
    pub fn default(self) -> Option<&'a Value> {
        self.either(|more| more.default.as_ref())
    }

    /// The only values allowed; empty where all are.
    pub fn enum_values(self) -> &'a [Value] {
        self.either(|more| Some(more.enum_values.as_slice()).filter(|list| !list.is_empty())).unwrap_or_default()
    }

    /// Whether the value is an object with `apiVersion`, `kind` and `metadata` (`x-kubernetes-embedded-resource`).
    pub fn embedded_resource(self) -> bool {
        self.either(|more| more.embedded_resource.then_some(())).is_some()
    }

    /// Whether fields that the schema does not name are kept (`x-kubernetes-preserve-unknown-fields`).
    pub fn preserve_unknown(self) -> bool {
        self.either(|more| more.preserve_unknown.then_some(())).is_some()
    }

    /// Whether null is a value of its own, not the same as absent.
    pub fn nullable(self) -> bool {
        self.either(|more| more.nullable.then_some(())).is_some()
    }
}

#[cfg(test)]
mod tests;
