//! What a volume needs next. No I/O.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use skiff_scheduler::volumes::matching::{BOUND_BY_CONTROLLER, volume_of};

use super::{Event, PROVISIONED_BY, has_annotation};
use crate::meta::{name, uid};

/// What is to be done with a volume.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Its phase is to be this, with this message.
    Phase(&'static str, String, Option<Event>),
    /// Its claim has yet to take it.
    AskClaim,
    /// It no longer belongs to the claim that it names.
    Release,
    /// The claim is known to the API server only, if at all: what that says is to be asked.
    Nothing,
}

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_dynamic(volume: &PersistentVolume) -> bool {
    has_annotation(&volume.metadata, PROVISIONED_BY)
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// What a volume needs next; `claim` is the claim of the name that the volume has, of whatever UID.
pub fn decide(volume: &PersistentVolume, claim: Option<&Arc<PersistentVolumeClaim>>) -> Step {
    let to = |phase: &'static str| Step::Phase(phase, String::new(), None);
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return to("Available");
    };
    let wanted = reference.uid.as_deref().filter(|uid| !uid.is_empty());
    // A user reserved it, and its claim has not come yet.
    let Some(wanted) = wanted else { return to("Available") };
    let Some(claim) = claim.filter(|claim| uid(&claim.metadata) == wanted) else { return without_claim(volume) };
    match volume_of(claim) {
        None => Step::AskClaim,
        Some(other) if other == name(&volume.metadata) => to("Bound"),
        // Its claim went elsewhere: what was made for it is of no use, what a user made is free.
        Some(_) if is_dynamic(volume) && policy(volume) == "Delete" => without_claim(volume),
        Some(_) => Step::Release,
    }
}

/// A volume whose claim is gone: kept, or deleted by who provisioned it.
fn without_claim(volume: &PersistentVolume) -> Step {
    if phase(volume) == "Failed" {
        return Step::Nothing;
    }
    let failed = |reason, message: String| {
        let event = Event::warning(reason, message.clone());
        Step::Phase("Failed", message, Some(event))
    };
    let name = name(&volume.metadata);
    match policy(volume) {
        _ if phase(volume) != "Released" => Step::Phase("Released", String::new(), None),
        "Delete" if !is_dynamic(volume) => failed(
            "VolumeFailedDelete",
            format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched"),
        ),
        "Recycle" => failed("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
        _ => Step::Nothing,
    }
}

/// A volume in a phase; `None` where it is already.
pub fn in_phase(volume: &PersistentVolume, wanted: &str, message: &str) -> Option<PersistentVolume> {
    let said = volume.status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default();
    if phase(volume) == wanted && said == message {
        return None;
    }
    let mut changed = volume.clone();
    let status: &mut PersistentVolumeStatus = changed.status.get_or_insert_default();
    status.phase = Some(wanted.to_owned());
    status.message = Some(message.to_owned()).filter(|message| !message.is_empty());
    Some(changed)
}

/// A volume without what ties it to its claim. A user's own reservation stays, for the next claim of the name.
pub fn released(volume: &PersistentVolume) -> PersistentVolume {
    let mut changed = volume.clone();
    let by_controller = has_annotation(&volume.metadata, BOUND_BY_CONTROLLER);
    if let Some(annotations) = &mut changed.metadata.annotations {
        annotations.remove(BOUND_BY_CONTROLLER);
    }
    let spec = changed.spec.get_or_insert_default();
    if by_controller {
        spec.claim_ref = None;
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
    }
    changed
}
