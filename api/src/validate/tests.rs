#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::{
    decode::shape_typed,
    defaults,
    kinds::{GroupVersionKind, Kinds},
    schema::Schemas,
};

/// A defaulted object of a kind, in the namespace `default` unless it says otherwise.
fn object(api_version: &str, kind: &str, mut value: Value) -> (&'static ResourceDef, Object) {
    let gvk = GroupVersionKind::parse(api_version, kind);
    let def = Kinds::builtin().kind(&gvk).unwrap();
    if def.namespaced && value["metadata"]["namespace"].is_null() {
        value["metadata"]["namespace"] = "default".into();
    }
    let shaped = shape_typed(value, Schemas::builtin().of_kind(&gvk).unwrap()).unwrap();
    let mut object = Object(shaped.value.as_object().unwrap().clone());
    defaults::apply(&gvk, &mut object);
    (def, object)
}

fn print(errors: &[FieldError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

fn check_create(api_version: &str, kind: &str, value: Value, want: &Expect) {
    let (def, object) = object(api_version, kind, value);
    want.assert_eq(&print(&create(def, &object)));
}

fn check_update(api_version: &str, kind: &str, old: Value, new: Value, want: &Expect) {
    let (def, old) = object(api_version, kind, old);
    let (_, new) = object(api_version, kind, new);
    want.assert_eq(&print(&update(def, &new, &old)));
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "a"}, "spec": spec})
}

fn deployment(labels: Value) -> Value {
    json!({"metadata": {"name": "a"}, "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }})
}

#[test]
fn good_objects_pass() {
    let none = expect![""];
    check_create(
        "v1",
        "Pod",
        pod(json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]})),
        &none,
    );
    check_create("apps/v1", "Deployment", deployment(json!({"app": "a"})), &none);
    check_create("v1", "Namespace", json!({"metadata": {"name": "a"}}), &none);
    check_create("v1", "ConfigMap", json!({"metadata": {"name": "a.b"}, "data": {"k": "v"}}), &none);
    check_create("v1", "Service", json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}), &none);
    check_create("rbac.authorization.k8s.io/v1", "ClusterRole", json!({"metadata": {"name": "system:a"}}), &none);
    check_create(
        "coordination.k8s.io/v1",
        "Lease",
        json!({"metadata": {"name": "a"}, "spec": {"leaseDurationSeconds": 40}}),
        &none,
    );
}

