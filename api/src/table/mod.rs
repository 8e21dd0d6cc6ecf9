//! Tables: what `kubectl get` shows, made by the server (`meta.k8s.io/v1` `Table`), and objects cut down to their
//! metadata.
//!
//! [`cells`] gives one row. Which cells a kind has is told by its columns ([`ResourceDef::columns`]); what stands in
//! them follows Kubernetes' own printers, one file a group of kinds. Kinds without a printer show name and age.

mod age;
mod apps;
mod core;
mod custom;
mod extend;
mod format;
mod network;
mod pods;
mod policy;
mod storage;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

pub use age::human_duration;
pub use custom::json_path;

use crate::{
    kinds::{Column, ResourceDef},
    object::Object,
    wire::Entry,
};

/// What each row of a table carries of its object (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// All.
    Object,
}

impl IncludeObject {
    /// Reads the value of the `includeObject` parameter; `None` where it is not one of the three.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The cells of an object's row, as many as the resource has columns.
pub fn cells(def: &ResourceDef, object: &Object, now: Timestamp) -> Vec<Value> {
    let row = Row { object, now };
    let cells = printer(def).map(|print| print(&row));
    match cells {
        Some(cells) if cells.len() == def.columns.len() => cells,
        _ => def.columns.iter().map(|column| custom::cell(column, &row)).collect(),
    }
}

/// The table of some objects. `metadata` is that of the list: `resourceVersion`, `continue`, `remainingItemCount`.
pub fn table<'a>(
    def: &ResourceDef,
    items: impl IntoIterator<Item = &'a Object>,
    metadata: &Map<String, Value>,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = items.into_iter().map(|object| row(def, object, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": column_definitions(&def.columns),
        "rows": rows,
    })
}

/// The table of one version of one object, as the answer to a get and as each event of a watch.
pub fn table_of_entry(
    def: &ResourceDef,
    entry: &Entry,
    include: IncludeObject,
    now: Timestamp,
) -> Result<Value, serde_json::Error> {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), entry.resource_version.to_string().into());
    Ok(table(def, [&entry.object()?], &metadata, include, now))
}

/// The `columnDefinitions` of a table.
pub fn column_definitions(columns: &[Column]) -> Vec<Value> {
    let definition = |column: &Column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    };
    columns.iter().map(definition).collect()
}

/// One row of a table.
pub fn row(def: &ResourceDef, object: &Object, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = json!({"cells": cells(def, object, now)});
    if let Some(condition) = pods::completion(def, object) {
        row["conditions"] = json!([condition]);
    }
    match include {
        IncludeObject::None => row["object"] = Value::Null,
        IncludeObject::Metadata => row["object"] = Value::Object(partial_metadata(object).0),
        IncludeObject::Object => row["object"] = Value::Object(object.0.clone()),
    }
    row
}

/// The `PartialObjectMetadata` of an object.
pub fn partial_metadata(object: &Object) -> Object {
    let mut partial = Map::new();
    partial.insert("kind".to_owned(), "PartialObjectMetadata".into());
    partial.insert("apiVersion".to_owned(), "meta.k8s.io/v1".into());
    let metadata = object.at(&["metadata"]).cloned().unwrap_or_else(|| json!({}));
    partial.insert("metadata".to_owned(), metadata);
    Object(partial)
}

/// The `PartialObjectMetadataList` of some objects; `metadata` is that of the list.
pub fn partial_metadata_list<'a>(items: impl IntoIterator<Item = &'a Object>, metadata: &Map<String, Value>) -> Value {
    let items: Vec<Value> = items.into_iter().map(|object| Value::Object(partial_metadata(object).0)).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
}

/// An object and the time at which it is looked at.
struct Row<'a> {
    object: &'a Object,
    now: Timestamp,
}

/// Makes the cells of a row.
type Printer = fn(&Row<'_>) -> Vec<Value>;

/// The printer of a kind, if it has one of its own.
fn printer(def: &ResourceDef) -> Option<Printer> {
    let resource = def.resource.as_str();
    match def.gvk.group.as_str() {
        "" => core::printer(resource),
        "apps" | "batch" | "autoscaling" => apps::printer(resource, &def.gvk.version),
        "networking.k8s.io" | "discovery.k8s.io" => network::printer(resource),
        "events.k8s.io" => (resource == "events").then_some(core::event as Printer),
        "storage.k8s.io" | "resource.k8s.io" => storage::printer(resource),
        "policy"
        | "rbac.authorization.k8s.io"
        | "certificates.k8s.io"
        | "coordination.k8s.io"
        | "node.k8s.io"
        | "scheduling.k8s.io" => policy::printer(resource),
        "admissionregistration.k8s.io" | "apiregistration.k8s.io" | "flowcontrol.apiserver.k8s.io" => {
            extend::printer(resource)
        }
        _ => None,
    }
}
