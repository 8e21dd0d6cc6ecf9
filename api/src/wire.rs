//! The stored form of an object, which is also its wire form, and the small head that selectors read.
//!
//! A stored value is the object's compact JSON without `metadata.resourceVersion`, with `apiVersion` and `kind`
//! before `metadata`, so that the revision, known only once the write has been committed, is spliced in by a
//! copy: nothing is parsed or printed on a read.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;

use crate::object::Object;

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
    let mut map = serde_json::Map::new();
    for front in ["kind", "apiVersion"] {
        if let Some(value) = object.0.get(front) {
            map.insert(front.to_owned(), value.clone());
        }
    }
    let mut metadata = object.0.get("metadata").cloned().unwrap_or_default();
    match metadata.as_object_mut() {
        Some(fields) => drop(fields.shift_remove("resourceVersion")),
        None => metadata = serde_json::Value::Object(serde_json::Map::new()),
    }
    map.insert("metadata".to_owned(), metadata);
    for (name, value) in &object.0 {
        if !map.contains_key(name) {
            map.insert(name.clone(), value.clone());
        }
    }
    Bytes::from(serde_json::to_vec(&map).unwrap_or_default())
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
            match object.at(&names) {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(serde_json::Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            }
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

impl Entry {
    /// The entry of a stored value that was committed at a revision.
    pub fn from_stored(stored: &[u8], revision: u64, selectable: &[&'static str]) -> Result<Arc<Self>, WireError> {
        let head = Head::of(&Object::from_slice(stored)?, selectable);
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

    #[test]
    fn a_value_without_metadata_is_refused() {
        assert!(splice_resource_version(b"{}", 1).is_err());
        assert!(splice_resource_version(b"", 1).is_err());
    }
}
