//! Objects as `application/vnd.kubernetes.protobuf`: translated to and from JSON by a table of field numbers.
//!
//! A body is four magic bytes and a `runtime.Unknown` that names the kind and holds the object's message. A watch is
//! frames of `meta.v1.WatchEvent`, each behind its length, whose object is such a body again.
//!
//! # Zero and absent
//!
//! Go's marshaller writes every field that is no pointer, zero or not, and a pointer only where it is set; nothing on
//! the wire tells the two apart. The table does: a zero survives where the field is a pointer in Go (`replicas: 0`,
//! `storageClassName: ""`) or where Go prints it anyway because it is required; any other zero is left out, as Go's
//! JSON encoder leaves it out (`omitempty`). Empty messages survive (`emptyDir: {}`, a selector of everything); empty
//! lists and maps have no form in protobuf. `apiVersion` and `kind` of embedded objects (volume claim templates, the
//! items of a list) are not part of their messages.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{kinds::GroupVersionKind, object::Object};

mod decode;
mod encode;
pub(crate) mod reader;
mod table;
pub(crate) mod writer;

pub use encode::{ListParts, encode, list, watch_frame};

/// The media type of bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The media type of watches.
pub const WATCH_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What every body begins with.
const MAGIC: &[u8; 4] = b"k8s\0";

/// How deep messages may nest; as deep as JSON bodies may.
const MAX_DEPTH: usize = 100;

/// How many values a message may hold: an empty one has two bytes on the wire but some eighty in memory.
const MAX_VALUES: usize = 1 << 17;

/// A body could not be translated.
#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    /// The body does not begin as protobuf bodies do.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    /// The bytes end within a field.
    #[error("proto: unexpected EOF")]
    Truncated,
    /// A number has too many bytes, a group does not end, or a field is of another type.
    #[error("proto: {0}")]
    Malformed(&'static str),
    /// A message of this kind is not known.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// The body's `apiVersion`.
        api_version: String,
        /// The body's `kind`.
        kind: String,
    },
    /// A body is deeper or larger than any object is.
    #[error("proto: the message has too many values or nests too deep")]
    TooLarge,
    /// JSON within a field, or an object to encode, is none.
    #[error("invalid JSON in a field")]
    Json(#[from] serde_json::Error),
    /// An object to encode has a value of the wrong type.
    #[error("the field {0} has a value of the wrong type")]
    Mismatch(&'static str),
}

/// Whether objects of a kind have a form in protobuf; custom resources and tables have none.
pub fn has_form(api_version: &str, kind: &str) -> bool {
    table::TABLE.kind(api_version, kind).is_some()
}

/// The object of a body. What the body does not say of its kind is taken from `expected`.
pub fn decode(body: &[u8], expected: &GroupVersionKind) -> Result<Object, ProtobufError> {
    let envelope = decode::envelope(body)?;
    let api_version = Some(envelope.api_version).filter(|text| !text.is_empty());
    let api_version = api_version.unwrap_or_else(|| expected.api_version());
    let kind = Some(envelope.kind).filter(|text| !text.is_empty()).unwrap_or_else(|| expected.kind.clone());
    let Some(message) = table::TABLE.kind(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut map = Map::new();
    map.insert("kind".to_owned(), kind.into());
    map.insert("apiVersion".to_owned(), api_version.into());
    decode::Decoder::new(&table::TABLE).message(envelope.raw, message, &mut map, 0)?;
    Ok(Object(map))
}

/// The same as JSON text.
pub fn decode_to_json(body: &[u8], expected: &GroupVersionKind) -> Result<Bytes, ProtobufError> {
    decode(body, expected).map(|object| serde_json::to_vec(&Value::Object(object.0)).unwrap_or_default().into())
}

#[cfg(test)]
pub(crate) mod tests;
