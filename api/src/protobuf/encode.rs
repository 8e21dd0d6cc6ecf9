//! JSON to messages.

use base64::Engine as _;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    MAGIC, ProtobufError,
    table::{Field, Message, Shape, TABLE, Table, Type},
    writer::{bytes, fixed64, header, nested, number},
};

/// A list in the pieces that its bytes are made of, so that the items are never copied into one.
#[derive(Debug)]
pub struct ListParts {
    /// Everything before the items.
    pub head: Vec<u8>,
    /// Each item with its field number and length.
    pub items: Vec<Bytes>,
    /// What follows the items.
    pub tail: &'static [u8],
}

/// `contentEncoding` and `contentType` of a body, both empty, as Go writes them.
const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// Encodes an object, given as JSON text, as a body.
pub fn encode(json: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let object: Map<String, Value> = serde_json::from_slice(json)?;
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let message = kind(text("apiVersion"), text("kind"))?;
    let mut out = Vec::with_capacity(json.len());
    begin(text("apiVersion"), text("kind"), &mut out);
    nested(2, &mut out, |out| Encoder(&TABLE).message(&object, message, out))?;
    out.extend_from_slice(TAIL);
    Ok(out)
}

/// Encodes a list of a kind such as `PodList`, whose metadata and items are given as JSON text.
pub fn list<'a>(
    api_version: &str,
    list_kind: &str,
    metadata: &[u8],
    items: impl IntoIterator<Item = &'a [u8]>,
) -> Result<ListParts, ProtobufError> {
    let message = kind(api_version, list_kind)?;
    let field = |name: &str| TABLE.fields(message).iter().find(|field| field.name == name).copied();
    let (Some(meta_field), Some(items_field)) = (field("metadata"), field("items")) else {
        return Err(ProtobufError::Mismatch("items"));
    };
    let Type::Message(item) = items_field.ty else { return Err(ProtobufError::Mismatch("items")) };
    let encoder = Encoder(&TABLE);
    let encoded: Result<Vec<Bytes>, ProtobufError> = items
        .into_iter()
        .map(|json| {
            let object: Map<String, Value> = serde_json::from_slice(json)?;
            let mut out = Vec::with_capacity(json.len());
            nested(items_field.number, &mut out, |out| encoder.message(&object, TABLE.message(item), out))?;
            Ok(Bytes::from(out.into_boxed_slice()))
        })
        .collect();
    let items = encoded?;
    let mut list_meta = Vec::new();
    encoder.one(&serde_json::from_slice(metadata)?, meta_field, &mut list_meta)?;
    let raw_len = list_meta.len() + items.iter().map(Bytes::len).sum::<usize>();
    let mut head = Vec::new();
    begin(api_version, list_kind, &mut head);
    header(2, raw_len, &mut head);
    head.append(&mut list_meta);
    Ok(ListParts { head, items, tail: TAIL })
}

/// Appends the frame of an event of a watch: its length in four bytes, then the event.
pub fn watch_frame(event: &str, object: &[u8], out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let body = encode(object)?;
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    bytes(1, event.as_bytes(), out);
    nested(2, out, |out| {
        bytes(1, &body, out);
        Ok::<(), ProtobufError>(())
    })?;
    let len = u32::try_from(out.len() - start - 4).map_err(|_| ProtobufError::TooLarge)?;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

fn kind(api_version: &str, kind: &str) -> Result<Message, ProtobufError> {
    let unknown = || ProtobufError::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
    TABLE.kind(api_version, kind).ok_or_else(unknown)
}

/// Appends the beginning of a body.
fn begin(api_version: &str, kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    let mut type_meta = Vec::new();
    bytes(1, api_version.as_bytes(), &mut type_meta);
    bytes(2, kind.as_bytes(), &mut type_meta);
    bytes(1, &type_meta, out);
}

/// Encodes by a table. Depth is that of JSON that has been parsed, which is limited.
#[derive(Clone, Copy)]
struct Encoder<'t>(&'t Table);

