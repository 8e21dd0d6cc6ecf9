//! Defaults that depend on other fields: pods, services and the rest of the core group, and small kinds.

use serde_json::{Map, Value, json};

use super::{child, is_unset, set_default, text};

type Fields = Map<String, Value>;

/// How long a client keeps its endpoint, `v1.DefaultClientIPServiceAffinitySeconds`.
const AFFINITY_TIMEOUT_SECONDS: i64 = 10_800;

fn is_zero(map: &Fields, field: &str) -> bool {
    map.get(field).is_none_or(|value| value.is_null() || value.as_i64() == Some(0))
}

/// Numbers of a probe of which zero means unset.
pub(super) fn probe(probe: &mut Fields) {
    for (field, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if is_zero(probe, field) {
            probe.insert(field.to_owned(), default.into());
        }
    }
}

/// `Always` for an image without a tag or with `latest`, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

/// Pull policy and termination message of a container.
pub(super) fn container(container: &mut Fields) {
    let policy = pull_policy(text(container, "image"));
    set_default(container, "imagePullPolicy", policy);
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
}

/// A volume without a source is an empty directory.
pub(super) fn volume(volume: &mut Fields) {
    if !volume.keys().any(|field| field != "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
        let policy = pull_policy(text(image, "reference"));
        set_default(image, "pullPolicy", policy);
    }
}

/// The service account has an old name too.
pub(super) fn pod_spec(spec: &mut Fields) {
    let name = match (text(spec, "serviceAccountName"), text(spec, "serviceAccount")) {
        ("", old) => old.to_owned(),
        (name, _) => name.to_owned(),
    };
    if !name.is_empty() {
        spec.insert("serviceAccountName".to_owned(), name.as_str().into());
        spec.insert("serviceAccount".to_owned(), name.into());
    }
}

/// What only pods have, not the templates of workloads.
pub(super) fn pod(pod: &mut Fields) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    set_default(spec, "enableServiceLinks", true);
    let uses_host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
                requests_from_limits(resources);
            }
            if uses_host_network {
                host_ports(container);
            }
        }
    }
    if let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut) {
        requests_from_limits(resources);
    }
}

/// A limit without a request is the request too.
fn requests_from_limits(resources: &mut Fields) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|limits| !limits.is_empty()) else {
        return;
    };
    let limits = limits.clone();
    let Some(requests) = child(resources, "requests") else { return };
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// On the host's network a container's ports are the host's.
fn host_ports(container: &mut Fields) {
    let ports = container.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        if is_zero(port, "hostPort")
            && let Some(number) = port.get("containerPort").cloned()
        {
            port.insert("hostPort".to_owned(), number);
        }
    }
}

/// Type, affinity, traffic policies and target ports of a Service.
pub(super) fn service(service: &mut Fields) {
    let Some(spec) = child(service, "spec") else { return };
    set_default(spec, "sessionAffinity", "None");
    set_default(spec, "type", "ClusterIP");
    session_affinity(spec);
    let kind = text(spec, "type").to_owned();
    if kind != "ExternalName" {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    let has_external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let reachable = matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && has_external_ips);
    if reachable {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        let unset = is_unset(port.get("targetPort")) || port.get("targetPort") == Some(&json!(0));
        if let Some(number) = port.get("port").cloned().filter(|_| unset) {
            port.insert("targetPort".to_owned(), number);
        }
    }
    if kind == "LoadBalancer" {
        ingress_modes(service);
    }
}

fn session_affinity(spec: &mut Fields) {
    match text(spec, "sessionAffinity") {
        "None" => drop(spec.shift_remove("sessionAffinityConfig")),
        "ClientIP" => {
            if let Some(client) = child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP")) {
                set_default(client, "timeoutSeconds", AFFINITY_TIMEOUT_SECONDS);
            }
        }
        _ => {}
    }
}

fn ingress_modes(service: &mut Fields) {
    let balancer = service.get_mut("status").and_then(|status| status.get_mut("loadBalancer"));
    let addresses = balancer.and_then(|balancer| balancer.get_mut("ingress")).and_then(Value::as_array_mut);
    for address in addresses.into_iter().flatten().filter_map(Value::as_object_mut) {
        if !text(address, "ip").is_empty() {
            set_default(address, "ipMode", "VIP");
        }
    }
}

/// A namespace carries its name as a label.
pub(super) fn namespace(namespace: &mut Fields) {
    let Some(metadata) = child(namespace, "metadata") else { return };
    let name = text(metadata, "name").to_owned();
    if !name.is_empty()
        && let Some(labels) = child(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

/// All of a node's capacity can be allocated.
pub(super) fn node_status(status: &mut Fields) {
    if let Some(capacity) = status.get("capacity").cloned() {
        set_default(status, "allocatable", capacity);
    }
}

/// Limits of containers: max gives the default, the default gives the default request, and so does min.
pub(super) fn limit_range_item(item: &mut Fields) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let Some(amounts) = item.get(from).and_then(Value::as_object).filter(|map| !map.is_empty()).cloned() else {
            continue;
        };
        let Some(target) = child(item, to) else { continue };
        for (name, amount) in amounts {
            target.entry(name).or_insert(amount);
        }
    }
}

/// A policy is for ingress, and for egress where it has egress rules.
pub(super) fn network_policy(spec: &mut Fields) {
    if spec.get("policyTypes").and_then(Value::as_array).is_some_and(|types| !types.is_empty()) {
        return;
    }
    let has_egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    let types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    spec.insert("policyTypes".to_owned(), types);
}

/// Users and groups belong to the RBAC group.
pub(super) fn subject(subject: &mut Fields) {
    if matches!(text(subject, "kind"), "User" | "Group") {
        set_default(subject, "apiGroup", "rbac.authorization.k8s.io");
    }
}

/// Roles belong to the RBAC group.
pub(super) fn role_ref(role: &mut Fields) {
    set_default(role, "apiGroup", "rbac.authorization.k8s.io");
}

/// Names that follow from the kind.
pub(super) fn custom_resource_definition(spec: &mut Fields) {
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else { return };
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        set_default(names, "singular", kind.to_lowercase());
        set_default(names, "listKind", format!("{kind}List"));
    }
}

/// An exact count is one.
pub(super) fn device_request(request: &mut Fields) {
    if text(request, "allocationMode") == "ExactCount" && is_zero(request, "count") {
        request.insert("count".to_owned(), 1.into());
    }
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn the_tag_decides_on_pulling() {
        for image in ["nginx", "nginx:latest", "registry:5000/nginx", "a/b:latest"] {
            assert_eq!(pull_policy(image), "Always", "{image}");
        }
        for image in ["nginx:1", "registry:5000/nginx:1", "nginx@sha256:0"] {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
