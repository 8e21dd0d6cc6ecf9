#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

/// Objects of a test.
#[derive(Default)]
pub(crate) struct Fixed {
    claims: Vec<Arc<PersistentVolumeClaim>>,
    volumes: Vec<Arc<PersistentVolume>>,
    classes: Vec<Arc<StorageClass>>,
}

pub(crate) const NOTHING: Fixed = Fixed { claims: Vec::new(), volumes: Vec::new(), classes: Vec::new() };

impl Storage for Fixed {
    fn claim(&self, _: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(name)).cloned()
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name)).cloned()
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.clone()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.iter().find(|class| class.metadata.name.as_deref() == Some(name)).cloned()
    }

    fn is_promised(&self, volume: &str) -> bool {
        volume.starts_with("promised")
    }
}

fn object<K: DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

fn node(name: &str) -> NodeInfo {
    let mut snapshot = Snapshot::default();
    let labels = json!({"kubernetes.io/hostname": name, "zone": name});
    snapshot.set_node(&Arc::new(object(json!({"metadata": {"name": name, "labels": labels}}))));
    snapshot.into_nodes().next().unwrap()
}

fn volume(name: &str, size: &str, on: Option<&str>, more: Value) -> Arc<PersistentVolume> {
    let mut volume = json!({"metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "wait"},
        "status": {"phase": "Available"}});
    if let Some(node) = on {
        let expression = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        volume["spec"]["nodeAffinity"] =
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}});
    }
    for (key, value) in more.as_object().unwrap() {
        volume["spec"][key] = value.clone();
    }
    Arc::new(object(volume))
}

fn claim(name: &str, size: &str, more: Value) -> Arc<PersistentVolumeClaim> {
    let mut claim = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "annotations": {}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "wait", "resources": {"requests": {"storage": size}}}});
    for (key, value) in more.as_object().unwrap() {
        match key.as_str() {
            "annotations" => claim["metadata"]["annotations"] = value.clone(),
            "deletionTimestamp" => claim["metadata"]["deletionTimestamp"] = value.clone(),
            "status" => claim["status"] = value.clone(),
            _ => claim["spec"][key] = value.clone(),
        }
    }
    Arc::new(object(claim))
}

fn class(name: &str, provisioner: &str, more: Value) -> Arc<StorageClass> {
    let mut class = json!({"metadata": {"name": name}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"});
    for (key, value) in more.as_object().unwrap() {
        class[key] = value.clone();
    }
    Arc::new(object(class))
}

fn pod(claims: &[&str]) -> PodInfo {
    let volumes: Vec<Value> =
        claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})).collect();
    let spec = json!({"containers": [], "volumes": volumes});
    PodInfo::new(Arc::new(object(json!({"metadata": {"name": "p", "namespace": "n", "uid": "p"}, "spec": spec}))))
}

fn bound(name: &str, volume: &str) -> Arc<PersistentVolumeClaim> {
    claim(name, "1Gi", json!({"volumeName": volume, "annotations": {matching::BIND_COMPLETED: "yes"}}))
}

/// What a node is answered: the steps, or the refusal.
fn outcome(storage: &Fixed, claims: &[&str], on: &str) -> String {
    let needs = match Needs::of(&pod(claims), &Snapshot::default(), storage) {
        Ok(needs) => needs,
        Err(why) => return why,
    };
    let node = node(on);
    if let Err(refusal) = needs.check(&node) {
        return refusal.join(", ");
    }
    let steps = needs.steps(&node.node).unwrap();
    let told = steps.iter().map(|step| match step {
        Step::Reserve { volume, claim } => {
            format!("{}={}", claim.metadata.name.as_ref().unwrap(), volume.metadata.name.as_ref().unwrap())
        }
        Step::Provision { claim } => format!("{}=new", claim.metadata.name.as_ref().unwrap()),
    });
    told.collect::<Vec<_>>().join(" ")
}

