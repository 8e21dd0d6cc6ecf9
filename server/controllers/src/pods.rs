//! What the controllers of pods share: which pods are whose, taking them on and letting them go, making and deleting
//! them, with the events that say so.

use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, OwnerReference, Preconditions},
};
use skiff_api::{request::ContentType, selector::LabelSelector, status::ApiError};
use skiff_client::{EventType, Informer, Key, Kind};
use tokio::task::JoinSet;

use crate::{
    frame::{Context, Doomed},
    meta::{
        BY_CONTROLLER, adopt_patch, controller_of, controller_values, is_deleting, name, namespace, orphans_of,
        release_patch, uid,
    },
};

/// How many pods one pass creates or deletes, as in Kubernetes.
pub const BURST: usize = 500;

/// How many pods are created at once at first; twice as many after each batch that succeeds, so that a template that
/// is refused is refused once and not 500 times.
const FIRST_BATCH: usize = 1;

/// How many requests are under way at once.
const PARALLEL: usize = 64;

/// Which objects belong to an owner.
#[derive(Debug)]
pub struct Claimed<K> {
    /// The owner's, those to be taken on included.
    pub mine: Vec<Arc<K>>,
    /// To be taken on.
    pub adopt: Vec<Arc<K>>,
    /// To be let go.
    pub release: Vec<Arc<K>>,
}

/// Says which of the candidates belong to an owner: those it controls and selects, and those that nobody controls and
/// that are `adoptable`. An owner that is going takes nothing on and lets nothing go.
pub fn claim<K: Kind>(
    owner: &ObjectMeta,
    labels: &LabelSelector,
    candidates: Vec<Arc<K>>,
    adoptable: impl Fn(&K) -> bool,
) -> Claimed<K> {
    let mut claimed = Claimed { mine: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let going = is_deleting(owner);
    for one in candidates {
        let metadata = one.metadata();
        let matches = labels.matches(&metadata.labels);
        match controller_of(metadata) {
            Some(other) if other.uid != uid(owner) => {}
            Some(_) if matches => claimed.mine.push(one),
            Some(_) if going || is_deleting(metadata) => {}
            Some(_) => claimed.release.push(one),
            None if !matches || going || is_deleting(metadata) || !adoptable(&one) => {}
            None => {
                claimed.adopt.push(Arc::clone(&one));
                claimed.mine.push(one);
            }
        }
    }
    claimed
}

/// The owner that controls an object, or those that may want one that nobody controls.
pub fn keys_of_owned<K: Kind, O: Kind>(
    owned: &O,
    owners: &Informer<K>,
    labels: impl Fn(&K) -> LabelSelector,
) -> Vec<Key> {
    let metadata = owned.metadata();
    match controller_of(metadata) {
        Some(owner) if owner.kind == K::KIND => vec![Key::new(namespace(metadata), &*owner.name)],
        Some(_) => Vec::new(),
        None if is_deleting(metadata) => Vec::new(),
        None => owners
            .list_in(namespace(metadata))
            .iter()
            .filter(|owner| labels(owner).matches(&metadata.labels))
            .map(|owner| Key::of(&**owner))
            .collect(),
    }
}

/// A pod from a template, owned, its name made by the server from `prefix`.
pub fn pod_from_template(
    template: PodTemplateSpec,
    owner: &ObjectMeta,
    prefix: &str,
    reference: OwnerReference,
) -> Pod {
    let from = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{prefix}-")),
        namespace: Some(namespace(owner).to_owned()),
        labels: from.labels,
        annotations: from.annotations,
        finalizers: from.finalizers,
        owner_references: Some(vec![reference]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec, status: None }
}

/// A deletion of exactly the object that was seen.
pub fn delete_options(uid: &str) -> DeleteOptions {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
    DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() }
}

/// Whether a creation was refused because its namespace is being deleted.
pub fn is_namespace_terminating(error: &ApiError) -> bool {
    error.details["causes"].as_array().into_iter().flatten().any(|cause| cause["reason"] == "NamespaceTerminating")
}

/// The hands of a controller of pods.
pub struct PodControl {
    context: Context,
    /// The pods.
    pub pods: Arc<Informer<Pod>>,
    doomed: Arc<Doomed>,
    _following: JoinSet<()>,
}

impl PodControl {
    /// Hands in the name of a controller.
    pub fn new(context: &Context) -> Self {
        let pods = context.informers.of::<Pod>();
        pods.index(BY_CONTROLLER, controller_values);
        let doomed = Arc::new(Doomed::default());
        let mut following = JoinSet::new();
        doomed.follow(&pods, &mut following);
        Self { context: context.clone(), pods, doomed, _following: following }
    }

    /// Whether a pod has been deleted already though it is still shown as staying.
    pub fn is_doomed(&self, pod: &Pod) -> bool {
        self.doomed.contains(uid(&pod.metadata))
    }

