//! The objects of volumes that are folders of nodes.

use serde_json::json;
use skiff_api::local_path;

use super::{Seed, own::seed};

/// Volumes that are folders of nodes: the class, which is the default as in k3s, and what its provisioner may do.
pub(super) fn seeds() -> Vec<Seed> {
    let group = "rbac.authorization.k8s.io";
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let class = json!({
        "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": local_path::PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    let role = json!({
        "metadata": {"name": "local-path-provisioner-role"},
        "rules": [
            rule("", &["nodes"], &["get", "list", "watch", "patch"]),
            rule("", &["persistentvolumeclaims"], &["get", "list", "watch", "update"]),
            rule("", &["persistentvolumes"], &["get", "list", "watch", "create", "update", "delete"]),
            rule("storage.k8s.io", &["storageclasses"], &["get", "list", "watch"]),
            rule("", &["events"], &["create", "patch"]),
        ],
    });
    let binding = json!({
        "metadata": {"name": "local-path-provisioner-bind"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "local-path-provisioner-role"},
        "subjects": [{"kind": "ServiceAccount", "name": "local-path-provisioner-service-account",
            "namespace": "kube-system"}],
    });
    vec![
        seed("storage.k8s.io", "v1", "storageclasses", class, &[]),
        seed(group, "v1", "clusterroles", role, &["rules"]),
        seed(group, "v1", "clusterrolebindings", binding, &[]),
    ]
}
