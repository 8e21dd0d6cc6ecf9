//! What is written for a pod's volumes before the pod is bound, and the wait until they are bound themselves.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use skiff_api::status::ApiError;
use skiff_client::{Client, Informer, Informers, recorder};

use crate::{
    decide::Choice,
    snapshot::PodInfo,
    volumes::{
        Step, Storage,
        matching::{BOUND_BY_CONTROLLER, SELECTED_NODE, is_bound, is_meant_for, reaches, volume_of},
    },
};

/// How long volumes may take to be provisioned and bound (kube-scheduler's `bindTimeoutSeconds`).
const BIND_TIMEOUT: Duration = Duration::from_secs(600);

/// Claims, volumes and classes as they are now, and which volumes are promised.
#[derive(Clone)]
pub(crate) struct Volumes {
    pub(crate) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(crate) volumes: Arc<Informer<PersistentVolume>>,
    pub(crate) classes: Arc<Informer<StorageClass>>,
    /// Volumes that pods which are about to be bound will have, each with the pod's UID.
    promised: HashMap<String, String>,
}

impl Volumes {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { claims: informers.of(), volumes: informers.of(), classes: informers.of(), promised: HashMap::new() }
    }

    pub(crate) async fn synced(&self) {
        futures::future::join3(self.claims.synced(), self.volumes.synced(), self.classes.synced()).await;
    }

    /// The volumes of a choice are the pod's until [`Self::release`].
    pub(crate) fn promise(&mut self, pod: &PodInfo, choice: &Choice) {
        for step in &choice.steps {
            if let Step::Reserve { volume, .. } = step {
                let name = volume.metadata.name.clone().unwrap_or_default();
                self.promised.insert(name, pod.uid().to_owned());
            }
        }
    }

    /// The pod was bound, or is not going to be.
    pub(crate) fn release(&mut self, pod: &str) {
        self.promised.retain(|_, promised| promised != pod);
    }
}

impl Storage for Volumes {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(namespace, name)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get("", name)
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.list()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get("", name)
    }

    fn is_promised(&self, volume: &str) -> bool {
        self.promised.contains_key(volume)
    }
}

/// What prepares a pod's volumes for a node.
pub(crate) struct Preparation {
    pub(crate) client: Client,
    pub(crate) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(crate) volumes: Arc<Informer<PersistentVolume>>,
    pub(crate) node: Arc<Node>,
}

impl Preparation {
    /// Writes what the steps say and waits until their claims are bound.
    pub(crate) async fn run(&self, steps: &[Step]) -> Result<(), ApiError> {
        for step in steps {
            self.write(step).await?;
        }
        let waited = tokio::time::timeout(BIND_TIMEOUT, self.wait(steps)).await;
        waited.map_err(|_| ApiError::internal("binding volumes: context deadline exceeded"))?
    }

    fn node_name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    async fn write(&self, step: &Step) -> Result<(), ApiError> {
        match step {
            Step::Reserve { volume, claim } => {
                if let Some(volume) = reserved(volume, claim) {
                    self.volumes.observe(self.client.update(&volume).await?);
                }
            }
            Step::Provision { claim } => {
                let mut claim = (**claim).clone();
                let annotations = claim.metadata.annotations.get_or_insert_default();
                let selected = annotations.insert(SELECTED_NODE.to_owned(), self.node_name().to_owned());
                if selected.as_deref() != Some(self.node_name()) {
                    self.claims.observe(self.client.update(&claim).await?);
                }
            }
        }
        Ok(())
    }

    async fn wait(&self, steps: &[Step]) -> Result<(), ApiError> {
        let mut changes = self.claims.subscribe();
        loop {
            let mut all = true;
            for step in steps {
                all &= self.is_done(step)?;
            }
            if all {
                return Ok(());
            }
            if changes.next().await.is_none() {
                return Err(ApiError::internal("the scheduler ends"));
            }
        }
    }

    /// Whether a step's claim is bound, to a volume that the node reaches.
    fn is_done(&self, step: &Step) -> Result<bool, ApiError> {
        let (Step::Reserve { claim, .. } | Step::Provision { claim }) = step;
        let metadata: &ObjectMeta = &claim.metadata;
        let (namespace, name) =
            (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
        let now = self.claims.get(namespace, name).filter(|now| now.metadata.uid == metadata.uid);
        let Some(now) = now else {
            return Err(ApiError::internal(format!("persistentvolumeclaim {name:?} not found")));
        };
        let selected = now.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
        if matches!(step, Step::Provision { .. }) && selected.map(String::as_str) != Some(self.node_name()) {
            let why = format!("provisioning failed for PVC {name:?}: its selected-node annotation was reset");
            return Err(ApiError::internal(why));
        }
        if !is_bound(&now) {
            return Ok(false);
        }
        let volume = volume_of(&now).and_then(|volume| self.volumes.get("", volume));
        match volume.filter(|volume| !reaches(volume, &self.node)) {
            Some(volume) => Err(ApiError::internal(format!(
                "pv {:?} node affinity doesn't match node {:?}",
                volume.metadata.name.as_deref().unwrap_or_default(),
                self.node_name()
            ))),
            None => Ok(true),
        }
    }
}

/// A volume with its reference to a claim; `None` where it has it already.
pub fn reserved(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let spec = volume.spec.as_ref()?;
    let whole = spec.claim_ref.as_ref().is_some_and(|reference| reference.uid == claim.metadata.uid);
    if whole && is_meant_for(volume, claim) {
        return None;
    }
    let mut volume = volume.clone();
    // A user's own reference to the claim is completed, and stays the user's.
    if !is_meant_for(&volume, claim) {
        let annotations = volume.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    let reference: ObjectReference = recorder::reference(claim);
    volume.spec.get_or_insert_default().claim_ref = Some(reference);
    Some(volume)
}