impl Encoder<'_> {
    /// Appends the fields of a message in the order of their numbers.
    fn message(self, object: &Map<String, Value>, message: Message, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
        for field in self.0.fields(message) {
            if let (Shape::Inline, Type::Message(inner)) = (field.shape, field.ty) {
                nested(field.number, out, |out| self.message(object, self.0.message(inner), out))?;
                continue;
            }
            let Some(value) = object.get(field.name).filter(|value| !value.is_null()) else { continue };
            match (field.shape, value) {
                (Shape::One | Shape::Inline, value) => self.one(value, *field, out)?,
                (Shape::List, Value::Array(list)) => {
                    list.iter().try_for_each(|value| self.one(value, *field, out))?;
                }
                (Shape::Map, Value::Object(map)) => self.map(map, *field, out)?,
                _ => return Err(ProtobufError::Mismatch(field.name)),
            }
        }
        Ok(())
    }

    fn map(self, map: &Map<String, Value>, field: Field, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
        for (key, value) in map {
            nested(field.number, out, |out| {
                bytes(1, key.as_bytes(), out);
                self.one(value, Field { number: 2, ..field }, out)
            })?;
        }
        Ok(())
    }

    /// Appends one value under its field's number; a null, which only lists and maps have, is the zero value.
    fn one(self, value: &Value, field: Field, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
        let wrong = || ProtobufError::Mismatch(field.name);
        let at = field.number;
        match (field.ty, value) {
            (_, Value::Null) => zero(field, out),
            (Type::String, Value::String(text)) => bytes(at, text.as_bytes(), out),
            #[allow(clippy::cast_sign_loss, reason = "protobuf's two's complement")]
            (Type::Int32 | Type::Int64, value) => number(at, whole(value).ok_or_else(wrong)? as u64, out),
            (Type::Bool, Value::Bool(flag)) => number(at, u64::from(*flag), out),
            (Type::Double, value) => fixed64(at, value.as_f64().ok_or_else(wrong)?.to_bits(), out),
            (Type::Bytes, Value::String(text)) => bytes(at, &base64_bytes(text).ok_or_else(wrong)?, out),
            (Type::Time { micros }, Value::String(text)) => time(at, text, micros, out).ok_or_else(wrong)?,
            (Type::Raw, value) => nested(at, out, |out| {
                bytes(1, &serde_json::to_vec(value)?, out);
                Ok::<(), ProtobufError>(())
            })?,
            (Type::Quantity, Value::String(text)) => text_message(at, text, out),
            (Type::Quantity, Value::Number(amount)) => text_message(at, &amount.to_string(), out),
            (Type::IntOrString, value) => int_or_string(at, value, out).ok_or_else(wrong)?,
            (Type::Strings, Value::Array(list)) => nested(at, out, |out| {
                list.iter().try_for_each(|item| {
                    bytes(1, item.as_str().ok_or_else(wrong)?.as_bytes(), out);
                    Ok::<(), ProtobufError>(())
                })
            })?,
            (Type::SchemaOrBool(schema) | Type::SchemaOrList(schema) | Type::SchemaOrStrings(schema), value) => {
                nested(at, out, |out| self.schema_or(value, field, self.0.message(schema), out))?;
            }
            (Type::Message(inner), Value::Object(map)) => {
                nested(at, out, |out| self.message(map, self.0.message(inner), out))?;
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// A schema, or what may stand in its place.
    fn schema_or(self, value: &Value, field: Field, schema: Message, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
        let wrong = || ProtobufError::Mismatch(field.name);
        match (field.ty, value) {
            (Type::SchemaOrBool(_), Value::Bool(allows)) => number(1, u64::from(*allows), out),
            (Type::SchemaOrBool(_), Value::Object(map)) => {
                number(1, 1, out);
                nested(2, out, |out| self.message(map, schema, out))?;
            }
            (_, Value::Object(map)) => nested(1, out, |out| self.message(map, schema, out))?,
            (Type::SchemaOrList(_), Value::Array(list)) => {
                for item in list {
                    let map = item.as_object().ok_or_else(wrong)?;
                    nested(2, out, |out| self.message(map, schema, out))?;
                }
            }
            (Type::SchemaOrStrings(_), Value::Array(list)) => {
                for item in list {
                    bytes(2, item.as_str().ok_or_else(wrong)?.as_bytes(), out);
                }
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// Appends the zero value of a field.
fn zero(field: Field, out: &mut Vec<u8>) {
    match field.ty {
        Type::Int32 | Type::Int64 | Type::Bool => number(field.number, 0, out),
        Type::Double => fixed64(field.number, 0, out),
        _ => bytes(field.number, &[], out),
    }
}

/// A whole number, also where it is written with a point.
fn whole(value: &Value) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "only whole numbers that come back the same are taken")]
    let from_float = |float: f64| (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(from_float))
}

/// The bytes of base64 text, newlines apart as Go has it.
fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    let engine = base64::engine::general_purpose::STANDARD;
    if text.contains(['\r', '\n']) { engine.decode(text.replace(['\r', '\n'], "")) } else { engine.decode(text) }.ok()
}

fn text_message(field: u32, text: &str, out: &mut Vec<u8>) {
    let _: Result<(), ()> = nested(field, out, |out| {
        bytes(1, text.as_bytes(), out);
        Ok(())
    });
}

fn time(field: u32, text: &str, micros: bool, out: &mut Vec<u8>) -> Option<()> {
    let time: Timestamp = text.parse().ok()?;
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    // Before 1970 the two have a sign each; protobuf's nanoseconds only count forward.
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    nanos = if micros { nanos / 1000 * 1000 } else { 0 };
    #[allow(clippy::cast_sign_loss, reason = "protobuf's two's complement")]
    nested(field, out, |out| {
        number(1, seconds as u64, out);
        number(2, u64::try_from(nanos).unwrap_or_default(), out);
        Ok::<(), ()>(())
    })
    .ok()
}

fn int_or_string(field: u32, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    #[allow(clippy::cast_sign_loss, reason = "protobuf's two's complement")]
    nested(field, out, |out| {
        match value {
            Value::String(text) => {
                number(1, 1, out);
                number(2, 0, out);
                bytes(3, text.as_bytes(), out);
            }
            other => {
                number(1, 0, out);
                number(2, whole(other).ok_or(())? as u64, out);
                bytes(3, &[], out);
            }
        }
        Ok::<(), ()>(())
    })
    .ok()
}
