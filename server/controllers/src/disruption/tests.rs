#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use super::*;
use crate::testing::{Running, eventually, object};

fn budget(spec: Value, disrupted: Value) -> PodDisruptionBudget {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    object(json!({"metadata": {"name": "b", "namespace": "x", "generation": 3}, "spec": spec,
        "status": {"disruptedPods": disrupted}}))
}

fn pod(pod_name: &str, ready: bool, going: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    let mut pod: Pod = object(json!({
        "metadata": {"name": pod_name, "namespace": "x", "uid": pod_name, "labels": {"app": "web"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set", "controller": true}]},
        "spec": {"containers": []}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
    }));
    pod.metadata.deletion_timestamp = going.then(|| object(json!("2026-01-01T00:00:00Z")));
    Arc::new(pod)
}

/// Allowed, healthy, desired and expected.
fn counts(spec: Value, scale: i32, pods: &[Arc<Pod>], disrupted: Value) -> [i32; 4] {
    let status = decide(&budget(spec, disrupted), pods, Ok(scale), "2026-01-01T00:01:00Z".parse().unwrap()).status;
    [status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods]
        .map(Option::unwrap)
}

#[test]
fn how_many_may_go() {
    let three = [pod("a", true, false), pod("b", true, false), pod("c", true, false)];
    let two = [pod("a", true, false), pod("b", true, false), pod("c", false, false)];
    let none = json!({});
    assert_eq!(counts(json!({"minAvailable": 2}), 0, &three, none.clone()), [1, 3, 2, 3]);
    assert_eq!(counts(json!({"minAvailable": "50%"}), 5, &three, none.clone()), [0, 3, 3, 5]);
    assert_eq!(counts(json!({"maxUnavailable": 1}), 3, &three, none.clone()), [1, 3, 2, 3]);
    assert_eq!(counts(json!({"maxUnavailable": 1}), 3, &two, none.clone()), [0, 2, 2, 3]);
    assert_eq!(
        counts(json!({"maxUnavailable": "30%"}), 4, &three, none.clone()),
        [1, 3, 2, 4],
        "a share is rounded up"
    );
    assert_eq!(counts(json!({"minAvailable": 0}), 0, &[], none.clone()), [0, 0, 0, 0], "of nothing nothing may go");
    let going = [pod("a", true, true), pod("b", true, false), pod("c", true, false)];
    assert_eq!(counts(json!({"minAvailable": 1}), 0, &going, none), [1, 2, 1, 3]);
    let granted = json!({"a": "2026-01-01T00:00:30Z", "gone": "2026-01-01T00:00:30Z"});
    assert_eq!(
        counts(json!({"minAvailable": 1}), 0, &three, granted),
        [1, 2, 1, 3],
        "a granted eviction counts as gone"
    );
    let forgotten = json!({"a": "2025-12-31T23:00:00Z"});
    assert_eq!(counts(json!({"minAvailable": 1}), 0, &three, forgotten), [2, 3, 1, 3]);
}

#[test]
fn a_budget_that_cannot_be_computed_allows_nothing() {
    let plan =
        decide(&budget(json!({"maxUnavailable": 1}), json!({})), &[], Err("no".to_owned()), Timestamp::UNIX_EPOCH);
    assert_eq!(plan.status.disruptions_allowed, Some(0));
    assert_eq!(plan.status.conditions.unwrap()[0].reason, "SyncFailed");
}

#[tokio::test]
async fn the_status_follows_the_pods_and_their_set() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    let set: StatefulSet = object(json!({"metadata": {"name": "web", "namespace": "x"},
        "spec": {"replicas": 3, "serviceName": "", "selector": {}, "template": {}}}));
    client.create(&set).await.unwrap();
    cluster.informers.of::<StatefulSet>().synced().await;
    eventually(async || cluster.informers.of::<StatefulSet>().len() == 1).await;
    let mut new = budget(json!({"maxUnavailable": 1}), json!({}));
    new.status = None;
    client.create(&new).await.unwrap();
    for pod_name in ["a", "b", "c"] {
        client.create(&*pod(pod_name, true, false)).await.unwrap();
    }
    let allowed = async || {
        let budget: PodDisruptionBudget = client.get("x", "b").await.unwrap();
        budget.status.and_then(|status| status.disruptions_allowed)
    };
    eventually(async || allowed().await == Some(1)).await;
    cluster.api.remove(&skiff_client::client::resource_of::<Pod>(), "x", "a");
    eventually(async || allowed().await == Some(0)).await;
}
