#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::protobuf::reader::Reader;

fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn the_index_names_every_version() {
    let index = value(&v3_index(Kinds::builtin(), [v3_index_entry("example.com", "v1", b"x")]));
    let address = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(address.starts_with("/openapi/v3/apis/apps/v1?hash="), "{address}");
    assert!(index["paths"]["api/v1"].is_object() && index["paths"]["apis/example.com/v1"].is_object());
    assert_ne!(v3_index_entry("g", "v1", b"x"), v3_index_entry("g", "v1", b"y"));
}

#[test]
fn kubectl_finds_parameters_and_prose() {
    let document = value(&v3_document(Kinds::builtin(), "", "v1").unwrap());
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"));
    assert_eq!(document["paths"]["/api/v1/pods"]["get"]["operationId"], "listCoreV1PodForAllNamespaces");
    let schemas = &document["components"]["schemas"];
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(spec["description"], "PodSpec is a description of a pod.");
    let containers = spec["properties"]["containers"]["description"].as_str().unwrap();
    assert!(containers.starts_with("List of containers belonging to the pod."), "{containers}");
    assert!(v3_document(Kinds::builtin(), "nosuch", "v1").is_none());
}

#[test]
fn no_reference_leads_nowhere() {
    for def in Kinds::builtin().iter() {
        let document = value(&v3_document(Kinds::builtin(), &def.gvk.group, &def.gvk.version).unwrap());
        let mut found = Vec::new();
        references(&document, &mut found);
        for name in found {
            assert!(document["components"]["schemas"][&name].is_object(), "{name}");
        }
    }
}

#[test]
fn swagger_has_no_alternatives() {
    let text = String::from_utf8(v2_document(Kinds::builtin())).unwrap();
    assert!(!text.contains("\"oneOf\":[") && !text.contains("\"allOf\":[") && !text.contains("#/components"));
    let document = value(text.as_bytes());
    assert_eq!(document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["type"], "string");
    let post = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["post"];
    assert!(post["parameters"].as_array().unwrap().iter().any(|parameter| parameter["in"] == "body"));
}

#[test]
fn custom_resources_have_a_document() {
    let mut def = ResourceDef::clone(Kinds::builtin().resource("apps", "v1", "deployments").unwrap());
    def.gvk = GroupVersionKind::new("example.com", "v1", "Thing");
    def.resource = "things".to_owned();
    let version = GroupVersion { version: "v1".to_owned(), resources: vec![Arc::new(def)] };
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
    let document = value(&v3_custom_document("example.com", version, &[("Thing".to_owned(), schema)]));
    let thing = &document["components"]["schemas"]["com.example.v1.Thing"];
    assert_eq!(thing["x-kubernetes-group-version-kind"][0]["kind"], "Thing");
    assert!(document["paths"]["/apis/example.com/v1/namespaces/{namespace}/things/{name}"]["patch"].is_object());
}

/// The fields of a message of one number.
fn fields(message: &[u8], number: u32) -> Vec<&[u8]> {
    let (mut reader, mut found) = (Reader(message), Vec::new());
    while let Some((field, value)) = reader.next().unwrap() {
        if field == number {
            found.push(value.bytes().unwrap());
        }
    }
    found
}

/// The value of the entry of a name, of a map whose entries have this number.
fn entry<'a>(map: &'a [u8], number: u32, name: &str) -> &'a [u8] {
    let entries = fields(map, number);
    let found = entries.into_iter().find(|entry| fields(entry, 1) == [name.as_bytes()]).unwrap();
    fields(found, 2)[0]
}

#[test]
fn swagger_is_the_same_in_protobuf() {
    let bytes = v2_protobuf(Kinds::builtin());
    assert_eq!(fields(&bytes, 1), [b"2.0"]);
    let definitions = fields(&bytes, 9)[0];
    let json = value(&v2_document(Kinds::builtin()));
    assert_eq!(fields(definitions, 1).len(), json["definitions"].as_object().unwrap().len());
    let deployment = entry(definitions, 1, "io.k8s.api.apps.v1.Deployment");
    let kinds = entry(deployment, 31, "x-kubernetes-group-version-kind");
    assert_eq!(value(fields(kinds, 2)[0]), json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]));
    let spec = entry(fields(deployment, 25)[0], 1, "spec");
    assert_eq!(fields(spec, 1), [b"#/definitions/io.k8s.api.apps.v1.DeploymentSpec"]);
    let paths = fields(&bytes, 8)[0];
    assert_eq!(fields(paths, 2).len(), json["paths"].as_object().unwrap().len());
    let get = fields(entry(paths, 2, "/api/v1/pods"), 2)[0];
    assert_eq!(fields(get, 5), [b"listCoreV1PodForAllNamespaces"]);
    let ok = fields(entry(fields(get, 9)[0], 1, "200"), 1)[0];
    assert_eq!(fields(fields(fields(ok, 2)[0], 1)[0], 1), [b"#/definitions/io.k8s.api.core.v1.PodList"]);
}
