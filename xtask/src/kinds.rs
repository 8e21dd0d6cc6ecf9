//! `cargo xtask-kinds`: turns the recorded facts on Kubernetes 1.36 into the data that `api/` is built with.
//!
//! The recording has no prose; the descriptions come from the schemas that k8s-openapi carries.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::{prose, protobuf, text};

/// What `cargo xtask-kinds` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder with the recorded facts.
    #[arg(long, default_value = "../shared/kubernetes-1.36")]
    from: PathBuf,
    /// The folder to write to.
    #[arg(long, default_value = "api/data")]
    to: PathBuf,
}

/// Reads the recording, writes every data file.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    fs::create_dir_all(&args.to).with_context(|| format!("make {}", args.to.display()))?;
    let read = |name: &str| read_json(&args.from.join(name));
    let write = |name: &str, bytes: &[u8]| {
        let path = args.to.join(name);
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
    };
    let schemas = sorted(&read("schemas.json")?);
    let kinds = kinds_table(&read("discovery.json")?, &read("tables.json")?);
    write("kinds.json", text::pretty(&kinds).as_bytes())?;
    write("schemas.json.gz", &text::gzip(schemas.to_string().as_bytes())?)?;
    write("descriptions.json.gz", &text::gzip(prose::descriptions(&schemas).to_string().as_bytes())?)?;
    write("protobuf.txt", protobuf::table(&read("protobuf.json")?, &schemas)?.as_bytes())?;
    write("rbac.json", text::pretty(&read("rbac.json")?).as_bytes())?;
    write("bootstrap.json", text::pretty(&without_times(read("bootstrap.json")?)).as_bytes())?;
    write("paths.json", text::pretty(&read("paths.json")?).as_bytes())
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}

/// The same value with the keys of every object sorted, so that the files do not depend on a recording's order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(name, child)| (name.clone(), sorted(child))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// The objects of a fresh cluster without the times at which they were recorded.
fn without_times(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(name, _)| name != "lastTransitionTime" && name != "creationTimestamp");
            Value::Object(kept.map(|(name, child)| (name, without_times(child))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_times).collect()),
        other => other,
    }
}

/// Every group, version and resource in the order of discovery, with the columns of its table.
fn kinds_table(discovery: &Value, tables: &Value) -> Value {
    let groups = ["api", "apis"].iter().flat_map(|root| list(&discovery[root]["items"]));
    let groups: Vec<Value> = groups
        .map(|group| {
            let name = text_of(&group["metadata"]["name"]);
            let versions: Vec<Value> = list(&group["versions"])
                .map(|version| {
                    let path = group_version_path(name, text_of(&version["version"]));
                    let resources: Vec<Value> =
                        list(&version["resources"]).map(|resource| resource_row(resource, &path, tables)).collect();
                    json!({"version": version["version"], "resources": resources})
                })
                .collect();
            json!({"group": name, "versions": versions})
        })
        .collect();
    json!({ "groups": groups })
}

fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn resource_row(resource: &Value, path: &str, tables: &Value) -> Value {
    let name = text_of(&resource["resource"]);
    let mut row = Map::new();
    row.insert("resource".into(), name.into());
    row.insert("singular".into(), resource["singularResource"].clone());
    row.insert("kind".into(), resource["responseKind"]["kind"].clone());
    row.insert("namespaced".into(), (resource["scope"] == "Namespaced").into());
    for list_name in ["verbs", "shortNames", "categories"] {
        row.insert(list_name.into(), resource.get(list_name).cloned().unwrap_or_else(|| json!([])));
    }
    let subresources: Vec<Value> = list(&resource["subresources"])
        .map(|sub| {
            let kind = &sub["responseKind"];
            json!({"name": sub["subresource"], "group": kind["group"], "version": kind["version"],
                "kind": kind["kind"], "verbs": sub["verbs"]})
        })
        .collect();
    row.insert("subresources".into(), subresources.into());
    let columns = tables.get(format!("{path}/{name}")).cloned().unwrap_or_else(|| json!([]));
    row.insert("columns".into(), columns);
    Value::Object(row)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
