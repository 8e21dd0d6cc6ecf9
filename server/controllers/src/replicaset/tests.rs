#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use skiff_api::request::{ContentType, GroupVersionResource};
use skiff_client::Client;

use super::*;
use crate::{
    meta::name,
    testing::{Running, eventually, object},
};

fn set(name: &str, replicas: i32) -> ReplicaSet {
    object(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c"}]}},
        },
    }))
}

async fn pods(client: &Client) -> Vec<Pod> {
    client.list::<Pod>(None, &Default::default()).await.unwrap().items
}

async fn scale(client: &Client, name: &str, replicas: i32) {
    let patch = json!({"spec": {"replicas": replicas}});
    client.patch::<ReplicaSet>("default", name, None, ContentType::MergePatch, &patch).await.unwrap();
}

#[tokio::test]
async fn as_many_pods_as_asked_for() {
    let cluster = Running::start(run);
    cluster.client.create(&set("web", 20)).await.unwrap();
    eventually(async || pods(&cluster.client).await.len() == 20).await;
    scale(&cluster.client, "web", 3).await;
    eventually(async || pods(&cluster.client).await.len() == 3).await;
    eventually(async || {
        let set: ReplicaSet = cluster.client.get("default", "web").await.unwrap();
        set.status.is_some_and(|status| status.replicas == 3 && status.observed_generation == set.metadata.generation)
    })
    .await;
    let pod = &pods(&cluster.client).await[0];
    assert_eq!(controller_of(&pod.metadata).unwrap().name, "web");
}

/// The watch says nothing of the new pods while the set is looked at again and again.
#[tokio::test]
async fn a_stale_informer_never_makes_a_pod_too_many() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    let informers = &cluster.informers;
    informers.of::<ReplicaSet>().synced().await;
    client.create(&set("web", 0)).await.unwrap();
    eventually(async || informers.of::<ReplicaSet>().get("default", "web").is_some_and(|set| set.status.is_some()))
        .await;
    cluster.api.hold_watches();
    // The set's new size reaches the informer, nothing else does.
    scale(client, "web", 20).await;
    let scaled: ReplicaSet = client.get("default", "web").await.unwrap();
    informers.of::<ReplicaSet>().observe(scaled);
    eventually(async || pods(client).await.len() == 20).await;
    // Anything that makes the set be looked at: its own status writes, a label.
    for n in 0..10 {
        let patch = json!({"metadata": {"labels": {"n": n.to_string()}}});
        let set = client.patch::<ReplicaSet>("default", "web", None, ContentType::MergePatch, &patch).await.unwrap();
        informers.of::<ReplicaSet>().observe(set);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(pods(client).await.len(), 20);
    }
    cluster.api.release_watches();
    scale(client, "web", 21).await;
    eventually(async || pods(client).await.len() == 21).await;
    let created = cluster.api.take_requests().iter().filter(|r| is_creation(r)).count();
    assert_eq!(created, 21, "no pod was made that had to be deleted again");
}

#[tokio::test]
async fn a_stale_informer_never_deletes_a_pod_too_many() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    client.create(&set("web", 10)).await.unwrap();
    eventually(async || cluster.informers.of::<Pod>().len() == 10 && pods(client).await.len() == 10).await;
    cluster.api.hold_watches();
    scale(client, "web", 7).await;
    cluster.informers.of::<ReplicaSet>().observe(client.get("default", "web").await.unwrap());
    eventually(async || pods(client).await.len() == 7).await;
    for n in 0..10 {
        let patch = json!({"metadata": {"labels": {"n": n.to_string()}}});
        let set = client.patch::<ReplicaSet>("default", "web", None, ContentType::MergePatch, &patch).await.unwrap();
        cluster.informers.of::<ReplicaSet>().observe(set);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(pods(client).await.len(), 7);
    }
}

fn is_creation(request: &skiff_api::request::Request) -> bool {
    request.verb == skiff_api::request::Verb::Create && request.resource == GroupVersionResource::new("", "v1", "pods")
}

#[tokio::test]
async fn orphans_that_match_are_taken_on_and_failed_pods_are_replaced() {
    let cluster = Running::start(run);
    let orphan: Pod = object(json!({
        "metadata": {"name": "orphan", "namespace": "default", "labels": {"app": "web"}}, "spec": {"containers": []},
    }));
    cluster.client.create(&orphan).await.unwrap();
    eventually(async || cluster.informers.of::<Pod>().len() == 1).await;
    cluster.client.create(&set("web", 2)).await.unwrap();
    eventually(async || {
        pods(&cluster.client).await.iter().filter(|p| controller_of(&p.metadata).is_some()).count() == 2
    })
    .await;
    assert_eq!(pods(&cluster.client).await.len(), 2);
    let failed: Value = json!({"status": {"phase": "Failed"}});
    cluster.client.patch::<Pod>("default", "orphan", Some("status"), ContentType::MergePatch, &failed).await.unwrap();
    eventually(async || pods(&cluster.client).await.len() == 3).await;
}

#[test]
fn pods_that_cost_least_go_first() {
    let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let pod = |name: &str, extra: Value| -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
        });
        for (path, value) in extra.as_object().unwrap() {
            *pod.pointer_mut(path).unwrap() = value.clone();
        }
        Arc::new(object(pod))
    };
    let cheap = json!({"name": "cheap", "uid": "cheap", "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}});
    let mut pods = vec![
        pod("plain", json!({})),
        pod("cheap", json!({"/metadata": cheap})),
        pod("crowded", json!({"/spec/nodeName": "n2"})),
        pod("young", json!({"/status/conditions/0/lastTransitionTime": "2026-01-01T23:59:59Z"})),
        pod("unready", json!({"/status/conditions/0/status": "False"})),
        pod("pending", json!({"/status/phase": "Pending"})),
        pod("unbound", json!({"/spec/nodeName": ""})),
    ];
    let mut related = pods.clone();
    related.extend((0..9).map(|n| pod(&format!("other{n}"), json!({"/spec/nodeName": "n2"}))));
    rank::sort_for_deletion(&mut pods, &related, now);
    let names: Vec<_> = pods.iter().map(|pod| name(&pod.metadata)).collect();
    assert_eq!(names, ["unbound", "pending", "unready", "cheap", "crowded", "young", "plain"]);
}
