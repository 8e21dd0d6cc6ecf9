#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};

use super::*;
use crate::testing::{Running, eventually, object};

#[test]
fn the_finalizer_stays_while_the_object_is_in_use() {
    let cases = [
        (false, false, false, Step::Add),
        (false, true, false, Step::Keep),
        (true, true, true, Step::Keep),
        (true, true, false, Step::Remove),
        (true, false, false, Step::Keep),
    ];
    for (deleting, has, used, expected) in cases {
        let metadata = ObjectMeta {
            deletion_timestamp: deleting.then(|| object(json!("2026-01-01T00:00:00Z"))),
            finalizers: has.then(|| vec![CLAIM_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        };
        assert_eq!(decide(&metadata, CLAIM_FINALIZER, || used), expected, "{deleting} {has} {used}");
    }
}

fn pod(name: &str, node: &str, volumes: Value) -> Pod {
    object(json!({"metadata": {"name": name, "namespace": "x"},
        "spec": {"nodeName": node, "containers": [], "volumes": volumes}}))
}

#[tokio::test]
async fn a_claim_goes_after_the_last_pod_that_uses_it() {
    let cluster = Running::start(run_claims);
    let client = &cluster.client;
    for name in ["data", "p-scratch", "free"] {
        let claim: PersistentVolumeClaim = object(json!({"metadata": {"name": name, "namespace": "x"}}));
        client.create(&claim).await.unwrap();
    }
    let volumes = json!([{"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "ephemeral": {}}]);
    client.create(&pod("p", "n", volumes)).await.unwrap();
    client
        .create(&pod("waits", "", json!([{"name": "a", "persistentVolumeClaim": {"claimName": "free"}}])))
        .await
        .unwrap();
    let claims = async || client.list::<PersistentVolumeClaim>(None, &Default::default()).await.unwrap().items;
    eventually(async || claims().await.iter().all(|claim| claim.metadata.finalizers.is_some())).await;
    for name in ["data", "p-scratch", "free"] {
        client.delete::<PersistentVolumeClaim>("x", name, &Default::default()).await.unwrap();
    }
    let names =
        async || -> Vec<String> { claims().await.into_iter().map(|claim| claim.metadata.name.unwrap()).collect() };
    eventually(async || names().await == ["data", "p-scratch"]).await;
    cluster.api.remove(&skiff_client::client::resource_of::<Pod>(), "x", "p");
    eventually(async || names().await.is_empty()).await;
}

#[tokio::test]
async fn a_volume_goes_when_it_is_bound_no_more() {
    let cluster = Running::start(run_volumes);
    let client = &cluster.client;
    let volume: PersistentVolume = object(json!({"metadata": {"name": "v"}, "spec": {}, "status": {"phase": "Bound"}}));
    client.create(&volume).await.unwrap();
    let get = async || client.get::<PersistentVolume>("", "v").await;
    eventually(async || get().await.unwrap().metadata.finalizers.is_some()).await;
    client.delete::<PersistentVolume>("", "v", &Default::default()).await.unwrap();
    let form = skiff_api::request::ContentType::MergePatch;
    let labels = json!({"metadata": {"labels": {"seen": "yes"}}});
    client.patch::<PersistentVolume>("", "v", None, form, &labels).await.unwrap();
    assert!(get().await.is_ok(), "it is bound");
    let released = json!({"status": {"phase": "Released"}});
    client.patch::<PersistentVolume>("", "v", Some("status"), form, &released).await.unwrap();
    eventually(async || get().await.is_err()).await;
}
