//! The status of the node, from what is known of machine and runtimes; pure.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use k8s_cri::v1::{Image, StatusResponse};
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
        NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo, Taint,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use skiff_api::{local_path, quantity};

use super::{Machine, pressure::Conditions, settings::Settings};

/// The version that the node says it is.
const KUBELET_VERSION: &str = "v1.36.2+skiff";

/// How many images a node tells of, and how many names of each (the kubelet's `nodeStatusMaxImages`).
const MAX_IMAGES: usize = 50;
/// How many names of an image it tells.
const MAX_NAMES: usize = 5;

/// The label that says whether the node runs OCI containers.
const OCI_LABEL: &str = "skiff.dev/oci";

/// The condition that says so too.
const OCI_CONDITION: &str = "OCIReady";

/// What does not change of a node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// The port of its HTTPS API.
    pub port: u16,
    /// How many pods it takes.
    pub max_pods: u32,
    /// The machine.
    pub machine: Machine,
    /// The runtime's name and version, e.g. `skiff-wasm://0.1.0`.
    pub runtime_version: String,
    /// The handlers that its runtimes serve.
    pub handlers: Vec<String>,
    /// Why it runs no OCI containers, if it does not.
    pub without_oci: Option<String>,
    /// Further labels that it registers with.
    pub labels: BTreeMap<String, String>,
    /// The taints that it registers with.
    pub taints: Vec<Taint>,
    /// Where volumes that are folders of this node are kept.
    pub local_path: Option<PathBuf>,
    /// What the operator sets.
    pub settings: Settings,
}

/// `amd64` and the like.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Facts {
    /// The labels that a node gives itself.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let pairs = [
            (OCI_LABEL, if self.without_oci.is_none() { "true" } else { "false" }),
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", architecture()),
            ("node.kubernetes.io/instance-type", "skiff"),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// The annotations that a node gives itself; what is `None` it must not have.
    pub fn annotations(&self) -> BTreeMap<String, Option<String>> {
        let folder = self.local_path.as_ref().map(|folder| folder.display().to_string());
        [(local_path::FOLDER.to_owned(), folder)].into()
    }

    /// What the node has.
    pub fn capacity(&self) -> BTreeMap<String, Quantity> {
        let pairs = [
            ("cpu", self.machine.cpus.to_string()),
            ("memory", format!("{}Ki", self.machine.memory_kib)),
            ("ephemeral-storage", format!("{}Ki", self.machine.disk_bytes / 1024)),
            ("pods", self.max_pods.to_string()),
            ("hugepages-1Gi", "0".to_owned()),
            ("hugepages-2Mi", "0".to_owned()),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), canonical(value))).collect()
    }

    /// What of it pods may have: without what is reserved, and what must always be left.
    pub fn allocatable(&self) -> BTreeMap<String, Quantity> {
        let left = |name: &String, capacity: &Quantity| match capacity.0.parse::<quantity::Quantity>() {
            Ok(all) => all.minus(self.settings.reserved(name, all)).max(quantity::Quantity::ZERO).into(),
            Err(_) => capacity.clone(),
        };
        self.capacity().iter().map(|(name, capacity)| (name.clone(), left(name, capacity))).collect()
    }

    /// Refuses to reserve more than there is, in the kubelet's words.
    pub fn check(&self) -> Result<(), String> {
        for (name, capacity) in self.capacity() {
            let Ok(all) = capacity.0.parse::<quantity::Quantity>() else { continue };
            let reserved = self.settings.reserved(&name, all);
            // A machine that is too small for what must be left by default is one all the same.
            if reserved > all && self.settings != Settings::default() {
                return Err(format!(
                    "invalid Node Allocatable configuration. Resource {name:?} has a reservation of {reserved} but \
                     capacity of {all}. Expected capacity >= reservation"
                ));
            }
        }
        Ok(())
    }
}

/// An amount as the API server prints it: what differs from what is read back would be written again and again.
fn canonical(value: String) -> Quantity {
    Quantity(quantity::canonical(&value).unwrap_or(value))
}

/// How the runtimes are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeHealth {
    problems: Vec<String>,
    /// What is short on the node.
    pub short: Conditions,
    /// The largest images that are there.
    pub images: Vec<ContainerImage>,
    features: BTreeMap<String, (bool, bool)>,
}

impl RuntimeHealth {
    /// No runtime was asked yet; `network`: whether they know the node's podCIDR.
    pub fn new(network: bool) -> Self {
        let mut health = Self::default();
        if !network {
            health
                .network_problem("NetworkPluginNotReady", "Network plugin returns error: the node has no podCIDR yet");
        }
        health
    }

    fn network_problem(&mut self, reason: &str, message: &str) {
        if !self.problems.iter().any(|problem| problem.contains("network not ready")) {
            self.problems.push(format!(
                "container runtime network not ready: NetworkReady=false reason:{reason} message:{message}"
            ));
        }
    }

