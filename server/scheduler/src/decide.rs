//! Which node a pod goes to. No I/O; chance is an argument.

use std::collections::BTreeMap;

use crate::{
    filters::{Refusal, check},
    scores::score,
    snapshot::{NodeInfo, PodInfo, Snapshot},
    topology::{NamespaceLabels, Topology},
    volumes::{Needs, Step, Storage},
};

/// No node can take a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes refuse for each reason.
    pub reasons: BTreeMap<String, usize>,
    /// Why no node at all would do.
    pub pod: Option<String>,
}

/// Where a pod goes.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The node.
    pub node: String,
    /// What is to be written for its volumes first.
    pub steps: Vec<Step>,
}

/// What scheduling reads besides pods and nodes.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The labels of namespaces.
    pub namespaces: NamespaceLabels<'a>,
    /// Claims, volumes, classes.
    pub storage: &'a dyn Storage,
}

impl std::fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available", self.nodes)?;
        if let Some(why) = &self.pod {
            return write!(f, ": {why}.");
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        if !reasons.is_empty() {
            write!(f, ": {}", reasons.join(", "))?;
        }
        f.write_str(".")
    }
}

/// Picks the best node for a pod; among equals, the one that `chance` (any number) falls on.
pub fn schedule(pod: &PodInfo, snapshot: &Snapshot, world: World<'_>, chance: u64) -> Result<Choice, Unschedulable> {
    let mut refusals = Unschedulable { nodes: snapshot.nodes().len(), ..Unschedulable::default() };
    let needs = match Needs::of(pod, snapshot, world.storage) {
        Ok(needs) => needs,
        Err(why) => return Err(Unschedulable { pod: Some(why), ..refusals }),
    };
    let topology = Topology::of(pod, snapshot, world.namespaces);
    let mut able: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.nodes() {
        match check_all(pod, node, &needs, &topology) {
            Ok(()) => able.push(node),
            Err(reasons) => reasons.into_iter().for_each(|reason| *refusals.reasons.entry(reason).or_default() += 1),
        }
    }
    // Preemption: where no node is able, this is the place to look for pods of lower priority that could make room.
    let node = pick(pod, &able, snapshot, world.namespaces, chance).ok_or(refusals)?;
    let steps = needs.steps(&node.node).unwrap_or_default();
    Ok(Choice { node: node.name().to_owned(), steps })
}

/// Whether a node can take a pod by all rules.
fn check_all(pod: &PodInfo, node: &NodeInfo, needs: &Needs, topology: &Topology) -> Result<(), Refusal> {
    check(pod, node)?;
    needs.check(node)?;
    topology.check(node)
}

fn pick<'a>(
    pod: &PodInfo,
    able: &[&'a NodeInfo],
    snapshot: &Snapshot,
    namespaces: NamespaceLabels<'_>,
    chance: u64,
) -> Option<&'a NodeInfo> {
    if let [one] = able {
        return Some(one);
    }
    let scores = score(pod, able, snapshot, namespaces);
    let best = *scores.iter().max()?;
    let winners: Vec<_> = able.iter().zip(&scores).filter(|(_, score)| **score == best).map(|(node, _)| node).collect();
    let place = usize::try_from(chance % u64::try_from(winners.len()).ok()?).ok()?;
    winners.get(place).map(|node| **node)
}
