//! Volumes and claims that are in use are not deleted: a finalizer holds a claim while a pod that is bound to a node
//! uses it, and a volume while it is bound to a claim.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use skiff_api::{claims::claims_of as all_claims_of, request::Options, status::ApiError};
use skiff_client::{Informer, Key, Kind};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, namespace, node_of},
};

/// The identity of the controller of claims.
pub const CLAIMS_NAME: &str = "pvc-protection-controller";
/// The identity of the controller of volumes.
pub const VOLUMES_NAME: &str = "pv-protection-controller";

/// The finalizer of claims.
pub const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
/// The finalizer of volumes.
pub const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// The index of pods by the claims that they use, as `NAMESPACE/CLAIM`.
const BY_CLAIM: &str = "claim";

/// What is to be done with an object's finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Put it there.
    Add,
    /// Take it away.
    Remove,
}

/// Decides on a finalizer: it is there while the object is not going, and while it is in use.
pub fn decide(metadata: &ObjectMeta, finalizer: &str, in_use: impl FnOnce() -> bool) -> Step {
    let has = metadata.finalizers.iter().flatten().any(|known| known == finalizer);
    match (is_deleting(metadata), has) {
        (true, true) if !in_use() => Step::Remove,
        (false, false) => Step::Add,
        _ => Step::Keep,
    }
}

/// The claims that a pod uses, if it is bound to a node: before that the agent would refuse a claim that is going.
fn claims_of(pod: &Pod) -> Vec<String> {
    if node_of(pod).is_empty() {
        return Vec::new();
    }
    all_claims_of(pod).iter().map(|claim| format!("{}/{}", namespace(&pod.metadata), claim.name)).collect()
}

struct Claims {
    context: Context,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    pods: Arc<Informer<Pod>>,
}

/// Protects claims, until cancelled.
pub async fn run_claims(context: Context) {
    let (claims, pods) = (context.informers.of::<PersistentVolumeClaim>(), context.informers.of::<Pod>());
    pods.index(BY_CLAIM, claims_of);
    let cancel = context.cancel.clone();
    let controller = Claims { context, claims: Arc::clone(&claims), pods: Arc::clone(&pods) };
    let of_pod = |pod: &Pod| {
        let keys = all_claims_of(pod).into_iter().map(|claim| Key::new(namespace(&pod.metadata), claim.name));
        keys.collect()
    };
    Frame::new(CLAIMS_NAME, Arc::new(controller), &cancel)
        .watch(&claims, |claim| vec![Key::of(claim)])
        .watch_if(&pods, |_, _| false, of_pod)
        .run(1)
        .await;
}

#[async_trait]
impl Controller for Claims {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(None) };
        let used = || !self.pods.indexed(BY_CLAIM, &key.to_string()).is_empty();
        let step = decide(&claim.metadata, CLAIM_FINALIZER, used);
        // A pod that the watch has not told of yet may use it.
        if step == Step::Remove && self.is_used_by_servers_word(key).await? {
            return Ok(None);
        }
        apply(&self.context, &self.claims, &claim, CLAIM_FINALIZER, step).await
    }
}

impl Claims {
    async fn is_used_by_servers_word(&self, key: &Key) -> Result<bool, ApiError> {
        let pods = self.context.client.list::<Pod>(Some(&key.namespace), &Options::default()).await?;
        let wanted = key.to_string();
        Ok(pods.items.iter().any(|pod| claims_of(pod).contains(&wanted)))
    }
}

struct Volumes {
    context: Context,
    volumes: Arc<Informer<PersistentVolume>>,
}

/// Protects volumes, until cancelled.
pub async fn run_volumes(context: Context) {
    let volumes = context.informers.of::<PersistentVolume>();
    let cancel = context.cancel.clone();
    let controller = Volumes { context, volumes: Arc::clone(&volumes) };
    Frame::new(VOLUMES_NAME, Arc::new(controller), &cancel)
        .watch(&volumes, |volume| vec![Key::of(volume)])
        .run(1)
        .await;
}

#[async_trait]
impl Controller for Volumes {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(volume) = self.volumes.get("", &key.name) else { return Ok(None) };
        let step = decide(&volume.metadata, VOLUME_FINALIZER, || is_bound(&volume));
        apply(&self.context, &self.volumes, &volume, VOLUME_FINALIZER, step).await
    }
}

fn is_bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

async fn apply<K: Kind>(
    context: &Context,
    informer: &Informer<K>,
    object: &K,
    finalizer: &str,
    step: Step,
) -> Result<Again, ApiError> {
    let mut changed = object.clone();
    let finalizers = changed.metadata_mut().finalizers.get_or_insert_default();
    match step {
        Step::Keep => return Ok(None),
        Step::Add => finalizers.push(finalizer.to_owned()),
        Step::Remove => finalizers.retain(|known| known != finalizer),
    }
    match context.client.update(&changed).await {
        Ok(object) if object.metadata().deletion_timestamp.is_none() => informer.observe(object),
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(None)
}