    /// Takes in what a runtime says.
    pub fn add(&mut self, answer: StatusResponse) {
        for condition in answer.status.map(|status| status.conditions).unwrap_or_default() {
            match (condition.r#type.as_str(), condition.status) {
                ("NetworkReady", false) => self.network_problem(&condition.reason, &condition.message),
                ("RuntimeReady", false) => self.problems.push(format!(
                    "container runtime not ready: RuntimeReady=false reason:{} message:{}",
                    condition.reason, condition.message
                )),
                _ => {}
            }
        }
        for handler in answer.runtime_handlers {
            let features = handler.features.unwrap_or_default();
            self.features.insert(handler.name, (features.recursive_read_only_mounts, features.user_namespaces));
        }
    }

    /// Takes in a runtime's images; the largest are told.
    pub fn add_images(&mut self, images: &[Image]) {
        let names =
            |image: &Image| image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).cloned().collect();
        let told = images.iter().filter(|image| !image.repo_digests.is_empty() || !image.repo_tags.is_empty());
        self.images.extend(
            told.map(|image| ContainerImage { names: Some(names(image)), size_bytes: i64::try_from(image.size).ok() }),
        );
        self.images.sort_by(|a, b| (b.size_bytes, &a.names).cmp(&(a.size_bytes, &b.names)));
        self.images.truncate(MAX_IMAGES);
    }

    /// A runtime does not answer.
    pub fn away(&mut self, why: &str) {
        self.problems.push(format!("container runtime is down: {why}"));
    }

    /// Whether pods can be started.
    pub fn is_ready(&self) -> bool {
        self.problems.is_empty()
    }
}

/// The status; transition times of what did not change are kept.
pub(super) fn status(facts: &Facts, health: &RuntimeHealth, before: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let known = before.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let short = |kind: &str, is: bool, (bad, good): (&str, &str), what: (&str, &str)| {
        let (reason, message) = if is { (bad, what.0) } else { (good, what.1) };
        condition(known, kind, is, reason, message, now)
    };
    let ready = match health.is_ready() {
        true => condition(known, "Ready", true, "KubeletReady", "kubelet is posting ready status", now),
        false => condition(known, "Ready", false, "KubeletNotReady", &joined(&health.problems), now),
    };
    NodeStatus {
        addresses: Some(vec![address("InternalIP", facts.ip.to_string()), address("Hostname", facts.name.clone())]),
        capacity: Some(facts.capacity()),
        allocatable: Some(facts.allocatable()),
        conditions: Some(vec![
            short(
                "MemoryPressure",
                health.short.memory,
                ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
                ("kubelet has insufficient memory available", "kubelet has sufficient memory available"),
            ),
            short(
                "DiskPressure",
                health.short.disk,
                ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
                ("kubelet has disk pressure", "kubelet has no disk pressure"),
            ),
            short(
                "PIDPressure",
                health.short.pids,
                ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
                ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
            ),
            ready,
            oci(facts, known, now),
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: facts.port.into() }),
        }),
        node_info: Some(info(facts)),
        runtime_handlers: Some(handlers(facts, health)),
        images: (!health.images.is_empty()).then(|| health.images.clone()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(false) }),
        ..NodeStatus::default()
    }
}

/// skiff's own condition: whether the node runs OCI containers, and what mends it if it does not.
fn oci(facts: &Facts, known: &[NodeCondition], now: Timestamp) -> NodeCondition {
    match &facts.without_oci {
        None => condition(known, OCI_CONDITION, true, "RuntimeFound", "the node runs OCI and Wasm pods", now),
        Some(why) => {
            let message = format!("the node runs Wasm pods alone: {why}");
            condition(known, OCI_CONDITION, false, "NoRuntime", &message, now)
        }
    }
}

/// Whether two statuses say the same, heartbeats aside.
pub(super) fn same(before: &NodeStatus, after: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        status
    };
    strip(before) == strip(after)
}

fn joined(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn address(kind: &str, address: String) -> NodeAddress {
    NodeAddress { type_: kind.to_owned(), address }
}

fn condition(
    known: &[NodeCondition],
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> NodeCondition {
    let status = if status { "True" } else { "False" };
    let before = known.iter().find(|condition| condition.type_ == kind && condition.status == status);
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
    }
}

fn info(facts: &Facts) -> NodeSystemInfo {
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: facts.machine.boot_id.clone(),
        container_runtime_version: facts.runtime_version.clone(),
        kernel_version: facts.machine.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: facts.machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: facts.machine.os_image.clone(),
        swap: None,
        system_uuid: facts.machine.system_uuid.clone(),
    }
}

fn handlers(facts: &Facts, health: &RuntimeHealth) -> Vec<NodeRuntimeHandler> {
    let features = |name: &String| {
        let (recursive, users) = health.features.get(name).copied().unwrap_or_default();
        NodeRuntimeHandlerFeatures { recursive_read_only_mounts: Some(recursive), user_namespaces: Some(users) }
    };
    let handler = |name: &String| NodeRuntimeHandler { name: Some(name.clone()), features: Some(features(name)) };
    facts.handlers.iter().map(handler).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_they_are_read_back() {
        for (written, read) in [("5000", "5k"), ("4194304Ki", "4Gi"), ("243497856616", "243497856616"), ("2", "2")] {
            assert_eq!(canonical(written.to_owned()).0, read);
        }
    }
}
