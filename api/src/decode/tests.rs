#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::json;

use super::*;

fn deployment() -> GroupVersionKind {
    GroupVersionKind::new("apps", "v1", "Deployment")
}

fn typed(gvk: &GroupVersionKind, body: &str, validation: FieldValidation) -> Result<Decoded, ApiError> {
    decode(body.as_bytes(), ContentType::Json, gvk, Form::builtin(gvk).unwrap(), validation)
}

fn error(gvk: &GroupVersionKind, body: &str) -> String {
    typed(gvk, body, FieldValidation::Strict).unwrap_err().message
}

#[test]
fn unknown_and_duplicate_fields_are_found_and_dropped() {
    let body =
        r#"{"spec":{"replicas":1,"replicas":2,"foo":1,"template":{"spec":{"containers":[{"name":"a","bar":{}}]}}}}"#;
    let decoded = typed(&deployment(), body, FieldValidation::Warn).unwrap();
    assert_eq!(
        decoded.warnings,
        [
            "duplicate field \"spec.replicas\"",
            "unknown field \"spec.foo\"",
            "unknown field \"spec.template.spec.containers[0].bar\""
        ]
    );
    assert_eq!(decoded.object.int_at(&["spec", "replicas"]), Some(2));
    assert!(decoded.object.at(&["spec", "foo"]).is_none());
    assert!(typed(&deployment(), body, FieldValidation::Ignore).unwrap().warnings.is_empty());
    assert_eq!(
        error(&deployment(), r#"{"spec":{"foo":1}}"#),
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\""
    );
}

#[test]
fn types_are_checked_in_gos_words() {
    let prefix = "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal ";
    let cases = [
        (r#"{"spec":{"replicas":"3"}}"#, "string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (r#"{"spec":{"replicas":1.5}}"#, "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (r#"{"spec":7}"#, "number into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        (r#"{"metadata":{"labels":{"a":1}}}"#, "number into Go struct field ObjectMeta.metadata.labels of type string"),
        (
            r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
            "object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
    ];
    for (body, words) in cases {
        assert_eq!(error(&deployment(), body), format!("{prefix}{words}"), "{body}");
    }
}

#[test]
fn bodies_that_are_no_objects_are_refused() {
    let pod = GroupVersionKind::new("", "v1", "Pod");
    assert_eq!(
        error(&pod, "x"),
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: \
         invalid character 'x' looking for beginning of value (78)"
    );
    assert!(error(&pod, "").contains("unexpected end of JSON input (<empty>)"));
    assert!(error(&pod, "[]").contains("cannot unmarshal array"));
    assert_eq!(
        error(&pod, r#"{"kind":"Pod","apiVersion":"v2"}"#),
        "the API version in the data (v2) does not match the expected API version (v1)"
    );
    assert!(
        error(&pod, r#"{"kind":"Node","apiVersion":"v1"}"#)
            .starts_with("Node in version \"v1\" cannot be handled as a Pod")
    );
    assert!(error(&pod, &"[".repeat(100_000)).contains("must be of type Pod"));
    assert!(error(&pod, &"{\"a\":".repeat(100_000)).contains("must be of type Pod"));
    assert!(error(&pod, r#"{"kind":1}"#).contains("cannot unmarshal number into Go struct field .kind of type string"));
}

#[test]
fn what_is_no_text_is_replaced_as_go_does() {
    let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
    let read = |body: &[u8], content_type| {
        decode(body, content_type, &gvk, Form::builtin(&gvk).unwrap(), FieldValidation::Warn)
            .map(|decoded| decoded.object.at(&["data"]).cloned().unwrap_or_default())
            .map_err(|error| error.message)
    };
    let body = b"{\"data\":{\"a\":\"x\xff\xe2\x82y\",\"b\":\"\\ud800 \\udbff\\ude00 \\udfff\\u0041\\\\ud800\"}}";
    let expected = json!({"a": "x\u{fffd}\u{fffd}\u{fffd}y", "b": "\u{fffd} \u{10fe00} \u{fffd}A\\ud800"});
    assert_eq!(read(body, ContentType::Json), Ok(expected));
    let why = read(b"{\"data\":\xff}", ContentType::Json).unwrap_err();
    assert!(why.contains("json parse error: invalid character '\u{ff}' looking for beginning of value"), "{why}");
    for (body, what) in [(&b"a: \xff"[..], "leading"), (b"a: \xc3(", "trailing")] {
        let why = read(body, ContentType::Yaml).unwrap_err();
        assert!(why.contains(&format!("converting YAML to JSON: yaml: invalid {what} UTF-8 octet")), "{why}");
    }
    assert_eq!(read(b"{data: {a: b}}", ContentType::Yaml), Ok(json!({"a": "b"})));
}

#[test]
fn values_take_the_form_that_go_prints() {
    let body = json!({
        "metadata": {"name": "a", "labels": null, "annotations": {}, "creationTimestamp": "2024-05-01T02:00:00.5+02:00"},
        "spec": {"containers": [{"name": "c", "args": [], "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}], "nodeName": null},
    });
    let decoded = typed(&GroupVersionKind::new("", "v1", "Pod"), &body.to_string(), FieldValidation::Strict).unwrap();
    let want = json!({
        "metadata": {"name": "a", "creationTimestamp": "2024-05-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]},
        "apiVersion": "v1", "kind": "Pod", "status": {},
    });
    assert_eq!(Value::Object(decoded.object.0), want);
}

#[test]
fn shaping_twice_changes_nothing() {
    let schema = Schemas::builtin().of_kind(&deployment()).unwrap();
    let body =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}}}});
    let once = shape_typed(body, schema).unwrap();
    assert_eq!(shape_typed(once.value.clone(), schema).unwrap().value, once.value);
}

#[test]
fn yaml_reads_as_json_does() {
    let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
    let form = Form::builtin(&gvk).unwrap();
    let body = b"metadata:\n  name: a\n  name: b\ndata:\n  8080: x\n";
    let decoded = decode(body, ContentType::Yaml, &gvk, form, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.object.str_at(&["data", "8080"]), Some("x"));
    assert_eq!(decoded.object.name(), "b");
    assert_eq!(decoded.warnings.len(), 1);
}

#[test]
fn custom_resources_are_pruned() {
    let schemas = Schemas::of_custom_resource(&json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer"}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
    }));
    let gvk = GroupVersionKind::new("example.com", "v1", "Thing");
    let body =
        json!({"metadata": {"name": "a", "nosuch": 1}, "spec": {"a": "text", "b": 1, "free": {"x": {"y": null}}}});
    let form = Form::Custom(schemas.root().unwrap());
    let decoded = decode(body.to_string().as_bytes(), ContentType::Json, &gvk, form, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.object.at(&["spec"]), Some(&json!({"a": "text", "free": {"x": {"y": null}}})));
    assert_eq!(decoded.warnings, ["unknown field \"metadata.nosuch\"", "unknown field \"spec.b\""]);
}
