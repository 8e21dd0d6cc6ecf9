//! What `/api` and `/apis` answer: which groups, versions and resources there are, as JSON.
//!
//! Clients ask for aggregated discovery (`apidiscovery.k8s.io/v2`, KEP-3352) or for the plain lists of old; both
//! are made from the same table, which a server with CustomResourceDefinitions makes anew when those change.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::kinds::{Group, GroupVersion, Kinds, ResourceDef, StorageKey, Subresource};

/// The kind of an aggregated answer, as it stands in the `Accept` header.
pub const AGGREGATED_ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// How many bytes of a hash tell storage versions apart.
const STORAGE_HASH_BYTES: usize = 8;

/// Aggregated discovery of `/api`: the core group.
pub fn aggregated_core(kinds: &Kinds) -> Vec<u8> {
    aggregated(kinds.groups().iter().filter(|group| group.name.is_empty()))
}

/// Aggregated discovery of `/apis`: all other groups.
pub fn aggregated_groups(kinds: &Kinds) -> Vec<u8> {
    aggregated(kinds.groups().iter().filter(|group| !group.name.is_empty()))
}

/// `/api`: `APIVersions`. `address` is where clients reach the server, `host:port`.
pub fn core_versions(kinds: &Kinds, address: &str) -> Vec<u8> {
    let versions: Vec<&str> =
        kinds.group("").into_iter().flat_map(|group| &group.versions).map(|known| known.version.as_str()).collect();
    bytes(&json!({
        "kind": "APIVersions", "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }))
}

/// `/apis`: `APIGroupList`.
pub fn group_list(kinds: &Kinds) -> Vec<u8> {
    let groups: Vec<Value> = kinds
        .groups()
        .iter()
        .filter(|group| !group.name.is_empty())
        .map(|group| Value::Object(plain_group(group)))
        .collect();
    bytes(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `/apis/GROUP`: `APIGroup`.
pub fn group(kinds: &Kinds, name: &str) -> Option<Vec<u8>> {
    let group = kinds.group(name).filter(|group| !group.name.is_empty())?;
    let mut value = json!({"kind": "APIGroup", "apiVersion": "v1"});
    value.as_object_mut()?.extend(plain_group(group));
    Some(bytes(&value))
}

/// `/api/v1` and `/apis/GROUP/VERSION`: `APIResourceList`.
pub fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<Vec<u8>> {
    let known = kinds.group_version(group, version)?;
    let resources: Vec<Value> = known.resources.iter().flat_map(|def| plain_resources(kinds, def)).collect();
    let mut value = json!({"kind": "APIResourceList"});
    let map = value.as_object_mut()?;
    if !group.is_empty() {
        map.insert("apiVersion".to_owned(), "v1".into());
    }
    map.insert("groupVersion".to_owned(), group_version(group, version).into());
    map.insert("resources".to_owned(), resources.into());
    Some(bytes(&value))
}

fn bytes(value: &Value) -> Vec<u8> {
    // A JSON value always serializes.
    serde_json::to_vec(value).unwrap_or_default()
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn aggregated<'a>(groups: impl Iterator<Item = &'a Group>) -> Vec<u8> {
    let items: Vec<Value> = groups
        .map(|group| {
            let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
            let versions: Vec<Value> = group.versions.iter().map(aggregated_version).collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    bytes(&json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    }))
}

fn aggregated_version(version: &GroupVersion) -> Value {
    let resources: Vec<Value> = version.resources.iter().map(|def| aggregated_resource(def)).collect();
    json!({"version": version.version, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(def: &ResourceDef) -> Value {
    let scope = if def.namespaced { "Namespaced" } else { "Cluster" };
    let mut map = Map::new();
    map.insert("resource".to_owned(), def.resource.as_str().into());
    map.insert("responseKind".to_owned(), json!({"group": "", "version": "", "kind": def.gvk.kind}));
    map.insert("scope".to_owned(), scope.into());
    map.insert("singularResource".to_owned(), def.singular.as_str().into());
    map.insert("verbs".to_owned(), def.verbs.clone().into());
    insert_some(&mut map, "shortNames", &def.short_names);
    insert_some(&mut map, "categories", &def.categories);
    if !def.subresources.is_empty() {
        let list: Vec<Value> = def.subresources.iter().map(|sub| aggregated_subresource(def, sub)).collect();
        map.insert("subresources".to_owned(), list.into());
    }
    Value::Object(map)
}

fn aggregated_subresource(def: &ResourceDef, sub: &Subresource) -> Value {
    // The group and version are left out where they are those of the resource.
    let (group, version) = match is_foreign(def, sub) {
        true => (sub.kind.group.as_str(), sub.kind.version.as_str()),
        false => ("", ""),
    };
    json!({
        "subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": sub.kind.kind},
        "verbs": sub.verbs,
    })
}

fn is_foreign(def: &ResourceDef, sub: &Subresource) -> bool {
    (&sub.kind.group, &sub.kind.version) != (&def.gvk.group, &def.gvk.version)
}

fn insert_some(map: &mut Map<String, Value>, name: &str, list: &[String]) {
    if !list.is_empty() {
        map.insert(name.to_owned(), list.to_vec().into());
    }
}

fn plain_group(group: &Group) -> Map<String, Value> {
    let one = |known: &GroupVersion| json!({"groupVersion": group_version(&group.name, &known.version), "version": known.version});
    let versions: Vec<Value> = group.versions.iter().map(one).collect();
    let mut map = Map::new();
    map.insert("name".to_owned(), group.name.as_str().into());
    map.insert("preferredVersion".to_owned(), versions.first().cloned().unwrap_or_default());
    map.insert("versions".to_owned(), versions.into());
    map
}

/// A resource and its subresources, each an entry of its own in the plain list.
fn plain_resources(kinds: &Kinds, def: &ResourceDef) -> Vec<Value> {
    let mut map = Map::new();
    map.insert("name".to_owned(), def.resource.as_str().into());
    map.insert("singularName".to_owned(), def.singular.as_str().into());
    map.insert("namespaced".to_owned(), def.namespaced.into());
    map.insert("kind".to_owned(), def.gvk.kind.as_str().into());
    map.insert("verbs".to_owned(), def.verbs.clone().into());
    insert_some(&mut map, "shortNames", &def.short_names);
    insert_some(&mut map, "categories", &def.categories);
    if def.stored {
        map.insert("storageVersionHash".to_owned(), storage_version_hash(kinds, &def.storage).into());
    }
    let subs = def.subresources.iter().map(|sub| plain_subresource(def, sub));
    std::iter::once(Value::Object(map)).chain(subs).collect()
}

fn plain_subresource(def: &ResourceDef, sub: &Subresource) -> Value {
    let mut map = Map::new();
    map.insert("name".to_owned(), format!("{}/{}", def.resource, sub.name).into());
    map.insert("singularName".to_owned(), "".into());
    map.insert("namespaced".to_owned(), def.namespaced.into());
    if is_foreign(def, sub) {
        map.insert("group".to_owned(), sub.kind.group.as_str().into());
        map.insert("version".to_owned(), sub.kind.version.as_str().into());
    }
    map.insert("kind".to_owned(), sub.kind.kind.as_str().into());
    map.insert("verbs".to_owned(), sub.verbs.clone().into());
    Value::Object(map)
}

/// Tells clients when the form in which objects are stored changes: the first bytes of the SHA-256 of
/// `group/version/kind` of that form.
pub fn storage_version_hash(kinds: &Kinds, storage: &StorageKey) -> String {
    let Some(stored) = kinds.stored_as(storage) else { return String::new() };
    let name = format!("{}/{}/{}", stored.gvk.group, stored.gvk.version, stored.gvk.kind);
    STANDARD.encode(&Sha256::digest(name.as_bytes())[..STORAGE_HASH_BYTES])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn aggregated_discovery_holds_the_recorded_table() {
        let table: Value = serde_json::from_str(include_str!("../data/kinds.json")).unwrap();
        let apps = value(&aggregated_groups(Kinds::builtin()));
        let recorded = &table["groups"].as_array().unwrap()[1..];
        let items = apps["items"].as_array().unwrap();
        assert_eq!(items.len(), recorded.len());
        for (item, group) in items.iter().zip(recorded) {
            assert_eq!(item["metadata"]["name"], group["group"]);
            for (version, want) in
                item["versions"].as_array().unwrap().iter().zip(group["versions"].as_array().unwrap())
            {
                for (got, want) in
                    version["resources"].as_array().unwrap().iter().zip(want["resources"].as_array().unwrap())
                {
                    assert_eq!(got["resource"], want["resource"]);
                    assert_eq!(got["verbs"], want["verbs"]);
                    let subs = want["subresources"].as_array().unwrap();
                    assert_eq!(got["subresources"].as_array().map_or(0, Vec::len), subs.len());
                    for (index, sub) in subs.iter().enumerate() {
                        let kind = &got["subresources"][index]["responseKind"];
                        assert_eq!((&kind["group"], &kind["version"]), (&sub["group"], &sub["version"]));
                    }
                }
            }
        }
    }

    #[test]
    fn plain_discovery_of_the_core_group() {
        let list = value(&resource_list(Kinds::builtin(), "", "v1").unwrap());
        assert_eq!((&list["groupVersion"], list.get("apiVersion")), (&json!("v1"), None));
        let find =
            |name: &str| list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone();
        assert_eq!(find("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
        assert_eq!(find("events")["storageVersionHash"], "r2yiGXH7wu8=");
        let eviction = find("pods/eviction");
        assert_eq!((&eviction["group"], &eviction["kind"]), (&json!("policy"), &json!("Eviction")));
        assert!(find("pods/log").get("group").is_none());
        assert!(resource_list(Kinds::builtin(), "nosuch", "v1").is_none());
    }

    #[test]
    fn groups_name_their_preferred_version() {
        let group = value(&group(Kinds::builtin(), "autoscaling").unwrap());
        assert_eq!(group["preferredVersion"]["groupVersion"], "autoscaling/v2");
        assert_eq!(group["kind"], "APIGroup");
        assert!(super::group(Kinds::builtin(), "").is_none());
        assert_eq!(value(&core_versions(Kinds::builtin(), "h:6443"))["versions"], json!(["v1"]));
        assert_eq!(
            value(&group_list(Kinds::builtin()))["groups"].as_array().unwrap().len(),
            Kinds::builtin().groups().len() - 1
        );
    }
}
