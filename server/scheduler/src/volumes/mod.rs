//! Which nodes a pod's claims allow, and what is to be written before the pod is bound to one: kube-scheduler's
//! VolumeBinding and VolumeRestrictions, whose words are used. No I/O.

pub mod matching;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm},
    storage::v1::StorageClass,
};
use skiff_api::{claims::PodClaim, selector::Labels};

use crate::{
    filters::Refusal,
    snapshot::{NodeInfo, PodInfo, Snapshot},
};
use matching::{NO_PROVISIONER, SELECTED_NODE, class_of_claim, find, is_bound, reaches, request, volume_of};

const OUT_OF_REACH: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
const NO_SUCH_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const UNBOUND: &str = "pod has unbound immediate PersistentVolumeClaims";
const IN_USE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// What is known of storage.
pub trait Storage {
    /// A claim.
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>>;
    /// A volume.
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    /// All volumes.
    fn volumes(&self) -> Vec<Arc<PersistentVolume>>;
    /// A class.
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
    /// Whether a volume is promised to a pod that is about to be bound.
    fn is_promised(&self, volume: &str) -> bool;
}

/// What is to be written before a pod is bound.
#[derive(Clone, Debug)]
pub enum Step {
    /// The volume is reserved for the claim.
    Reserve {
        /// The volume.
        volume: Arc<PersistentVolume>,
        /// The claim.
        claim: Arc<PersistentVolumeClaim>,
    },
    /// The claim's volume is to be provisioned for the node.
    Provision {
        /// The claim.
        claim: Arc<PersistentVolumeClaim>,
    },
}

/// What one pod's claims ask of a node.
#[derive(Debug, Default)]
pub struct Needs {
    /// The volumes of claims that are bound; `None` for one that is gone.
    bound: Vec<Option<Arc<PersistentVolume>>>,
    /// Claims that wait for their first consumer's node, the smallest first, with their classes.
    open: Vec<(Arc<PersistentVolumeClaim>, Arc<StorageClass>)>,
    /// The volumes that these may take.
    free: Vec<Arc<PersistentVolume>>,
    /// Whether another pod uses a claim that one pod alone may use.
    in_use: bool,
}

impl Needs {
    /// Reads what a pod's claims ask for; the error says why no node at all will do.
    pub fn of(pod: &PodInfo, snapshot: &Snapshot, storage: &dyn Storage) -> Result<Self, String> {
        let mut needs = Self::default();
        for wanted in &pod.claims {
            let claim = claim(pod, wanted, storage)?;
            needs.in_use |= is_exclusive(&claim) && is_used(pod, &wanted.name, snapshot);
            if is_bound(&claim) {
                needs.bound.push(volume_of(&claim).and_then(|name| storage.volume(name)));
                continue;
            }
            let class = storage.class(class_of_claim(&claim));
            let delayed = |class: &StorageClass| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
            match class.filter(|class| delayed(class) && volume_of(&claim).is_none()) {
                Some(class) => needs.open.push((claim, class)),
                None => return Err(UNBOUND.to_owned()),
            }
        }
        if !needs.open.is_empty() {
            needs.open.sort_by_key(|(claim, _)| request(claim));
            needs.free = storage.volumes();
            needs.free.retain(|volume| !storage.is_promised(volume.metadata.name.as_deref().unwrap_or_default()));
        }
        Ok(needs)
    }

    /// Whether the claims allow a node.
    pub fn check(&self, node: &NodeInfo) -> Result<(), Refusal> {
        if self.in_use {
            return Err(vec![IN_USE.to_owned()]);
        }
        if self.bound.iter().any(Option::is_none) {
            return Err(vec![NO_SUCH_VOLUME.to_owned()]);
        }
        let mut refusals = Vec::new();
        if !self.bound.iter().flatten().all(|volume| reaches(volume, &node.node)) {
            refusals.push(OUT_OF_REACH.to_owned());
        }
        if self.steps(&node.node).is_none() {
            refusals.push(NO_VOLUME.to_owned());
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    /// What is to be written so that the pod can be bound to a node; `None` where the node has no volumes for it.
    pub fn steps(&self, node: &Node) -> Option<Vec<Step>> {
        let mut chosen = BTreeSet::new();
        self.open.iter().map(|(claim, class)| self.step(claim, class, node, &mut chosen)).collect()
    }

    fn step(
        &self,
        claim: &Arc<PersistentVolumeClaim>,
        class: &StorageClass,
        node: &Node,
        chosen: &mut BTreeSet<String>,
    ) -> Option<Step> {
        let claim = Arc::clone(claim);
        let name = node.metadata.name.as_deref().unwrap_or_default();
        // A volume is being provisioned already: it will be where it was asked for.
        if let Some(selected) = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE)) {
            return (selected == name).then_some(Step::Provision { claim });
        }
        let found = find(&claim, &self.free, Some(node), true, &|volume| chosen.contains(volume));
        if let Some(volume) = found.cloned() {
            chosen.extend(volume.metadata.name.clone());
            return Some(Step::Reserve { volume, claim });
        }
        let provisions = !class.provisioner.is_empty() && class.provisioner != NO_PROVISIONER;
        (provisions && allows(class, node)).then_some(Step::Provision { claim })
    }
}

fn claim(pod: &PodInfo, wanted: &PodClaim, storage: &dyn Storage) -> Result<Arc<PersistentVolumeClaim>, String> {
    let name = &wanted.name;
    let Some(claim) = storage.claim(pod.namespace(), name) else {
        return Err(match wanted.ephemeral {
            true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"),
            false => format!("persistentvolumeclaim {name:?} not found"),
        });
    };
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        let volume = volume_of(&claim).unwrap_or_default();
        return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if wanted.ephemeral && !owners.any(|owner| owner.uid == pod.uid()) {
        let (namespace, pod) = (pod.namespace(), pod.pod.metadata.name.as_deref().unwrap_or_default());
        return Err(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"));
    }
    Ok(claim)
}

fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
}

fn is_used(pod: &PodInfo, claim: &str, snapshot: &Snapshot) -> bool {
    let uses = |other: &&Arc<PodInfo>| {
        other.namespace() == pod.namespace()
            && other.uid() != pod.uid()
            && other.claims.iter().any(|used| used.name == claim)
    };
    snapshot.nodes().any(|node| node.pods.values().any(|other| uses(&other)))
}

/// Whether a class provisions volumes for a node.
fn allows(class: &StorageClass, node: &Node) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let has = |term: &TopologySelectorTerm| {
        term.match_label_expressions.iter().flatten().all(|expression| {
            let value = node.metadata.labels.label(&expression.key);
            value.is_some_and(|value| expression.values.iter().any(|wanted| wanted == value))
        })
    };
    terms.is_empty() || terms.iter().any(has)
}
