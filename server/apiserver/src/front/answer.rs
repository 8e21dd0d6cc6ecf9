//! What the registry answered, in the form that the client asked for. Where that is JSON, the bytes of the cache's
//! entries go out as they are.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use skiff_api::{
    kinds::ResourceDef,
    protobuf,
    request::Request,
    status::{ApiError, FieldError},
    table::IncludeObject,
    wire::Entry,
};
use skiff_client::List;

use super::{
    body::{Body, Items},
    negotiate::{Encoding, Form, Shape},
    respond::{Reply, add_warnings, compressed, json_in_form, reply},
    table::Tabulator,
};
use crate::registry::{Answer, Answered};

/// All that is needed to write an answer, taken from the request before the registry consumes it.
#[derive(Clone)]
pub struct Context {
    /// The form asked for.
    pub form: Form,
    /// The resource, where the server knows it.
    pub def: Option<Arc<ResourceDef>>,
    /// `group/version` of the objects.
    pub api_version: String,
    /// What each row of a table carries.
    pub include: IncludeObject,
    /// Now, for ages.
    pub now: jiff::Timestamp,
}

impl Context {
    /// For a request on a resource that `def` describes.
    pub fn new(request: &Request, def: Option<Arc<ResourceDef>>, form: Form) -> Result<Self, ApiError> {
        let gvr = &request.resource;
        let api_version =
            if gvr.group.is_empty() { gvr.version.clone() } else { format!("{}/{}", gvr.group, gvr.version) };
        let include = request.options.other.iter().find(|(name, _)| name == "includeObject");
        let include = match include.filter(|(_, value)| !value.is_empty()) {
            Some((_, value)) if matches!(form.shape, Shape::Table { .. }) => {
                IncludeObject::parse(value).ok_or_else(|| no_such_part(value))?
            }
            _ => IncludeObject::default(),
        };
        Ok(Self { form, def, api_version, include, now: jiff::Timestamp::now() })
    }

    /// The kind of the objects.
    pub fn kind(&self) -> &str {
        self.def.as_ref().map_or("", |def| &def.gvk.kind)
    }

    /// The version of `meta.k8s.io` that a shape was asked for in.
    pub fn meta_version(&self) -> &'static str {
        match self.form.shape {
            Shape::Table { beta: true } | Shape::Partial { beta: true } => "meta.k8s.io/v1beta1",
            _ => "meta.k8s.io/v1",
        }
    }
}

fn no_such_part(value: &str) -> ApiError {
    let why = FieldError::invalid("includeObject", value, "must be 'Metadata', 'Object', 'None', or empty");
    ApiError::bad_request(format!("Unable to convert to Table as requested: includeObject: {}", why.body()))
}

/// An answer to anything but a watch as HTTP.
pub fn encode(answered: Answered, context: &Context) -> Result<Reply, ApiError> {
    let mut reply = match answered.answer {
        Answer::Object { status, entry } => object(status, &entry, context)?,
        Answer::Json { status, body } => json_in_form(status, body, context.form)?,
        Answer::List { list, remaining } => list_reply(&list, remaining, context)?,
        Answer::Watch(_) => return Err(ApiError::internal("a watch where an object was asked for")),
    };
    add_warnings(reply.headers_mut(), &answered.warnings);
    Ok(reply)
}

fn object(status: u16, entry: &Arc<Entry>, context: &Context) -> Result<Reply, ApiError> {
    let json = match context.form.shape {
        Shape::Whole => entry.json.clone(),
        Shape::Partial { .. } => partial(&entry.json, context.meta_version())?,
        Shape::Table { .. } => {
            let tabulator = Tabulator::new(context)?;
            let revision = entry.resource_version.to_string();
            let row = tabulator.row(&entry.json)?;
            Items::new(tabulator.head(&metadata(&revision, None, None), true), [row], b"]}\n").to_bytes()
        }
    };
    json_in_form(status, json, context.form)
}

/// A list's metadata.
pub fn metadata(revision: &str, continue_token: Option<&str>, remaining: Option<usize>) -> String {
    let mut text = format!("{{\"resourceVersion\":\"{revision}\"");
    if let Some(token) = continue_token {
        // A JSON string of any text.
        text.push_str(&format!(",\"continue\":{}", serde_json::Value::from(token)));
        if let Some(remaining) = remaining.filter(|count| *count > 0) {
            text.push_str(&format!(",\"remainingItemCount\":{remaining}"));
        }
    }
    text.push('}');
    text
}

fn list_reply(list: &List, remaining: Option<usize>, context: &Context) -> Result<Reply, ApiError> {
    let metadata = metadata(&list.resource_version.to_string(), list.continue_token.as_deref(), remaining);
    let jsons = list.entries.iter().map(|entry| &entry.json);
    if context.form.encoding == Encoding::Protobuf {
        return protobuf_list(list, &metadata, context);
    }
    let items = match context.form.shape {
        Shape::Whole => {
            let (kind, version) = (context.kind(), &context.api_version);
            let head = format!(r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{metadata},"items":["#);
            Items::new(head, jsons.cloned(), b"]}\n")
        }
        Shape::Partial { .. } => {
            let version = context.meta_version();
            let head = format!(
                r#"{{"kind":"PartialObjectMetadataList","apiVersion":"{version}","metadata":{metadata},"items":["#
            );
            let items: Result<Vec<Bytes>, ApiError> = jsons.map(|json| partial(json, version)).collect();
            Items::new(head, items?, b"]}\n")
        }
        Shape::Table { .. } => {
            let tabulator = Tabulator::new(context)?;
            let rows: Result<Vec<Bytes>, ApiError> = jsons.map(|json| tabulator.row(json)).collect();
            Items::new(tabulator.head(&metadata, true), rows?, b"]}\n")
        }
    };
    if context.form.encoding == Encoding::Json && !context.form.pretty {
        return Ok(compressed(reply(200, Encoding::Json.media_type(), Body::Items(items)), context.form));
    }
    json_in_form(200, items.to_bytes(), context.form)
}

/// A list as protobuf. Its items are encoded one by one and go out in pieces: their lengths must be known before the
/// first byte, but not their bytes in one.
fn protobuf_list(list: &List, metadata: &str, context: &Context) -> Result<Reply, ApiError> {
    let jsons = list.entries.iter().map(|entry| &*entry.json);
    let parts = match context.form.shape {
        Shape::Partial { .. } => {
            protobuf::list(context.meta_version(), "PartialObjectMetadataList", metadata.as_bytes(), jsons)
        }
        _ => protobuf::list(&context.api_version, &format!("{}List", context.kind()), metadata.as_bytes(), jsons),
    };
    let protobuf::ListParts { head, items, tail } = parts.map_err(ApiError::internal)?;
    let body = Body::Items(Items::end_to_end(head, items, tail));
    Ok(compressed(reply(200, protobuf::MEDIA_TYPE, body), context.form))
}

/// The part of an object that its partial form keeps, as it stands.
#[derive(Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// `PartialObjectMetadata` of an encoded object.
pub fn partial(json: &[u8], meta_version: &str) -> Result<Bytes, ApiError> {
    let object: OnlyMetadata<'_> = serde_json::from_slice(json).map_err(ApiError::internal)?;
    let metadata = object.metadata.get();
    let text = format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{meta_version}","metadata":{metadata}}}"#);
    Ok(text.into())
}
