//! Which PersistentVolume a claim takes: the rules that the binding controller and the scheduler share. Pure.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use skiff_api::{
    quantity::Quantity,
    selector::{LabelSelector, matches_term},
};

/// The annotation by which objects named their class before they had a field for it.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The annotation of a claim whose binding has been completed.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The annotation of a claim or volume whose reference to the other a controller made, not a user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The annotation by which the scheduler says which node a claim's volume is to be provisioned for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

fn annotation<'a>(
    metadata: &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    key: &str,
) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The class that a claim asks for; empty for none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let field = || claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&claim.metadata, OLD_CLASS).or_else(field).unwrap_or_default()
}

/// The class of a volume; empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&volume.metadata, OLD_CLASS).or_else(field).unwrap_or_default()
}

/// The volume that a claim names, if it names one.
pub fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the binding of a claim has been completed.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    volume_of(claim).is_some() && annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

/// Whether a volume is meant for a claim: it names the claim, and no other claim of the name.
pub fn is_meant_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or_default();
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

/// Whether a node can reach a volume.
pub fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

fn storage(map: Option<&std::collections::BTreeMap<String, Text>>) -> Quantity {
    let text = map.and_then(|map| map.get("storage"));
    text.and_then(|text| text.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

/// The size of a volume.
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// The size that a claim asks for.
pub fn request(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Why a claim cannot have the volume that it names, in the words of the original.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    differs(volume, claim, true)
}

fn differs(volume: &PersistentVolume, claim: &PersistentVolumeClaim, by_class: bool) -> Option<&'static str> {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return Some("requested PV is too small") };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    if request(claim) > capacity(volume) {
        Some("requested PV is too small")
    } else if by_class && class_of_volume(volume) != class_of_claim(claim) {
        Some("storageClassName does not match")
    } else if text(&has.volume_attributes_class_name) != text(&wants.volume_attributes_class_name) {
        Some("VolumeAttributesClassName does not match")
    } else if mode(has.volume_mode.as_ref()) != mode(wants.volume_mode.as_ref()) {
        Some("incompatible volumeMode")
    } else if !has_modes(has, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

fn has_modes(volume: &PersistentVolumeSpec, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten());
    let has = volume.access_modes.as_deref().unwrap_or_default();
    wanted.into_iter().all(|mode| has.contains(mode))
}

/// The volume that suits a claim best: the one that is meant for it, else of those that are free the one with the
/// fewest access modes, and of these the smallest.
///
/// With a node only volumes that it reaches are taken. Without, and where the claim waits for its first consumer
/// (`delayed`), only one that is meant for the claim. `taken` says which volumes are promised to others.
pub fn find<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a Arc<PersistentVolume>>,
    node: Option<&Node>,
    delayed: bool,
    taken: &dyn Fn(&str) -> bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.map(|text| LabelSelector::try_from(text).unwrap_or_else(|_| LabelSelector::nothing()));
    let mut best: Option<&'a Arc<PersistentVolume>> = None;
    for volume in volumes {
        let meant = is_meant_for(volume, claim);
        let claimed = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        if claimed && !meant
            || taken(name)
            || volume.metadata.deletion_timestamp.is_some()
            // Who reserves a volume for a claim need not name its class.
            || differs(volume, claim, !meant).is_some()
        {
            continue;
        }
        let within_reach = node.is_none_or(|node| reaches(volume, node));
        if meant {
            return Some(volume).filter(|_| within_reach);
        }
        let available = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available");
        let selected = selector.as_ref().is_none_or(|selector| selector.matches(&volume.metadata.labels));
        if !available || !selected || !within_reach || node.is_none() && delayed {
            continue;
        }
        if best.is_none_or(|best| rank(volume) < rank(best)) {
            best = Some(volume);
        }
    }
    best
}

fn rank(volume: &PersistentVolume) -> (usize, Quantity, &str) {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref()).map_or(0, Vec::len);
    (modes, capacity(volume), volume.metadata.name.as_deref().unwrap_or_default())
}
