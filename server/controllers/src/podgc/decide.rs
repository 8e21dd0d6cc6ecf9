//! Which pods nobody else will delete. No I/O.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::meta::{is_deleting, is_terminal, node_of};

/// The taint by which somebody says that a node will not come back as it was.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Why a pod has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// Its node is gone.
    NoNode,
    /// Its node is out of service, and it was asked to end.
    OutOfService,
    /// It was asked to end before it had a node.
    Unscheduled,
    /// There are too many that have ended.
    Ended,
}

impl Doom {
    /// What the pod's condition says of it, in the words of Kubernetes.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoNode => "PodGC: node no longer exists",
            Self::OutOfService => "PodGC: node is out-of-service",
            Self::Unscheduled => "PodGC: unscheduled pod is terminating",
            Self::Ended => "PodGC: too many pods have ended",
        }
    }
}

/// Whether a node is out of service: not ready, and tainted so by somebody who knows.
pub fn is_out_of_service(node: &Node) -> bool {
    let ready = crate::nodes::decide::condition(node, "Ready").is_some_and(|ready| ready.status == "True");
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    !ready && taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Of the pods of a node (or of none), those that have to go. `lost` says that the node does not exist, by the
/// server's word.
pub fn decide(pods: &[Arc<Pod>], node: Option<&Node>, lost: bool) -> Vec<(Arc<Pod>, Doom)> {
    let out_of_service = node.is_some_and(is_out_of_service);
    let doom = |pod: &Arc<Pod>| {
        let doom = match (node_of(pod).is_empty(), is_deleting(&pod.metadata)) {
            (true, true) => Doom::Unscheduled,
            (true, false) => return None,
            (false, _) if lost => Doom::NoNode,
            (false, true) if out_of_service && !is_terminal(pod) => Doom::OutOfService,
            (false, _) => return None,
        };
        Some((Arc::clone(pod), doom))
    };
    pods.iter().filter_map(doom).collect()
}

/// Of ended pods, those beyond a number: the evicted first, then the oldest.
pub fn surplus(mut ended: Vec<Arc<Pod>>, keep: usize) -> Vec<Arc<Pod>> {
    let is_evicted = |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
    ended.retain(|pod| !is_deleting(&pod.metadata));
    let excess = ended.len().saturating_sub(keep);
    ended.sort_by_key(|pod| (!is_evicted(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0)));
    ended.truncate(excess);
    ended
}
