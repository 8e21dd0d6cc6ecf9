//! The table of resources: what a kind is called, where it lives, and what can be done with it.
//!
//! Kinds are data. The built-in ones come from the recorded discovery of Kubernetes 1.36; a
//! CustomResourceDefinition adds a [`ResourceDef`] of the same form. No kind has a handler of its own.

mod builtin;

pub use builtin::{Group, GroupVersion, Kinds, stored_field};

/// A group, a version and a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, e.g. `v1`.
    pub version: String,
    /// Kind, e.g. `Deployment`.
    pub kind: String,
}

impl GroupVersionKind {
    /// From its three parts.
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    /// From an object's `apiVersion` and `kind`.
    pub fn parse(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self::new(group, version, kind)
    }

    /// The `apiVersion` of an object: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// One column of a `Table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading, e.g. `Ready`.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `date`...
    pub kind: String,
    /// OpenAPI format; `name` marks the column that names the object.
    pub format: String,
    /// What the column says.
    pub description: String,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// From where a custom resource's cell is read, e.g. `.spec.size`; empty for built-in kinds, whose cells are
    /// made by [`crate::table::cells`].
    pub json_path: String,
}

/// A subresource, e.g. `status` or `scale`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The path segment.
    pub name: String,
    /// The kind of its bodies, e.g. `autoscaling/v1` `Scale`.
    pub kind: GroupVersionKind,
    /// The verbs it takes.
    pub verbs: Vec<String>,
}

/// How soon an acknowledged write of a kind is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged.
    #[default]
    Synced,
    /// Some seconds later, in a batch: Leases, node heartbeats and Events.
    Heartbeat,
}

/// All that is known of one resource in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceDef {
    /// Group, version and kind of the objects.
    pub gvk: GroupVersionKind,
    /// Plural name, the path segment, e.g. `deployments`.
    pub resource: String,
    /// Singular name.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs that the resource takes.
    pub verbs: Vec<String>,
    /// Short names, e.g. `deploy`.
    pub short_names: Vec<String>,
    /// Categories, e.g. `all`.
    pub categories: Vec<String>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Columns of its `Table`.
    pub columns: Vec<Column>,
    /// Fields that a field selector may name, besides `metadata.name` and `metadata.namespace` which all have.
    pub selectable: Vec<&'static str>,
    /// Group and resource under which objects are stored: two resources that are views of one stored object
    /// (`events` of both groups, `horizontalpodautoscalers` of both versions) share one.
    pub storage: StorageKey,
    /// Whether objects are stored at all; reviews (`tokenreviews`...) are only answered.
    pub stored: bool,
    /// How soon a write must be on disk.
    pub durability: Durability,
}

/// Where objects of a resource are stored: the first two segments of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorageKey {
    /// Group; `core` for the core group.
    pub group: String,
    /// Plural resource name.
    pub resource: String,
}

impl StorageKey {
    /// The prefix of the keys of all objects: `/group/resource/`.
    pub fn prefix(&self) -> String {
        format!("/{}/{}/", self.group, self.resource)
    }

    /// The key of one object; `namespace` is empty for cluster-scoped ones.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if namespace.is_empty() {
            format!("/{}/{}/{name}", self.group, self.resource)
        } else {
            format!("/{}/{}/{namespace}/{name}", self.group, self.resource)
        }
    }
}
