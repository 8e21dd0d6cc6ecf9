//! Namespaces with everything in them, and cascades.

use serde_json::{Value, json};

use crate::harness::{Plane, eventually, owner};

/// The kinds that a namespace is filled with, how many of each, and what they are like.
fn fill() -> Vec<(&'static str, usize, Value)> {
    let pod = json!({"containers": [{"name": "c", "image": "i"}]});
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": pod});
    let selector = json!({"matchLabels": {"app": "a"}});
    let job_pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let role = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    vec![
        ("v1/configmaps", 1000, json!({"data": {"a": "b"}})),
        ("v1/secrets", 400, json!({"stringData": {"a": "b"}})),
        ("v1/pods", 300, json!({"spec": pod})),
        ("v1/services", 100, json!({"spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}})),
        ("v1/serviceaccounts", 50, json!({})),
        ("v1/persistentvolumeclaims", 50, json!({"spec": claim})),
        ("v1/events", 300, json!({"involvedObject": {"namespace": "big"}, "reason": "R", "message": "m"})),
        ("coordination.k8s.io/v1/leases", 100, json!({"spec": {}})),
        ("rbac.authorization.k8s.io/v1/roles", 50, json!({"rules": role})),
        ("rbac.authorization.k8s.io/v1/rolebindings", 50, json!({"roleRef": role_ref})),
        ("apps/v1/deployments", 10, json!({"spec": {"replicas": 3, "selector": selector, "template": template}})),
        (
            "apps/v1/statefulsets",
            10,
            json!({"spec": {"replicas": 3, "serviceName": "s", "selector": selector, "template": template}}),
        ),
        ("apps/v1/daemonsets", 5, json!({"spec": {"selector": selector, "template": template}})),
        ("batch/v1/jobs", 20, json!({"spec": {"template": job_pod}})),
        (
            "batch/v1/cronjobs",
            5,
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": job_pod}}}}),
        ),
        ("policy/v1/poddisruptionbudgets", 10, json!({"spec": {"minAvailable": 1, "selector": selector}})),
        ("networking.k8s.io/v1/networkpolicies", 20, json!({"spec": {"podSelector": {}}})),
    ]
}

fn named(number: usize, mut object: Value) -> Value {
    object["metadata"] = json!({"name": format!("o{number}")});
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_with_thousands_of_objects_of_all_kinds_goes() {
    let plane = Plane::start().await;
    plane.create("v1/namespaces", "", json!({"metadata": {"name": "big"}})).await;
    eventually("the namespace has its account", async || plane.count("v1/serviceaccounts", "big").await == 1).await;
    let kinds = fill();
    for (kind, count, object) in &kinds {
        plane.create_many(kind, "big", *count, |number| named(number, object.clone())).await;
    }
    eventually("the Jobs have pods", async || plane.count("v1/pods", "big").await >= 300 + 20).await;
    plane.delete("v1/namespaces", "", "big", "Background").await;
    plane.is_gone("big").await;
    for (kind, _, _) in &kinds {
        assert_eq!(plane.count(kind, "big").await, 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_held_holds_its_namespace_which_says_so() {
    let plane = Plane::start().await;
    plane.create("v1/namespaces", "", json!({"metadata": {"name": "held"}})).await;
    let held = json!({"metadata": {"name": "m", "finalizers": ["example.com/hold"]}});
    plane.create("v1/configmaps", "held", held).await;
    plane.delete("v1/namespaces", "", "held", "Background").await;
    eventually("the namespace says what holds it", async || {
        let namespace = plane.get("v1/namespaces", "", "held").await.unwrap();
        let text = Value::Object(namespace.0).to_string();
        text.contains("configmaps. has 1 resource instances")
            && text.contains("example.com/hold in 1 resource instances")
    })
    .await;
    let patch = json!({"metadata": {"finalizers": null}});
    let form = skiff_api::request::ContentType::MergePatch;
    plane.admin().patch_object(&crate::harness::resource("v1/configmaps"), "held", "m", form, &patch).await.unwrap();
    plane.is_gone("held").await;
}

/// An owner with many dependents, and one dependent of each of those.
async fn family(plane: &Plane, namespace: &str) {
    plane.create("v1/namespaces", "", json!({"metadata": {"name": namespace}})).await;
    let root = plane.create("v1/configmaps", namespace, json!({"metadata": {"name": "root"}})).await;
    let children = json!([owner("ConfigMap", &root, true)]);
    for number in 0..100 {
        let metadata = json!({"name": format!("c{number}"), "ownerReferences": children});
        let child = plane.create("v1/secrets", namespace, json!({"metadata": metadata})).await;
        let metadata = json!({"name": format!("g{number}"), "ownerReferences": [owner("Secret", &child, true)]});
        plane.create("coordination.k8s.io/v1/leases", namespace, json!({"metadata": metadata})).await;
    }
}

async fn left(plane: &Plane, namespace: &str) -> (bool, usize, usize) {
    let root = plane.get("v1/configmaps", namespace, "root").await.is_ok();
    let leases = plane.count("coordination.k8s.io/v1/leases", namespace).await;
    (root, plane.count("v1/secrets", namespace).await, leases)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owned_goes_as_the_deletion_of_its_owner_asks() {
    let plane = Plane::start().await;
    let cases = [("Background", (false, 0, 0)), ("Foreground", (false, 0, 0)), ("Orphan", (false, 100, 100))];
    for (policy, expected) in cases {
        let namespace = policy.to_lowercase();
        family(&plane, &namespace).await;
        plane.delete("v1/configmaps", &namespace, "root", policy).await;
        eventually(policy, async || left(&plane, &namespace).await == expected).await;
    }
    let kept = plane.get("v1/secrets", "orphan", "c0").await.unwrap();
    assert!(kept.at(&["metadata", "ownerReferences"]).is_none_or(|owners| owners == &json!([])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circles_go_and_owners_of_other_namespaces_are_none() {
    let plane = Plane::start().await;
    for namespace in ["here", "there"] {
        plane.create("v1/namespaces", "", json!({"metadata": {"name": namespace}})).await;
    }
    let maps = crate::harness::resource("v1/configmaps");
    for policy in ["Foreground", "Background"] {
        let first = plane.create("v1/configmaps", "here", json!({"metadata": {"name": "first"}})).await;
        let owners = json!([owner("ConfigMap", &first, true)]);
        let second = json!({"metadata": {"name": "second", "ownerReferences": owners}});
        let second = plane.create("v1/configmaps", "here", second).await;
        let patch = json!({"metadata": {"ownerReferences": [owner("ConfigMap", &second, true)]}});
        let form = skiff_api::request::ContentType::MergePatch;
        plane.admin().patch_object(&maps, "here", "first", form, &patch).await.unwrap();
        plane.delete("v1/configmaps", "here", "first", policy).await;
        eventually(policy, async || {
            let gone = async |name: &str| plane.get("v1/configmaps", "here", name).await.is_err();
            gone("first").await && gone("second").await
        })
        .await;
    }
    let near = plane.create("v1/configmaps", "here", json!({"metadata": {"name": "near"}})).await;
    let owners = json!([owner("ConfigMap", &near, false)]);
    plane.create("v1/configmaps", "there", json!({"metadata": {"name": "far", "ownerReferences": owners}})).await;
    eventually("the far one is gone", async || plane.get("v1/configmaps", "there", "far").await.is_err()).await;
    assert!(plane.get("v1/configmaps", "here", "near").await.is_ok());
}
