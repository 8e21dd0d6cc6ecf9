#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    claims::{self, View},
    volumes, *,
};
use crate::testing::{Running, eventually, object};

fn merged(mut target: Value, change: Value) -> Value {
    fn merge(target: &mut Value, change: Value) {
        match (target, change) {
            (Value::Object(target), Value::Object(change)) => {
                change.into_iter().for_each(|(key, value)| merge(target.entry(key).or_insert(Value::Null), value));
            }
            (target, change) => *target = change,
        }
    }
    merge(&mut target, change);
    target
}

fn claim(change: Value) -> PersistentVolumeClaim {
    let claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
    object(merged(claim, change))
}

fn volume(name: &str, change: Value) -> PersistentVolume {
    let volume = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "2Gi"}}, "status": {"phase": "Available"}});
    object(merged(volume, change))
}

fn class(name: &str, provisioner: &str, mode: &str, default: bool) -> Arc<StorageClass> {
    let annotations = json!({"storageclass.kubernetes.io/is-default-class": default.to_string()});
    object::<StorageClass>(json!({"metadata": {"name": name, "annotations": annotations},
        "provisioner": provisioner, "volumeBindingMode": mode}))
    .into()
}

fn told(event: &Event) -> String {
    format!("{}: {}", event.reason, event.message)
}

/// What a claim is to do, in short.
fn of_claim(claim: &PersistentVolumeClaim, all: Vec<PersistentVolume>, classes: &[Arc<StorageClass>]) -> String {
    let all: Vec<_> = all.into_iter().map(Arc::new).collect();
    let waiting = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "awaited"}}]}});
    let pods = [Arc::new(object::<Pod>(waiting))];
    match claims::decide(claim, &View { volumes: &all, classes, pods: &pods }) {
        claims::Step::Wait(event) => event.as_ref().map_or_else(|| "wait".to_owned(), told),
        claims::Step::TakeClass(class) => format!("class {class}"),
        claims::Step::Bind(volume) => format!("bind {}", volume.metadata.name.clone().unwrap()),
        claims::Step::Provision(by) => format!("provision by {by}"),
        claims::Step::Lose(event) => told(&event),
    }
}

#[test]
fn what_claims_need() {
    let classes = [
        class("now", "example.com/disk", "Immediate", false),
        class("wait", "example.com/disk", "WaitForFirstConsumer", true),
        class("by-hand", "kubernetes.io/no-provisioner", "Immediate", false),
    ];
    let named = |volume: &str| claim(json!({"spec": {"volumeName": volume}}));
    let of_class = |class: &str| claim(json!({"spec": {"storageClassName": class}}));
    let bound = |volume: &str| {
        claim(
            json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}}),
        )
    };
    let taken = |uid: &str| volume("v", json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": uid}}}));
    let free = || volume("v", json!({}));
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a"}},
        "spec": {"storageClassName": "wait"}});
    let consumer = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    let cases = [
        (
            claim(json!({})),
            vec![],
            "FailedBinding: no persistent volumes available for this claim and no storage class is set",
        ),
        (claim(json!({})), vec![free()], "bind v"),
        (claim(json!({"spec": {"storageClassName": null}})), vec![], "class wait"),
        (of_class("now"), vec![], "provision by example.com/disk"),
        (of_class("wait"), vec![], consumer),
        (
            claim(json!({"metadata": {"name": "awaited"}, "spec": {"storageClassName": "wait"}})),
            vec![],
            "WaitForPodScheduled: waiting for pod p to be scheduled",
        ),
        (claim(selected), vec![], "provision by example.com/disk"),
        (
            of_class("by-hand"),
            vec![],
            "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner",
        ),
        (of_class("none"), vec![], "ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found"),
        (named("v"), vec![], "wait"),
        (named("v"), vec![free()], "bind v"),
        (
            named("v"),
            vec![volume("v", json!({"spec": {"capacity": {"storage": "1"}}}))],
            "VolumeMismatch: Cannot bind to requested volume \"v\": requested PV is too small",
        ),
        (named("v"), vec![taken("")], "bind v"),
        (named("v"), vec![taken("u")], "bind v"),
        (named("v"), vec![taken("older")], "FailedBinding: volume \"v\" already bound to a different claim."),
        (bound("v"), vec![taken("u")], "bind v"),
        (bound("v"), vec![free()], "bind v"),
        (bound("v"), vec![], "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        (
            bound(""),
            vec![],
            "ClaimLost: Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        ),
        (
            bound("v"),
            vec![taken("other")],
            "ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly",
        ),
        (claim(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})), vec![free()], "wait"),
    ];
    for (at, (claim, volumes, expected)) in cases.into_iter().enumerate() {
        assert_eq!(of_claim(&claim, volumes, &classes), expected, "case {at}");
    }
}

