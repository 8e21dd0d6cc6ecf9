#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Event, Pod},
};
use serde_json::json;
use skiff_client::Client;

use super::*;
use crate::testing::{Running, eventually, object};

/// A Deployment, its ReplicaSet, and two pods of that.
async fn family(client: &Client) {
    let spec = json!({"selector": {}, "template": {}});
    let web: Deployment = object(json!({"metadata": {"name": "web", "namespace": "x"}, "spec": spec}));
    let web = client.create(&web).await.unwrap();
    let owners = json!([crate::meta::controller_reference(&web)]);
    let set: ReplicaSet =
        object(json!({"metadata": {"name": "web-1", "namespace": "x", "ownerReferences": owners}, "spec": spec}));
    let set = client.create(&set).await.unwrap();
    let owners = json!([crate::meta::controller_reference(&set)]);
    for name in ["a", "b"] {
        let pod: Pod = object(
            json!({"metadata": {"name": name, "namespace": "x", "ownerReferences": owners}, "spec": {"containers": []}}),
        );
        client.create(&pod).await.unwrap();
    }
}

async fn count(client: &Client) -> (usize, usize, usize) {
    let all = Default::default();
    let deployments = client.list::<Deployment>(None, &all).await.unwrap().items.len();
    let sets = client.list::<ReplicaSet>(None, &all).await.unwrap().items.len();
    (deployments, sets, client.list::<Pod>(None, &all).await.unwrap().items.len())
}

async fn delete(policy: &str, expected: (usize, usize, usize)) -> Running {
    let cluster = Running::start(run);
    family(&cluster.client).await;
    let options = DeleteOptions { propagation_policy: Some(policy.to_owned()), ..DeleteOptions::default() };
    cluster.client.delete::<Deployment>("x", "web", &options).await.unwrap();
    eventually(async || count(&cluster.client).await == expected).await;
    cluster
}

#[tokio::test]
async fn what_is_owned_goes_in_the_background() {
    delete("Background", (0, 0, 0)).await;
}

#[tokio::test]
async fn what_is_owned_goes_first_in_the_foreground() {
    delete("Foreground", (0, 0, 0)).await;
}

