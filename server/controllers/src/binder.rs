//! PersistentVolumes and claims find each other: the two refer to each other, and their phases say how far that is.
//!
//! - [`claims`], [`volumes`]: what each needs next.
//!
//! One worker looks at claims and volumes one after the other, so that no volume is given twice. Provisioners
//! ([`crate::local_path`] is built in) are told by an annotation of the claim, as Kubernetes tells external ones, and
//! delete the volumes that they made.

pub mod claims;
#[cfg(test)]
mod tests;
pub mod volumes;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use skiff_api::status::ApiError;
use skiff_client::{EventRecorder, EventType, Informer, Key, Kind};
use skiff_scheduler::{
    prepare::reserved,
    volumes::matching::{class_of_claim, class_of_volume, volume_of},
};

use crate::frame::{Again, Context, Controller, Frame};

/// The controller's identity.
pub const NAME: &str = "persistent-volume-binder";

/// Who its events are from, which is not what its identity is called.
const EVENTS_FROM: &str = "persistentvolume-controller";

/// The annotation of volumes that a provisioner made: which.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The annotations of claims whose volume a provisioner is to make: which. The first is the older one.
pub const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

/// What is told of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    kind: EventType,
    reason: &'static str,
    message: String,
}

impl Event {
    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Normal, reason, message: message.into() }
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Warning, reason, message: message.into() }
    }
}

/// An annotation's value.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn has_annotation(metadata: &ObjectMeta, key: &str) -> bool {
    annotation(metadata, key).is_some()
}

struct Binder {
    context: Context,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    classes: Arc<Informer<StorageClass>>,
    pods: Arc<Informer<Pod>>,
}

/// Runs the controller until cancelled.
pub async fn run(mut context: Context) {
    context.events = EventRecorder::new(context.client.clone(), EVENTS_FROM, "", context.cancel.clone());
    let of = &context.informers;
    let (claims, volumes) = (of.of::<PersistentVolumeClaim>(), of.of::<PersistentVolume>());
    let (classes, pods) = (of.of::<StorageClass>(), of.of::<Pod>());
    let cancel = context.cancel.clone();
    let binder = Binder {
        claims: Arc::clone(&claims),
        volumes: Arc::clone(&volumes),
        classes: Arc::clone(&classes),
        pods: Arc::clone(&pods),
        context,
    };
    if cancel.run_until_cancelled(pods.synced()).await.is_none() {
        return;
    }
    let (of_volume, of_class, volumes_of_claim) = (Arc::clone(&claims), Arc::clone(&claims), Arc::clone(&volumes));
    Frame::new(NAME, Arc::new(binder), &cancel)
        .watch(&claims, move |claim| {
            // The volume that it had, or has, may now be free.
            let named = volume_of(claim).map(|name| Key::new("", name));
            let meant =
                volumes_of_claim.list().into_iter().filter(|volume| names(volume, claim)).map(|one| Key::of(&*one));
            [Key::of(claim)].into_iter().chain(named).chain(meant).collect()
        })
        .watch(&volumes, move |volume| concerned(volume, &of_volume.list()))
        .watch_if(
            &classes,
            |old, new| old.metadata.annotations != new.metadata.annotations,
            move |class| {
                let class = class.metadata.name.clone().unwrap_or_default();
                let waits = |claim: &&Arc<PersistentVolumeClaim>| {
                    let wanted = class_of_claim(claim);
                    volume_of(claim).is_none() && (wanted.is_empty() || wanted == class)
                };
                of_class.list().iter().filter(waits).map(|claim| Key::of(&**claim)).collect()
            },
        )
        .run(1)
        .await;
}

/// Whether a volume names a claim.
fn names(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace
    })
}

/// A volume, and the claims that may want it.
fn concerned(volume: &PersistentVolume, claims: &[Arc<PersistentVolumeClaim>]) -> Vec<Key> {
    let own = volume.metadata.name.as_deref().unwrap_or_default();
    let wants = |claim: &&Arc<PersistentVolumeClaim>| match volume_of(claim) {
        Some(wanted) => wanted == own,
        None => names(volume, claim) || class_of_claim(claim) == class_of_volume(volume),
    };
    [Key::of(volume)].into_iter().chain(claims.iter().filter(wants).map(|claim| Key::of(&**claim))).collect()
}

#[async_trait]
impl Controller for Binder {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let outcome = if key.namespace.is_empty() {
            let Some(volume) = self.volumes.get("", &key.name) else { return Ok(None) };
            self.pass_volume(&volume).await
        } else {
            let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(None) };
            self.pass_claim(&claim).await
        };
        match outcome {
            Err(error) if error.is_not_found() => Ok(None),
            outcome => outcome.map(|()| None),
        }
    }
}

