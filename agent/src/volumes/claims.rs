//! Volumes that are claims: found by the claim and its PersistentVolume, checked as the kubelet checks them, and used
//! where they are.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Volume};
use skiff_api::{
    claims::{PodClaim, claim_of},
    local_path::PROVISIONER,
    selector::matches_term,
};
use skiff_client::Client;

use super::{
    VolumeError,
    setup::{check_host_path, fetch},
};
use crate::pods::fields::Fields;

/// The annotation of volumes that a provisioner made.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// A volume that a claim is bound to, on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Where it is on the host.
    pub path: PathBuf,
    /// The claim, if one pod alone may use it.
    pub exclusive: Option<String>,
    /// Whether its files may be given to the pod's group.
    pub is_ours: bool,
}

/// Finds and makes the volume of a claim; `None` where the volume is no claim.
pub(super) async fn set_up(
    client: &Client,
    volume: &Volume,
    fields: &Fields<'_>,
) -> Result<Option<Claimed>, VolumeError> {
    let Some(wanted) = claim_of(fields.desired.name(), volume) else { return Ok(None) };
    let namespace = fields.desired.namespace();
    let missing = || VolumeError::Missing { kind: "persistentvolumeclaim", name: wanted.name.clone() };
    let claim = fetch::<PersistentVolumeClaim>(client, namespace, &wanted.name).await?.ok_or_else(missing)?;
    let started = fields.desired.api_status().start_time.is_some();
    let name = bound_to(&claim, &wanted, fields.desired.uid(), started).map_err(VolumeError::Claim)?;
    let missing = || VolumeError::Missing { kind: "persistentvolume", name: name.to_owned() };
    let found = fetch::<PersistentVolume>(client, "", name).await?.ok_or_else(missing)?;
    refers_back(&found, &claim).map_err(VolumeError::Claim)?;
    let node_name = fields.desired.spec().node_name.as_deref().unwrap_or_default();
    if has_affinity(&found) {
        let node = fetch::<Node>(client, "", node_name).await?.unwrap_or_default();
        reaches(&found, &node).map_err(VolumeError::Claim)?;
    }
    let spec = found.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(VolumeError::Unsupported);
    }
    let path = if let Some(source) = &spec.host_path {
        if is_provisioned(&found) {
            make(Path::new(&source.path))?;
        }
        check_host_path(source)?;
        PathBuf::from(&source.path)
    } else if let Some(source) = &spec.local {
        let path = PathBuf::from(&source.path);
        fs::metadata(&path).map_err(|source| VolumeError::Io { path: path.clone(), source })?;
        path
    } else {
        return Err(VolumeError::Unsupported);
    };
    let modes = spec.access_modes.unwrap_or_default();
    let exclusive = (modes == ["ReadWriteOncePod"]).then(|| wanted.name.clone());
    Ok(Some(Claimed { path, exclusive, is_ours: spec.local.is_some() }))
}

/// The volume that a claim is bound to, or why a pod cannot have it, in the kubelet's words.
fn bound_to<'a>(
    claim: &'a PersistentVolumeClaim,
    wanted: &PodClaim,
    pod_uid: &str,
    started: bool,
) -> Result<&'a str, String> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let name = &wanted.name;
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if wanted.ephemeral && !owners.any(|owner| owner.uid == pod_uid) {
        return Err(format!("PVC {namespace}/{name} was not created for pod (pod is not owner)"));
    }
    if claim.metadata.deletion_timestamp.is_some() && !started {
        return Err(format!("can't start pod because PVC {namespace}/{name} is being deleted"));
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if phase != "Bound" || volume.is_empty() {
        return Err(format!(
            "PVC {namespace}/{name} has non-bound phase ({phase:?}) or empty pvc.Spec.VolumeName ({volume:?})"
        ));
    }
    Ok(volume)
}

