//! How good a node is for a pod, among those that can take it. Each rule scores 0 to 100; rules are weighted as in
//! Kubernetes' default profile.

use k8s_openapi::api::core::v1::PodSpec;
use skiff_api::selector::matches_term;

use crate::{
    filters::tolerates,
    snapshot::{NodeInfo, PodInfo, Snapshot},
    topology::NamespaceLabels,
};

const MAX: i64 = 100;
const TAINT_WEIGHT: i64 = 3;
const NODE_AFFINITY_WEIGHT: i64 = 2;
const SPREAD_WEIGHT: i64 = 2;
const POD_AFFINITY_WEIGHT: i64 = 2;

/// The scores of nodes, in their order.
pub fn score(pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot, namespaces: NamespaceLabels<'_>) -> Vec<i64> {
    let empty = PodSpec::default();
    let spec = pod.spec().unwrap_or(&empty);
    let mut totals: Vec<i64> = nodes.iter().map(|node| free(pod, node) + balance(pod, node)).collect();
    let mut add = |weight: i64, scores: Vec<i64>| {
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    };
    add(TAINT_WEIGHT, normalized(nodes.iter().map(|node| soft_taints(spec, node)).collect(), true));
    add(SPREAD_WEIGHT, normalized(nodes.iter().map(|node| siblings(pod, node)).collect(), true));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    if let Some(preferred) = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()) {
        let sum = |node: &&NodeInfo| {
            let matching = preferred.iter().filter(|term| matches_term(&term.preference, &node.node));
            matching.map(|term| i64::from(term.weight)).sum()
        };
        add(NODE_AFFINITY_WEIGHT, normalized(nodes.iter().map(sum).collect(), false));
    }
    if !pod.preferred.is_empty() {
        add(POD_AFFINITY_WEIGHT, ranged(preferred_pods(pod, nodes, snapshot, namespaces)));
    }
    totals
}

/// `NodeResourcesFit`, `LeastAllocated`: the share of CPU and memory that stays free.
fn free(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let (asked, used, has) = (&pod.requests.assumed, &node.assumed, &node.allocatable);
    let share = |asked: i64, used: i64, has: i64| {
        let left = has.saturating_sub(used).saturating_sub(asked);
        if has <= 0 || left <= 0 {
            0
        } else {
            i64::try_from(i128::from(left) * i128::from(MAX) / i128::from(has)).unwrap_or(MAX)
        }
    };
    let cpu = share(asked.milli_cpu, used.milli_cpu, has.milli_cpu);
    let memory = share(asked.memory_bytes, used.memory_bytes, has.memory_bytes);
    cpu.midpoint(memory)
}

/// `NodeResourcesBalancedAllocation`: how alike the used shares of CPU and memory are.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share between 0 and 1, as 0 to 100")]
fn balance(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let (asked, used, has) = (&pod.requests.exact, &node.requested, &node.allocatable);
    let share = |asked: i64, used: i64, has: i64| {
        if has <= 0 { 1.0 } else { (used.saturating_add(asked) as f64 / has as f64).min(1.0) }
    };
    let cpu = share(asked.milli_cpu, used.milli_cpu, has.milli_cpu);
    let memory = share(asked.memory_bytes, used.memory_bytes, has.memory_bytes);
    ((1.0 - (cpu - memory).abs() / 2.0) * MAX as f64) as i64
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// `PreferNoSchedule` taints that the pod does not tolerate.
fn soft_taints(spec: &PodSpec, node: &NodeInfo) -> i64 {
    let taints = node.node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    count(taints.filter(|taint| taint.effect == "PreferNoSchedule" && !tolerates(spec, taint)).count())
}

/// Pods of the same controller: spreading them is the default where a pod says nothing of it.
fn siblings(pod: &PodInfo, node: &NodeInfo) -> i64 {
    pod.controller().and_then(|controller| node.by_controller.get(controller)).map_or(0, |number| count(*number))
}

fn preferred_pods(
    pod: &PodInfo,
    nodes: &[&NodeInfo],
    snapshot: &Snapshot,
    namespaces: NamespaceLabels<'_>,
) -> Vec<i64> {
    let mut sums = vec![0; nodes.len()];
    for term in &pod.preferred {
        let mut by_value: std::collections::HashMap<&str, i64> = std::collections::HashMap::new();
        for node in snapshot.nodes() {
            let Some(value) = node.label(&term.topology_key) else { continue };
            let here = node.pods.values().filter(|other| term.selects(other, namespaces)).count();
            *by_value.entry(value).or_default() += count(here);
        }
        for (sum, node) in sums.iter_mut().zip(nodes) {
            let here = node.label(&term.topology_key).and_then(|value| by_value.get(value));
            *sum += term.weight * here.copied().unwrap_or_default();
        }
    }
    sums
}

/// Counts as shares of the greatest, 0 to 100; with `reverse` the greatest is 0.
fn normalized(mut counts: Vec<i64>, reverse: bool) -> Vec<i64> {
    let greatest = counts.iter().copied().max().unwrap_or_default();
    for value in &mut counts {
        let share = if greatest == 0 { 0 } else { *value * MAX / greatest };
        *value = if reverse { MAX - share } else { share };
    }
    counts
}

/// Numbers of either sign, the least as 0 and the greatest as 100.
fn ranged(mut numbers: Vec<i64>) -> Vec<i64> {
    let (least, greatest) = numbers.iter().fold((i64::MAX, i64::MIN), |(a, b), n| (a.min(*n), b.max(*n)));
    for number in &mut numbers {
        *number = if greatest == least { 0 } else { (*number - least) * MAX / (greatest - least) };
    }
    numbers
}
