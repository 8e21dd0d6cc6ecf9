#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};
use skiff_api::request::ContentType;

use super::*;
use crate::{
    meta::{is_ready, uid},
    testing::{Running, eventually, object},
};

fn set(extra: Value) -> StatefulSet {
    let mut spec = json!({"replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "w"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "1"}]}}});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    object(json!({"metadata": {"name": "w", "namespace": "x", "uid": "set", "generation": 1}, "spec": spec,
        "status": {"replicas": 0, "currentRevision": "old", "currentReplicas": 3}}))
}

/// A pod by `ORDINAL REVISION STATE`, its state `ok`, `unready`, `going` or `failed`.
fn pod(text: &str) -> Arc<Pod> {
    let [ordinal, revision, state] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let phase = if state == "failed" { "Failed" } else { "Running" };
    let ready = if state == "ok" { "True" } else { "False" };
    let mut pod: Pod = object(json!({
        "metadata": {"name": format!("w-{ordinal}"), "namespace": "x", "uid": ordinal,
            "labels": {"app": "w", "controller-revision-hash": revision}},
        "spec": {"containers": []}, "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }));
    pod.metadata.deletion_timestamp = (state == "going").then(|| object(json!("2026-01-01T00:00:00Z")));
    Arc::new(pod)
}

/// What is made (`+ORDINAL`, with `!` by the current revision) and deleted (`-POD`), then all/ready/current/updated.
fn told(set: &StatefulSet, pods: &[&str]) -> String {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let view = View { set, pods: &pods, is_doomed: &|_| false, update: "new", current: "old", collisions: None };
    let plan = decide(&view, "2026-01-01T01:00:00Z".parse().unwrap());
    let status = &plan.status;
    let mut parts: Vec<String> =
        plan.create.iter().map(|(ordinal, current)| format!("+{ordinal}{}", if *current { "!" } else { "" })).collect();
    parts.extend(plan.delete.iter().map(|pod| format!("-{}", name(&pod.metadata))));
    let counts = [Some(status.replicas), status.ready_replicas, status.current_replicas, status.updated_replicas];
    parts.push(counts.map(|count| count.unwrap().to_string()).join("/"));
    parts.join(" ")
}

#[test]
fn pods_come_and_go_in_order() {
    let all = set(json!({}));
    let cases: &[(&[&str], &str)] = &[
        (&[], "+0 0/0/0/0"),
        (&["0 new unready"], "1/0/0/1"),
        (&["0 new ok"], "+1 1/1/0/1"),
        (&["0 new ok", "1 new ok", "2 new ok"], "3/3/3/3"),
        (&["0 new ok", "2 new ok"], "+1 2/2/0/2"),
        (&["0 new going", "2 new ok"], "2/1/0/1"),
        (&["0 new failed", "1 new ok", "2 new ok"], "-w-0 3/2/0/2"),
        (&["0 new ok", "1 new ok", "2 new ok", "3 new ok", "4 new ok"], "-w-4 5/5/0/5"),
        (&["0 new ok", "1 new ok", "2 new ok", "3 new ok", "4 new going"], "5/4/0/4"),
        (&["0 new ok", "1 new ok", "2 new ok", "3 new unready", "4 new ok"], "-w-4 5/4/0/5"),
        (&["0 new ok", "1 new unready", "2 new ok", "3 new ok"], "4/3/0/4"),
    ];
    for (pods, expected) in cases {
        assert_eq!(told(&all, pods), *expected, "{pods:?}");
    }
}

#[test]
fn all_at_once_where_order_is_no_matter() {
    let all = set(json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(told(&all, &[]), "+0 +1 +2 0/0/0/0");
    assert_eq!(told(&all, &["1 new unready", "3 new ok", "4 new unready"]), "+0 +2 -w-4 -w-3 3/1/0/3");
    let from_five = set(json!({"ordinals": {"start": 5}, "replicas": 2, "podManagementPolicy": "Parallel"}));
    assert_eq!(told(&from_five, &["0 new ok"]), "+5 +6 -w-0 1/1/0/1");
}

#[test]
fn old_pods_are_replaced_from_above() {
    let all = set(json!({}));
    assert_eq!(told(&all, &["0 old ok", "1 old ok", "2 old ok"]), "-w-2 3/3/3/0");
    assert_eq!(told(&all, &["0 old ok", "1 old ok"]), "+2 2/2/2/0");
    assert_eq!(told(&all, &["0 old ok", "1 old ok", "2 new unready"]), "3/2/2/1");
    assert_eq!(told(&all, &["0 old ok", "1 old ok", "2 new ok"]), "-w-1 3/3/2/1");
    assert_eq!(told(&all, &["0 new ok", "1 new ok", "2 new ok"]), "3/3/3/3");
    let partition =
        |number: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}});
    assert_eq!(told(&set(partition(2)), &["0 old ok", "1 old ok", "2 new ok"]), "3/3/2/1");
    assert_eq!(told(&set(partition(2)), &["0 old ok", "2 new ok"]), "+1! 2/2/1/1");
    assert_eq!(
        told(&set(json!({"updateStrategy": {"type": "OnDelete"}})), &["0 old ok", "1 old ok", "2 old ok"]),
        "3/3/3/0"
    );
    let two = json!({"podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}});
    assert_eq!(told(&set(two.clone()), &["0 old ok", "1 old ok", "2 old ok"]), "-w-2 -w-1 3/3/3/0");
    assert_eq!(told(&set(two), &["0 old ok", "1 old ok", "2 new unready"]), "-w-1 3/2/2/1");
}

#[test]
fn names_and_claims() {
    let mut own = set(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}));
    own.spec.as_mut().unwrap().template.spec.as_mut().unwrap().volumes =
        Some(object(json!([{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}])));
    let revision: ControllerRevision = object(json!({"metadata": {"name": "w-hash"}, "revision": 1}));
    let made = serde_json::to_value(pod_for(&own, 2, &revision)).unwrap();
    assert_eq!((&made["metadata"]["name"], &made["spec"]["hostname"]), (&json!("w-2"), &json!("w-2")));
    assert_eq!(made["spec"]["subdomain"], "web");
    assert_eq!(made["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "w-2");
    assert_eq!(made["metadata"]["labels"]["controller-revision-hash"], "w-hash");
    assert_eq!(made["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-w-2");
    assert_eq!(made["spec"]["volumes"][1]["name"], "tmp");
    assert_eq!(made["spec"]["volumes"].as_array().unwrap().len(), 2);
    for (text, expected) in
        [("w-0", Some(0)), ("w-12", Some(12)), ("w-01", None), ("w-x", None), ("v-1", None), ("w-", None)]
    {
        let one: Pod = object(json!({"metadata": {"name": text}}));
        assert_eq!(ordinal_of(&own, &one), expected, "{text}");
    }
}

#[test]
fn claims_go_with_whom_the_policy_says() {
    let policy = |deleted: &str, scaled: &str| {
        set(json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}))
    };
    let claim = PersistentVolumeClaim::default();
    let pod = pod("3 new ok");
    let owner = |set: &StatefulSet, condemned| {
        let owners = claim_owners(set, &claim, Some(&pod), condemned).unwrap_or_default();
        owners.into_iter().map(|owner| owner.kind).collect::<Vec<_>>().join(",")
    };
    for (deleted, scaled, kept, condemned) in [
        ("Retain", "Retain", "", ""),
        ("Delete", "Retain", "StatefulSet", "StatefulSet"),
        ("Retain", "Delete", "", "Pod"),
        ("Delete", "Delete", "StatefulSet", "Pod"),
    ] {
        let set = policy(deleted, scaled);
        assert_eq!((owner(&set, false).as_str(), owner(&set, true).as_str()), (kept, condemned), "{deleted} {scaled}");
    }
}

/// A node that makes every pod ready, one after the other as they come.
async fn run_pods(cluster: &Running) {
    let pods = cluster.client.list::<Pod>(None, &Default::default()).await.unwrap().items;
    for pod in pods.iter().filter(|pod| !is_ready(pod)) {
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let _ = cluster
            .client
            .patch::<Pod>("x", name(&pod.metadata), Some("status"), ContentType::MergePatch, &status)
            .await;
    }
}

async fn pods(cluster: &Running) -> Vec<Pod> {
    cluster.client.list::<Pod>(None, &Default::default()).await.unwrap().items
}

async fn settles(cluster: &Running, image: &str, count: usize) {
    eventually(async || {
        run_pods(cluster).await;
        let pods = pods(cluster).await;
        let set: StatefulSet = cluster.client.get("x", "w").await.unwrap();
        let status = set.status.unwrap_or_default();
        pods.len() == count
            && pods
                .iter()
                .all(|pod| is_ready(pod) && pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image))
            && status.current_revision == status.update_revision
            && status.ready_replicas == i32::try_from(count).ok()
    })
    .await;
}

#[tokio::test]
async fn a_set_comes_up_in_order_rolls_and_shrinks() {
    let cluster = Running::start(run);
    let mut new = set(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}));
    new.status = None;
    cluster.client.create(&new).await.unwrap();
    eventually(async || pods(&cluster).await.len() == 1).await;
    assert_eq!(name(&pods(&cluster).await[0].metadata), "w-0", "the next waits until this is ready");
    settles(&cluster, "1", 3).await;
    let made: Vec<String> = cluster
        .api
        .take_requests()
        .into_iter()
        .filter(|request| request.verb == skiff_api::request::Verb::Create && request.resource.resource == "pods")
        .map(|request| {
            serde_json::from_slice::<Value>(&request.body).unwrap()["metadata"]["name"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(made, ["w-0", "w-1", "w-2"]);
    let claims = cluster.client.list::<PersistentVolumeClaim>(None, &Default::default()).await.unwrap().items;
    assert_eq!(claims.len(), 3);

    let before: Vec<String> = pods(&cluster).await.iter().map(|pod| uid(&pod.metadata).to_owned()).collect();
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "2"}]}}}});
    cluster.client.patch::<StatefulSet>("x", "w", None, ContentType::MergePatch, &patch).await.unwrap();
    settles(&cluster, "2", 3).await;
    assert!(pods(&cluster).await.iter().all(|pod| !before.contains(&uid(&pod.metadata).to_owned())));

    cluster
        .client
        .patch::<StatefulSet>("x", "w", None, ContentType::MergePatch, &json!({"spec": {"replicas": 1}}))
        .await
        .unwrap();
    settles(&cluster, "2", 1).await;
    assert_eq!(name(&pods(&cluster).await[0].metadata), "w-0");
}
