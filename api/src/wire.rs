//! The stored form of an object, which is also its wire form, and the small head that selectors read.
//!
//! A stored value is the object's compact JSON without `metadata.resourceVersion`, with `apiVersion` and `kind`
//! before `metadata`, so that the revision, known only once the write has been committed, is spliced in by a
//! copy: nothing is parsed or printed on a read.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::object::Object;

mod pick;

/// What stands in a stored value where the metadata begins.
const METADATA_OPEN: &[u8] = b"\"metadata\":{";

/// How far from its beginning a stored value's metadata may begin: `apiVersion` and `kind` are all that precede it.
const METADATA_WITHIN_BYTES: usize = 1024;

/// A stored value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The value has no metadata where a stored value has it.
    #[error("a stored value does not have its metadata in front")]
    NoMetadata,
    /// The value is not JSON.
    #[error("a stored value is not JSON")]
    Json(#[from] serde_json::Error),
}

/// The parts of an object that lists, watches and selectors need, read once when the object is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `metadata.namespace`, empty for cluster-scoped objects.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`, sorted by key.
    pub labels: Vec<(String, String)>,
    /// The kind's selectable fields and their values, e.g. `("spec.nodeName", "n1")`; an unset field is `""`.
    pub fields: Vec<(&'static str, String)>,
}

/// One version of one object: its bytes as they go over the wire, and its head. Shared, never copied.
#[derive(Debug)]
pub struct Entry {
    /// The revision of the write that made this version.
    pub resource_version: u64,
    /// What selectors read.
    pub head: Head,
    /// The object as compact JSON, `metadata.resourceVersion` included.
    pub json: Bytes,
}

/// Encodes an object in the stored form. Whatever `metadata.resourceVersion` it has is left out.
pub fn encode(object: &Object) -> Bytes {
    Bytes::from(serde_json::to_vec(&Stored(object)).unwrap_or_default())
}

/// An object as it is stored: written from where it is, without a copy of it.
struct Stored<'a>(&'a Object);

/// Metadata without its revision.
struct StoredMetadata<'a>(Option<&'a serde_json::Value>);

/// The fields that come first, in this order.
const FRONT: [&str; 2] = ["kind", "apiVersion"];

