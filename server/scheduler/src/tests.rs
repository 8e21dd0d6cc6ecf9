#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use skiff_client::{Client, Informers, fake::FakeApi};
use tokio_util::sync::CancellationToken;

use super::{
    decide::{World, schedule},
    snapshot::{PodInfo, Snapshot},
    volumes::tests::NOTHING,
};

const WORLD: World<'static> = World { namespaces: &|_| None, storage: &NOTHING };

fn node(name: &str, change: Value) -> Arc<Node> {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    merge(&mut node, &change);
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, change: Value) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
    });
    merge(&mut pod, &change);
    serde_json::from_value(pod).unwrap()
}

fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            change.iter().for_each(|(name, value)| merge(target.entry(name).or_insert(Value::Null), value));
        }
        (target, change) => *target = change.clone(),
    }
}

fn info(pod: Pod) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn outcome(nodes: &[Arc<Node>], there: &[(Pod, &str)], new: Pod) -> String {
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|node| snapshot.set_node(node));
    there.iter().for_each(|(pod, node)| snapshot.add_pod(info(pod.clone()), node));
    match schedule(&info(new), &snapshot, WORLD, 0) {
        Ok(choice) => choice.node,
        Err(why) => why.to_string(),
    }
}

#[test]
fn rules_of_one_node() {
    let plain = || vec![node("a", json!({})), node("b", json!({}))];
    let cpu =
        |amount: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]}});
    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
    let tolerates = json!({"spec": {"tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]}});
    let in_zone = |operator: &str| {
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": operator, "values": ["x"]}]}]}}}}})
    };
    let zoned = || vec![node("a", json!({"metadata": {"labels": {"zone": "x"}}})), node("b", json!({}))];
    let cases = [
        (plain(), json!({"spec": {"nodeName": "b"}}), "b"),
        (plain(), cpu("5"), "0/2 nodes are available: 2 Insufficient cpu."),
        (vec![], json!({}), "no nodes available to schedule pods"),
        (
            vec![node("a", json!({"spec": {"unschedulable": true}}))],
            json!({}),
            "0/1 nodes are available: 1 node(s) were unschedulable.",
        ),
        (
            vec![node("a", taint("NoSchedule"))],
            json!({}),
            "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
        ),
        (vec![node("a", taint("NoExecute"))], tolerates, "a"),
        (vec![node("a", taint("PreferNoSchedule")), node("b", json!({}))], json!({}), "b"),
        (zoned(), json!({"spec": {"nodeSelector": {"zone": "x"}}}), "a"),
        (zoned(), in_zone("In"), "a"),
        (zoned(), in_zone("NotIn"), "b"),
        (
            vec![node("a", json!({"status": {"allocatable": {"pods": "0"}}}))],
            json!({}),
            "0/1 nodes are available: 1 Too many pods.",
        ),
        (plain(), port, "a"),
    ];
    for (n, (nodes, change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(outcome(&nodes, &[], pod("new", change)), expected, "case {n}");
    }
}

#[test]
fn reasons_are_counted_node_by_node() {
    let nodes = [
        node("a", json!({"status": {"allocatable": {"cpu": "500m"}}})),
        node("b", json!({"status": {"allocatable": {"cpu": "500m", "memory": "1Mi"}}})),
        node("c", json!({"spec": {"unschedulable": true}})),
    ];
    let said = outcome(&nodes, &[], pod("new", json!({})));
    assert_eq!(
        said,
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
    );
}

#[test]
fn other_pods_count() {
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let term = json!([{"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let against = json!({"spec": {"affinity": {"podAntiAffinity": {required: term}}}});
    let with = json!({"spec": {"affinity": {"podAffinity": {required: term}}}});
    let there = |change: &Value| [(pod("old", change.clone()), "a")];
    let none = json!({});
    assert_eq!(outcome(&nodes, &there(&none), pod("new", none.clone())), "b", "the emptier node");
    assert_eq!(outcome(&nodes, &there(&none), pod("new", against.clone())), "b");
    assert_eq!(outcome(&nodes, &there(&none), pod("new", with.clone())), "a");
    assert_eq!(outcome(&nodes, &[], pod("new", with.clone())), "a", "the first of a group may go anywhere");
    assert_eq!(
        outcome(&nodes[..1], &there(&against), pod("new", none.clone())),
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
    );
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    assert_eq!(outcome(&nodes, &there(&none), pod("new", spread)), "b");
    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    assert_eq!(outcome(&nodes, &there(&port), pod("new", port.clone())), "b");
}

#[test]
fn what_a_pod_asks_for() {
    let container = |cpu: &str, policy: Value| json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
    let cases = [
        (json!({"containers": [container("1", Value::Null), container("2", Value::Null)]}), 3000),
        (json!({"containers": [container("1", Value::Null)], "initContainers": [container("5", Value::Null)]}), 5000),
        (
            json!({"containers": [container("1", Value::Null)],
            "initContainers": [container("2", json!("Always")), container("5", Value::Null)]}),
            7000,
        ),
        (
            json!({"containers": [container("1", Value::Null)], "initContainers": [container("2", json!("Always"))],
            "overhead": {"cpu": "100m"}}),
            3100,
        ),
        (json!({"containers": [container("1", Value::Null)], "resources": {"requests": {"cpu": "2"}}}), 2000),
    ];
    for (spec, expected) in cases {
        let spec = serde_json::from_value(spec).unwrap();
        assert_eq!(super::resources::PodRequests::of(&spec).exact.milli_cpu, expected);
    }
}

#[test]
fn a_thousand_pods_fill_a_hundred_nodes_evenly() {
    let mut snapshot = Snapshot::default();
    let big = json!({"status": {"allocatable": {"cpu": "64", "memory": "256Gi"}}});
    (0..100).for_each(|n| snapshot.set_node(&node(&format!("n{n}"), big.clone())));
    for n in 0..1000 {
        let pod = info(pod(&format!("p{n}"), json!({})));
        let choice = schedule(&pod, &snapshot, WORLD, n).unwrap();
        snapshot.add_pod(pod, &choice.node);
    }
    assert!(snapshot.nodes().all(|node| node.pods.len() == 10));
}

struct Running {
    api: Arc<FakeApi>,
    client: Client,
    _stop: tokio_util::sync::DropGuard,
}

fn start() -> Running {
    let (api, cancel) = (FakeApi::new(), CancellationToken::new());
    let informers = Informers::new(api.client(), cancel.clone());
    tokio::spawn(super::run(api.client(), informers, super::Config::default(), cancel.clone()));
    Running { client: api.client(), api, _stop: cancel.drop_guard() }
}

async fn eventually(condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "it did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn node_of(client: &Client, name: &str) -> String {
    let pod: Pod = client.get("default", name).await.unwrap();
    pod.spec.unwrap().node_name.unwrap_or_default()
}

#[tokio::test]
async fn a_pod_waits_for_room_and_says_so() {
    let cluster = start();
    cluster.client.create(&*node("small", json!({"status": {"allocatable": {"cpu": "1"}}}))).await.unwrap();
    for name in ["a", "b"] {
        cluster.client.create(&pod(name, json!({}))).await.unwrap();
    }
    eventually(async || node_of(&cluster.client, "a").await == "small").await;
    eventually(async || {
        let waiting: Pod = cluster.client.get("default", "b").await.unwrap();
        let conditions = waiting.status.and_then(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|condition| {
            condition.message.as_deref() == Some("0/1 nodes are available: 1 Insufficient cpu.")
                && condition.reason.as_deref() == Some("Unschedulable")
        })
    })
    .await;
    cluster.client.create(&*node("new", json!({}))).await.unwrap();
    eventually(async || node_of(&cluster.client, "b").await == "new").await;
}

#[tokio::test]
async fn a_binding_that_fails_is_tried_again() {
    let cluster = start();
    cluster.api.fail_when(|request| {
        let is_binding = request.subresource.as_deref() == Some("binding");
        is_binding.then(|| skiff_api::status::ApiError::internal("not now"))
    });
    cluster.client.create(&*node("a", json!({}))).await.unwrap();
    cluster.client.create(&pod("p", json!({}))).await.unwrap();
    eventually(async || {
        cluster.api.take_requests().iter().any(|request| request.subresource.as_deref() == Some("binding"))
    })
    .await;
    assert_eq!(node_of(&cluster.client, "p").await, "");
    cluster.api.heal();
    eventually(async || node_of(&cluster.client, "p").await == "a").await;
}