#[tokio::test]
async fn what_is_orphaned_stays_without_an_owner() {
    let cluster = delete("Orphan", (0, 1, 2)).await;
    let set: ReplicaSet = cluster.client.get("x", "web-1").await.unwrap();
    assert!(set.metadata.owner_references.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn an_object_whose_owner_was_never_there_goes_and_one_with_a_living_owner_stays() {
    let cluster = Running::start(run);
    family(&cluster.client).await;
    let set: ReplicaSet = cluster.client.get("x", "web-1").await.unwrap();
    let mut gone = crate::meta::controller_reference(&set);
    gone.uid = "another".to_owned();
    for (name, owners) in [("lost", json!([gone])), ("kept", json!([gone, crate::meta::controller_reference(&set)]))] {
        let pod: Pod = object(
            json!({"metadata": {"name": name, "namespace": "x", "ownerReferences": owners}, "spec": {"containers": []}}),
        );
        cluster.client.create(&pod).await.unwrap();
    }
    eventually(async || {
        let lost = cluster.client.get::<Pod>("x", "lost").await;
        let kept: Pod = cluster.client.get("x", "kept").await.unwrap();
        lost.is_err() && kept.metadata.owner_references.unwrap_or_default().len() == 1
    })
    .await;
    assert_eq!(count(&cluster.client).await, (1, 1, 3));
}

/// Two pods, each the owner of the other.
async fn circle(client: &Client) {
    let pod = |name: &str, owners: serde_json::Value| -> Pod {
        object(
            json!({"metadata": {"name": name, "namespace": "x", "ownerReferences": owners}, "spec": {"containers": []}}),
        )
    };
    let a = client.create(&pod("a", json!([]))).await.unwrap();
    let b = client.create(&pod("b", json!([crate::meta::controller_reference(&a)]))).await.unwrap();
    let patch = json!({"metadata": {"ownerReferences": [crate::meta::controller_reference(&b)]}});
    client.patch::<Pod>("x", "a", None, ContentType::MergePatch, &patch).await.unwrap();
}

#[tokio::test]
async fn objects_that_own_each_other_go_together_in_the_foreground_too() {
    for policy in ["Foreground", "Background"] {
        let cluster = Running::start(run);
        circle(&cluster.client).await;
        let options = DeleteOptions { propagation_policy: Some(policy.to_owned()), ..DeleteOptions::default() };
        cluster.client.delete::<Pod>("x", "a", &options).await.unwrap();
        eventually(async || count(&cluster.client).await == (0, 0, 0)).await;
    }
}

#[tokio::test]
async fn an_owner_in_another_namespace_is_none() {
    let cluster = Running::start(run);
    family(&cluster.client).await;
    let set: ReplicaSet = cluster.client.get("x", "web-1").await.unwrap();
    let owners = json!([crate::meta::controller_reference(&set)]);
    let pod: Pod = object(
        json!({"metadata": {"name": "far", "namespace": "y", "ownerReferences": owners}, "spec": {"containers": []}}),
    );
    cluster.client.create(&pod).await.unwrap();
    eventually(async || cluster.client.get::<Pod>("y", "far").await.is_err()).await;
    assert_eq!(count(&cluster.client).await, (1, 1, 2));
    eventually(async || {
        let events = cluster.client.list::<Event>(None, &Default::default()).await.unwrap().items;
        events.iter().any(|event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace"))
    })
    .await;
}

/// From now on the collector is told nothing of a kind. It has listed the kind before: an object without its owner is
/// gone.
async fn silence<K: skiff_client::Kind>(cluster: &Running, resource: &str, spec: Value) {
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "none", "uid": "none"});
    let metadata = json!({"name": "probe", "namespace": "x", "ownerReferences": [owner]});
    cluster.client.create::<K>(&object(json!({"metadata": metadata, "spec": spec}))).await.unwrap();
    eventually(async || cluster.client.get::<K>("x", "probe").await.is_err()).await;
    cluster.api.silence(resource);
}

/// What leaves its dependents leaves those too that the collector has not been told of yet.
#[tokio::test]
async fn an_owner_leaves_dependents_that_the_graph_does_not_know() {
    let cluster = Running::start(run);
    silence::<Pod>(&cluster, "pods", json!({"containers": []})).await;
    family(&cluster.client).await;
    let options = DeleteOptions { propagation_policy: Some("Orphan".to_owned()), ..DeleteOptions::default() };
    cluster.client.delete::<ReplicaSet>("x", "web-1", &options).await.unwrap();
    eventually(async || cluster.client.get::<ReplicaSet>("x", "web-1").await.is_err()).await;
    let pods = cluster.client.list::<Pod>(None, &Default::default()).await.unwrap().items;
    assert!(pods.iter().all(|pod| pod.metadata.owner_references.iter().flatten().next().is_none()), "{pods:?}");
    assert_eq!(pods.len(), 2);
}

/// What goes after its dependents goes after those too that the collector has not been told of yet.
#[tokio::test]
async fn an_owner_waits_for_dependents_that_the_graph_does_not_know() {
    let cluster = Running::start(run);
    silence::<Pod>(&cluster, "pods", json!({"containers": []})).await;
    family(&cluster.client).await;
    let lists = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lists);
    cluster.api.fail_when(move |request| {
        let is_one = request.verb == Verb::List && request.resource.resource == "pods" && request.namespace.is_some();
        counted.fetch_add(usize::from(is_one), Relaxed);
        None
    });
    let options = DeleteOptions { propagation_policy: Some("Foreground".to_owned()), ..DeleteOptions::default() };
    cluster.client.delete::<ReplicaSet>("x", "web-1", &options).await.unwrap();
    // The server was asked for its pods, more than once.
    eventually(async || lists.load(Relaxed) >= 2).await;
    assert_eq!(count(&cluster.client).await, (1, 1, 2), "it is there as long as its dependents");
    cluster.api.release_watches();
    eventually(async || count(&cluster.client).await == (1, 0, 0)).await;
}

/// An owner that has come and gone before the collector was told of it is missed all the same.
#[tokio::test]
async fn what_the_graph_never_knew_is_missed_too() {
    let cluster = Running::start(run);
    silence::<ReplicaSet>(&cluster, "replicasets", json!({"selector": {}, "template": {}})).await;
    family(&cluster.client).await;
    // The pods have been looked at: their owner was there.
    eventually(async || {
        let asks = |request: &Request| request.verb == Verb::Get && request.name.as_deref() == Some("web-1");
        cluster.api.take_requests().iter().any(asks)
    })
    .await;
    let sets = skiff_api::request::GroupVersionResource::new("apps", "v1", "replicasets");
    cluster.api.remove(&sets, "x", "web-1");
    // Its watch is too old for what happened: it is listed anew, without it.
    cluster.api.compact();
    cluster.api.release_watches();
    eventually(async || count(&cluster.client).await == (1, 0, 0)).await;
}
