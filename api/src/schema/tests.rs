#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::json;

use super::*;

fn kind(group: &str, version: &str, kind: &str) -> SchemaRef<'static> {
    let gvk = GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() };
    Schemas::builtin().of_kind(&gvk).unwrap()
}

#[test]
fn a_pod_is_described_down_to_its_ports() {
    let spec = kind("", "v1", "Pod").property("spec").unwrap();
    assert_eq!(spec.name(), Some("io.k8s.api.core.v1.PodSpec"));
    assert_eq!(spec.default(), Some(&json!({})));
    let containers = spec.property("containers").unwrap();
    assert_eq!(containers.ty(), Type::Array);
    assert_eq!(containers.list_type(), ListType::Map);
    assert_eq!(containers.map_keys().collect::<Vec<_>>(), ["name"]);
    assert_eq!(containers.merge_key(), Some("name"));
    assert!(containers.patch_strategy().merge);
    let ports = containers.items().unwrap().property("ports").unwrap();
    assert_eq!(ports.map_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    let port = ports.items().unwrap();
    assert_eq!(port.property("containerPort").unwrap().format(), Format::Int32);
    assert_eq!(port.property("protocol").unwrap().default(), Some(&json!("TCP")));
    assert_eq!(port.required().collect::<Vec<_>>(), ["containerPort"]);
    assert!(spec.property("nosuch").is_none());
}

#[test]
fn special_types_are_told_apart() {
    let spec = kind("apps", "v1", "Deployment").property("spec").unwrap();
    let strategy = spec.property("strategy").unwrap();
    assert_eq!(strategy.patch_strategy(), PatchStrategy { retain_keys: true, ..PatchStrategy::default() });
    let surge = strategy.property("rollingUpdate").unwrap().property("maxSurge").unwrap();
    assert_eq!(surge.ty(), Type::IntOrString);
    let meta = kind("", "v1", "ConfigMap").property("metadata").unwrap();
    assert_eq!(meta.property("creationTimestamp").unwrap().format(), Format::Time);
    assert_eq!(meta.property("labels").unwrap().additional().unwrap().ty(), Type::String);
    let lease = kind("coordination.k8s.io", "v1", "Lease").property("spec").unwrap();
    assert_eq!(lease.property("renewTime").unwrap().format(), Format::MicroTime);
    let resources = Schemas::builtin().by_name("io.k8s.api.core.v1.ResourceRequirements").unwrap();
    assert_eq!(resources.property("limits").unwrap().additional().unwrap().ty(), Type::Quantity);
    let revision = kind("apps", "v1", "ControllerRevision").property("data").unwrap();
    assert_eq!((revision.ty(), revision.preserve_unknown()), (Type::Any, true));
    assert_eq!(kind("", "v1", "Secret").property("data").unwrap().additional().unwrap().format(), Format::Byte);
    let selector = Schemas::builtin().by_name("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").unwrap();
    assert_eq!(selector.map_type(), MapType::Atomic);
}

#[test]
fn a_custom_resource_gets_metadata() {
    let schemas = Schemas::of_custom_resource(&json!({
        "type": "object",
        "properties": {
            "metadata": {"type": "object"},
            "spec": {
                "type": "object", "required": ["size"],
                "properties": {
                    "size": {"x-kubernetes-int-or-string": true, "default": 3},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "inner": {"type": "object", "x-kubernetes-embedded-resource": true},
                },
            },
        },
    }));
    let root = schemas.root().unwrap();
    let owners = root.property("metadata").unwrap().property("ownerReferences").unwrap();
    assert_eq!(owners.map_keys().collect::<Vec<_>>(), ["uid"]);
    assert_eq!(root.property("apiVersion").unwrap().ty(), Type::String);
    let spec = root.property("spec").unwrap();
    assert_eq!(spec.property("size").unwrap().ty(), Type::IntOrString);
    assert_eq!(spec.property("size").unwrap().default(), Some(&json!(3)));
    assert_eq!(spec.required().collect::<Vec<_>>(), ["size"]);
    assert!(spec.property("free").unwrap().preserve_unknown());
    assert!(spec.property("inner").unwrap().property("metadata").unwrap().property("labels").is_some());
}

#[test]
fn recursive_schemas_end() {
    let schemas = Schemas::of_components(&json!({
        "a": {"type": "object", "properties": {"a": {"$ref": "#/components/schemas/a"}}},
        "b": {"$ref": "#/components/schemas/b"},
    }));
    let a = schemas.by_name("a").unwrap();
    assert_eq!(a.property("a").unwrap().property("a").unwrap().ty(), Type::Object);
    assert_eq!(schemas.by_name("b").unwrap().ty(), Type::Any);
}