impl Serialize for Stored<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = &self.0.0;
        let mut map = serializer.serialize_map(None)?;
        for name in FRONT {
            if let Some(value) = fields.get(name) {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("metadata", &StoredMetadata(fields.get("metadata")))?;
        for (name, value) in fields.iter().filter(|(name, _)| !FRONT.contains(&name.as_str()) && *name != "metadata") {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for StoredMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.and_then(serde_json::Value::as_object);
        serializer.collect_map(fields.into_iter().flatten().filter(|(name, _)| *name != "resourceVersion"))
    }
}

/// The wire form of a stored value: the same bytes with `metadata.resourceVersion` spliced in.
pub fn splice_resource_version(stored: &[u8], revision: u64) -> Result<Bytes, WireError> {
    let front = &stored[..stored.len().min(METADATA_WITHIN_BYTES)];
    let at = memmem::find(front, METADATA_OPEN).ok_or(WireError::NoMetadata)? + METADATA_OPEN.len();
    let comma = if stored.get(at) == Some(&b'}') { "" } else { "," };
    let field = format!("\"resourceVersion\":\"{revision}\"{comma}");
    let mut wire = Vec::with_capacity(stored.len() + field.len());
    wire.extend_from_slice(&stored[..at]);
    wire.extend_from_slice(field.as_bytes());
    wire.extend_from_slice(&stored[at..]);
    Ok(Bytes::from(wire))
}

impl Head {
    /// The head of an object; `selectable` names the kind's selectable fields as dotted paths.
    pub fn of(object: &Object, selectable: &[&'static str]) -> Self {
        let mut labels: Vec<(String, String)> = object.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        labels.sort();
        let value = |path: &str| {
            let names: Vec<&str> = path.split('.').collect();
            shown(object.at(&names).cloned().unwrap_or_default())
        };
        Self {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            labels,
            fields: selectable.iter().map(|path| (*path, value(path))).collect(),
        }
    }
}

impl Head {
    /// The head of an encoded object: only what it needs is taken out of the text, the rest is passed over.
    fn read(json: &[u8], selectable: &[&'static str]) -> Result<Self, serde_json::Error> {
        let mut paths = vec!["metadata.namespace", "metadata.name", "metadata.uid", "metadata.labels"];
        paths.extend_from_slice(selectable);
        let mut found = pick::pick(json, &paths)?.into_iter();
        let mut next = || found.next().unwrap_or_default();
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            _ => String::new(),
        };
        let (namespace, name, uid, labels) = (text(next()), text(next()), text(next()), next());
        let mut labels: Vec<(String, String)> = match labels {
            serde_json::Value::Object(map) => map
                .into_iter()
                .filter_map(
                    |(key, value)| if let serde_json::Value::String(text) = value { Some((key, text)) } else { None },
                )
                .collect(),
            _ => Vec::new(),
        };
        labels.sort();
        let fields = selectable.iter().map(|path| (*path, shown(next()))).collect();
        Ok(Self { namespace, name, uid, labels, fields })
    }
}

/// The value of a selectable field as selectors compare it.
fn shown(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Entry {
    /// The entry of a stored value that was committed at a revision.
    pub fn from_stored(stored: &[u8], revision: u64, selectable: &[&'static str]) -> Result<Arc<Self>, WireError> {
        let head = Head::read(stored, selectable)?;
        Ok(Arc::new(Self { resource_version: revision, head, json: splice_resource_version(stored, revision)? }))
    }

    /// The entry of an object that came over the wire.
    pub fn from_wire(json: Bytes, selectable: &[&'static str]) -> Result<Arc<Self>, WireError> {
        let object = Object::from_slice(&json)?;
        let resource_version = object.resource_version().unwrap_or_default();
        Ok(Arc::new(Self { resource_version, head: Head::of(&object, selectable), json }))
    }

    /// The object, parsed anew.
    pub fn object(&self) -> Result<Object, serde_json::Error> {
        Object::from_slice(&self.json)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn revision_is_spliced_into_the_stored_form() {
        let object = Object::from_slice(
            br#"{"metadata":{"name":"a","resourceVersion":"7"},"spec":{"metadata":{}},"kind":"Pod","apiVersion":"v1"}"#,
        )
        .unwrap();
        let stored = encode(&object);
        assert_eq!(&stored[..], br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"metadata":{}}}"#);
        let wire = splice_resource_version(&stored, 42).unwrap();
        assert_eq!(
            &wire[..],
            br#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"42","name":"a"},"spec":{"metadata":{}}}"#
        );
    }

    proptest::proptest! {
        #[test]
        fn a_head_is_read_from_the_text_as_from_the_object(
            name in ".{0,8}",
            labels in proptest::collection::btree_map("[a-c./]{1,4}", ".{0,4}", 0..4),
            node in proptest::option::of("[a-z]{1,4}"),
            odd in 0..5_usize,
        ) {
            use serde_json::json;
            let spec = [json!({"nodeName": node, "hostNetwork": true, "x": [{"nodeName": "other"}]}), json!("text"),
                json!(null), json!([{"nodeName": "n"}]), json!({"nodeName": 7, "deep": {"nodeName": "m"}})][odd].clone();
            let value = json!({"kind": "Pod", "metadata": {"name": name, "labels": labels, "uid": 7}, "spec": spec,
                "status": {"phase": "Running"}});
            let object = Object(value.as_object().cloned().unwrap_or_default());
            let selectable = ["spec.nodeName", "spec.hostNetwork", "status.phase", "status.podIP"];
            let read = Head::read(&object.to_vec(), &selectable);
            proptest::prop_assert_eq!(read.ok(), Some(Head::of(&object, &selectable)));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = Head::read(&bytes, &["spec.nodeName"]);
            let _ = splice_resource_version(&bytes, 7);
        }
    }

    #[test]
    fn a_value_without_metadata_is_refused() {
        assert!(splice_resource_version(b"{}", 1).is_err());
        assert!(splice_resource_version(b"", 1).is_err());
    }
}
