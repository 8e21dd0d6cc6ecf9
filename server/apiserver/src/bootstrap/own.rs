//! The objects that depend on how this cluster is set up, and skiff's own.

use jiff::Timestamp;
use serde_json::{Value, json};
use skiff_api::{object::Object, request::GroupVersionResource};

use super::{JOINING_GROUP, Seed};
use crate::registry::{RegistryConfig, meta};

/// The name of the API server's Service and of its endpoints.
const KUBERNETES: &str = "kubernetes";

/// The API group of roles and bindings.
const RBAC: &str = "rbac.authorization.k8s.io";

/// The name of skiff's own RuntimeClass and of its handler.
const WASM: &str = "wasm";

fn seed(group: &str, version: &str, resource: &str, object: Value, kept: &'static [&'static str]) -> Seed {
    let object = Object(object.as_object().cloned().unwrap_or_default());
    Seed { gvr: GroupVersionResource::new(group, version, resource), object, kept }
}

/// Every object that depends on how the cluster is set up.
pub(super) fn seeds(config: &RegistryConfig, now: Timestamp) -> Vec<Seed> {
    let mut seeds = vec![
        service_cidr(config, now),
        service(config),
        endpoints(config),
        endpoint_slice(config),
        wasm(),
        node_proxier(),
    ];
    seeds.extend(config_maps(config, now));
    seeds.extend(joining());
    seeds
}

/// The range of Service addresses.
fn service_cidr(config: &RegistryConfig, now: Timestamp) -> Seed {
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": meta::time(now),
    });
    let object = json!({
        "metadata": {"name": KUBERNETES},
        "spec": {"cidrs": [config.service_cidr.to_string()]},
        "status": {"conditions": [ready]},
    });
    seed("networking.k8s.io", "v1", "servicecidrs", object, &[])
}

/// The Service by which pods reach the API server.
fn service(config: &RegistryConfig) -> Seed {
    let address = config.service_cidr.nth(1).to_string();
    let object = json!({
        "metadata": {"name": KUBERNETES, "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "sessionAffinity": "None",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.advertise_port}],
        },
    });
    seed("", "v1", "services", object, &[])
}

/// The fields that are put right where this is the only API server: where there are others too, each looks after its
/// own part.
fn own_alone(config: &RegistryConfig, fields: &'static [&'static str]) -> &'static [&'static str] {
    if config.shared { &[] } else { fields }
}

/// Where the API server listens, as `Endpoints`.
fn endpoints(config: &RegistryConfig) -> Seed {
    let object = json!({
        "metadata": {"name": KUBERNETES, "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": config.advertise_address.to_string()}],
            "ports": [{"name": "https", "port": config.advertise_port, "protocol": "TCP"}],
        }],
    });
    seed("", "v1", "endpoints", object, own_alone(config, &["subsets"]))
}

/// Where the API server listens, as an `EndpointSlice`.
fn endpoint_slice(config: &RegistryConfig) -> Seed {
    let object = json!({
        "metadata": {"name": KUBERNETES, "namespace": "default",
            "labels": {"kubernetes.io/service-name": KUBERNETES}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [config.advertise_address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": config.advertise_port, "protocol": "TCP"}],
    });
    seed("discovery.k8s.io", "v1", "endpointslices", object, own_alone(config, &["endpoints", "ports"]))
}

/// The RuntimeClass of Wasm pods.
fn wasm() -> Seed {
    seed("node.k8s.io", "v1", "runtimeclasses", json!({"metadata": {"name": WASM}, "handler": WASM}), &[])
}

/// Each node proxies Services itself, so nodes have the role that Kubernetes gives to kube-proxy.
fn node_proxier() -> Seed {
    let nodes = json!({"apiGroup": RBAC, "kind": "Group", "name": "system:nodes"});
    cluster_binding("skiff:node-proxier", "system:node-proxier", nodes)
}

fn cluster_binding(name: &str, role: &str, subject: Value) -> Seed {
    let object = json!({
        "metadata": {"name": name}, "subjects": [subject],
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
    });
    seed(RBAC, "v1", "clusterrolebindings", object, &[])
}

/// What lets nodes join with a token and renew their certificates by themselves, as kubeadm sets it up; and what the
/// controller of certificates needs to give a node's name to one key alone, and to approve serving certificates.
fn joining() -> Vec<Seed> {
    const CONTROLLER: &str = "skiff:certificate-controller";
    let group = |name: &str| json!({"apiGroup": RBAC, "kind": "Group", "name": name});
    let controller = json!({"kind": "ServiceAccount", "name": "certificate-controller", "namespace": "kube-system"});
    let requests = |which: &str| format!("system:certificates.k8s.io:certificatesigningrequests:{which}");
    let rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"],
            "resourceNames": ["kubernetes.io/kubelet-serving"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
    ]);
    let notes = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete", "get", "patch"]},
    ]);
    let here = json!({"name": CONTROLLER, "namespace": "kube-system"});
    let bound = json!({
        "metadata": here, "subjects": [controller],
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": CONTROLLER},
    });
    vec![
        cluster_binding("skiff:node-bootstrapper", "system:node-bootstrapper", group(JOINING_GROUP)),
        cluster_binding("skiff:node-autoapprove-bootstrap", &requests("nodeclient"), group(JOINING_GROUP)),
        cluster_binding("skiff:node-autoapprove-rotation", &requests("selfnodeclient"), group("system:nodes")),
        seed(RBAC, "v1", "clusterroles", json!({"metadata": {"name": CONTROLLER}, "rules": rules}), &[]),
        cluster_binding(CONTROLLER, CONTROLLER, controller),
        seed(RBAC, "v1", "roles", json!({"metadata": here, "rules": notes}), &[]),
        seed(RBAC, "v1", "rolebindings", bound, &[]),
    ]
}

/// What extension API servers need to know, and since when tokens are tracked.
fn config_maps(config: &RegistryConfig, now: Timestamp) -> Vec<Seed> {
    let date: String = meta::time(now).chars().take("2026-01-01".len()).collect();
    let mut data = json!({
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
    });
    if !config.client_ca.is_empty() {
        data["client-ca-file"] = config.client_ca.as_str().into();
    }
    let config_map = |name: &str, data: Value, kept| {
        let object = json!({"metadata": {"name": name, "namespace": "kube-system"}, "data": data});
        seed("", "v1", "configmaps", object, kept)
    };
    vec![
        config_map("extension-apiserver-authentication", data, &["data"]),
        config_map("kube-apiserver-legacy-service-account-token-tracking", json!({"since": date}), &[]),
    ]
}