#[test]
fn metadata() {
    check_create(
        "v1",
        "ConfigMap",
        json!({"metadata": {
            "name": "A", "labels": {"a b": "c", "ok": "-"}, "finalizers": ["mine"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}],
        }}),
        &expect![[r#"
            metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.labels: Invalid value: "-": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.ownerReferences[0].uid: Invalid value: "": uid must not be empty
            metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified
        "#]],
    );
    check_create(
        "v1",
        "Namespace",
        json!({"metadata": {"namespace": "x"}}),
        &expect![[r#"
        metadata.name: Required value: name or generateName is required
        metadata.namespace: Forbidden: not allowed on this type
    "#]],
    );
    let with_uid = |uid: &str| json!({"metadata": {"name": "a", "uid": uid}});
    check_update(
        "v1",
        "ConfigMap",
        with_uid("1"),
        with_uid("2"),
        &expect![[r#"
        metadata.uid: Invalid value: "2": field is immutable
    "#]],
    );
    let big = json!({"metadata": {"name": "a", "annotations": {"k": "v".repeat(meta::MAX_ANNOTATIONS_BYTES)}}});
    check_create(
        "v1",
        "ConfigMap",
        big,
        &expect![[r#"
        metadata.annotations: Too long: may not be more than 262144 bytes
    "#]],
    );
}

#[test]
fn pods_in_kubernetes_words() {
    let spec = json!({
        "containers": [
            {"name": "c", "image": "", "imagePullPolicy": "Sometimes", "volumeMounts": [{"name": "nosuch", "mountPath": "/x"}]},
            {"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
                "livenessProbe": {"successThreshold": 2}, "ports": [{"containerPort": 70000}]},
        ],
        "restartPolicy": "Maybe",
    });
    check_create(
        "v1",
        "Pod",
        pod(spec),
        &expect![[r#"
        spec.containers[0].image: Required value
        spec.containers[0].volumeMounts[0].name: Not found: "nosuch"
        spec.containers[1].name: Duplicate value: "c"
        spec.containers[1].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
        spec.containers[1].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
        spec.containers[1].livenessProbe: Required value: must specify a handler type
        spec.containers[1].livenessProbe.successThreshold: Invalid value: 2: must be 1
        spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure"
        spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"
    "#]],
    );
    check_create(
        "v1",
        "Pod",
        pod(json!({})),
        &expect![[r#"
        spec.containers: Required value
    "#]],
    );
}

#[test]
fn a_pods_spec_is_fixed() {
    let with = |image: &str, node: &str| pod(json!({"nodeName": node, "containers": [{"name": "c", "image": image}]}));
    check_update("v1", "Pod", with("i:1", "n"), with("i:2", "n"), &expect![""]);
    check_update(
        "v1",
        "Pod",
        with("i:1", "n"),
        with("i:1", "m"),
        &expect![[r#"
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
              core.PodSpec{
              	... // 17 identical fields
            - 	NodeName: "n",
            + 	NodeName: "m",
              	... // 24 identical fields
              }

        "#]],
    );
}

#[test]
fn the_refusal_of_a_pods_update_says_what_changed() {
    let container = |value: &str| json!({"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": value}]});
    let with = |value: &str, more: Value| {
        let mut pod = pod(json!({"containers": [container(value)], "nodeSelector": {"a": "1", "b": value}}));
        pod["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod
    };
    let old = with("1", json!({"hostNetwork": true, "dnsPolicy": "Default"}));
    let new = with("2", json!({"priority": 7, "dnsPolicy": "None", "imagePullSecrets": [{"name": "s"}]}));
    check_update(
        "v1",
        "Pod",
        old,
        new,
        &expect![[r#"
        spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
          core.PodSpec{
          	... // 3 identical fields
          	Containers: []core.Container{
          		{
          			... // 2 identical fields
          			Env: []core.EnvVar{
          				... // 1 identical elements
          				{
          					... // 1 identical fields
        - 					Value: "1",
        + 					Value: "2",
          					... // 1 identical fields
          				},
          			},
          			... // 22 identical fields
          		},
          	},
          	... // 1 identical fields
        - 	DnsPolicy: "Default",
        + 	DnsPolicy: "None",
          	... // 4 identical fields
        - 	HostNetwork: true,
        + 	HostNetwork: nil,
          	... // 4 identical fields
        - 	ImagePullSecrets: nil,
        + 	ImagePullSecrets: {{Name: "s"}},
          	... // 2 identical fields
          	NodeSelector: map[string]string{
          		... // 1 identical entries
        - 		"b": "1",
        + 		"b": "2",
          	},
          	... // 3 identical fields
        - 	Priority: nil,
        + 	Priority: 7,
          	... // 19 identical fields
          }

    "#]],
    );
}

#[test]
fn workloads_in_kubernetes_words() {
    check_create(
        "apps/v1",
        "Deployment",
        deployment(json!({"app": "b"})),
        &expect![[r#"
        spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not match template `labels`
    "#]],
    );
    let mut other = deployment(json!({"app": "a", "x": "y"}));
    other["spec"]["selector"]["matchLabels"]["x"] = "y".into();
    check_update(
        "apps/v1",
        "Deployment",
        deployment(json!({"app": "a"})),
        other,
        &expect![[r#"
        spec.selector: Invalid value: {"matchLabels":{"app":"a","x":"y"}}: field is immutable
    "#]],
    );
    let mut negative = deployment(json!({"app": "a"}));
    negative["spec"]["replicas"] = (-1).into();
    check_create(
        "apps/v1",
        "Deployment",
        negative,
        &expect![[r#"
        spec.replicas: Invalid value: -1: must be greater than or equal to 0
    "#]],
    );
}

#[test]
fn data_may_be_immutable() {
    let map = |value: &str| json!({"metadata": {"name": "a"}, "immutable": true, "data": {"k": value}});
    check_update(
        "v1",
        "ConfigMap",
        map("1"),
        map("2"),
        &expect![[r#"
        data: Forbidden: field is immutable when `immutable` is set
    "#]],
    );
    let secret = json!({"metadata": {"name": "a"}, "type": "kubernetes.io/tls", "data": {"a b": "AAAA"}});
    check_create(
        "v1",
        "Secret",
        secret,
        &expect![[r#"
        data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
        data[tls.crt]: Required value
        data[tls.key]: Required value
    "#]],
    );
}

#[test]
fn every_rule_names_a_kind_and_survives_nothing() {
    for (group, kind, _) in RULES {
        assert!(
            Kinds::builtin().iter().any(|def| (def.gvk.group.as_str(), def.gvk.kind.as_str()) == (group, kind)),
            "{kind}"
        );
    }
    for def in Kinds::builtin().iter() {
        let empty = Object::default();
        create(def, &empty);
        update(def, &empty, &empty);
        let odd = Object(json!({"metadata": [], "spec": "x", "data": 1}).as_object().unwrap().clone());
        create(def, &odd);
        update(def, &odd, &empty);
    }
}
