#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};

use super::*;
use crate::{
    meta::name,
    testing::{Running, eventually, object},
};

fn set(extra: Value) -> DaemonSet {
    let mut spec = json!({"selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "1"}]}}});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    object(json!({"metadata": {"name": "d", "namespace": "x", "uid": "set", "generation": 1}, "spec": spec}))
}

fn node(node_name: &str, taints: Value) -> Arc<Node> {
    let labels = json!({"disk": if node_name.starts_with('s') { "ssd" } else { "hdd" }});
    Arc::new(object(json!({"metadata": {"name": node_name, "labels": labels}, "spec": {"taints": taints}})))
}

/// A pod by `NODE REVISION STATE`, its state `ok`, `unready`, `going`, `failed` or `pending` (without a node).
fn pod(number: usize, text: &str) -> Arc<Pod> {
    let [on, hash, state] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let mut pod = placement::pod_for(&set(json!({})), on, hash);
    pod.metadata.name = Some(format!("p{number}"));
    pod.metadata.uid = pod.metadata.name.clone();
    pod.metadata.creation_timestamp = Some(object(json!(format!("2026-01-01T00:00:{number:02}Z"))));
    if state != "pending" {
        pod.spec.as_mut().unwrap().node_name = Some(on.to_owned());
    }
    let phase = if state == "failed" { "Failed" } else { "Running" };
    let ready = if state == "ok" || state == "going" { "True" } else { "False" };
    pod.status = Some(object(json!({"phase": phase, "conditions": [
        {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]})));
    pod.metadata.deletion_timestamp = (state == "going").then(|| object(json!("2026-01-01T00:00:00Z")));
    Arc::new(pod)
}

/// What is made (`+NODE`) and deleted (`-POD`), and desired/current/wrong/available/updated.
fn told(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[&str]) -> String {
    let pods: Vec<_> = pods.iter().enumerate().map(|(number, text)| pod(number, text)).collect();
    let view = View { set, nodes, pods: &pods, is_doomed: &|_| false, hash: "new", collisions: None };
    let plan = decide(&view, "2026-01-01T01:00:00Z".parse().unwrap());
    let status = &plan.status;
    let mut parts: Vec<String> = plan.create.iter().map(|node| format!("+{node}")).collect();
    parts.extend(plan.delete.iter().map(|pod| format!("-{}", name(&pod.metadata))));
    parts.push(format!(
        "{}/{}/{}/{}/{}",
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_misscheduled,
        status.number_available.unwrap(),
        status.updated_number_scheduled.unwrap()
    ));
    parts.join(" ")
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}})
}

#[test]
fn a_pod_on_every_node_that_is_to_have_one() {
    let no_schedule = json!([{"key": "k", "effect": "NoSchedule"}]);
    let no_execute = json!([{"key": "k", "effect": "NoExecute"}]);
    let lost = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    let nodes =
        [node("a", json!([])), node("s", json!([])), node("t", no_schedule), node("u", no_execute), node("v", lost)];
    let all = set(json!({}));
    assert_eq!(told(&all, &nodes, &[]), "+a +s +v 3/0/0/0/0");
    assert_eq!(told(&all, &nodes, &["a new ok", "s new pending", "v new ok"]), "3/3/0/2/3");
    assert_eq!(told(&all, &nodes, &["a new ok", "s new ok", "v new ok", "t new ok", "u new ok"]), "-p4 3/3/2/3/3");
    assert_eq!(told(&all, &nodes[..1], &["a new ok", "a new ok"]), "-p1 1/1/0/1/1");
    assert_eq!(told(&all, &nodes[..1], &["a new failed"]), "-p0 1/1/0/0/1", "the next one comes when it is gone");
    assert_eq!(told(&all, &nodes[..1], &["a new going"]), "1/1/0/0/0");
    assert_eq!(told(&all, &nodes[..1], &["a new ok", "gone new pending"]), "-p1 1/1/0/1/1");
    let mut some = all;
    some.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_selector = Some(object(json!({"disk": "ssd"})));
    assert_eq!(told(&some, &nodes[..2], &["a new ok"]), "+s -p0 1/0/1/0/0");
}

