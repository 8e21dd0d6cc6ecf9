//! Where a pod's cgroups are, what they allow, and how likely the kernel ends its containers when memory is short; pure.

use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::{config::resources, model::DesiredPod, qos};
use crate::quantity;

/// The cgroup above all pods.
pub const ROOT: &str = "kubepods";
/// `oom_score_adj` of a Guaranteed pod's containers (kubernetes/pkg/kubelet/qos/policy.go).
const GUARANTEED: i64 = -997;
/// `oom_score_adj` of a BestEffort pod's containers.
const BEST_EFFORT: i64 = 1000;

/// The cgroups from the root to the pod's own, each by its path below the controllers' mount points.
pub fn path(desired: &DesiredPod) -> Vec<String> {
    let mut path = vec![ROOT.to_owned()];
    match qos::class(desired.spec()) {
        "Guaranteed" => {}
        class => path.push(format!("{ROOT}/{}", class.to_lowercase())),
    }
    let above = path.last().cloned().unwrap_or_default();
    path.push(format!("{above}/pod{}", desired.uid()));
    path
}

/// What the pod as a whole may use: the sum of its containers' requests, and of their limits where all have one.
pub fn limits(spec: &PodSpec) -> LinuxContainerResources {
    let each: Vec<_> = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(resources).collect();
    let proper = each.get(..spec.containers.len()).unwrap_or_default();
    let sum = |of: fn(&LinuxContainerResources) -> i64| proper.iter().map(of).fold(0, i64::saturating_add);
    let limit = |of: fn(&LinuxContainerResources) -> i64| {
        let all = each.iter().all(|resources| of(resources) > 0);
        let init = each.iter().skip(proper.len()).map(of).max().unwrap_or(0);
        if all { sum(of).max(init) } else { 0 }
    };
    LinuxContainerResources {
        cpu_period: super::config::CPU_PERIOD_US,
        cpu_shares: sum(|resources| resources.cpu_shares),
        cpu_quota: limit(|resources| resources.cpu_quota),
        memory_limit_in_bytes: limit(|resources| resources.memory_limit_in_bytes),
        ..LinuxContainerResources::default()
    }
}

/// A container's `oom_score_adj`: the more of the node's memory a Burstable container asks for, the later it is ended.
pub fn oom_score_adj(spec: &PodSpec, container: &Container, node_memory_bytes: u64) -> i64 {
    match qos::class(spec) {
        "Guaranteed" => GUARANTEED,
        "BestEffort" => BEST_EFFORT,
        _ => {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let request = requests.and_then(|requests| requests.get("memory"));
            let request = request.and_then(|text| quantity::units(&text.0)).unwrap_or(0);
            let capacity = i64::try_from(node_memory_bytes).unwrap_or(i64::MAX).max(1);
            let score = 1000 - request.saturating_mul(1000) / capacity;
            score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "tests")]
    use super::*;
    use crate::pods::tests::desired;
    use serde_json::{Value, json};

    fn pod(requests: Value, limits: Value) -> DesiredPod {
        desired(json!({"containers": [{"name": "a", "resources": {"requests": requests, "limits": limits}}]}))
    }

    #[test]
    fn paths_say_the_class() {
        let guaranteed = pod(json!({}), json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(path(&guaranteed), ["kubepods", "kubepods/podu"]);
        let burstable = pod(json!({"cpu": "1"}), json!({}));
        assert_eq!(path(&burstable), ["kubepods", "kubepods/burstable", "kubepods/burstable/podu"]);
        assert_eq!(path(&pod(json!({}), json!({})))[1], "kubepods/besteffort");
    }

    #[test]
    fn scores_follow_the_share_of_memory() {
        let gib = 1 << 30;
        let score = |pod: &DesiredPod| oom_score_adj(pod.spec(), &pod.spec().containers[0], 4 * gib);
        assert_eq!(score(&pod(json!({"memory": "1Gi"}), json!({}))), 750);
        assert_eq!(score(&pod(json!({"memory": "4Gi"}), json!({}))), 3);
        assert_eq!(score(&pod(json!({"cpu": "1"}), json!({}))), 999);
        assert_eq!(score(&pod(json!({}), json!({}))), 1000);
        assert_eq!(score(&pod(json!({}), json!({"cpu": "1", "memory": "1"}))), -997);
    }

    #[test]
    fn a_pods_limit_needs_all_containers_to_have_one() {
        let pod = desired(json!({
            "containers": [
                {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "100"}}},
                {"name": "b", "resources": {"limits": {"memory": "50"}}},
            ],
        }));
        let limits = limits(pod.spec());
        assert_eq!((limits.memory_limit_in_bytes, limits.cpu_quota), (150, 0));
        assert_eq!(limits.cpu_shares, 512 + 2);
    }
}
