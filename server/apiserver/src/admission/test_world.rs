//! What each plugin does to a pod, on a world of a few objects.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use skiff_api::{
    kinds::{Durability, GroupVersionKind, ResourceDef, StorageKey},
    object::Object,
    user::UserInfo,
};

use super::{Operation, World, Write};

/// Objects as `(group, resource, object)`.
struct Objects(Vec<(&'static str, &'static str, Object)>);

impl World for Objects {
    fn find(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Object> {
        self.all(group, resource, Some(namespace)).into_iter().find(|object| object.name() == name)
    }

    fn all(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Object> {
        let here = |object: &Object| namespace.is_none_or(|namespace| object.namespace() == namespace);
        let mine = self.0.iter().filter(|(g, r, object)| *g == group && *r == resource && here(object));
        mine.map(|(.., object)| object.clone()).collect()
    }

    fn allows(&self, _: crate::authz::Attributes<'_>) -> bool {
        false
    }
}

fn object(value: Value) -> Object {
    Object(value.as_object().unwrap().clone())
}

fn world() -> Objects {
    let named = |namespace: &str, name: &str| json!({"namespace": namespace, "name": name});
    Objects(vec![
        ("", "namespaces", object(json!({"metadata": {"name": "n"}}))),
        ("", "namespaces", object(json!({"metadata": {"name": "bare"}}))),
        (
            "",
            "namespaces",
            object(json!({"metadata": {"name": "ending", "deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        ),
        ("", "serviceaccounts", object(json!({"metadata": named("n", "default")}))),
        ("", "serviceaccounts", object(json!({"metadata": named("n", "own"), "imagePullSecrets": [{"name": "s"}]}))),
        ("scheduling.k8s.io", "priorityclasses", object(json!({"metadata": {"name": "high"}, "value": 9}))),
        (
            "node.k8s.io",
            "runtimeclasses",
            object(json!({"metadata": {"name": "wasm"}, "handler": "wasm",
            "overhead": {"podFixed": {"memory": "1Mi"}},
            "scheduling": {"nodeSelector": {"wasm": "yes"}, "tolerations": [{"key": "wasm", "operator": "Exists"}]}})),
        ),
    ])
}

fn pods() -> ResourceDef {
    ResourceDef {
        gvk: GroupVersionKind { group: String::new(), version: "v1".to_owned(), kind: "Pod".to_owned() },
        resource: "pods".to_owned(),
        singular: "pod".to_owned(),
        namespaced: true,
        verbs: Vec::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        columns: Vec::new(),
        selectable: Vec::new(),
        storage: StorageKey { group: "core".to_owned(), resource: "pods".to_owned() },
        stored: true,
        durability: Durability::Synced,
    }
}

/// The pod after admission, or why it was refused.
fn admit(namespace: &str, spec: Value) -> Result<Value, String> {
    let (def, user) = (pods(), UserInfo::default());
    let warnings = Default::default();
    let mut pod = object(json!({"metadata": {"name": "p", "namespace": namespace}, "spec": spec}));
    let write = Write {
        user: &user,
        operation: Operation::Create,
        def: &def,
        subresource: "",
        namespace,
        name: "p",
        old: None,
        warnings: &warnings,
    };
    let world = world();
    super::mutate(&world, &write, &mut pod).map_err(|error| error.message)?;
    super::validate(&world, &write, &pod).map_err(|error| error.message)?;
    Ok(pod.0.get("spec").cloned().unwrap_or_default())
}

#[test]
fn a_plain_pod_gets_its_account_priority_and_tolerations() {
    let toleration =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    assert_eq!(
        admit("n", json!({})).unwrap(),
        json!({
            "serviceAccountName": "default", "serviceAccount": "default", "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")],
        })
    );
}

#[test]
fn classes_and_accounts_bring_what_they_have() {
    let tolerations = json!([{"operator": "Exists"}]);
    let spec = json!({"serviceAccountName": "own", "priorityClassName": "high", "runtimeClassName": "wasm",
        "tolerations": tolerations});
    let pod = admit("n", spec).unwrap();
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "s"}]));
    assert_eq!(pod["priority"], 9);
    assert_eq!(pod["overhead"], json!({"memory": "1Mi"}));
    assert_eq!(pod["nodeSelector"], json!({"wasm": "yes"}));
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}, {"key": "wasm", "operator": "Exists"}]));
}

#[test]
fn refusals() {
    let cases = [
        (
            "n",
            json!({"serviceAccountName": "x"}),
            "pods \"p\" is forbidden: error looking up service account n/x: serviceaccount \"x\" not found",
        ),
        ("n", json!({"priorityClassName": "x"}), "pods \"p\" is forbidden: no PriorityClass with name x was found"),
        ("n", json!({"runtimeClassName": "x"}), "pods \"p\" is forbidden: pod rejected: RuntimeClass \"x\" not found"),
        (
            "n",
            json!({"runtimeClassName": "wasm", "nodeSelector": {"wasm": "no"}}),
            "pods \"p\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[wasm] = yes; \
             pod.spec.nodeSelector[wasm] = no",
        ),
        (
            "ending",
            json!({}),
            "pods \"p\" is forbidden: unable to create new content in namespace ending because it is being terminated",
        ),
        ("none", json!({}), "namespaces \"none\" not found"),
    ];
    for (namespace, spec, expected) in cases {
        assert_eq!(admit(namespace, spec).unwrap_err(), expected);
    }
    assert!(admit("bare", json!({})).is_ok(), "a namespace whose default account is yet to come takes pods");
}
