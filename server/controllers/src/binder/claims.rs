//! What a claim needs next. No I/O.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use skiff_api::claims::claims_of;
use skiff_scheduler::volumes::matching::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, NO_PROVISIONER, SELECTED_NODE, class_of_claim, find, is_meant_for, mismatch,
    volume_of,
};

use super::{Event, annotation, has_annotation};
use crate::meta::{is_deleting, name, namespace, node_of, uid};

/// The annotation of the default class.
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// What is to be done with a claim.
#[derive(Debug)]
pub enum Step {
    /// It waits.
    Wait(Option<Event>),
    /// It takes the default class, which came after it.
    TakeClass(String),
    /// It and the volume are to refer to each other.
    Bind(Arc<PersistentVolume>),
    /// A provisioner is to make its volume.
    Provision(String),
    /// It has lost its volume.
    Lose(Event),
}

/// What a claim is looked at with.
pub struct View<'a> {
    /// All volumes.
    pub volumes: &'a [Arc<PersistentVolume>],
    /// All classes.
    pub classes: &'a [Arc<StorageClass>],
    /// The pods of the claim's namespace.
    pub pods: &'a [Arc<Pod>],
}

impl View<'_> {
    fn volume(&self, wanted: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.iter().find(|volume| name(&volume.metadata) == wanted)
    }

    fn class(&self, wanted: &str) -> Option<&Arc<StorageClass>> {
        self.classes.iter().find(|class| name(&class.metadata) == wanted)
    }

    /// Of several default classes the newest, then the first by name.
    fn default_class(&self) -> Option<&str> {
        let defaults = self.classes.iter().filter(|class| annotation(&class.metadata, IS_DEFAULT) == Some("true"));
        let age = |class: &&Arc<StorageClass>| {
            let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (std::cmp::Reverse(created), name(&class.metadata).to_owned())
        };
        defaults.min_by_key(age).map(|class| name(&class.metadata))
    }
}

/// What a claim needs next.
pub fn decide(claim: &PersistentVolumeClaim, view: &View<'_>) -> Step {
    match (has_annotation(&claim.metadata, BIND_COMPLETED), volume_of(claim)) {
        (true, None) => {
            lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
        }
        (true, Some(volume)) => keep(claim, view.volume(volume)),
        (false, Some(volume)) => take(claim, volume, view.volume(volume)),
        (false, None) => search(claim, view),
    }
}

fn lost(reason: &'static str, message: &str) -> Step {
    Step::Lose(Event::warning(reason, message))
}

/// A claim that was bound.
fn keep(claim: &PersistentVolumeClaim, volume: Option<&Arc<PersistentVolume>>) -> Step {
    let Some(volume) = volume else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match reference {
        Some(reference) if reference.uid.as_deref() != Some(uid(&claim.metadata)) => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => Step::Bind(Arc::clone(volume)),
    }
}

/// A claim that names its volume.
fn take(claim: &PersistentVolumeClaim, wanted: &str, volume: Option<&Arc<PersistentVolume>>) -> Step {
    let Some(volume) = volume else { return Step::Wait(None) };
    let free = volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none());
    if free {
        return match mismatch(volume, claim) {
            Some(why) => {
                let message = format!("Cannot bind to requested volume {wanted:?}: {why}");
                Step::Wait(Some(Event::warning("VolumeMismatch", message)))
            }
            None => Step::Bind(Arc::clone(volume)),
        };
    }
    if is_meant_for(volume, claim) {
        return Step::Bind(Arc::clone(volume));
    }
    let message = format!("volume {wanted:?} already bound to a different claim.");
    Step::Wait(Some(Event::warning("FailedBinding", message)))
}

/// A claim that takes what suits it.
fn search(claim: &PersistentVolumeClaim, view: &View<'_>) -> Step {
    if is_deleting(&claim.metadata) {
        return Step::Wait(None);
    }
    let class = class_of_claim(claim);
    let found = view.class(class);
    let waits = found.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let delayed = waits && !has_annotation(&claim.metadata, SELECTED_NODE);
    if let Some(volume) = find(claim, view.volumes, None, delayed, &|_| false) {
        return Step::Bind(Arc::clone(volume));
    }
    if delayed {
        return Step::Wait(Some(waits_for_consumer(claim, view.pods)));
    }
    if claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_none())
        && class.is_empty()
        && let Some(default) = view.default_class()
    {
        return Step::TakeClass(default.to_owned());
    }
    if class.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        return Step::Wait(Some(Event::normal("FailedBinding", message)));
    }
    let Some(found) = found else {
        let message = format!("storageclass.storage.k8s.io {class:?} not found");
        return Step::Wait(Some(Event::warning("ProvisioningFailed", message)));
    };
    if found.provisioner == NO_PROVISIONER {
        let message = format!("no volume plugin matched name: {NO_PROVISIONER}");
        return Step::Wait(Some(Event::warning("ProvisioningFailed", message)));
    }
    Step::Provision(found.provisioner.clone())
}

fn waits_for_consumer(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Event {
    let own = name(&claim.metadata);
    let waits = |pod: &&Arc<Pod>| {
        namespace(&pod.metadata) == namespace(&claim.metadata)
            && node_of(pod).is_empty()
            && claims_of(pod).iter().any(|used| used.name == own)
    };
    match pods.iter().find(waits) {
        Some(pod) => {
            Event::normal("WaitForPodScheduled", format!("waiting for pod {} to be scheduled", name(&pod.metadata)))
        }
        None => Event::normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
    }
}

/// A claim with its reference to a volume; `None` where it is whole already.
pub fn bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let wanted = name(&volume.metadata);
    if volume_of(claim) == Some(wanted) && has_annotation(&claim.metadata, BIND_COMPLETED) {
        return None;
    }
    let mut claim = claim.clone();
    let annotations = claim.metadata.annotations.get_or_insert_default();
    // What a user chose stays known as the user's choice.
    if claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) != Some(wanted) {
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
    claim.spec.get_or_insert_default().volume_name = Some(wanted.to_owned());
    Some(claim)
}

/// A claim with the status of its phase; `None` where it says so already.
pub fn in_phase(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let mut changed = claim.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    match volume.and_then(|volume| volume.spec.as_ref()) {
        Some(spec) => {
            status.access_modes = spec.access_modes.clone();
            status.current_volume_attributes_class_name = spec.volume_attributes_class_name.clone();
            // A volume that grows says so itself, by the controller that lets it grow.
            let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
            let size = spec.capacity.as_ref().and_then(|capacity| capacity.get("storage"));
            let known = status.capacity.as_ref().is_some_and(|capacity| capacity.contains_key("storage"));
            if let Some(size) = size.filter(|_| !bound || !known) {
                status.capacity.get_or_insert_default().insert("storage".to_owned(), size.clone());
            }
        }
        None => {
            status.access_modes = None;
            status.capacity = None;
            status.current_volume_attributes_class_name = None;
        }
    }
    (changed.status != claim.status).then_some(changed)
}
