//! Which node a pod goes to. No I/O; chance is an argument.

use std::collections::BTreeMap;

use crate::{
    scores::score,
    snapshot::{NodeInfo, PodInfo, Snapshot},
    topology::{NamespaceLabels, Topology, check_all},
};

/// No node can take a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes refuse for each reason.
    pub reasons: BTreeMap<String, usize>,
}

impl std::fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available", self.nodes)?;
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        if !reasons.is_empty() {
            write!(f, ": {}", reasons.join(", "))?;
        }
        f.write_str(".")
    }
}

/// Picks the best node for a pod; among equals, the one that `chance` (any number) falls on.
pub fn schedule(
    pod: &PodInfo,
    snapshot: &Snapshot,
    namespaces: NamespaceLabels<'_>,
    chance: u64,
) -> Result<String, Unschedulable> {
    let topology = Topology::of(pod, snapshot, namespaces);
    let mut refusals = Unschedulable { nodes: snapshot.nodes().len(), ..Unschedulable::default() };
    let mut able: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.nodes() {
        match check_all(pod, node, &topology) {
            Ok(()) => able.push(node),
            Err(reasons) => reasons.into_iter().for_each(|reason| *refusals.reasons.entry(reason).or_default() += 1),
        }
    }
    // Preemption: where no node is able, this is the place to look for pods of lower priority that could make room.
    pick(pod, &able, snapshot, namespaces, chance).ok_or(refusals)
}

fn pick(
    pod: &PodInfo,
    able: &[&NodeInfo],
    snapshot: &Snapshot,
    namespaces: NamespaceLabels<'_>,
    chance: u64,
) -> Option<String> {
    if let [one] = able {
        return Some(one.name().to_owned());
    }
    let scores = score(pod, able, snapshot, namespaces);
    let best = *scores.iter().max()?;
    let winners: Vec<_> = able.iter().zip(&scores).filter(|(_, score)| **score == best).map(|(node, _)| node).collect();
    let place = usize::try_from(chance % u64::try_from(winners.len()).ok()?).ok()?;
    winners.get(place).map(|node| node.name().to_owned())
}