/// Whether a volume is bound to this claim, and to no older one of the name.
fn refers_back(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let Some(reference) = reference else {
        return Err(format!(
            "found PV object {name:?} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    if reference.uid == claim.metadata.uid {
        return Ok(());
    }
    let text = |uid: &Option<String>| uid.clone().unwrap_or_default();
    Err(format!(
        "found PV object {name:?} but its pv.Spec.ClaimRef.UID {:?} does not point to claim.UID {:?}",
        text(&reference.uid),
        text(&claim.metadata.uid)
    ))
}

fn has_affinity(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.node_affinity.is_some())
}

/// Whether a volume is where this node reaches it: a pod need not have come by the scheduler.
fn reaches(volume: &PersistentVolume, node: &Node) -> Result<(), String> {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    let fits = required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches_term(term, node)));
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if fits {
        Ok(())
    } else {
        Err(format!("NodeAffinity check failed for volume {name:?}: no matching NodeSelectorTerms"))
    }
}

fn is_provisioned(volume: &PersistentVolume) -> bool {
    let annotations = volume.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(PROVISIONED_BY)).is_some_and(|provisioner| provisioner == PROVISIONER)
}

/// Makes the folder of a volume, open to whatever user its pod runs as.
fn make(path: &Path) -> Result<(), VolumeError> {
    if path.is_dir() {
        return Ok(());
    }
    let open = || fs::set_permissions(path, fs::Permissions::from_mode(0o777));
    let made: io::Result<()> = fs::create_dir_all(path).and_then(|()| open());
    made.map_err(|source| VolumeError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn object<K: DeserializeOwned>(json: Value) -> K {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn claims_that_a_pod_cannot_have() {
        let own = PodClaim { name: "c".into(), ephemeral: false };
        let claim = |change: Value| -> PersistentVolumeClaim {
            let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"},
                "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
            json_patch(&mut claim, &change);
            object(claim)
        };
        assert_eq!(bound_to(&claim(json!({})), &own, "p", false), Ok("v"));
        let pending = claim(json!({"status": {"phase": "Pending"}}));
        let said = bound_to(&pending, &own, "p", false).unwrap_err();
        assert_eq!(said, "PVC n/c has non-bound phase (\"Pending\") or empty pvc.Spec.VolumeName (\"v\")");
        let going = claim(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert!(bound_to(&going, &own, "p", false).unwrap_err().contains("is being deleted"));
        assert_eq!(bound_to(&going, &own, "p", true), Ok("v"), "a pod that started keeps it");
        let ephemeral = PodClaim { ephemeral: true, ..own };
        assert!(bound_to(&claim(json!({})), &ephemeral, "p", false).is_err());
        let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p"}]);
        let owned = claim(json!({"metadata": {"ownerReferences": owners}}));
        assert_eq!(bound_to(&owned, &ephemeral, "p", false), Ok("v"));
    }

    fn json_patch(target: &mut Value, change: &Value) {
        match (target, change) {
            (Value::Object(target), Value::Object(change)) => {
                change.iter().for_each(|(key, value)| json_patch(target.entry(key).or_insert(Value::Null), value));
            }
            (target, change) => *target = change.clone(),
        }
    }

    #[test]
    fn volumes_of_others_and_elsewhere_are_refused() {
        let claim: PersistentVolumeClaim = object(json!({"metadata": {"name": "c", "uid": "u"}}));
        let volume = |reference: Value| -> PersistentVolume {
            let term =
                json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]});
            object(json!({"metadata": {"name": "v"}, "spec": {"claimRef": reference,
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}))
        };
        assert!(refers_back(&volume(json!({"uid": "u"})), &claim).is_ok());
        assert!(refers_back(&volume(json!({"uid": "older"})), &claim).unwrap_err().contains("\"older\""));
        assert!(refers_back(&volume(Value::Null), &claim).unwrap_err().contains("nil"));
        let node = |host: &str| object(json!({"metadata": {"labels": {"kubernetes.io/hostname": host}}}));
        assert!(reaches(&volume(Value::Null), &node("a")).is_ok());
        assert!(reaches(&volume(Value::Null), &node("b")).is_err());
    }
}
