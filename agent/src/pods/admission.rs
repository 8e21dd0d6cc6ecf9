//! Whether the node lets a pod in that the scheduler sent: the kubelet's last word before a pod's first sandbox; pure.

use k8s_openapi::api::core::v1::Pod;

use super::{
    model::{DesiredPod, Ended},
    qos, sysctls,
};
use crate::node::pressure::{self, Conditions};

/// How many OCI pods a node takes: the kubelet's own limit. Wasm pods are limited by `--max-pods` alone.
pub const MAX_OCI_PODS: usize = 110;

/// Why a pod is not let in. `oci_pods`: the OCI pods that were there before it, if it is one itself; `sysctls`: the
/// patterns of kernel parameters that the operator allows.
pub fn refuse(
    desired: &DesiredPod,
    oci_pods: Option<usize>,
    conditions: Conditions,
    sysctls: &[String],
) -> Option<Ended> {
    let ended = |reason: &str, message: String| Ended { reason: reason.to_owned(), message, grace_seconds: Some(0) };
    if let Some(used) = oci_pods.filter(|used| *used >= MAX_OCI_PODS) {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {MAX_OCI_PODS}"
        );
        return Some(ended("OutOfpods", message));
    }
    if let Some(why) = sysctls::refuse(desired.spec(), sysctls) {
        return Some(ended("SysctlForbidden", format!("Pod was rejected: {why}")));
    }
    let (class, priority) = (qos::class(desired.spec()), desired.spec().priority.unwrap_or(0));
    let short = pressure::refuses(conditions, class, priority)?;
    Some(ended("Evicted", format!("Pod was rejected: {short}")))
}

/// Whether another pod was there before: it has started, or was created earlier.
pub fn is_before(other: &Pod, own: &Pod) -> bool {
    let status = other.status.as_ref();
    let over = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
    let started = status.is_some_and(|status| status.start_time.is_some());
    let age = |pod: &Pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.metadata.uid.clone());
    other.metadata.uid != own.metadata.uid && !over && (started || age(other) < age(own))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::pods::tests::desired;
    use serde_json::json;

    #[test]
    fn full_and_short_nodes_refuse() {
        let pod = desired(json!({"containers": [{"name": "a"}]}));
        let none = Conditions::default();
        let refuse = |pod, oci_pods, conditions| refuse(pod, oci_pods, conditions, &[]);
        assert_eq!(refuse(&pod, None, none), None);
        assert_eq!(refuse(&pod, Some(MAX_OCI_PODS - 1), none), None);
        assert_eq!(refuse(&pod, Some(MAX_OCI_PODS), none).unwrap().reason, "OutOfpods");
        let short = Conditions { memory: true, ..none };
        assert!(refuse(&pod, None, short).unwrap().message.contains("MemoryPressure"));
        let sysctls = json!([{"name": "kernel.msgmax", "value": "1"}]);
        let unsafe_one = desired(json!({"containers": [{"name": "a"}], "securityContext": {"sysctls": sysctls}}));
        assert_eq!(refuse(&unsafe_one, None, none).unwrap().reason, "SysctlForbidden");
    }

    #[test]
    fn the_older_and_the_started_are_before() {
        let pod = |uid: &str, created: &str, status: serde_json::Value| -> Pod {
            let metadata = json!({"uid": uid, "creationTimestamp": created});
            serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
        };
        let own = pod("b", "2026-01-01T00:00:10Z", json!({}));
        assert!(!is_before(&own, &own));
        assert!(is_before(&pod("a", "2026-01-01T00:00:10Z", json!({})), &own));
        assert!(!is_before(&pod("c", "2026-01-01T00:00:10Z", json!({})), &own));
        assert!(is_before(&pod("c", "2026-01-01T00:00:20Z", json!({"startTime": "2026-01-01T00:00:21Z"})), &own));
        assert!(!is_before(&pod("a", "2026-01-01T00:00:00Z", json!({"phase": "Failed"})), &own));
    }
}
