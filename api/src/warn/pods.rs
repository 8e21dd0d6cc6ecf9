//! What is deprecated, or surely not meant, in a pod or a template of pods.

use std::{collections::HashSet, str::FromStr};

use serde_json::Value;

use crate::quantity::Quantity;

/// Labels of nodes that others have taken the place of.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

/// Annotations that do nothing any more.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Kinds of volumes that are on their way out.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(label, _)| *label == key).map(|(_, words)| *words)
}

/// Warnings of a pod or template; `at` is its path with a dot, empty for a pod.
pub(super) fn of(pod: &Value, at: &str, warnings: &mut Vec<String>) {
    let spec = &pod["spec"];
    placement(spec, at, warnings);
    for (annotation, words) in OLD_ANNOTATIONS {
        if pod["metadata"]["annotations"].get(annotation).is_some() {
            warnings.push(format!("{at}metadata.annotations[{annotation}]: {words}"));
        }
    }
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        for (kind, words) in OLD_VOLUMES.iter().filter(|(kind, _)| volume.get(*kind).is_some()) {
            warnings.push(format!("{at}spec.volumes[{index}].{kind}: {words}"));
        }
    }
    twins(spec, "hostAliases", "ip", at, warnings);
    twins(spec, "imagePullSecrets", "name", at, warnings);
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            of_container(container, &format!("{at}spec.{field}[{index}]"), warnings);
        }
    }
    ports(spec, at, warnings);
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{at}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
}

fn placement(spec: &Value, at: &str, warnings: &mut Vec<String>) {
    for key in spec["nodeSelector"].as_object().into_iter().flat_map(serde_json::Map::keys) {
        if let Some(words) = old_label(key) {
            warnings.push(format!("{at}spec.nodeSelector[{key}]: {words}"));
        }
    }
    let node = &spec["affinity"]["nodeAffinity"];
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let path = format!("{at}spec.affinity.nodeAffinity");
    for (index, term) in list(&node[required], "nodeSelectorTerms").iter().enumerate() {
        node_term(term, &format!("{path}.{required}.nodeSelectorTerms[{index}]"), warnings);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in list(node, preferred).iter().enumerate() {
        node_term(&term["preference"], &format!("{path}.{preferred}[{index}].preference"), warnings);
    }
    for (index, spread) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{at}spec.topologySpreadConstraints[{index}]");
        let key = spread["topologyKey"].as_str().unwrap_or_default();
        if let Some(words) = old_label(key) {
            warnings.push(format!("{path}.topologyKey: {key} is {words}"));
        }
        if spread.get("labelSelector").is_none() {
            warnings.push(format!("{path}.labelSelector: a null labelSelector results in matching no pod"));
        }
    }
}

fn node_term(term: &Value, path: &str, warnings: &mut Vec<String>) {
    for (index, expression) in list(term, "matchExpressions").iter().enumerate() {
        let key = expression["key"].as_str().unwrap_or_default();
        if let Some(words) = old_label(key) {
            warnings.push(format!("{path}.matchExpressions[{index}].key: {key} is {words}"));
        }
    }
}

fn twins(spec: &Value, field: &str, key: &str, at: &str, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, entry) in list(spec, field).iter().enumerate() {
        let value = entry[key].as_str().unwrap_or_default();
        if !seen.insert(value) {
            warnings.push(format!("{at}spec.{field}[{index}].{key}: duplicate {key} {value:?}"));
        }
        if value.is_empty() && field == "imagePullSecrets" {
            warnings.push(format!("{at}spec.{field}[{index}].{key}: invalid empty name {value:?}"));
        }
    }
}

fn of_container(container: &Value, path: &str, warnings: &mut Vec<String>) {
    for which in ["limits", "requests"] {
        for resource in ["memory", "ephemeral-storage"] {
            let amount = container["resources"][which][resource].as_str().unwrap_or_default();
            if is_fractional(amount) {
                warnings.push(format!(
                    "{path}.resources.{which}[{resource}]: fractional byte value {amount:?} is invalid, must be an integer"
                ));
            }
        }
    }
    let mut seen = HashSet::new();
    for (index, variable) in list(container, "env").iter().enumerate() {
        let name = variable["name"].as_str().unwrap_or_default();
        let value = variable["value"].as_str().unwrap_or_default();
        let itself = format!("$({name})");
        let builds_on_it = variable.get("valueFrom").is_none() && value.contains(&itself) && value != itself;
        if !seen.insert(name) && !builds_on_it {
            warnings.push(format!(
                "{path}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

/// Whether an amount of bytes is no whole number of them.
fn is_fractional(amount: &str) -> bool {
    amount.ends_with('m') && Quantity::from_str(amount).is_ok_and(|amount| amount.to_string().ends_with('m'))
}

fn ports(spec: &Value, at: &str, warnings: &mut Vec<String>) {
    let mut seen: Vec<(String, &Value)> = Vec::new();
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            for (number, port) in list(container, "ports").iter().enumerate() {
                let path = format!("{at}spec.{field}[{index}].ports[{number}]");
                for (other_path, other) in &seen {
                    if let Some(word) = collision(port, other) {
                        warnings.push(format!("{path}: {word} port definition with {other_path}"));
                    }
                }
                seen.push((path, port));
            }
        }
    }
}

/// How two ports of a pod are in each other's way, if they are.
fn collision(port: &Value, other: &Value) -> Option<&'static str> {
    if port["containerPort"] != other["containerPort"] || port["protocol"] != other["protocol"] {
        return None;
    }
    let host_port = |port: &Value| port["hostPort"].as_i64().unwrap_or_default();
    let host_ip = |port: &Value| port["hostIP"].as_str().unwrap_or_default().to_owned();
    let (mine, theirs) = (host_port(port), host_port(other));
    if host_ip(port) == host_ip(other) && mine == theirs {
        return Some("duplicate");
    }
    let any = |port: &Value| ["", "0.0.0.0", "::"].contains(&host_ip(port).as_str());
    (mine == 0 || theirs == 0 || (mine == theirs && (any(port) || any(other)))).then_some("overlapping")
}