    /// The pods that an owner controls, and those of its namespace that nobody does.
    pub fn claimable(&self, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.indexed(BY_CONTROLLER, uid(owner));
        pods.extend(self.pods.indexed(BY_CONTROLLER, &orphans_of(namespace(owner))));
        pods
    }

    /// Takes pods on and lets pods go.
    pub async fn claim<K: Kind>(&self, owner: &K, adopt: &[Arc<Pod>], release: &[Arc<Pod>]) -> Result<(), ApiError> {
        if !adopt.is_empty() {
            check_alive(&self.context, owner).await?;
        }
        for pod in adopt {
            self.patch(pod, &adopt_patch(owner, uid(&pod.metadata))).await?;
        }
        for pod in release {
            self.patch(pod, &release_patch(uid(owner.metadata()), uid(&pod.metadata))).await?;
        }
        Ok(())
    }

    /// Patches a pod (strategic merge); one that is gone is no error.
    pub async fn patch(&self, pod: &Pod, patch: &serde_json::Value) -> Result<(), ApiError> {
        let (namespace, name) = (namespace(&pod.metadata), name(&pod.metadata));
        let client = &self.context.client;
        match client.patch(namespace, name, None, ContentType::StrategicMergePatch, patch).await {
            Ok(pod) => self.pods.observe(pod),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Patches many pods at once.
    pub async fn patch_all(&self, patches: Vec<(Arc<Pod>, serde_json::Value)>) -> Result<(), ApiError> {
        let all = patches.into_iter().map(|(pod, patch)| async move { self.patch(&pod, &patch).await });
        let outcomes: Vec<_> = stream::iter(all).buffer_unordered(PARALLEL).collect().await;
        outcomes.into_iter().collect()
    }

    /// Creates pods, few at first. Ends at the first batch that has a failure.
    pub async fn create_all<K: Kind>(&self, owner: &K, pods: Vec<Pod>) -> Result<(), ApiError> {
        let mut left = pods.into_iter();
        let mut batch = FIRST_BATCH;
        loop {
            let now: Vec<Pod> = left.by_ref().take(batch).collect();
            if now.is_empty() {
                return Ok(());
            }
            let creations = now.into_iter().map(|pod| async move { self.create(owner, &pod).await });
            let outcomes: Vec<_> = stream::iter(creations).buffer_unordered(PARALLEL).collect().await;
            outcomes.into_iter().collect::<Result<(), _>>()?;
            batch *= 2;
        }
    }

    /// Creates a pod.
    pub async fn create<K: Kind>(&self, owner: &K, pod: &Pod) -> Result<(), ApiError> {
        match self.context.client.create(pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", name(&created.metadata));
                self.context.events.event(owner, EventType::Normal, "SuccessfulCreate", message);
                self.pods.observe(created);
                Ok(())
            }
            // The namespace is going, and the owner with it.
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.context.events.event(owner, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    /// Deletes pods, many at once.
    pub async fn delete_all<K: Kind>(&self, owner: &K, pods: &[Arc<Pod>]) -> Result<(), ApiError> {
        let deletions = pods.iter().cloned().map(|pod| async move { self.delete(owner, &pod).await });
        let outcomes: Vec<_> = stream::iter(deletions).buffer_unordered(PARALLEL).collect().await;
        outcomes.into_iter().collect()
    }

    /// Deletes a pod. From now on it counts as going.
    pub async fn delete<K: Kind>(&self, owner: &K, pod: &Pod) -> Result<(), ApiError> {
        let (uid, name) = (uid(&pod.metadata), name(&pod.metadata));
        // Before the request: the watch may tell of the deletion before the answer comes.
        self.doomed.add(uid);
        let space = namespace(&pod.metadata);
        match self.context.client.delete::<Pod>(space, name, &delete_options(uid)).await {
            Ok(_) => {
                self.context.events.event(owner, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {
                // The watch may have told of the deletion before it was noted above.
                if self.pods.get(space, name).is_none_or(|known| crate::meta::uid(&known.metadata) != uid) {
                    self.doomed.forget(uid);
                }
                Ok(())
            }
            Err(error) => {
                self.doomed.forget(uid);
                let message = format!("Error deleting: {error}");
                self.context.events.event(owner, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }
}

/// Before others' objects are taken on: the owner must still be there, by the server's word.
pub async fn check_alive<K: Kind>(context: &Context, owner: &K) -> Result<(), ApiError> {
    let metadata = owner.metadata();
    let fresh: K = context.client.get(namespace(metadata), name(metadata)).await?;
    if fresh.metadata().uid != metadata.uid || is_deleting(fresh.metadata()) {
        return Err(ApiError::conflict(K::GROUP, K::URL_PATH_SEGMENT, name(metadata), "it is going"));
    }
    Ok(())
}
