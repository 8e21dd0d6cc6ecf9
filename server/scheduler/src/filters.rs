//! Whether a node can take a pod: the rules that look at one node alone, in the order of Kubernetes' plugins. The
//! words are those of kube-scheduler.

use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration};
use skiff_api::selector::{Labels, matches_term};

use crate::snapshot::{HostPort, NodeInfo, PodInfo};

/// Why a node cannot take a pod; several for resources.
pub type Refusal = Vec<String>;

const UNSCHEDULABLE: &str = "node(s) were unschedulable";
const NODE_NAME: &str = "node(s) didn't match the requested node name";
const TAINTS: &str = "node(s) had untolerated taint(s)";
const AFFINITY: &str = "node(s) didn't match Pod's node affinity/selector";
const PORTS: &str = "node(s) didn't have free ports for the requested pod ports";
const TOO_MANY_PODS: &str = "Too many pods";

/// The taint of a node that `kubectl cordon` has closed.
const CORDON_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Whether the node can take the pod, as far as the node alone can say.
pub fn check(pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    let empty = PodSpec::default();
    let spec = pod.spec().unwrap_or(&empty);
    let refuse = |word: &str| Err(vec![word.to_owned()]);
    if !takes_new_pods(spec, node) {
        return refuse(UNSCHEDULABLE);
    }
    if spec.node_name.as_deref().is_some_and(|name| !name.is_empty() && name != node.name()) {
        return refuse(NODE_NAME);
    }
    if untolerated(spec, node).is_some() {
        return refuse(TAINTS);
    }
    if !matches_affinity(spec, &node.node) {
        return refuse(AFFINITY);
    }
    if !ports_are_free(&pod.host_ports, node) {
        return refuse(PORTS);
    }
    let lacking = lacking(pod, node);
    if lacking.is_empty() { Ok(()) } else { Err(lacking) }
}

fn takes_new_pods(spec: &PodSpec, node: &NodeInfo) -> bool {
    let closed = node.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let taint = Taint { key: CORDON_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    !closed || tolerates(spec, &taint)
}

fn untolerated<'a>(spec: &PodSpec, node: &'a NodeInfo) -> Option<&'a Taint> {
    let taints = node.node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut hard = taints.filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.find(|taint| !tolerates(spec, taint))
}

/// Whether a pod tolerates a taint.
pub fn tolerates(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|toleration| covers(toleration, taint))
}

/// Whether a toleration covers a taint, `v1.Toleration.ToleratesTaint`.
pub fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (own, theirs) = (text(&toleration.value), text(&taint.value));
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => own == theirs,
        "Lt" => compare(&theirs, &own).is_some_and(std::cmp::Ordering::is_lt),
        "Gt" => compare(&theirs, &own).is_some_and(std::cmp::Ordering::is_gt),
        _ => false,
    }
}

fn compare(a: &str, b: &str) -> Option<std::cmp::Ordering> {
    Some(a.parse::<i64>().ok()?.cmp(&b.parse::<i64>().ok()?))
}

/// Whether a pod's node selector and required node affinity allow a node.
pub fn matches_affinity(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.label(key);
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value.as_str()));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

fn ports_are_free(wanted: &[HostPort], node: &NodeInfo) -> bool {
    let clash = |a: &HostPort, b: &HostPort| {
        let any = |port: &HostPort| port.0 == "0.0.0.0" || port.0 == "::";
        a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || any(a) || any(b))
    };
    wanted.is_empty()
        || node
            .pods
            .values()
            .all(|pod| pod.host_ports.iter().all(|taken| !wanted.iter().any(|port| clash(port, taken))))
}

fn lacking(pod: &PodInfo, node: &NodeInfo) -> Refusal {
    let mut lacking = Vec::new();
    if node.pods.len() >= node.max_pods {
        lacking.push(TOO_MANY_PODS.to_owned());
    }
    let (asked, has, used) = (&pod.requests.exact, &node.allocatable, &node.requested);
    let mut check = |name: &str, asked: i64, has: i64, used: i64| {
        if asked > 0 && asked > has.saturating_sub(used) {
            lacking.push(format!("Insufficient {name}"));
        }
    };
    check("cpu", asked.milli_cpu, has.milli_cpu, used.milli_cpu);
    check("memory", asked.memory_bytes, has.memory_bytes, used.memory_bytes);
    for (name, amount) in &asked.others {
        let of = |all: &std::collections::BTreeMap<String, i64>| all.get(name).copied().unwrap_or_default();
        check(name, *amount, of(&has.others), of(&used.others));
    }
    lacking
}

/// Whether the pod's node selector and required node affinity allow a node.
pub fn matches_affinity_of(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.spec().is_none_or(|spec| matches_affinity(spec, &node.node))
}