#[test]
fn old_pods_are_replaced_within_limits() {
    let nodes: Vec<_> = ["a", "b", "c"].map(|name| node(name, json!([]))).to_vec();
    let one = set(rolling(json!(1), json!(0)));
    assert_eq!(told(&one, &nodes, &["a old ok", "b old ok", "c old ok"]), "-p0 3/3/0/3/0");
    assert_eq!(told(&one, &nodes, &["a new unready", "b old ok", "c old ok"]), "3/3/0/2/1", "one at a time");
    assert_eq!(
        told(&one, &nodes, &["a new ok", "b old ok", "c old unready"]),
        "-p2 3/3/0/2/1",
        "what serves nobody first"
    );
    assert_eq!(
        told(&set(rolling(json!("100%"), json!(0))), &nodes, &["a old ok", "b old ok", "c old ok"]),
        "-p0 -p1 -p2 3/3/0/3/0"
    );
    let surge = set(rolling(json!(0), json!(1)));
    assert_eq!(told(&surge, &nodes, &["a old ok", "b old ok", "c old ok"]), "+a 3/3/0/3/0");
    assert_eq!(told(&surge, &nodes, &["a old ok", "a new unready", "b old ok", "c old ok"]), "3/3/0/3/1");
    assert_eq!(told(&surge, &nodes, &["a old ok", "a new ok", "b old ok", "c old ok"]), "+b -p0 3/3/0/3/1");
    let by_hand = set(json!({"updateStrategy": {"type": "OnDelete"}}));
    assert_eq!(told(&by_hand, &nodes, &["a old ok", "b old ok", "c old ok"]), "3/3/0/3/0");
}

#[test]
fn a_pod_is_meant_for_its_node() {
    let mut own = set(json!({}));
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchExpressions": [{"key": "b", "operator": "Exists"}]}]}}});
    own.spec.as_mut().unwrap().template.spec.as_mut().unwrap().affinity = Some(object(affinity));
    let pod = placement::pod_for(&own, "n1", "hash");
    assert_eq!(placement::target(&pod), "n1");
    let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
    let terms =
        &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    for term in terms.as_array().unwrap() {
        assert_eq!(term["matchFields"], json!([{"key": "metadata.name", "operator": "In", "values": ["n1"]}]));
        assert!(term["matchExpressions"].is_array());
    }
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 6, "its network is the node's only where it says so");
}

#[tokio::test]
async fn pods_follow_nodes_and_revisions_follow_templates() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    for node_name in ["a", "b"] {
        client.create(&*node(node_name, json!([]))).await.unwrap();
    }
    client.create(&set(json!({"revisionHistoryLimit": 1}))).await.unwrap();
    let pods = async || client.list::<Pod>(None, &Default::default()).await.unwrap().items;
    let targets = async || {
        let mut targets: Vec<String> = pods().await.iter().map(|pod| placement::target(pod).to_owned()).collect();
        targets.sort();
        targets
    };
    eventually(async || targets().await == ["a", "b"]).await;
    client.create(&*node("c", json!([]))).await.unwrap();
    eventually(async || targets().await == ["a", "b", "c"]).await;
    let first = pods().await[0].metadata.labels.clone().unwrap()[HASH_LABEL].clone();
    for image in ["2", "3", "4"] {
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        client.patch::<DaemonSet>("x", "d", None, skiff_api::request::ContentType::MergePatch, &patch).await.unwrap();
        // Nothing here is ever available, so that all may be replaced at once.
        eventually(async || {
            let pods = pods().await;
            let images = pods.iter().map(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref());
            pods.len() == 3 && images.into_iter().all(|known| known == Some(image))
        })
        .await;
    }
    assert_ne!(pods().await[0].metadata.labels.clone().unwrap()[HASH_LABEL], first);
    eventually(async || {
        let revisions = client.list::<ControllerRevision>(None, &Default::default()).await.unwrap().items;
        let numbers: Vec<i64> = revisions.iter().map(|revision| revision.revision).collect();
        numbers.iter().max() == Some(&4) && numbers.len() <= 2
    })
    .await;
    eventually(async || {
        let set: DaemonSet = client.get("x", "d").await.unwrap();
        let status = set.status.unwrap();
        (status.desired_number_scheduled, status.updated_number_scheduled) == (3, Some(3))
    })
    .await;
}
