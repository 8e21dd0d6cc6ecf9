//! An object as JSON, with access to the metadata that every kind has.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// One Kubernetes object of any kind: a JSON object whose keys keep their order.
///
/// Accessors never panic: a field of the wrong type reads as absent, and what is wrong with it is
/// said by schema validation, which runs before any behaviour of a kind does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(pub Map<String, Value>);

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerReference {
    /// The owner's `group/version`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name, in the namespace of the dependent or cluster-wide.
    pub name: String,
    /// The owner's UID; an owner of the same name with another UID is not this owner.
    pub uid: String,
    /// Whether this owner manages the dependent.
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for this dependent.
    pub block_owner_deletion: bool,
}

impl Object {
    /// Parses JSON text. Fails where the text is no JSON object.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes).map(Self)
    }

    /// The object as compact JSON text.
    pub fn to_vec(&self) -> Vec<u8> {
        // A map of JSON values with string keys always serializes.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    /// The object as one of k8s-openapi's types.
    pub fn to_typed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&Value::Object(self.0.clone()))
    }

    /// One of k8s-openapi's types as an object.
    pub fn from_typed<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_value(value).and_then(serde_json::from_value).map(Self)
    }

    /// The value at a path of field names, e.g. `["spec", "nodeName"]`.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, name| value.get(name))
    }

    /// The string at a path.
    pub fn str_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.as_str()
    }

    /// The integer at a path.
    pub fn int_at(&self, path: &[&str]) -> Option<i64> {
        self.at(path)?.as_i64()
    }

    /// Sets the value at a path, making the objects on the way; what is in the way and is no object is replaced.
    pub fn set_at(&mut self, path: &[&str], value: impl Into<Value>) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut map = &mut self.0;
        for name in parents {
            let child = map.entry(*name).or_insert_with(|| Value::Object(Map::new()));
            if !child.is_object() {
                *child = Value::Object(Map::new());
            }
            let Value::Object(next) = child else { return };
            map = next;
        }
        map.insert((*last).to_owned(), value.into());
    }

    /// Removes and returns the value at a path.
    pub fn remove_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut map = &mut self.0;
        for name in parents {
            map = map.get_mut(*name)?.as_object_mut()?;
        }
        map.shift_remove(*last)
    }

    /// `apiVersion`, e.g. `apps/v1`; empty where absent.
    pub fn api_version(&self) -> &str {
        self.str_at(&["apiVersion"]).unwrap_or_default()
    }

    /// `kind`; empty where absent.
    pub fn kind(&self) -> &str {
        self.str_at(&["kind"]).unwrap_or_default()
    }

    /// `metadata.name`; empty where absent.
    pub fn name(&self) -> &str {
        self.str_at(&["metadata", "name"]).unwrap_or_default()
    }

    /// `metadata.namespace`; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.str_at(&["metadata", "namespace"]).unwrap_or_default()
    }

    /// `metadata.uid`; empty where absent.
    pub fn uid(&self) -> &str {
        self.str_at(&["metadata", "uid"]).unwrap_or_default()
    }

    /// `metadata.resourceVersion` as a number; `None` where absent, empty or no number.
    pub fn resource_version(&self) -> Option<u64> {
        self.str_at(&["metadata", "resourceVersion"])?.parse().ok()
    }

    /// `metadata.generation`; 0 where absent.
    pub fn generation(&self) -> i64 {
        self.int_at(&["metadata", "generation"]).unwrap_or_default()
    }

    /// Whether a graceful deletion has begun (`metadata.deletionTimestamp` is set).
    pub fn is_deleting(&self) -> bool {
        self.str_at(&["metadata", "deletionTimestamp"]).is_some()
    }

    /// `metadata.labels` (or `annotations`) as pairs; values that are no strings are left out.
    pub fn pairs_at<'a>(&'a self, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let map = self.at(path).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
    }

    /// `metadata.labels` as pairs.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs_at(&["metadata", "labels"])
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        let list = self.at(&["metadata", "finalizers"]).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    /// `metadata.ownerReferences`; entries without a UID are left out.
    pub fn owner_references(&self) -> impl Iterator<Item = OwnerReference> {
        let list = self.at(&["metadata", "ownerReferences"]).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|owner| {
            let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let flag = |name: &str| owner.get(name).and_then(Value::as_bool).unwrap_or_default();
            let uid = text("uid");
            (!uid.is_empty()).then(|| OwnerReference {
                api_version: text("apiVersion"),
                kind: text("kind"),
                name: text("name"),
                uid,
                controller: flag("controller"),
                block_owner_deletion: flag("blockOwnerDeletion"),
            })
        })
    }
}
