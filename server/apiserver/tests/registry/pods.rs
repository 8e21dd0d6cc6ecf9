//! Pods: what admission makes of them, binding, eviction.

use serde_json::json;

use crate::cluster::{Cluster, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_new_pod_is_complete() {
    let cluster = Cluster::start().await;
    let made = cluster.must(&format!("POST {PODS}"), pod("p")).await;
    assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!((&made["metadata"]["generation"], &made["spec"]["priority"]), (&json!(1), &json!(0)));
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
    let mut wasm = pod("w");
    wasm["spec"]["runtimeClassName"] = json!("wasm");
    cluster.must(&format!("POST {PODS}"), wasm.clone()).await;
    wasm["metadata"]["name"] = json!("x");
    wasm["spec"]["runtimeClassName"] = json!("none");
    let why = "pods \"x\" is forbidden: pod rejected: RuntimeClass \"none\" not found";
    assert_eq!(cluster.refused(&format!("POST {PODS}"), wasm).await, (403, why.to_owned()));
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::start().await;
    cluster.must(&format!("POST {PODS}"), pod("p")).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let (status, answer) = cluster.put(&format!("POST {PODS}/p/binding"), binding.clone()).await;
    assert_eq!((status, &answer["status"]), (201, &json!("Success")));
    let (_, bound) = cluster.ask(&format!("GET {PODS}/p")).await;
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let why = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\"";
    assert_eq!(cluster.refused("POST /api/v1/namespaces/default/bindings", binding).await, (409, why.to_owned()));
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let cluster = Cluster::start().await;
    let mut labelled = pod("p");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    labelled["spec"]["nodeName"] = json!("n");
    cluster.must(&format!("POST {PODS}"), labelled).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(cluster.merge(&format!("{PODS}/p/status"), ready).await.0, 200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    cluster.must(&format!("POST {budgets}"), budget).await;
    let eviction = json!({"metadata": {"name": "p"}});
    let allow = |allowed: u32| {
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed,
        "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}})
    };
    cluster.merge(&format!("{budgets}/b/status"), allow(0)).await;
    let (code, refused) = cluster.put(&format!("POST {PODS}/p/eviction"), eviction.clone()).await;
    assert_eq!((code, &refused["details"]["causes"][0]["reason"]), (429, &json!("DisruptionBudget")), "{refused}");
    cluster.merge(&format!("{budgets}/b/status"), allow(1)).await;
    assert_eq!(cluster.put(&format!("POST {PODS}/p/eviction"), eviction).await.0, 201);
    let (_, going) = cluster.ask(&format!("GET {PODS}/p")).await;
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let (_, charged) = cluster.ask(&format!("GET {budgets}/b")).await;
    assert_eq!(charged["status"]["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn a_new_node_takes_no_pods_yet() {
    let cluster = Cluster::start().await;
    let node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}});
    let made = cluster.must("POST /api/v1/nodes", node).await;
    assert_eq!(made["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    assert_eq!(made["status"]["capacity"]["cpu"], "2", "a node brings its status along");
}
