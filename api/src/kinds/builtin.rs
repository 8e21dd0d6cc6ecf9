//! The built-in kinds, read from `api/data/kinds.json`, and what discovery does not tell of them.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{Column, Durability, GroupVersionKind, ResourceDef, StorageKey, Subresource};

/// The resources of one version of a group.
#[derive(Debug)]
pub struct GroupVersion {
    /// The version, e.g. `v1`.
    pub version: String,
    /// Its resources, in the order of discovery.
    pub resources: Vec<Arc<ResourceDef>>,
}

/// One API group.
#[derive(Debug)]
pub struct Group {
    /// The group's name; empty for the core group.
    pub name: String,
    /// Its versions, the preferred one first.
    pub versions: Vec<GroupVersion>,
}

/// A table of kinds.
#[derive(Debug, Default)]
pub struct Kinds {
    groups: Vec<Group>,
}

static BUILTIN: LazyLock<Kinds> =
    LazyLock::new(|| Kinds::read(&crate::data::json(include_str!("../../data/kinds.json"))));

/// Fields, besides name and namespace, by which objects of a resource can be selected: `group/resource`, fields.
/// From the field label conversions that Kubernetes registers (`pkg/apis/*/v1/conversion.go`).
const SELECTABLE: [(&str, &[&str]); 12] = [
    (
        "/pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    (
        "/events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    (
        "events.k8s.io/events",
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "source",
            "type",
        ],
    ),
    ("/secrets", &["type"]),
    ("/nodes", &["spec.unschedulable"]),
    ("/namespaces", &["status.phase"]),
    ("/services", &["spec.clusterIP", "spec.type"]),
    ("/replicationcontrollers", &["status.replicas"]),
    ("apps/replicasets", &["status.replicas"]),
    ("batch/jobs", &["status.successful"]),
    ("certificates.k8s.io/certificatesigningrequests", &["spec.signerName"]),
    ("resource.k8s.io/resourceslices", &["spec.nodeName", "spec.driver"]),
];

/// Resources whose writes may reach the disk some seconds later.
const HEARTBEATS: [&str; 3] = ["/events", "events.k8s.io/events", "coordination.k8s.io/leases"];

/// The name that a selectable field has in the stored form of its object, where that is another version's form:
/// an Event is stored as `v1`, whose fields `events.k8s.io` calls otherwise.
pub fn stored_field(field: &str) -> std::borrow::Cow<'_, str> {
    match field.strip_prefix("regarding.") {
        Some(rest) => format!("involvedObject.{rest}").into(),
        None if field == "reportingController" => "reportingComponent".into(),
        None => field.into(),
    }
}

impl Kinds {
    /// The built-in kinds.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// All groups in Kubernetes' order of preference, the core group first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// One group.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// One version of a group.
    pub fn group_version(&self, group: &str, version: &str) -> Option<&GroupVersion> {
        self.group(group)?.versions.iter().find(|known| known.version == version)
    }

    /// All resources of all versions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.groups.iter().flat_map(|group| &group.versions).flat_map(|version| &version.resources)
    }

    /// The resource of a plural name.
    pub fn resource(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<ResourceDef>> {
        self.group_version(group, version)?.resources.iter().find(|def| def.resource == resource)
    }

    /// The resource whose objects are of a kind.
    pub fn kind(&self, gvk: &GroupVersionKind) -> Option<&Arc<ResourceDef>> {
        self.group_version(&gvk.group, &gvk.version)?.resources.iter().find(|def| def.gvk.kind == gvk.kind)
    }

    /// The resource in whose form the objects under a storage key are stored.
    pub fn stored_as(&self, key: &StorageKey) -> Option<&Arc<ResourceDef>> {
        // Groups are in order, versions preferred first: `v1` Events and `autoscaling/v2` come before their twins.
        self.iter().find(|def| def.stored && def.storage == *key)
    }

    /// Every resource once in the form in which its objects are stored.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.iter()
            .filter(|def| def.stored && self.stored_as(&def.storage).is_some_and(|first| Arc::ptr_eq(first, def)))
    }

    fn read(table: &Value) -> Self {
        let groups = list(table, "groups").map(|group| {
            let name = text(group, "group");
            let versions = list(group, "versions").map(|version| GroupVersion {
                version: text(version, "version"),
                resources: list(version, "resources")
                    .map(|row| Arc::new(resource(row, &name, &text(version, "version"))))
                    .collect(),
            });
            Group { versions: versions.collect(), name: name.clone() }
        });
        Self { groups: groups.collect() }
    }
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    list(value, name).filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn resource(row: &Value, group: &str, version: &str) -> ResourceDef {
    let resource = text(row, "resource");
    let key = format!("{group}/{resource}");
    let verbs = texts(row, "verbs");
    let has = |verb: &str| verbs.iter().any(|known| known == verb);
    ResourceDef {
        gvk: GroupVersionKind::new(group, version, &text(row, "kind")),
        singular: text(row, "singular"),
        namespaced: row.get("namespaced").and_then(Value::as_bool).unwrap_or_default(),
        short_names: texts(row, "shortNames"),
        categories: texts(row, "categories"),
        subresources: list(row, "subresources").map(|sub| subresource(sub, group, version)).collect(),
        columns: list(row, "columns").map(column).collect(),
        selectable: SELECTABLE
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, fields)| fields.to_vec())
            .unwrap_or_default(),
        storage: storage(group, &resource),
        stored: has("get") && has("create"),
        durability: if HEARTBEATS.contains(&key.as_str()) { Durability::Heartbeat } else { Durability::Synced },
        resource,
        verbs,
    }
}

