//! Nodes: their ranges of pod addresses, and what happens when one is no longer heard of.

pub mod cidr;
pub mod decide;
mod lifecycle;
mod ranges;
#[cfg(test)]
mod tests;
pub mod zones;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::meta::node_of;
pub use lifecycle::run_lifecycle;
pub use ranges::run_ranges;
use zones::Rates;

/// The identity of the controllers of nodes.
pub const NAME: &str = "node-controller";

/// The index of pods by node.
pub const BY_NODE: &str = "node";

/// What the controllers of nodes need to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's ranges of pod addresses, each with the prefix of a node's share; none means that nodes have
    /// their ranges from elsewhere.
    pub pod_cidrs: Vec<(String, u8)>,
    /// How long a node may be silent before it counts as lost (kube-controller-manager's
    /// `--node-monitor-grace-period`).
    pub grace_period: Duration,
    /// How fast lost nodes lose their pods.
    pub rates: Rates,
}

impl Default for Config {
    fn default() -> Self {
        Self { pod_cidrs: Vec::new(), grace_period: Duration::from_secs(50), rates: Rates::default() }
    }
}

/// The values of [`BY_NODE`].
pub fn pods_by_node(pod: &Pod) -> Vec<String> {
    vec![node_of(pod).to_owned()]
}