#[test]
fn what_volumes_need() {
    let to = |phase: &'static str| volumes::Step::Phase(phase, String::new(), None);
    let taken = |change: Value| {
        volume("v", merged(json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}}), change))
    };
    let here = |volume: &str| Some(Arc::new(claim(json!({"spec": {"volumeName": volume}}))));
    let dynamic = |phase: &str| {
        json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "x"}},
            "spec": {"persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": phase}})
    };
    let policy =
        |policy: &str| json!({"spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": "Released"}});
    let deleted = |volume: &PersistentVolume| match volumes::decide(volume, None) {
        volumes::Step::Phase(phase, message, event) => format!("{phase}: {message} ({})", event.unwrap().reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(volumes::decide(&volume("v", json!({})), None), to("Available"));
    let reserved = json!({"spec": {"claimRef": {"uid": null}}});
    assert_eq!(volumes::decide(&taken(reserved), here("v").as_ref()), to("Available"), "the claim takes it");
    assert_eq!(volumes::decide(&taken(json!({})), here("v").as_ref()), to("Bound"));
    assert_eq!(volumes::decide(&taken(json!({})), here("").as_ref()), volumes::Step::AskClaim);
    assert_eq!(volumes::decide(&taken(json!({})), here("w").as_ref()), volumes::Step::Release);
    assert_eq!(volumes::decide(&taken(dynamic("Bound")), here("w").as_ref()), to("Released"));
    assert_eq!(volumes::decide(&taken(json!({"status": {"phase": "Bound"}})), None), to("Released"));
    assert_eq!(
        volumes::decide(&taken(dynamic("Released")), None),
        volumes::Step::Nothing,
        "its provisioner deletes it"
    );
    assert_eq!(volumes::decide(&taken(policy("Retain")), None), volumes::Step::Nothing);
    assert_eq!(
        deleted(&taken(policy("Delete"))),
        "Failed: error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched \
         (VolumeFailedDelete)"
    );
    assert_eq!(
        deleted(&taken(policy("Recycle"))),
        "Failed: No recycler plugin found for the volume! (VolumeFailedRecycle)"
    );
    assert_eq!(volumes::released(&taken(json!({}))).spec.unwrap().claim_ref.unwrap().uid, None, "a user's own stays");
    let by_controller = json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}}});
    assert_eq!(volumes::released(&taken(by_controller)).spec.unwrap().claim_ref, None);
}

#[tokio::test]
async fn claims_and_volumes_find_each_other() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    let phase_of_claim = async |name: &str| {
        let claim = client.get::<PersistentVolumeClaim>("n", name).await.unwrap();
        (
            claim.status.unwrap_or_default().phase.unwrap_or_default(),
            claim.spec.unwrap().volume_name.unwrap_or_default(),
        )
    };
    let phase_of_volume = async |name: &str| {
        let volume = client.get::<PersistentVolume>("", name).await.unwrap();
        volume.status.unwrap_or_default().phase.unwrap_or_default()
    };
    for name in ["a", "b"] {
        client.create(&claim(json!({"metadata": {"name": name, "uid": null}}))).await.unwrap();
    }
    eventually(async || phase_of_claim("a").await.0 == "Pending" && phase_of_claim("b").await.0 == "Pending").await;
    client.create(&volume("one", json!({"status": null}))).await.unwrap();
    client.create(&volume("two", json!({"status": null}))).await.unwrap();
    eventually(async || {
        let (a, b) = (phase_of_claim("a").await, phase_of_claim("b").await);
        a.0 == "Bound" && b.0 == "Bound" && a.1 != b.1
    })
    .await;
    let of_a = phase_of_claim("a").await.1;
    eventually(async || phase_of_volume(&of_a).await == "Bound").await;
    let bound = client.get::<PersistentVolumeClaim>("n", "a").await.unwrap();
    assert_eq!(bound.status.unwrap().capacity.unwrap()["storage"].0, "2Gi", "what the volume has");
    client.delete::<PersistentVolumeClaim>("n", "a", &Default::default()).await.unwrap();
    eventually(async || phase_of_volume(&of_a).await == "Released").await;
    // A claim of the same name is another claim.
    client.create(&claim(json!({"metadata": {"name": "a", "uid": null}}))).await.unwrap();
    eventually(async || phase_of_claim("a").await.0 == "Pending").await;
    assert_eq!(phase_of_volume(&of_a).await, "Released");
}
