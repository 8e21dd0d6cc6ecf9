//! The claims that a pod's volumes are, ephemeral ones included.

use k8s_openapi::api::core::v1::{Pod, Volume};

/// A claim of a pod's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodClaim {
    /// The claim's name.
    pub name: String,
    /// Whether it comes and goes with the pod.
    pub ephemeral: bool,
}

/// The claim that a volume of a pod is, if it is one.
pub fn claim_of(pod_name: &str, volume: &Volume) -> Option<PodClaim> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(PodClaim { name: source.claim_name.clone(), ephemeral: false }),
        (None, Some(_)) => Some(PodClaim { name: format!("{pod_name}-{}", volume.name), ephemeral: true }),
        (None, None) => None,
    }
}

/// The claims of a pod's volumes.
pub fn claims_of(pod: &Pod) -> Vec<PodClaim> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim_of(name, volume)).collect()
}
