#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};
use skiff_client::Client;

use super::*;
use crate::testing::{Running, eventually, object};

fn deployment(name: &str, replicas: i32) -> Deployment {
    object(json!({
        "metadata": {"name": name, "namespace": "default", "annotations": {"who": "me"}},
        "spec": {
            "replicas": replicas, "revisionHistoryLimit": 1, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "1"}]}},
        },
    }))
}

async fn sets(client: &Client) -> Vec<ReplicaSet> {
    client.list::<ReplicaSet>(None, &Default::default()).await.unwrap().items
}

/// Gives every set the status that it would have if all its pods were ready at once.
async fn all_ready(client: &Client) {
    for mut set in sets(client).await {
        let size = size(&set);
        set.status = Some(object(json!({
            "replicas": size, "readyReplicas": size, "availableReplicas": size,
            "observedGeneration": set.metadata.generation,
        })));
        set.metadata.resource_version = None;
        client.update_status(&set).await.unwrap();
    }
}

async fn sizes_by_image(client: &Client) -> Vec<(String, i32)> {
    let image = |set: &ReplicaSet| {
        set.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.clone()
    };
    let mut all: Vec<_> = sets(client).await.iter().map(|set| (image(set).unwrap(), size(set))).collect();
    all.sort();
    all
}

async fn set_image(client: &Client, image: &str) {
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    client.patch::<Deployment>("default", "web", None, ContentType::MergePatch, &patch).await.unwrap();
}

async fn revision(client: &Client) -> String {
    let deployment: Deployment = client.get("default", "web").await.unwrap();
    deployment.metadata.annotations.unwrap_or_default().get(REVISION).cloned().unwrap_or_default()
}

async fn condition(client: &Client, kind: &str) -> (String, String) {
    let deployment: Deployment = client.get("default", "web").await.unwrap();
    let all = deployment.status.and_then(|status| status.conditions).unwrap_or_default();
    let found = all.into_iter().find(|condition| condition.type_ == kind);
    found.map(|condition| (condition.status, condition.reason.unwrap_or_default())).unwrap_or_default()
}

#[tokio::test]
async fn a_rollout_moves_pods_from_the_old_set_to_the_new() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    client.create(&deployment("web", 3)).await.unwrap();
    eventually(async || sizes_by_image(client).await == [("1".to_owned(), 3)]).await;
    all_ready(client).await;
    eventually(async || condition(client, "Progressing").await.1 == "NewReplicaSetAvailable").await;
    assert_eq!(condition(client, "Available").await, ("True".to_owned(), "MinimumReplicasAvailable".to_owned()));
    eventually(async || revision(client).await == "1").await;
    set_image(client, "2").await;
    eventually(async || {
        // Never fewer than asked for, never more than one above.
        let total: i32 = sizes_by_image(client).await.iter().map(|(_, size)| size).sum();
        assert!((3..=4).contains(&total), "{total}");
        all_ready(client).await;
        sizes_by_image(client).await == [("1".to_owned(), 0), ("2".to_owned(), 3)]
    })
    .await;
    eventually(async || revision(client).await == "2").await;
    // Back: the old set is taken up again under a new revision.
    set_image(client, "1").await;
    eventually(async || {
        all_ready(client).await;
        sizes_by_image(client).await == [("1".to_owned(), 3), ("2".to_owned(), 0)]
    })
    .await;
    eventually(async || revision(client).await == "3").await;
    // The history keeps one old set.
    set_image(client, "3").await;
    eventually(async || {
        all_ready(client).await;
        sizes_by_image(client).await == [("1".to_owned(), 0), ("3".to_owned(), 3)]
    })
    .await;
}

#[tokio::test]
async fn a_deployment_scales_its_one_set() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    client.create(&deployment("web", 3)).await.unwrap();
    eventually(async || sizes_by_image(client).await == [("1".to_owned(), 3)]).await;
    let patch = json!({"spec": {"replicas": 20}});
    client.patch::<Deployment>("default", "web", None, ContentType::MergePatch, &patch).await.unwrap();
    eventually(async || sizes_by_image(client).await == [("1".to_owned(), 20)]).await;
    let annotations = sets(client).await[0].metadata.annotations.clone().unwrap();
    assert_eq!((&*annotations["who"], &*annotations[sets::DESIRED], &*annotations[sets::MAX]), ("me", "20", "21"));
}

fn with_limits(replicas: i32, surge: Value, unavailable: Value) -> Deployment {
    object(json!({"metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {}, "template": {},
        "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
}

#[test]
fn shares_of_the_size_are_rounded_towards_more_pods() {
    for (replicas, surge, unavailable, expected) in [
        (10, json!("25%"), json!("25%"), (3, 2)),
        (1, json!("25%"), json!("25%"), (1, 0)),
        (10, json!(0), json!("5%"), (0, 1)),
        (4, json!(2), json!(1), (2, 1)),
        (10, Value::Null, Value::Null, (3, 2)),
    ] {
        let deployment = with_limits(replicas, surge, unavailable);
        assert_eq!(sets::limits(&deployment), expected, "{replicas}");
    }
}

#[test]
fn names_of_templates_are_stable_and_make_no_words() {
    let template = deployment("web", 1).spec.unwrap().template;
    let hash = sets::template_hash(&template, 0);
    assert_eq!(hash, sets::template_hash(&template, 0));
    assert_ne!(hash, sets::template_hash(&template, 1));
    assert!(hash.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)), "{hash}");
}

#[test]
fn a_paused_rollout_still_scales_in_proportion() {
    let mut deployment = with_limits(20, json!(0), json!(0));
    deployment.spec.as_mut().unwrap().paused = Some(true);
    let set = |name: &str, size: i32| -> Arc<ReplicaSet> {
        Arc::new(object(json!({
            "metadata": {"name": name, "uid": name, "annotations": {
                "deployment.kubernetes.io/desired-replicas": "10", "deployment.kubernetes.io/max-replicas": "10"}},
            "spec": {"replicas": size, "selector": {}, "template": {"spec": {"containers": [{"name": name}]}}}})))
    };
    let sets = [set("a", 8), set("b", 2)];
    let steps = decide(&View { deployment: &deployment, sets: &sets, old_pods_run: false });
    let scaled: Vec<_> = steps
        .iter()
        .map(|step| match step {
            Step::Scale { set, to } => (name(&set.metadata), *to),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(scaled, [("a", 16), ("b", 4)]);
}
