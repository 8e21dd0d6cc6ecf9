//! On which nodes a DaemonSet has a pod, and what that pod is like. No I/O.

use std::sync::LazyLock;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{
        Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
    },
};
use skiff_scheduler::filters::{matches_affinity, tolerates};

use crate::{
    meta::{controller_reference, name, node_of},
    pods::pod_from_template,
    revisions::HASH_LABEL,
};

/// The annotation and the label of a DaemonSet's old way of counting templates.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// The field by which a pod is meant for one node.
const NODE_FIELD: &str = "metadata.name";

/// What pods of DaemonSets tolerate: they stay where others leave.
static TOLERATIONS: LazyLock<Vec<Toleration>> = LazyLock::new(|| {
    let tolerate = |(key, effect): (&str, &str)| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let all = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
        ("network-unavailable", "NoSchedule"),
    ];
    all.map(tolerate).to_vec()
});

/// What a node means to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It is to have a pod.
    Run,
    /// A pod that is there may stay.
    Keep,
    /// It is to have none.
    None,
}

/// The spec of a DaemonSet's pods, but for the node.
pub fn spec_of(set: &DaemonSet) -> PodSpec {
    let template = set.spec.as_ref().and_then(|spec| spec.template.spec.clone());
    let mut spec = template.unwrap_or_default();
    let on_host = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for toleration in TOLERATIONS.iter() {
        // Only what brings its own network can do without that of the node.
        let is_network = toleration.key.as_deref().is_some_and(|key| key.ends_with("network-unavailable"));
        if (on_host || !is_network) && !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    spec
}

/// What a node means to a DaemonSet whose pods have this spec.
pub fn wish(spec: &PodSpec, node: &Node) -> Wish {
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|named| named != name(&node.metadata)) || !matches_affinity(spec, node) {
        return Wish::None;
    }
    let taints = || node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let repels = |effect: &str| taints().any(|taint| taint.effect == effect && !tolerates(spec, taint));
    if repels("NoExecute") {
        Wish::None
    } else if repels("NoSchedule") {
        Wish::Keep
    } else {
        Wish::Run
    }
}

/// The pod of a DaemonSet for a node; the scheduler binds it.
pub fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(template, &set.metadata, name(&set.metadata), controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = set.metadata.annotations.as_ref().and_then(|all| all.get(GENERATION_ANNOTATION)) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.clone());
    }
    let mut spec = spec_of(set);
    aim(&mut spec, node);
    pod.spec = Some(spec);
    pod
}

/// Restricts a pod to a node, in place of what its affinity says of nodes' names.
fn aim(spec: &mut PodSpec, node: &str) {
    let here = NodeSelectorRequirement {
        key: NODE_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required: &mut NodeSelector =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![here.clone()]);
    }
}

/// The node that a pod is on, or meant for.
pub fn target(pod: &Pod) -> &str {
    let bound = node_of(pod);
    if !bound.is_empty() {
        return bound;
    }
    let meant = || {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        let field = fields.find(|field| field.key == NODE_FIELD && field.operator == "In")?;
        field.values.as_ref()?.first().map(String::as_str)
    };
    meant().unwrap_or_default()
}
