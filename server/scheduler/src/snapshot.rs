//! The nodes and what runs on them, kept current change by change: nothing is counted anew for each pod.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Node, Pod, PodAffinityTerm, PodSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector as Text,
};
use skiff_api::{
    claims::{PodClaim, claims_of},
    selector::{LabelSelector, Labels},
};

use crate::resources::{PodRequests, Resources};

/// A port of the host that a pod takes: address (`0.0.0.0` for all), protocol, number.
pub type HostPort = (String, String, i32);

/// A required or preferred term of pod (anti-)affinity, its selectors read.
#[derive(Clone, Debug)]
pub struct Term {
    /// Which pods.
    pub labels: LabelSelector,
    /// In which namespaces, by name.
    pub namespaces: Vec<String>,
    /// In which namespaces, by their labels.
    pub namespace_labels: Option<LabelSelector>,
    /// What "together" means: the same value of this label of the node.
    pub topology_key: String,
    /// How much it counts; 0 for required terms.
    pub weight: i64,
}

/// What is read of a pod once, when it is first seen.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub requests: PodRequests,
    /// The host ports it takes.
    pub host_ports: Vec<HostPort>,
    /// Required affinity.
    pub affinity: Vec<Term>,
    /// Required anti-affinity.
    pub anti_affinity: Vec<Term>,
    /// Preferred affinity, anti-affinity with negative weights.
    pub preferred: Vec<Term>,
    /// The claims of its volumes.
    pub claims: Vec<PodClaim>,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let affinity = spec.affinity.as_ref();
        let (with, against) =
            (affinity.and_then(|a| a.pod_affinity.as_ref()), affinity.and_then(|a| a.pod_anti_affinity.as_ref()));
        let read = |term: &PodAffinityTerm, weight| term_of(term, &pod, weight);
        let required = |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(|t| read(t, 0)).collect();
        let with_preferred = with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let against_preferred = against.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let mut preferred: Vec<Term> = Vec::new();
        preferred.extend(with_preferred.into_iter().flatten().map(|w| read(&w.pod_affinity_term, i64::from(w.weight))));
        preferred
            .extend(against_preferred.into_iter().flatten().map(|w| read(&w.pod_affinity_term, -i64::from(w.weight))));
        Self {
            requests: PodRequests::of(spec),
            host_ports: host_ports(spec),
            affinity: required(with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            anti_affinity: required(
                against.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred,
            claims: claims_of(&pod),
            pod,
        }
    }

    /// The pod's spec.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The pod's UID.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The UID of what controls the pod.
    pub fn controller(&self) -> Option<&str> {
        let owners = self.pod.metadata.owner_references.iter().flatten();
        owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
    }
}

impl Term {
    /// Whether the term is about a pod. `labels_of` gives the labels of a namespace.
    pub fn selects(&self, pod: &PodInfo, labels_of: &dyn Fn(&str) -> Option<BTreeMap<String, String>>) -> bool {
        self.labels.matches(&pod.pod.metadata.labels) && self.reaches(pod.namespace(), labels_of)
    }

    fn reaches(&self, namespace: &str, labels_of: &dyn Fn(&str) -> Option<BTreeMap<String, String>>) -> bool {
        self.namespaces.iter().any(|name| name == namespace)
            || self.namespace_labels.as_ref().is_some_and(|selector| {
                selector.is_everything() || labels_of(namespace).is_some_and(|labels| selector.matches(&labels))
            })
    }
}

fn term_of(term: &PodAffinityTerm, pod: &Pod, weight: i64) -> Term {
    let mut namespaces = term.namespaces.clone().unwrap_or_default();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.extend(pod.metadata.namespace.clone());
    }
    Term {
        labels: selector(term.label_selector.as_ref()),
        namespaces,
        namespace_labels: term.namespace_selector.as_ref().map(|text| selector(Some(text))),
        topology_key: term.topology_key.clone(),
        weight,
    }
}

/// A selector; none, and one that cannot be read, selects nothing.
pub fn selector(text: Option<&Text>) -> LabelSelector {
    text.and_then(|text| LabelSelector::try_from(text).ok()).unwrap_or_else(LabelSelector::nothing)
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let is_sidecar = |c: &&k8s_openapi::api::core::v1::Container| c.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((ip, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
        })
        .collect()
}

