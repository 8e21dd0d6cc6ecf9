//! Rules that look at other pods: required pod affinity and anti-affinity, and topology spread. What they need is
//! counted once for a pod, and only for pods that have such rules or meet pods that have.

use std::collections::{BTreeMap, HashMap, HashSet};

use skiff_api::selector::LabelSelector;

use crate::{
    filters::Refusal,
    snapshot::{NodeInfo, PodInfo, Snapshot, Term, selector},
};

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const REPELLED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const SPREAD: &str = "node(s) didn't match pod topology spread constraints";
const SPREAD_NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// The labels of a namespace by its name.
pub type NamespaceLabels<'a> = &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>;

/// How many pods there are in each domain: value of a topology label.
type Domains = HashMap<String, i64>;

struct Spread {
    key: String,
    max_skew: i64,
    /// Whether the pod counts itself.
    own: i64,
    counts: Domains,
    fewest: i64,
}

/// The counts for one pod.
pub struct Topology {
    /// For each term of affinity, the domains with pods that it selects.
    affinity: Vec<(String, HashSet<String>)>,
    /// Whether no pod at all is selected but this one would be: the first of a group may go anywhere.
    is_first: bool,
    anti_affinity: Vec<(String, HashSet<String>)>,
    /// Domains (key, value) that pods which are there keep this one out of.
    repelled: HashSet<(String, String)>,
    spread: Vec<Spread>,
}

impl Topology {
    /// Counts what concerns a pod.
    pub fn of(pod: &PodInfo, snapshot: &Snapshot, namespaces: NamespaceLabels<'_>) -> Self {
        let domains = |term: &Term| (term.topology_key.clone(), domains_of(term, snapshot, namespaces));
        let affinity: Vec<_> = pod.affinity.iter().map(domains).collect();
        let is_first = affinity.iter().all(|(_, found)| found.is_empty())
            && pod.affinity.iter().all(|term| term.selects(pod, namespaces));
        Self {
            affinity,
            is_first,
            anti_affinity: pod.anti_affinity.iter().map(domains).collect(),
            repelled: repelled(pod, snapshot, namespaces),
            spread: spreads(pod, snapshot),
        }
    }

    /// Whether the rules allow a node.
    pub fn check(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let refuse = |word: &str| Err(vec![word.to_owned()]);
        for spread in &self.spread {
            let Some(value) = node.label(&spread.key) else { return refuse(SPREAD_NO_LABEL) };
            let here = spread.counts.get(value).copied().unwrap_or_default();
            if here + spread.own - spread.fewest > spread.max_skew {
                return refuse(SPREAD);
            }
        }
        let within =
            |(key, found): &(String, HashSet<String>)| node.label(key).is_some_and(|value| found.contains(value));
        let has_keys = || self.affinity.iter().all(|(key, _)| node.label(key).is_some());
        if !self.affinity.iter().all(within) && !(self.is_first && has_keys()) {
            return refuse(AFFINITY);
        }
        if self.anti_affinity.iter().any(within) {
            return refuse(ANTI_AFFINITY);
        }
        let is_repelled = |(key, value): &(String, String)| node.label(key) == Some(value.as_str());
        if self.repelled.iter().any(is_repelled) { refuse(REPELLED) } else { Ok(()) }
    }
}

fn domains_of(term: &Term, snapshot: &Snapshot, namespaces: NamespaceLabels<'_>) -> HashSet<String> {
    let mut found = HashSet::new();
    for node in snapshot.nodes() {
        let Some(value) = node.label(&term.topology_key) else { continue };
        if !found.contains(value) && node.pods.values().any(|pod| term.selects(pod, namespaces)) {
            found.insert(value.to_owned());
        }
    }
    found
}

fn repelled(pod: &PodInfo, snapshot: &Snapshot, namespaces: NamespaceLabels<'_>) -> HashSet<(String, String)> {
    let mut found = HashSet::new();
    for other in snapshot.repelling.values() {
        let Some(node) = snapshot.node_of(other.uid()) else { continue };
        for term in other.anti_affinity.iter().filter(|term| term.selects(pod, namespaces)) {
            if let Some(value) = node.label(&term.topology_key) {
                found.insert((term.topology_key.clone(), value.to_owned()));
            }
        }
    }
    found
}

fn spreads(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Spread> {
    let constraints = pod.spec().and_then(|spec| spec.topology_spread_constraints.as_ref());
    let hard = constraints.into_iter().flatten().filter(|one| one.when_unsatisfiable == "DoNotSchedule");
    hard.map(|constraint| {
        let mut labels = selector(constraint.label_selector.as_ref());
        for key in constraint.match_label_keys.iter().flatten() {
            labels = with_own_label(labels, pod, key);
        }
        let counts = count(pod, &labels, &constraint.topology_key, snapshot);
        let enough = constraint.min_domains.is_none_or(|min| counts.len() >= usize::try_from(min).unwrap_or_default());
        let fewest = if enough { counts.values().copied().min().unwrap_or_default() } else { 0 };
        Spread {
            key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            own: i64::from(labels.matches(&pod.pod.metadata.labels)),
            counts,
            fewest,
        }
    })
    .collect()
}

/// The selector, also asking for the value that the pod itself has for a label.
fn with_own_label(labels: LabelSelector, pod: &PodInfo, key: &str) -> LabelSelector {
    let own = pod.pod.metadata.labels.as_ref().and_then(|all| all.get(key));
    let Some(own) = own.filter(|_| !labels.is_nothing()) else { return labels };
    let own = LabelSelector::from_pairs([(key, own.as_str())]);
    LabelSelector::new(labels.requirements().iter().chain(own.requirements()).cloned().collect())
}

/// Pods by domain, over the nodes that the pod's own node selector and affinity allow.
fn count(pod: &PodInfo, labels: &LabelSelector, key: &str, snapshot: &Snapshot) -> Domains {
    let mut counts = Domains::new();
    for node in snapshot.nodes() {
        let Some(value) = node.label(key).filter(|_| crate::filters::matches_affinity_of(pod, node)) else { continue };
        let here = node.pods.values().filter(|other| {
            other.namespace() == pod.namespace()
                && other.pod.metadata.deletion_timestamp.is_none()
                && labels.matches(&other.pod.metadata.labels)
        });
        let here = i64::try_from(here.count()).unwrap_or(i64::MAX);
        *counts.entry(value.to_owned()).or_default() += here;
    }
    counts
}
