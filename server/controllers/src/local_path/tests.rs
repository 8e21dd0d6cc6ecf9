#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};
use skiff_api::local_path::{ASKED, DONE, FOLDER};

use super::*;
use crate::testing::{Running, eventually, object};

fn claim(change: Value) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": {"name": "data", "namespace": "n", "uid": "u", "annotations": {
            "volume.kubernetes.io/storage-provisioner": PROVISIONER, SELECTED_NODE: "a"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
            "resources": {"requests": {"storage": "1Gi"}}},
    });
    for (key, value) in change.as_object().unwrap() {
        claim["spec"][key] = value.clone();
    }
    object(claim)
}

fn class() -> StorageClass {
    object(json!({"metadata": {"name": "local-path"}, "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"}))
}

fn node(annotations: Value) -> Node {
    object(
        json!({"metadata": {"name": "a", "labels": {"kubernetes.io/hostname": "a.example"}, "annotations": annotations}}),
    )
}

#[test]
fn what_is_provisioned() {
    let with_folder = || Some(node(json!({FOLDER: "/var/lib/skiff/storage/"})));
    let outcome = |claim: &PersistentVolumeClaim, node: Option<Node>| provision(claim, Some(&class()), node.as_ref());
    let Provision::Make(made) = outcome(&claim(json!({})), with_folder()) else { panic!("it is to be made") };
    let spec = made.spec.unwrap();
    assert_eq!(made.metadata.name.as_deref(), Some("pvc-u"));
    assert_eq!(spec.host_path.unwrap().path, "/var/lib/skiff/storage/pvc-u_n_data");
    assert_eq!(spec.claim_ref.unwrap().uid.as_deref(), Some("u"));
    let terms = spec.node_affinity.unwrap().required.unwrap().node_selector_terms;
    assert_eq!(terms[0].match_expressions.as_ref().unwrap()[0].values, Some(vec!["a.example".to_owned()]));
    let refused = |change: Value, node: Option<Node>| match outcome(&claim(change), node) {
        Provision::Refuse(why) => why,
        Provision::Elsewhere(why) => format!("elsewhere: {why}"),
        other => panic!("{other:?}"),
    };
    assert!(refused(json!({"accessModes": ["ReadWriteMany"]}), with_folder()).starts_with("NodePath only supports"));
    assert!(refused(json!({"selector": {}}), with_folder()).contains("Selector"));
    assert!(refused(json!({"volumeMode": "Block"}), with_folder()).contains("Block"));
    assert!(refused(json!({}), Some(node(json!({})))).contains("no folder"));
    assert!(refused(json!({}), None).starts_with("elsewhere: "));
    assert!(matches!(outcome(&claim(json!({"volumeName": "v"})), with_folder()), Provision::Nothing));
    let other = StorageClass { provisioner: "other".into(), ..class() };
    assert!(matches!(provision(&claim(json!({})), Some(&other), None), Provision::Nothing));
}

#[tokio::test]
async fn a_folder_goes_before_its_volume() {
    let cluster = Running::start(run);
    let client = &cluster.client;
    client.create(&class()).await.unwrap();
    client.create(&node(json!({FOLDER: "/s"}))).await.unwrap();
    let made = client.create(&claim(json!({}))).await.unwrap();
    let name = volume_name(uid(&made.metadata));
    let volume = async || client.get::<PersistentVolume>("", &name).await.ok();
    eventually(async || volume().await.is_some()).await;
    let key = format!("{REMOVAL}{name}");
    let state = async || {
        let node = client.get::<Node>("", "a").await.unwrap();
        annotation(&node.metadata, &key).map(str::to_owned)
    };
    client.delete::<PersistentVolumeClaim>("n", "data", &Default::default()).await.unwrap();
    let form = ContentType::MergePatch;
    let released = json!({"status": {"phase": "Released"}});
    client.patch::<PersistentVolume>("", &name, Some("status"), form, &released).await.unwrap();
    eventually(async || state().await.as_deref() == Some(ASKED)).await;
    assert!(volume().await.is_some(), "its folder is still there");
    client.patch::<Node>("", "a", None, form, &json!({"metadata": {"annotations": {&key: DONE}}})).await.unwrap();
    eventually(async || volume().await.is_none() && state().await.is_none()).await;
}

#[test]
fn what_is_kept_and_what_goes_with_its_node() {
    let volume = |policy: &str, phase: &str| -> PersistentVolume {
        let annotations =
            json!({"local.path.provisioner/selected-node": "a", "pv.kubernetes.io/provisioned-by": PROVISIONER});
        object(json!({"metadata": {"name": "pvc-u", "annotations": annotations, "finalizers": [FINALIZER]},
            "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase}}))
    };
    let here = node(json!({}));
    assert_eq!(reclaim(&volume("Retain", "Released"), Some(&here)), Reclaim::LetGo);
    assert_eq!(reclaim(&volume("Delete", "Bound"), Some(&here)), Reclaim::Nothing);
    assert_eq!(reclaim(&volume("Delete", "Released"), Some(&here)), Reclaim::Ask("a".into(), ASKED));
    assert_eq!(reclaim(&volume("Delete", "Released"), None), Reclaim::Delete);
    let foreign: PersistentVolume = object(json!({"metadata": {"name": "v"}, "status": {"phase": "Released"}}));
    assert_eq!(reclaim(&foreign, Some(&here)), Reclaim::Nothing);
}
