//! `/openapi/v3` and `/openapi/v2`: the API described for `kubectl explain`, for clients that look for a parameter
//! before they use it, and for generators.
//!
//! Documents are made when they are asked for and not kept: the prose alone is many times what the schemas cost in
//! memory, and clients keep what they have read, by the hash in the address.
//!
//! `/openapi/v2` is served as JSON and as protobuf ([`V2_MEDIA_TYPE`]). kubectl asks for v3 first since 1.27.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    kinds::{GroupVersion, GroupVersionKind, Kinds, ResourceDef},
    schema::{self, Schemas},
};

mod gnostic;
mod paths;
mod v2;

pub use gnostic::V2_MEDIA_TYPE;
pub use v2::{v2_document, v2_protobuf};

/// What stands before a component's name in a reference.
const REFERENCE: &str = "#/components/schemas/";

/// Types that documents refer to beside the kinds themselves.
const COMMON: [&str; 4] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
];

/// The prose of types and fields: `{type: {"": its own, field: the field's}}`.
static PROSE_GZ: &[u8] = include_bytes!("../data/descriptions.json.gz");

/// The address of a document below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
pub fn v3_name(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// One entry of the index: the document's name and address. The hash of what the document is made of lets clients
/// keep it until it changes.
pub fn v3_index_entry(group: &str, version: &str, content: &[u8]) -> (String, Value) {
    let name = v3_name(group, version);
    let address = format!("/openapi/v3/{name}?hash={}", v3_hash(&name, content));
    (name, json!({"serverRelativeURL": address}))
}

/// The hash of the document of a group and version of built-in kinds, as the index has it.
pub fn v3_builtin_hash(group: &str, version: &str) -> String {
    v3_hash(&v3_name(group, version), &*BUILTIN_CONTENT)
}

/// A digest of all that documents of built-in kinds are made of.
static BUILTIN_CONTENT: LazyLock<[u8; 32]> =
    LazyLock::new(|| Sha256::new().chain_update(schema::BUILTIN_GZ).chain_update(PROSE_GZ).finalize().into());

/// A hash of what a document is made of: cheaper than the document.
fn v3_hash(name: &str, content: &[u8]) -> String {
    let digest =
        Sha256::new().chain_update(env!("CARGO_PKG_VERSION")).chain_update(name).chain_update(content).finalize();
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `/openapi/v3`: every document of the built-in kinds, and further entries made by [`v3_index_entry`].
pub fn v3_index(kinds: &Kinds, further: impl IntoIterator<Item = (String, Value)>) -> Vec<u8> {
    let versions = kinds.groups().iter().flat_map(|group| group.versions.iter().map(move |version| (group, version)));
    let own = versions.map(|(group, version)| v3_index_entry(&group.name, &version.version, &*BUILTIN_CONTENT));
    let paths: Map<String, Value> = own.chain(further).collect();
    bytes(&json!({ "paths": paths }))
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`: the document of built-in kinds.
pub fn v3_document(kinds: &Kinds, group: &str, version: &str) -> Option<Vec<u8>> {
    let known = kinds.group_version(group, version)?;
    let components = components(&roots(known));
    let paths = paths::of_version(group, known, &|gvk| component(gvk));
    Some(document(&paths, components))
}

/// The document of custom resources of one group and version: each with its `openAPIV3Schema`.
pub fn v3_custom_document(group: &str, version: GroupVersion, schemas: &[(String, Value)]) -> Vec<u8> {
    let own = |gvk: &GroupVersionKind| {
        let reversed: Vec<&str> = gvk.group.rsplit('.').collect();
        component(gvk).or_else(|| Some(format!("{}.{}.{}", reversed.join("."), gvk.version, gvk.kind)))
    };
    let mut wanted: BTreeSet<String> = COMMON.map(str::to_owned).into();
    wanted.insert("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta".to_owned());
    wanted.insert("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta".to_owned());
    let mut all = components(&wanted);
    for (kind, schema) in schemas {
        let gvk = GroupVersionKind::new(group, &version.version, kind);
        let Some(name) = own(&gvk) else { continue };
        let list = GroupVersionKind { kind: format!("{kind}List"), ..gvk.clone() };
        all.insert(format!("{name}List"), custom_list(&name, &list));
        all.insert(name, custom_schema(schema.clone(), &gvk));
    }
    document(&paths::of_version(group, &version, &own), all)
}

fn document(paths: &Map<String, Value>, components: Map<String, Value>) -> Vec<u8> {
    let security = json!({"BearerToken": {
        "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
    }});
    bytes(&json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": paths, "components": {"schemas": components, "securitySchemes": security},
    }))
}

fn bytes(value: &Value) -> Vec<u8> {
    // A JSON value always serializes.
    serde_json::to_vec(value).unwrap_or_default()
}

fn kind_extension(gvk: &GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn custom_schema(mut schema: Value, gvk: &GroupVersionKind) -> Value {
    let meta = format!("{REFERENCE}io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let words = |name: &str| object_field_prose(name);
    if let Some(map) = schema.as_object_mut() {
        map.insert("x-kubernetes-group-version-kind".to_owned(), json!([kind_extension(gvk)]));
        let fields = map.entry("properties").or_insert_with(|| json!({}));
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("apiVersion".to_owned(), json!({"type": "string", "description": words("apiVersion")}));
            fields.insert("kind".to_owned(), json!({"type": "string", "description": words("kind")}));
            fields.insert("metadata".to_owned(), json!({"allOf": [{"$ref": meta}], "description": words("metadata")}));
        }
    }
    schema
}

fn custom_list(item: &str, list: &GroupVersionKind) -> Value {
    let meta = format!("{REFERENCE}io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    json!({
        "type": "object", "required": ["items"], "description": list_prose(&list.kind),
        "properties": {
            "apiVersion": {"type": "string", "description": object_field_prose("apiVersion")},
            "kind": {"type": "string", "description": object_field_prose("kind")},
            "metadata": {"allOf": [{"$ref": meta}], "description": "Standard list metadata."},
            "items": {"type": "array", "items": {"$ref": format!("{REFERENCE}{item}")}, "description": "The objects of the list."},
        },
        "x-kubernetes-group-version-kind": [kind_extension(list)],
    })
}

/// What is said of the fields that every object has, where no type says it.
fn object_field_prose(field: &str) -> &'static str {
    match field {
        "apiVersion" => "The versioned schema that this object follows.",
        "kind" => "The kind of this object.",
        _ => "Standard object's metadata.",
    }
}

fn list_prose(list: &str) -> String {
    format!("{list} is a list of {}.", list.strip_suffix("List").unwrap_or(list))
}

/// The component of a built-in kind.
fn component(gvk: &GroupVersionKind) -> Option<String> {
    Schemas::builtin().of_kind(gvk).and_then(|schema| schema.name()).map(ToOwned::to_owned)
}

/// The components that a version's operations name.
fn roots(version: &GroupVersion) -> BTreeSet<String> {
    let mut wanted: BTreeSet<String> = COMMON.map(str::to_owned).into();
    for def in &version.resources {
        wanted.extend(component(&def.gvk));
        wanted.extend(component(&list_kind(def)));
        wanted.extend(def.subresources.iter().filter_map(|sub| component(&sub.kind)));
    }
    wanted
}

fn list_kind(def: &ResourceDef) -> GroupVersionKind {
    GroupVersionKind { kind: format!("{}List", def.gvk.kind), ..def.gvk.clone() }
}

/// The components of some names and of all that they refer to, with prose.
fn components(wanted: &BTreeSet<String>) -> Map<String, Value> {
    let mut recorded = crate::data::json_gz(schema::BUILTIN_GZ);
    let prose = crate::data::json_gz(PROSE_GZ);
    let mut all = Map::new();
    let mut queue: Vec<String> = wanted.iter().cloned().collect();
    while let Some(name) = queue.pop() {
        if all.contains_key(&name) {
            continue;
        }
        let Some(mut schema) = recorded.get_mut(&name).map(Value::take) else { continue };
        references(&schema, &mut queue);
        describe(&name, &mut schema, prose.get(&name));
        all.insert(name, schema);
    }
    all.sort_keys();
    all
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(REFERENCE)) {
                found.push(name.to_owned());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Puts the prose into a schema. Lists have none of their own.
fn describe(name: &str, schema: &mut Value, prose: Option<&Value>) {
    let Some(map) = schema.as_object_mut() else { return };
    let short = name.rsplit('.').next().unwrap_or(name);
    let said = |field: &str| prose.and_then(|texts| texts.get(field)).and_then(Value::as_str).map(ToOwned::to_owned);
    let own = said("").or_else(|| short.ends_with("List").then(|| list_prose(short)));
    if let Some(text) = own {
        map.insert("description".to_owned(), text.into());
    }
    let fields = map.get_mut("properties").and_then(Value::as_object_mut);
    for (field, schema) in fields.into_iter().flatten() {
        let text = said(field).or_else(|| match field.as_str() {
            "items" => Some("The objects of the list.".to_owned()),
            "apiVersion" | "kind" | "metadata" => Some(object_field_prose(field).to_owned()),
            _ => None,
        });
        if let (Some(text), Some(schema)) = (text, schema.as_object_mut()) {
            schema.insert("description".to_owned(), text.into());
        }
    }
}

#[cfg(test)]
mod tests;