/// Where a resource is stored: Events of both groups are one.
fn storage(group: &str, resource: &str) -> StorageKey {
    let group = match (group, resource) {
        ("", _) | ("events.k8s.io", "events") => "core",
        (own, _) => own,
    };
    StorageKey { group: group.to_owned(), resource: resource.to_owned() }
}

fn subresource(row: &Value, group: &str, version: &str) -> Subresource {
    // Discovery leaves group and version out where they are those of the resource itself.
    let kind = match text(row, "version") {
        own if own.is_empty() => GroupVersionKind::new(group, version, &text(row, "kind")),
        other => GroupVersionKind::new(&text(row, "group"), &other, &text(row, "kind")),
    };
    Subresource { name: text(row, "name"), kind, verbs: texts(row, "verbs") }
}

fn column(row: &Value) -> Column {
    Column {
        name: text(row, "name"),
        kind: text(row, "type"),
        format: text(row, "format"),
        description: text(row, "description"),
        json_path: String::new(),
        priority: row.get("priority").and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::schema::Schemas;

    #[test]
    fn every_kind_has_a_schema() {
        for def in Kinds::builtin().iter() {
            assert!(Schemas::builtin().of_kind(&def.gvk).is_some(), "{:?}", def.gvk);
        }
        assert_eq!(Kinds::builtin().iter().count(), 68, "every resource of the recording");
    }

    #[test]
    fn lookups_find_what_is_there() {
        let kinds = Kinds::builtin();
        let deployments = kinds.resource("apps", "v1", "deployments").unwrap();
        assert_eq!(deployments.gvk, GroupVersionKind::parse("apps/v1", "Deployment"));
        assert_eq!(deployments.short_names, ["deploy"]);
        let scale = deployments.subresources.iter().find(|sub| sub.name == "scale").unwrap();
        assert_eq!(scale.kind, GroupVersionKind::new("autoscaling", "v1", "Scale"));
        let pods = kinds.kind(&GroupVersionKind::parse("v1", "Pod")).unwrap();
        let eviction = pods.subresources.iter().find(|sub| sub.name == "eviction").unwrap();
        assert_eq!(eviction.kind.api_version(), "policy/v1");
        assert_eq!(pods.columns[0].name, "Name");
        assert!(kinds.resource("apps", "v1", "pods").is_none());
        assert_eq!(kinds.groups()[0].name, "");
        assert_eq!(kinds.group("autoscaling").unwrap().versions[0].version, "v2");
    }

    #[test]
    fn twins_share_a_store_and_reviews_have_none() {
        let kinds = Kinds::builtin();
        let events = kinds.resource("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(kinds.stored_as(&events.storage).unwrap().gvk, GroupVersionKind::parse("v1", "Event"));
        assert_eq!(events.durability, Durability::Heartbeat);
        let scalers = kinds.resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        assert_eq!(kinds.stored_as(&scalers.storage).unwrap().gvk.version, "v2");
        for reviews in ["tokenreviews", "selfsubjectreviews"] {
            assert!(!kinds.resource("authentication.k8s.io", "v1", reviews).unwrap().stored);
        }
        assert!(!kinds.resource("", "v1", "componentstatuses").unwrap().stored);
        let mut keys: Vec<_> = kinds.stored().map(|def| &def.storage).collect();
        let all = keys.len();
        keys.dedup();
        assert_eq!(all, keys.len());
    }
}
