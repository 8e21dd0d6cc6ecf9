#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::{decide::Execute, *};
use crate::{
    meta::is_deleting,
    testing::{Running, eventually, object},
};

fn node(name: &str, ready: &str) -> Node {
    object(json!({"metadata": {"name": name}, "spec": {}, "status": {"conditions": [
        {"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}}))
}

fn taint_keys(taints: &Option<Vec<k8s_openapi::api::core::v1::Taint>>) -> Vec<String> {
    taints
        .iter()
        .flatten()
        .map(|taint| format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect))
        .collect()
}

#[tokio::test]
async fn every_node_gets_its_own_range() {
    let config = Config { pod_cidrs: vec![("10.64.0.0/12".to_owned(), 19)], ..Config::default() };
    let cluster = Running::start(|context| run_ranges(context, config));
    for n in 0..5 {
        cluster.client.create(&node(&format!("n{n}"), "True")).await.unwrap();
    }
    let ranges = async || {
        let all = cluster.client.list::<Node>(None, &Default::default()).await.unwrap().items;
        let mut ranges: Vec<String> = all.into_iter().filter_map(|node| node.spec.unwrap().pod_cidr).collect();
        ranges.sort();
        ranges
    };
    eventually(async || ranges().await.len() == 5).await;
    assert_eq!(ranges().await, ["10.64.0.0/19", "10.64.128.0/19", "10.64.32.0/19", "10.64.64.0/19", "10.64.96.0/19"]);
}

#[tokio::test]
async fn a_node_that_falls_silent_is_tainted_and_loses_its_pods() {
    let soon = Duration::from_millis(1);
    let rates = zones::Rates { between: soon, between_disturbed: soon };
    let config = Config { grace_period: Duration::from_millis(100), rates, ..Config::default() };
    let cluster = Running::start(|context| run_lifecycle(context, config));
    cluster.client.create(&node("n", "True")).await.unwrap();
    // Where no node at all is heard of, it is the control plane that is cut off.
    let heart = keep_alive(&cluster, "well").await;
    let pod = |name: &str, tolerations: Value| -> Pod {
        object(json!({"metadata": {"name": name, "namespace": "x"},
            "spec": {"nodeName": "n", "containers": [], "tolerations": tolerations}}))
    };
    cluster.client.create(&pod("leaves", json!([]))).await.unwrap();
    cluster.client.create(&pod("stays", json!([{"operator": "Exists"}]))).await.unwrap();
    eventually(async || {
        let node: Node = cluster.client.get("", "n").await.unwrap();
        decide::condition(&node, "Ready").is_some_and(|ready| ready.status == "Unknown")
            && taint_keys(&node.spec.unwrap().taints) == ["unreachable:NoSchedule", "unreachable:NoExecute"]
    })
    .await;
    eventually(async || {
        let leaves: Pod = cluster.client.get("x", "leaves").await.unwrap();
        is_deleting(&leaves.metadata)
    })
    .await;
    let stays: Pod = cluster.client.get("x", "stays").await.unwrap();
    assert!(!is_deleting(&stays.metadata));
    let leaves: Pod = cluster.client.get("x", "leaves").await.unwrap();
    let why = crate::meta::pod_condition(&leaves, crate::disrupt::DISRUPTION_TARGET).unwrap();
    assert_eq!(why.reason.as_deref(), Some("DeletionByTaintManager"));
    heart.abort();
}

/// A node that goes on sending heartbeats, until the task is aborted.
async fn keep_alive(cluster: &Running, name: &'static str) -> tokio::task::JoinHandle<()> {
    cluster.client.create(&node(name, "True")).await.unwrap();
    let client = cluster.client.clone();
    tokio::spawn(async move {
        for beat in 0..u32::MAX {
            let ready = json!({"type": "Ready", "status": "True",
                "lastHeartbeatTime": Timestamp::from_second(i64::from(beat)).unwrap().to_string()});
            let patch = json!({"status": {"conditions": [ready]}});
            let form = skiff_api::request::ContentType::MergePatch;
            client.patch::<Node>("", name, Some("status"), form, &patch).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

#[tokio::test]
async fn where_no_node_is_heard_of_nobody_loses_pods() {
    let config = Config { grace_period: Duration::from_millis(50), ..Config::default() };
    let cluster = Running::start(|context| run_lifecycle(context, config));
    for name in ["a", "b", "c"] {
        cluster.client.create(&node(name, "True")).await.unwrap();
    }
    eventually(async || {
        let nodes = cluster.client.list::<Node>(None, &Default::default()).await.unwrap().items;
        nodes.iter().all(|node| taint_keys(&node.spec.as_ref().unwrap().taints) == ["unreachable:NoSchedule"])
    })
    .await;
}

#[test]
fn taints_follow_conditions_and_others_stay() {
    let now = Timestamp::UNIX_EPOCH;
    let mut one = node("n", "False");
    one.spec.as_mut().unwrap().taints = Some(object(json!([{"key": "mine", "effect": "NoSchedule"}])));
    let tainted = decide::taints(&one, Execute::Allow, now);
    assert_eq!(taint_keys(&tainted), ["mine:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute"]);
    one.spec.as_mut().unwrap().taints = tainted;
    assert!(decide::taints(&one, Execute::Allow, now).is_none());
    assert!(decide::taints(&one, Execute::Hold, now).is_none(), "what has begun goes on");
    assert_eq!(taint_keys(&decide::taints(&one, Execute::Forbid, now)), ["mine:NoSchedule", "not-ready:NoSchedule"]);
    one.status = node("n", "True").status;
    assert_eq!(taint_keys(&decide::taints(&one, Execute::Allow, now)), ["mine:NoSchedule"]);
}

#[test]
fn tolerated_for_so_long() {
    let mut one = node("n", "Unknown");
    one.spec.as_mut().unwrap().taints =
        Some(object(json!([{"key": decide::UNREACHABLE, "effect": "NoExecute", "timeAdded": "1970-01-01T00:00:00Z"}])));
    let pod: Arc<Pod> = Arc::new(object(json!({"metadata": {}, "spec": {"containers": [], "tolerations": [
        {"key": decide::UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]}})));
    let at = |second| Timestamp::from_second(second).unwrap();
    let (leave, next) = decide::evictions(&one, &[Arc::clone(&pod)], at(100));
    assert_eq!((leave.len(), next), (0, Some(Duration::from_secs(200))));
    assert_eq!(decide::evictions(&one, &[pod], at(300)).0.len(), 1);
}