#[test]
fn claims_decide_on_nodes() {
    let none = json!({});
    let storage = Fixed {
        claims: vec![
            bound("here", "on-a"),
            bound("lost", "gone"),
            claim("gone", "1Gi", json!({"volumeName": "x", "status": {"phase": "Lost"}})),
            claim("going", "1Gi", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})),
            claim("now", "1Gi", json!({"storageClassName": "immediate"})),
            claim("classless", "1Gi", json!({"storageClassName": ""})),
            claim("small", "1Gi", none.clone()),
            claim("large", "5Gi", none.clone()),
            claim("new", "50Gi", json!({"storageClassName": "made"})),
            claim("zoned", "1Gi", json!({"storageClassName": "zoned"})),
            claim(
                "selected",
                "1Gi",
                json!({"storageClassName": "made",
                "annotations": {SELECTED_NODE: "b"}}),
            ),
        ],
        volumes: vec![
            volume("on-a", "1Gi", Some("a"), none.clone()),
            volume("promised", "1Gi", None, none.clone()),
            volume("free-2", "2Gi", Some("b"), none.clone()),
            volume("free-9", "9Gi", Some("b"), none.clone()),
        ],
        classes: vec![
            class("wait", NO_PROVISIONER, none.clone()),
            class("made", "example.com/disk", none.clone()),
            class("immediate", "example.com/disk", json!({"volumeBindingMode": "Immediate"})),
            class(
                "zoned",
                "example.com/disk",
                json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]}),
            ),
        ],
    };
    let cases: [(&[&str], &str, &str); 16] = [
        (&[], "a", ""),
        (&["absent"], "a", "persistentvolumeclaim \"absent\" not found"),
        (&["gone"], "a", "persistentvolumeclaim \"gone\" bound to non-existent persistentvolume \"x\""),
        (&["going"], "a", "persistentvolumeclaim \"going\" is being deleted"),
        (&["now"], "a", UNBOUND),
        (&["classless"], "a", UNBOUND),
        (&["here"], "a", ""),
        (&["here"], "b", OUT_OF_REACH),
        (&["lost"], "a", NO_SUCH_VOLUME),
        // The smaller claim chooses first, so that both find something.
        (&["large", "small"], "b", "small=free-2 large=free-9"),
        (&["small"], "c", NO_VOLUME),
        (&["new"], "c", "new=new"),
        (&["zoned"], "a", "zoned=new"),
        (&["zoned"], "b", NO_VOLUME),
        (&["selected"], "b", "selected=new"),
        (&["selected"], "a", NO_VOLUME),
    ];
    for (claims, on, expected) in cases {
        assert_eq!(outcome(&storage, claims, on), expected, "{claims:?} on {on}");
    }
}

#[test]
fn one_pod_alone_has_a_claim_for_one_pod() {
    let storage = Fixed {
        claims: vec![claim(
            "own",
            "1Gi",
            json!({"volumeName": "v", "accessModes": ["ReadWriteOncePod"],
            "annotations": {matching::BIND_COMPLETED: "yes"}}),
        )],
        volumes: vec![volume("v", "1Gi", None, json!({}))],
        classes: vec![],
    };
    let mut snapshot = Snapshot::default();
    snapshot.set_node(&node("a").node);
    assert!(Needs::of(&pod(&["own"]), &snapshot, &storage).unwrap().check(&node("b")).is_ok());
    let mut other = (*pod(&["own"]).pod).clone();
    other.metadata.uid = Some("other".into());
    snapshot.add_pod(Arc::new(PodInfo::new(Arc::new(other))), "a");
    let refused = Needs::of(&pod(&["own"]), &snapshot, &storage).unwrap().check(&node("b"));
    assert_eq!(refused, Err(vec![IN_USE.to_owned()]));
}

#[test]
fn the_volume_that_suits_best() {
    let reserved = json!({"claimRef": {"namespace": "n", "name": "c"}, "storageClassName": "another"});
    let many = json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]});
    let all = [
        volume("many", "1Gi", None, many),
        volume("big", "4Gi", None, json!({})),
        volume("fits", "2Gi", None, json!({})),
        volume("block", "2Gi", None, json!({"volumeMode": "Block"})),
        volume("others", "2Gi", None, json!({"claimRef": {"namespace": "n", "name": "c", "uid": "an older one"}})),
        volume("reserved", "8Gi", None, reserved),
    ];
    let names = |all: &[Arc<PersistentVolume>], claim: &PersistentVolumeClaim, delayed| {
        find(claim, all, None, delayed, &|_| false).and_then(|found| found.metadata.name.clone())
    };
    let c = claim("c", "1Gi", json!({}));
    assert_eq!(names(&all, &c, true).as_deref(), Some("reserved"), "also for one that waits");
    assert_eq!(names(&all[..5], &c, false).as_deref(), Some("fits"));
    assert_eq!(names(&all[..5], &c, true), None, "the scheduler is to choose");
    let selects = claim("c", "1Gi", json!({"selector": {"matchLabels": {"a": "b"}}}));
    assert_eq!(names(&all[..5], &selects, false), None);
    assert_eq!(names(&all[..5], &claim("c", "9Gi", json!({})), false), None);
    assert_eq!(matching::mismatch(&all[3], &c), Some("incompatible volumeMode"));
    let shared = claim("c", "1Gi", json!({"accessModes": ["ReadWriteMany"]}));
    assert_eq!(names(&all[..5], &shared, false).as_deref(), Some("many"));
}
