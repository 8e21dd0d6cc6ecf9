//! Delete and deletecollection.

use serde_json::{Value, json};

use crate::cluster::{Cluster, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_delete_says_what_is_gone() {
    let cluster = Cluster::start().await;
    let made = cluster.must(&format!("POST {MAPS}"), config_map("a", "1")).await;
    let uid = &made["metadata"]["uid"];
    let wrong = json!({"preconditions": {"uid": "x"}});
    let (code, message) = cluster.refused(&format!("DELETE {MAPS}/a"), wrong).await;
    assert_eq!(code, 409);
    assert!(message.starts_with("Operation cannot be fulfilled on configmaps \"a\": the UID in the precondition (x)"));
    let (status, answer) = cluster.ask(&format!("DELETE {MAPS}/a")).await;
    let details = json!({"name": "a", "kind": "configmaps", "uid": uid});
    let expected =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    assert_eq!((status, answer), (200, expected));
    let gone = (404, "configmaps \"a\" not found".to_owned());
    assert_eq!(cluster.refused(&format!("DELETE {MAPS}/a"), Value::Null).await, gone);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let cluster = Cluster::start().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["x.io/y"]}});
    cluster.must(&format!("POST {MAPS}"), held).await;
    let body = json!({"propagationPolicy": "Foreground"});
    let (status, going) = cluster.put(&format!("DELETE {MAPS}/a"), body).await;
    assert_eq!((status, going["metadata"]["finalizers"].clone()), (200, json!(["x.io/y", "foregroundDeletion"])));
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let (_, again) = cluster.ask(&format!("DELETE {MAPS}/a")).await;
    assert_eq!(again["metadata"]["resourceVersion"], going["metadata"]["resourceVersion"]);
    let (status, last) = cluster.merge(&format!("{MAPS}/a"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!((status, &last["metadata"]["name"]), (200, &json!("a")));
    assert_eq!(cluster.ask(&format!("GET {MAPS}/a")).await.0, 404);
}

#[tokio::test]
async fn a_bound_pod_ends_in_two_steps() {
    let cluster = Cluster::start().await;
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n");
    cluster.must(&format!("POST {PODS}"), bound).await;
    let (_, going) = cluster.ask(&format!("DELETE {PODS}/p")).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let (_, shorter) = cluster.ask(&format!("DELETE {PODS}/p?gracePeriodSeconds=5")).await;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let (_, longer) = cluster.ask(&format!("DELETE {PODS}/p?gracePeriodSeconds=60")).await;
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    let (status, last) = cluster.ask(&format!("DELETE {PODS}/p?gracePeriodSeconds=0")).await;
    assert_eq!((status, &last["kind"]), (200, &json!("Pod")));
    assert_eq!(cluster.ask(&format!("GET {PODS}/p")).await.0, 404);
    cluster.must(&format!("POST {PODS}"), pod("free")).await;
    cluster.ask(&format!("DELETE {PODS}/free")).await;
    assert_eq!(cluster.ask(&format!("GET {PODS}/free")).await.0, 404, "a pod that no node runs goes at once");
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        let label = if name == "c" { "keep" } else { "drop" };
        cluster.must(&format!("POST {MAPS}"), json!({"metadata": {"name": name, "labels": {"l": label}}})).await;
    }
    let (_, deleted) = cluster.ask(&format!("DELETE {MAPS}?labelSelector=l%3Ddrop")).await;
    assert_eq!(deleted["names"], json!(["a", "b"]));
    assert_eq!(cluster.ask(&format!("GET {MAPS}")).await.1["names"], json!(["c"]));
}

#[tokio::test]
async fn a_namespace_ends_after_its_content() {
    let cluster = Cluster::start().await;
    let made = cluster.must("POST /api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    assert_eq!((&made["status"]["phase"], &made["spec"]["finalizers"]), (&json!("Active"), &json!(["kubernetes"])));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    let (_, ending) = cluster.ask("DELETE /api/v1/namespaces/n").await;
    assert_eq!(ending["status"]["phase"], "Terminating");
    let (code, status) = cluster.put("POST /api/v1/namespaces/n/configmaps", config_map("a", "1")).await;
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")));
    let mut done = ending;
    done["spec"]["finalizers"] = json!([]);
    assert_eq!(cluster.put("PUT /api/v1/namespaces/n/finalize", done).await.0, 200);
    assert_eq!(cluster.ask("GET /api/v1/namespaces/n").await.0, 404);
    let kept = (403, "namespaces \"default\" is forbidden: this namespace may not be deleted".to_owned());
    assert_eq!(cluster.refused("DELETE /api/v1/namespaces/default", Value::Null).await, kept);
}
