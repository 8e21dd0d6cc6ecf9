//! The objects that depend on how this cluster is set up, and skiff's own.

use std::{collections::BTreeSet, net::SocketAddrV4};

use jiff::Timestamp;
use serde_json::{Value, json};
use skiff_api::{object::Object, request::GroupVersionResource};

use super::{JOINING_GROUP, Seed, storage};
use crate::{
    registry::{RegistryConfig, meta},
    tokens::usage,
};

/// The name of the API server's Service and of its endpoints.
const KUBERNETES: &str = "kubernetes";

/// The API group of roles and bindings.
const RBAC: &str = "rbac.authorization.k8s.io";

/// The name of skiff's own RuntimeClass and of its handler.
const WASM: &str = "wasm";

pub(super) fn seed(group: &str, version: &str, resource: &str, object: Value, kept: &'static [&'static str]) -> Seed {
    let object = Object(object.as_object().cloned().unwrap_or_default());
    Seed { gvr: GroupVersionResource::new(group, version, resource), object, kept }
}

/// Every object that depends on how the cluster is set up.
pub(super) fn seeds(config: &RegistryConfig, now: Timestamp) -> Vec<Seed> {
    let mut seeds =
        vec![service_cidr(config, now), service(config), wasm(), node_proxier(), extensions(config), tracking(now)];
    seeds.extend(joining());
    if config.local_path_class {
        seeds.extend(storage::seeds());
    }
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

/// The server of a cluster that has one.
pub(super) fn sole_server(config: &RegistryConfig) -> [Seed; 2] {
    let itself = BTreeSet::from([SocketAddrV4::new(config.advertise_address, config.advertise_port)]);
    [endpoints(&itself), endpoint_slice(&itself)]
}

fn port_of(servers: &BTreeSet<SocketAddrV4>) -> Value {
    json!({"name": "https", "port": servers.first().map(SocketAddrV4::port), "protocol": "TCP"})
}

/// Where the API servers listen, all on one port, as `Endpoints`.
pub(super) fn endpoints(servers: &BTreeSet<SocketAddrV4>) -> Seed {
    let addresses: Vec<Value> = servers.iter().map(|server| json!({"ip": server.ip().to_string()})).collect();
    let object = json!({
        "metadata": {"name": KUBERNETES, "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": addresses, "ports": [port_of(servers)]}],
    });
    seed("", "v1", "endpoints", object, &["subsets"])
}

/// Where the API servers listen, all on one port, as an `EndpointSlice`.
pub(super) fn endpoint_slice(servers: &BTreeSet<SocketAddrV4>) -> Seed {
    let endpoint =
        |server: &SocketAddrV4| json!({"addresses": [server.ip().to_string()], "conditions": {"ready": true}});
    let endpoints: Vec<Value> = servers.iter().map(endpoint).collect();
    let object = json!({
        "metadata": {"name": KUBERNETES, "namespace": "default",
            "labels": {"kubernetes.io/service-name": KUBERNETES}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [port_of(servers)],
    });
    seed("discovery.k8s.io", "v1", "endpointslices", object, &["endpoints", "ports"])
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

/// What extension API servers need to know.
fn extensions(config: &RegistryConfig) -> Seed {
    let mut data = json!({
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
    });
    if !config.client_ca.is_empty() {
        data["client-ca-file"] = config.client_ca.as_str().into();
    }
    config_map("extension-apiserver-authentication", &data, &["data"])
}

/// Since when it is noted that tokens in Secrets are used.
pub(super) fn tracking(now: Timestamp) -> Seed {
    config_map("kube-apiserver-legacy-service-account-token-tracking", &json!({"since": usage::day(now)}), &[])
}

fn config_map(name: &str, data: &Value, kept: &'static [&'static str]) -> Seed {
    let object = json!({"metadata": {"name": name, "namespace": "kube-system"}, "data": data});
    seed("", "v1", "configmaps", object, kept)
}