impl Binder {
    async fn pass_claim(&self, claim: &PersistentVolumeClaim) -> Result<(), ApiError> {
        let space = claim.metadata.namespace.as_deref().unwrap_or_default();
        let (volumes, classes) = (self.volumes.list(), self.classes.list());
        // Pods matter only while the claim waits for one.
        let pods = if volume_of(claim).is_none() { self.pods.list_in(space) } else { Vec::new() };
        let view = claims::View { volumes: &volumes, classes: &classes, pods: &pods };
        match claims::decide(claim, &view) {
            claims::Step::Wait(event) => {
                self.tell(claim, event);
                self.set_claim(claims::in_phase(claim, "Pending", None), true).await.map(drop)
            }
            claims::Step::TakeClass(class) => {
                let mut changed = claim.clone();
                changed.spec.get_or_insert_default().storage_class_name = Some(class);
                self.set_claim(Some(changed), false).await.map(drop)
            }
            claims::Step::Bind(volume) => self.bind(&volume, claim).await,
            claims::Step::Provision(provisioner) => self.provision(claim, &provisioner).await,
            claims::Step::Lose(event) => {
                let lost = claims::in_phase(claim, "Lost", None);
                if lost.is_some() {
                    self.tell(claim, Some(event));
                }
                self.set_claim(lost, true).await.map(drop)
            }
        }
    }

    /// The volume first: what crashes in between is gone on with, and no second volume is taken.
    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), ApiError> {
        let volume = self.set_volume(reserved(volume, claim), false).await?.unwrap_or_else(|| volume.clone());
        let in_phase = volumes::in_phase(&volume, "Bound", "");
        let volume = self.set_volume(in_phase, true).await?.unwrap_or(volume);
        let claim = self.set_claim(claims::bound(claim, &volume), false).await?.unwrap_or_else(|| claim.clone());
        self.set_claim(claims::in_phase(&claim, "Bound", Some(&volume)), true).await.map(drop)
    }

    async fn provision(&self, claim: &PersistentVolumeClaim, provisioner: &str) -> Result<(), ApiError> {
        let mut changed = claim.clone();
        let annotations = changed.metadata.annotations.get_or_insert_default();
        for key in PROVISIONER {
            annotations.insert(key.to_owned(), provisioner.to_owned());
        }
        if changed != *claim {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by \
                 the system administrator. If volume creation is delayed, please verify that the provisioner is \
                 running and correctly registered."
            );
            self.tell(claim, Some(Event::normal("ExternalProvisioning", message)));
            changed = self.context.client.update(&changed).await?;
            self.claims.observe(changed.clone());
        }
        self.set_claim(claims::in_phase(&changed, "Pending", None), true).await.map(drop)
    }

    async fn pass_volume(&self, volume: &PersistentVolume) -> Result<(), ApiError> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()).unwrap_or_default();
        let (space, name) = (reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
        let mut claim = self.claims.get(&space, &name);
        let known = claim.as_ref().is_some_and(|claim| claim.metadata.uid == reference.uid);
        // Nothing is given up on the word of a watch that may be late.
        if !known && reference.uid.is_some() && !name.is_empty() {
            claim = match self.context.client.get::<PersistentVolumeClaim>(&space, &name).await {
                Ok(claim) => Some(Arc::new(claim)),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
        }
        match volumes::decide(volume, claim.as_ref()) {
            volumes::Step::Nothing => Ok(()),
            volumes::Step::Phase(phase, message, event) => {
                let changed = volumes::in_phase(volume, phase, &message);
                if changed.is_some() {
                    self.tell(volume, event);
                }
                self.set_volume(changed, true).await.map(drop)
            }
            volumes::Step::AskClaim => match claim {
                Some(claim) => self.pass_claim(&claim).await,
                None => Ok(()),
            },
            volumes::Step::Release => {
                let volume = self.set_volume(Some(volumes::released(volume)), false).await?;
                let available = volume.as_ref().and_then(|volume| volumes::in_phase(volume, "Available", ""));
                self.set_volume(available, true).await.map(drop)
            }
        }
    }

    fn tell<K: Kind>(&self, about: &K, event: Option<Event>) {
        if let Some(Event { kind, reason, message }) = event {
            self.context.events.event(about, kind, reason, message);
        }
    }

    async fn set_claim(
        &self,
        changed: Option<PersistentVolumeClaim>,
        status: bool,
    ) -> Result<Option<PersistentVolumeClaim>, ApiError> {
        self.set(&self.claims, changed, status).await
    }

    async fn set_volume(
        &self,
        changed: Option<PersistentVolume>,
        status: bool,
    ) -> Result<Option<PersistentVolume>, ApiError> {
        self.set(&self.volumes, changed, status).await
    }

    /// Writes what changed, if anything did, and lets the informer know.
    async fn set<K: Kind>(
        &self,
        informer: &Informer<K>,
        changed: Option<K>,
        status: bool,
    ) -> Result<Option<K>, ApiError> {
        let Some(changed) = changed else { return Ok(None) };
        let written = self.context.client.update_subresource(&changed, status.then_some("status")).await?;
        informer.observe(written.clone());
        Ok(Some(written))
    }
}