/// A node and what runs on it.
#[derive(Debug)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<Node>,
    /// What it has for pods.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub max_pods: usize,
    /// What its pods ask for.
    pub requested: Resources,
    /// The same with assumptions.
    pub assumed: Resources,
    /// Its pods by UID.
    pub pods: HashMap<String, Arc<PodInfo>>,
    /// How many pods of each controller.
    pub by_controller: HashMap<String, usize>,
}

impl NodeInfo {
    fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            node: Arc::clone(&node),
            allocatable: Resources::default(),
            max_pods: 0,
            requested: Resources::default(),
            assumed: Resources::default(),
            pods: HashMap::new(),
            by_controller: HashMap::new(),
        };
        info.set_node(node);
        info
    }

    fn set_node(&mut self, node: Arc<Node>) {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        self.allocatable = Resources::of(allocatable);
        let pods = allocatable.and_then(|map| map.get("pods")).and_then(|text| text.0.parse().ok());
        let pods: Option<usize> = pods.map(skiff_api::quantity::Quantity::value).and_then(|n| usize::try_from(n).ok());
        self.max_pods = pods.unwrap_or_default();
        self.node = node;
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// The value of a label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.label(key)
    }

    fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests.exact);
        self.assumed.add(&pod.requests.assumed);
        if let Some(controller) = pod.controller() {
            *self.by_controller.entry(controller.to_owned()).or_default() += 1;
        }
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests.exact);
        self.assumed.subtract(&pod.requests.assumed);
        if let Some(count) = pod.controller().and_then(|controller| self.by_controller.get_mut(controller)) {
            *count -= 1;
            if *count == 0 {
                self.by_controller.remove(pod.controller().unwrap_or_default());
            }
        }
        Some(pod)
    }
}

/// All nodes and all bound pods.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Where each pod is.
    places: HashMap<String, String>,
    /// The pods of nodes that are not known (yet).
    homeless: HashMap<String, HashMap<String, Arc<PodInfo>>>,
    /// Pods with required anti-affinity: they have a say in where others go.
    pub repelling: HashMap<String, Arc<PodInfo>>,
}

impl Snapshot {
    /// The nodes in the order of their names.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// The nodes by themselves.
    #[cfg(test)]
    pub(crate) fn into_nodes(self) -> impl Iterator<Item = NodeInfo> {
        self.nodes.into_values()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// The node that a pod is on.
    pub fn node_of(&self, uid: &str) -> Option<&NodeInfo> {
        self.nodes.get(self.places.get(uid)?)
    }

    /// A node came or changed.
    pub fn set_node(&mut self, node: &Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(info) = self.nodes.get_mut(&name) {
            return info.set_node(Arc::clone(node));
        }
        let mut info = NodeInfo::new(Arc::clone(node));
        for (_, pod) in self.homeless.remove(&name).unwrap_or_default() {
            info.add(pod);
        }
        self.nodes.insert(name, info);
    }

    /// A node went. Its pods are kept until they go themselves, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name)
            && !info.pods.is_empty()
        {
            self.homeless.insert(name.to_owned(), info.pods);
        }
    }

    /// A pod is on a node: as the API says, or because it is about to be bound. Replaces what is known of the pod.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(pod.uid());
        self.places.insert(pod.uid().to_owned(), node.to_owned());
        if !pod.anti_affinity.is_empty() {
            self.repelling.insert(pod.uid().to_owned(), Arc::clone(&pod));
        }
        match self.nodes.get_mut(node) {
            Some(info) => info.add(pod),
            None => drop(self.homeless.entry(node.to_owned()).or_default().insert(pod.uid().to_owned(), pod)),
        }
    }

    /// A pod is on no node any more. Whether it was.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(node) = self.places.remove(uid) else { return false };
        self.repelling.remove(uid);
        if let Some(info) = self.nodes.get_mut(&node) {
            info.remove(uid);
        } else if let Some(pods) = self.homeless.get_mut(&node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.homeless.remove(&node);
            }
        }
        true
    }

    /// The UIDs of all pods.
    pub fn pod_uids(&self) -> impl Iterator<Item = &String> {
        self.places.keys()
    }
}
