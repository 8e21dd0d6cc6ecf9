//! The built-in provisioner of volumes that are folders of a node, as k3s has it: the same class, provisioner and
//! paths. The agents make and remove the folders; what is to go they are told by annotations of their Nodes
//! ([`skiff_api::local_path`]).

pub mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use serde_json::json;
use skiff_api::{
    local_path::{PROVISIONER, REMOVAL, volume_name},
    request::ContentType,
    status::{ApiError, Reason},
};
use skiff_client::{EventRecorder, EventType, Informer, Key};
use skiff_scheduler::volumes::matching::{SELECTED_NODE, class_of_claim};

use crate::{
    binder::annotation,
    frame::{Again, Context, Controller, Frame},
    meta::{name, namespace, uid},
};
use decide::{FINALIZER, Provision, Reclaim, provision, reclaim};

/// The controller's identity, named as k3s names it.
pub const NAME: &str = "local-path-provisioner-service-account";

struct Provisioner {
    context: Context,
    events: EventRecorder,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    classes: Arc<Informer<StorageClass>>,
    nodes: Arc<Informer<Node>>,
}

/// Runs the provisioner until cancelled.
pub async fn run(context: Context) {
    let of = &context.informers;
    let (claims, volumes) = (of.of::<PersistentVolumeClaim>(), of.of::<PersistentVolume>());
    let (classes, nodes) = (of.of::<StorageClass>(), of.of::<Node>());
    let cancel = context.cancel.clone();
    let provisioner = Provisioner {
        events: EventRecorder::new(context.client.clone(), PROVISIONER, "", cancel.clone()),
        claims: Arc::clone(&claims),
        volumes: Arc::clone(&volumes),
        classes: Arc::clone(&classes),
        nodes: Arc::clone(&nodes),
        context,
    };
    if cancel.run_until_cancelled(classes.synced()).await.is_none() {
        return;
    }
    let of_node = Arc::clone(&claims);
    Frame::new(NAME, Arc::new(provisioner), &cancel)
        .watch(&claims, |claim| vec![Key::of(claim)])
        .watch(&volumes, |volume| vec![Key::of(volume)])
        .watch_if(
            &nodes,
            |old, new| old.metadata.annotations != new.metadata.annotations,
            move |node| {
                let removals =
                    node.metadata.annotations.iter().flatten().filter_map(|(key, _)| key.strip_prefix(REMOVAL));
                let own = name(&node.metadata);
                let waits =
                    |claim: &&Arc<PersistentVolumeClaim>| annotation(&claim.metadata, SELECTED_NODE) == Some(own);
                let claims = of_node.list();
                let claims = claims.iter().filter(waits).map(|claim| Key::of(&**claim));
                removals.map(|volume| Key::new("", volume)).chain(claims).collect()
            },
        )
        .run(1)
        .await;
}

#[async_trait]
impl Controller for Provisioner {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let outcome = if key.namespace.is_empty() {
            match self.volumes.get("", &key.name) {
                Some(volume) => self.reclaim(&volume).await,
                None => self.forget(&key.name).await,
            }
        } else {
            match self.claims.get(&key.namespace, &key.name) {
                Some(claim) => self.provision(&claim).await,
                None => Ok(()),
            }
        };
        match outcome {
            Err(error) if error.is_not_found() => Ok(None),
            outcome => outcome.map(|()| None),
        }
    }
}

impl Provisioner {
    async fn provision(&self, claim: &PersistentVolumeClaim) -> Result<(), ApiError> {
        let class = self.classes.get("", class_of_claim(claim));
        let node = annotation(&claim.metadata, SELECTED_NODE).and_then(|node| self.nodes.get("", node));
        let there = self.volumes.get("", &volume_name(uid(&claim.metadata))).is_some();
        match provision(claim, class.as_deref(), node.as_deref()) {
            Provision::Nothing => Ok(()),
            Provision::Make(_) if there => Ok(()),
            Provision::Make(volume) => self.make(claim, &volume).await,
            Provision::Refuse(why) => {
                self.tell_failure(claim, &why);
                Ok(())
            }
            Provision::Elsewhere(why) => {
                self.tell_failure(claim, &why);
                let mut changed = claim.clone();
                changed.metadata.annotations.get_or_insert_default().remove(SELECTED_NODE);
                self.claims.observe(self.context.client.update(&changed).await?);
                Ok(())
            }
        }
    }

    fn tell_failure(&self, claim: &PersistentVolumeClaim, why: &str) {
        let class = class_of_claim(claim);
        let message = format!("failed to provision volume with StorageClass {class:?}: {why}");
        self.events.event(claim, EventType::Warning, "ProvisioningFailed", message);
    }

    async fn make(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), ApiError> {
        let (space, own) = (namespace(&claim.metadata), name(&claim.metadata));
        let message = format!("External provisioner is provisioning volume for claim \"{space}/{own}\"");
        self.events.event(claim, EventType::Normal, "Provisioning", message);
        match self.context.client.create(volume).await {
            Ok(made) => self.volumes.observe(made),
            Err(error) if error.reason == Reason::AlreadyExists => return Ok(()),
            Err(error) => return Err(error),
        }
        let message = format!("Successfully provisioned volume {}", name(&volume.metadata));
        self.events.event(claim, EventType::Normal, "ProvisioningSucceeded", message);
        Ok(())
    }

    async fn reclaim(&self, volume: &PersistentVolume) -> Result<(), ApiError> {
        let node = decide::node_of(volume).and_then(|node| self.nodes.get("", node));
        match reclaim(volume, node.as_deref()) {
            Reclaim::Nothing => Ok(()),
            Reclaim::Ask(node, state) => self.annotate(&node, name(&volume.metadata), Some(state)).await,
            Reclaim::LetGo => self.let_go(volume).await.map(drop),
            Reclaim::Delete => {
                if self.let_go(volume).await?.metadata.deletion_timestamp.is_none() {
                    let own = name(&volume.metadata);
                    self.context.client.delete::<PersistentVolume>("", own, &Default::default()).await?;
                }
                Ok(())
            }
        }
    }

    /// Takes the provisioner's finalizer away.
    async fn let_go(&self, volume: &PersistentVolume) -> Result<PersistentVolume, ApiError> {
        let mut changed = volume.clone();
        changed.metadata.finalizers.get_or_insert_default().retain(|known| known != FINALIZER);
        if changed == *volume {
            return Ok(changed);
        }
        let written = self.context.client.update(&changed).await?;
        if written.metadata.deletion_timestamp.is_none() {
            self.volumes.observe(written.clone());
        }
        Ok(written)
    }

    /// The volume is gone: nothing about it is to be left with nodes.
    async fn forget(&self, volume: &str) -> Result<(), ApiError> {
        let key = format!("{REMOVAL}{volume}");
        for node in self.nodes.list() {
            if annotation(&node.metadata, &key).is_some() {
                self.annotate(name(&node.metadata), volume, None).await?;
            }
        }
        Ok(())
    }

    async fn annotate(&self, node: &str, volume: &str, value: Option<&str>) -> Result<(), ApiError> {
        let patch = json!({"metadata": {"annotations": {format!("{REMOVAL}{volume}"): value}}});
        let written = self.context.client.patch::<Node>("", node, None, ContentType::MergePatch, &patch).await?;
        self.nodes.observe(written);
        Ok(())
    }
}
