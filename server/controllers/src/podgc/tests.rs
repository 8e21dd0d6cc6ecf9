#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};

use super::*;
use crate::testing::{Running, eventually, object};

fn pod(name: &str, node: &str, deleting: bool, phase: &str) -> Arc<Pod> {
    let mut pod: Pod = object(json!({
        "metadata": {"name": name, "namespace": "x", "uid": name},
        "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase},
    }));
    pod.metadata.deletion_timestamp = deleting.then(|| object(json!("2026-01-01T00:00:00Z")));
    Arc::new(pod)
}

fn node(taints: Value, ready: &str) -> Node {
    object(json!({"metadata": {"name": "n"}, "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
}

#[test]
fn who_has_to_go() {
    let gone = json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
    let cases = [
        ("deleted before it had a node", pod("a", "", true, "Pending"), None, false, Some(Doom::Unscheduled)),
        ("waits for a node", pod("a", "", false, "Pending"), None, false, None),
        ("of a lost node", pod("a", "n", false, "Running"), None, true, Some(Doom::NoNode)),
        ("ended on a lost node", pod("a", "n", false, "Succeeded"), None, true, Some(Doom::NoNode)),
        ("runs", pod("a", "n", false, "Running"), Some(node(json!([]), "True")), false, None),
        ("ends", pod("a", "n", true, "Running"), Some(node(json!([]), "Unknown")), false, None),
        (
            "ends there",
            pod("a", "n", true, "Running"),
            Some(node(gone.clone(), "Unknown")),
            false,
            Some(Doom::OutOfService),
        ),
        ("runs there", pod("a", "n", false, "Running"), Some(node(gone.clone(), "Unknown")), false, None),
        ("the node is ready", pod("a", "n", true, "Running"), Some(node(gone, "True")), false, None),
    ];
    for (what, pod, node, lost, expected) in cases {
        let doomed = decide(&[pod], node.as_ref(), lost);
        assert_eq!(doomed.first().map(|(_, doom)| *doom), expected, "{what}");
    }
}

#[test]
fn the_evicted_and_the_oldest_go_first() {
    let ended = |name: &str, day: u32, evicted: bool| {
        let mut pod = (*pod(name, "n", false, "Failed")).clone();
        pod.metadata.creation_timestamp = Some(object(json!(format!("2026-01-0{day}T00:00:00Z"))));
        pod.status.as_mut().unwrap().reason = evicted.then(|| "Evicted".to_owned());
        Arc::new(pod)
    };
    let all =
        vec![ended("new", 3, false), ended("old", 1, false), ended("evicted", 4, true), ended("middle", 2, false)];
    let names =
        |keep| -> Vec<String> { surplus(all.clone(), keep).iter().map(|pod| name(&pod.metadata).to_owned()).collect() };
    assert_eq!(names(1), ["evicted", "old", "middle"]);
    assert_eq!(names(3), ["evicted"]);
    assert_eq!(names(4), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_gone_fail_and_go() {
    let cluster = Running::start(|context| run(context, 2));
    cluster.client.create(&node(json!([]), "True")).await.unwrap();
    for (name, node, phase) in [("kept", "n", "Running"), ("lost", "m", "Running"), ("ended", "m", "Succeeded")] {
        cluster.client.create(&*pod(name, node, false, phase)).await.unwrap();
    }
    let names = async || {
        let pods = cluster.client.list::<Pod>(None, &Default::default()).await.unwrap().items;
        pods.into_iter().map(|pod| pod.metadata.name.unwrap()).collect::<Vec<_>>()
    };
    tokio::time::sleep(QUARANTINE + Duration::from_secs(1)).await;
    eventually(async || names().await == ["kept"]).await;
    let patches = cluster.api.take_requests().into_iter().filter(|r| r.subresource.as_deref() == Some("status"));
    let said: Vec<(Option<String>, Value)> =
        patches.map(|r| (r.name, serde_json::from_slice(&r.body).unwrap())).collect();
    assert_eq!(said.len(), 1, "only what had not ended is said to have failed: {said:?}");
    assert_eq!(said[0].0.as_deref(), Some("lost"));
    assert_eq!(said[0].1["status"]["phase"], "Failed");
    assert_eq!(said[0].1["status"]["conditions"][0]["reason"], "DeletionByPodGC");
}

#[tokio::test]
async fn of_ended_pods_only_so_many_are_kept() {
    let cluster = Running::start(|context| run(context, 2));
    cluster.client.create(&node(json!([]), "True")).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        cluster.client.create(&*pod(name, "n", false, "Succeeded")).await.unwrap();
    }
    let count = async || cluster.client.list::<Pod>(None, &Default::default()).await.unwrap().items.len();
    eventually(async || count().await == 2).await;
}
