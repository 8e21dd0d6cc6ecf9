//! What the provisioner does for a claim, and with a volume whose claim is gone. No I/O.

use k8s_openapi::{
    api::{
        core::v1::{
            HostPathVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
            PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use skiff_api::local_path::{ASKED, DONE, FOLDER, PROVISIONER, REMOVAL, folder_name, volume_name};
use skiff_client::recorder;
use skiff_scheduler::volumes::matching::{SELECTED_NODE, volume_of};

use crate::{
    binder::{PROVISIONED_BY, PROVISIONER as ASKED_OF, annotation},
    meta::{is_deleting, name, namespace, uid},
};

/// Holds a volume until its folder is gone.
pub const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// The annotation of volumes that says which node they are on, as k3s has it.
const ON_NODE: &str = "local.path.provisioner/selected-node";

/// The label by which volumes are tied to their node.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// What is done for a claim.
#[derive(Debug)]
pub enum Provision {
    /// Nothing: it is not this provisioner's, or has its volume.
    Nothing,
    /// This volume is made.
    Make(Box<PersistentVolume>),
    /// It cannot be had.
    Refuse(String),
    /// It cannot be had on that node: another is to be chosen.
    Elsewhere(String),
}

/// What is done for a claim; `node` is the node that was selected for it, if that exists.
pub fn provision(claim: &PersistentVolumeClaim, class: Option<&StorageClass>, node: Option<&Node>) -> Provision {
    let asked = ASKED_OF.iter().any(|key| annotation(&claim.metadata, key) == Some(PROVISIONER));
    let Some(class) = class.filter(|class| class.provisioner == PROVISIONER && asked) else {
        return Provision::Nothing;
    };
    if volume_of(claim).is_some() || is_deleting(&claim.metadata) {
        return Provision::Nothing;
    }
    let spec = claim.spec.clone().unwrap_or_default();
    let refuse = |why: &str| Provision::Refuse(why.to_owned());
    if spec.selector.is_some() {
        return refuse("claim.Spec.Selector is not supported");
    }
    let allowed = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
    if !spec.access_modes.iter().flatten().all(allowed) {
        return refuse("NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes");
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return refuse("Block volume mode is not supported");
    }
    let Some(selected) = annotation(&claim.metadata, SELECTED_NODE) else {
        return refuse("configuration error, no node was specified");
    };
    let Some(node) = node else {
        return Provision::Elsewhere(format!("failed to get target node: nodes {selected:?} not found"));
    };
    match annotation(&node.metadata, FOLDER) {
        Some(folder) => Provision::Make(Box::new(volume(claim, class, node, folder))),
        None => Provision::Refuse(format!("node {selected:?} has no folder for local-path volumes")),
    }
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node, folder: &str) -> PersistentVolume {
    let own = volume_name(uid(&claim.metadata));
    let folder = folder.trim_end_matches('/');
    let path = format!("{folder}/{}", folder_name(&own, namespace(&claim.metadata), name(&claim.metadata)));
    let node_name = name(&node.metadata).to_owned();
    let labels = node.metadata.labels.as_ref();
    let host = labels.and_then(|labels| labels.get(HOSTNAME)).unwrap_or(&node_name).clone();
    let expression =
        NodeSelectorRequirement { key: HOSTNAME.to_owned(), operator: "In".to_owned(), values: Some(vec![host]) };
    let term = NodeSelectorTerm { match_expressions: Some(vec![expression]), match_fields: None };
    let spec = claim.spec.clone().unwrap_or_default();
    let annotations = [(ON_NODE, node_name.as_str()), (PROVISIONED_BY, PROVISIONER)];
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(own),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: spec.resources.and_then(|resources| resources.requests),
            claim_ref: Some(recorder::reference(claim)),
            host_path: Some(HostPathVolumeSource { path, type_: Some("DirectoryOrCreate".to_owned()) }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            mount_options: class.mount_options.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// The node that a volume of this provisioner is on.
pub fn node_of(volume: &PersistentVolume) -> Option<&str> {
    annotation(&volume.metadata, ON_NODE).filter(|_| annotation(&volume.metadata, PROVISIONED_BY) == Some(PROVISIONER))
}

/// What is done with a volume.
#[derive(Debug, PartialEq)]
pub enum Reclaim {
    /// Nothing.
    Nothing,
    /// The node is asked to remove the folder.
    Ask(String, &'static str),
    /// The volume may go: its folder stays.
    LetGo,
    /// The volume goes: its folder is gone.
    Delete,
}

/// What is done with a volume; `node` is the node that it is on, if that still exists.
pub fn reclaim(volume: &PersistentVolume, node: Option<&Node>) -> Reclaim {
    let Some(on) = node_of(volume) else { return Reclaim::Nothing };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    if policy != Some("Delete") {
        // What is kept is the operator's from now on.
        let held = volume.metadata.finalizers.iter().flatten().any(|known| known == FINALIZER);
        return if held { Reclaim::LetGo } else { Reclaim::Nothing };
    }
    if !matches!(phase, Some("Released" | "Failed")) {
        return Reclaim::Nothing;
    }
    // With a node that is gone for good its disk is gone too.
    let Some(node) = node else { return Reclaim::Delete };
    match annotation(&node.metadata, &format!("{REMOVAL}{}", name(&volume.metadata))) {
        Some(DONE) => Reclaim::Delete,
        Some(_) => Reclaim::Nothing,
        None => Reclaim::Ask(on.to_owned(), ASKED),
    }
}
