//! The document of Swagger 2.0 in protobuf (`openapi.v2.Document` of gnostic), as clients of Go read it: what of JSON
//! goes where is data.

use serde_json::{Map, Value};

use crate::protobuf::writer;

/// The media type.
pub const V2_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// How a member of a JSON object is written.
enum Shape {
    Text,
    Flag,
    /// Texts; on their own, or in a message of their own.
    Texts,
    TypeItem,
    /// Any value, as YAML.
    Any,
    Anys,
    /// A message below these fields.
    Message(&'static [u32], &'static Message),
    Messages(&'static Message),
    /// A map: a message whose entries (of this number) have a name and, below these fields, a value.
    Named(u32, &'static [u32], &'static Message),
    Parameters,
    Security,
}

/// A message: its members by their names in JSON, and the field that takes extensions (`x-…`).
struct Message {
    members: &'static [(&'static str, u32, Shape)],
    extensions: u32,
}

use Shape::{Any, Anys, Flag, Named, Parameters, Security, Text, Texts, TypeItem};

static DOCUMENT: Message = Message {
    members: &[
        ("swagger", 1, Text),
        ("info", 2, Shape::Message(&[], &INFO)),
        ("paths", 8, Named(2, &[], &PATH_ITEM)),
        ("definitions", 9, Named(1, &[], &SCHEMA)),
        ("security", 12, Security),
        ("securityDefinitions", 13, Named(1, &[2], &API_KEY)),
    ],
    extensions: 16,
};

static INFO: Message = Message { members: &[("title", 1, Text), ("version", 2, Text)], extensions: 7 };

static API_KEY: Message = Message {
    members: &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)],
    extensions: 5,
};

static PATH_ITEM: Message = Message {
    members: &[
        ("get", 2, Shape::Message(&[], &OPERATION)),
        ("put", 3, Shape::Message(&[], &OPERATION)),
        ("post", 4, Shape::Message(&[], &OPERATION)),
        ("delete", 5, Shape::Message(&[], &OPERATION)),
        ("patch", 8, Shape::Message(&[], &OPERATION)),
        ("parameters", 9, Parameters),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    members: &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Parameters),
        ("responses", 9, Named(1, &[1], &RESPONSE)),
        ("deprecated", 11, Flag),
    ],
    extensions: 13,
};

static RESPONSE: Message =
    Message { members: &[("description", 1, Text), ("schema", 2, Shape::Message(&[1], &SCHEMA))], extensions: 5 };

static BODY_PARAMETER: Message = Message {
    members: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Flag),
        ("schema", 5, Shape::Message(&[], &SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    members: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("uniqueItems", 20, Flag),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    members: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("uniqueItems", 19, Flag),
    ],
    extensions: 22,
};

static SCHEMA: Message = Message {
    members: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("pattern", 13, Text),
        ("uniqueItems", 16, Flag),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, Shape::Message(&[1], &SCHEMA)),
        ("type", 22, TypeItem),
        ("items", 23, Shape::Message(&[1], &SCHEMA)),
        ("allOf", 24, Shape::Messages(&SCHEMA)),
        ("properties", 25, Named(1, &[], &SCHEMA)),
    ],
    extensions: 31,
};

/// A document in JSON as protobuf.
pub(super) fn document(document: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    message(document, &DOCUMENT, &mut out);
    out
}

fn message(map: &Map<String, Value>, kind: &Message, out: &mut Vec<u8>) {
    for (name, value) in map {
        if name.starts_with("x-") {
            within(kind.extensions, out, |out| named_any(name, value, out));
        } else if let Some((_, field, shape)) = kind.members.iter().find(|(known, _, _)| known == name) {
            member(*field, shape, value, out);
        }
    }
}

fn member(field: u32, shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    let list = || value.as_array().into_iter().flatten();
    match shape {
        Text => text(field, value, out),
        Flag if value == true => writer::number(field, 1, out),
        Flag => {}
        Texts => list().for_each(|value| text(field, value, out)),
        TypeItem => within(field, out, |out| text(1, value, out)),
        Any => within(field, out, |out| yaml(value, out)),
        Anys => list().for_each(|value| within(field, out, |out| yaml(value, out))),
        Shape::Message(path, kind) => object(field, path, kind, value, out),
        Shape::Messages(kind) => list().for_each(|value| object(field, &[], kind, value, out)),
        Named(entry, path, kind) => within(field, out, |out| {
            for (name, value) in value.as_object().into_iter().flatten() {
                within(*entry, out, |out| {
                    writer::bytes(1, name.as_bytes(), out);
                    object(2, path, kind, value, out);
                });
            }
        }),
        Parameters => list().for_each(|value| match value["in"].as_str() {
            Some("body") => object(field, &[1, 1], &BODY_PARAMETER, value, out),
            Some("path") => object(field, &[1, 2, 4], &PATH_PARAMETER, value, out),
            _ => object(field, &[1, 2, 3], &QUERY_PARAMETER, value, out),
        }),
        Security => list().for_each(|value| within(field, out, |out| requirement(value, out))),
    }
}

/// An object as a message below fields that each hold the next.
fn object(field: u32, path: &[u32], kind: &Message, value: &Value, out: &mut Vec<u8>) {
    let Some(map) = value.as_object() else { return };
    within(field, out, |out| match path.split_first() {
        Some((first, rest)) => object(*first, rest, kind, value, out),
        None => message(map, kind, out),
    });
}

/// What is required of who calls: a name, and scopes.
fn requirement(value: &Value, out: &mut Vec<u8>) {
    for (name, scopes) in value.as_object().into_iter().flatten() {
        within(1, out, |out| {
            writer::bytes(1, name.as_bytes(), out);
            within(2, out, |out| member(1, &Texts, scopes, out));
        });
    }
}

fn text(field: u32, value: &Value, out: &mut Vec<u8>) {
    if let Some(text) = value.as_str() {
        writer::bytes(field, text.as_bytes(), out);
    }
}

fn named_any(name: &str, value: &Value, out: &mut Vec<u8>) {
    writer::bytes(1, name.as_bytes(), out);
    within(2, out, |out| yaml(value, out));
}

/// Any value: JSON is YAML.
fn yaml(value: &Value, out: &mut Vec<u8>) {
    writer::bytes(2, format!("{value}\n").as_bytes(), out);
}

fn within(field: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let written: Result<(), std::convert::Infallible> = writer::nested(field, out, |out| {
        write(out);
        Ok(())
    });
    match written {
        Ok(()) => {}
    }
}
