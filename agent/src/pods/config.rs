//! What a runtime is told of a sandbox and of a container: the CRI messages, as a kubelet fills them.

use std::{collections::HashMap, path::PathBuf};

use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxPodSandboxConfig, Mount, NamespaceMode, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
};
use k8s_openapi::api::core::v1::Container;
use sha2::{Digest, Sha256};

use super::{env, model::DesiredPod, security};
use crate::quantity;

/// The label with the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The label with the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The label with the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The label with the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The annotation with [`spec_hash`].
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// The annotation with the container's ports.
pub const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
/// The annotation with the path of the termination message on the host.
pub const TERMINATION_FILE: &str = "skiff.io/termination-message-file";
/// The annotation with the container's `terminationMessagePolicy`.
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";

/// The period of a CPU quota.
pub(super) const CPU_PERIOD_US: i64 = 100_000;
/// The least CPU shares that cgroups take.
const MIN_SHARES: i64 = 2;

/// The hash of what cannot change without a restart: the name and the image.
pub fn spec_hash(container: &Container) -> String {
    let digest = Sha256::digest(format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default()));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// What a sandbox's configuration is made of besides its spec.
#[derive(Clone, Debug, Default)]
pub struct SandboxInputs {
    /// Which try it is.
    pub attempt: u32,
    /// Where the pod's containers log.
    pub log_directory: PathBuf,
    /// How it resolves names.
    pub dns: DnsConfig,
    /// The pod's cgroup; empty where its containers have none.
    pub cgroup_parent: String,
    /// The node's folder of seccomp profiles.
    pub seccomp_root: String,
}

/// The sandbox of a pod.
pub fn sandbox(desired: &DesiredPod, inputs: SandboxInputs) -> PodSandboxConfig {
    let spec = desired.spec();
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let mut labels: HashMap<String, String> =
        desired.pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(pod_labels(desired));
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.clone()).unwrap_or_default();
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: inputs.cgroup_parent,
        security_context: Some(security::sandbox(spec, &inputs.seccomp_root)),
        sysctls: sysctls.into_iter().map(|sysctl| (sysctl.name, sysctl.value)).collect(),
        resources: Some(super::cgroup::limits(spec)),
        ..LinuxPodSandboxConfig::default()
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: desired.name().to_owned(),
            uid: desired.uid().to_owned(),
            namespace: desired.namespace().to_owned(),
            attempt: inputs.attempt,
        }),
        // On the node's network a pod has the node's name.
        hostname: if spec.host_network == Some(true) { String::new() } else { hostname(desired) },
        log_directory: inputs.log_directory.display().to_string(),
        dns_config: Some(inputs.dns),
        port_mappings: ports.map(port_mapping).collect(),
        labels,
        annotations: desired.pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux),
        windows: None,
    }
}

/// The longest host name that Linux takes.
const MAX_HOSTNAME: usize = 63;

pub(super) fn hostname(desired: &DesiredPod) -> String {
    let spec = desired.spec();
    let name = spec.hostname_override.as_deref().or(spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let name: String = name.unwrap_or(desired.name()).chars().take(MAX_HOSTNAME).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

fn pod_labels(desired: &DesiredPod) -> [(String, String); 3] {
    [
        (POD_NAME.to_owned(), desired.name().to_owned()),
        (POD_NAMESPACE.to_owned(), desired.namespace().to_owned()),
        (POD_UID.to_owned(), desired.uid().to_owned()),
    ]
}

fn port_mapping(port: &k8s_openapi::api::core::v1::ContainerPort) -> PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    PortMapping {
        protocol: protocol.into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or_default(),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}

/// What a container's configuration is made of besides its spec.
#[derive(Clone, Debug, Default)]
pub struct ContainerInputs {
    /// Which try it is.
    pub attempt: u32,
    /// The image's reference.
    pub image_ref: String,
    /// The RuntimeClass's handler.
    pub runtime_handler: String,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// The volumes' mounts.
    pub mounts: Vec<Mount>,
    /// Where on the host the termination message is written to, if a file could be made.
    pub termination_file: Option<String>,
    /// The container whose processes it is to see, by its id.
    pub target_id: Option<String>,
    /// The node's folder of seccomp profiles.
    pub seccomp_root: String,
    /// How likely the kernel ends it when memory is short.
    pub oom_score_adj: i64,
}

/// A container of a pod.
pub fn container(desired: &DesiredPod, container: &Container, inputs: ContainerInputs) -> ContainerConfig {
    let ports = serde_json::to_string(container.ports.as_deref().unwrap_or_default()).unwrap_or_default();
    let mut labels: HashMap<String, String> = pod_labels(desired).into();
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    let annotations = annotations(desired, container, &inputs, ports);
    let mut context = security::container(desired.spec(), container, &inputs.seccomp_root);
    if let (Some(namespaces), Some(target)) = (&mut context.namespace_options, &inputs.target_id) {
        namespaces.set_pid(NamespaceMode::Target);
        namespaces.target_id.clone_from(target);
    }
    let linux = LinuxContainerConfig {
        resources: Some(LinuxContainerResources { oom_score_adj: inputs.oom_score_adj, ..resources(container) }),
        security_context: Some(context),
    };
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: inputs.attempt }),
        image: Some(ImageSpec {
            image: inputs.image_ref,
            user_specified_image: container.image.clone().unwrap_or_default(),
            runtime_handler: inputs.runtime_handler,
            ..ImageSpec::default()
        }),
        command: env::expand_all(container.command.as_ref(), &inputs.env),
        args: env::expand_all(container.args.as_ref(), &inputs.env),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: inputs.env.into_iter().map(|(key, value)| KeyValue { key, value }).collect(),
        mounts: inputs.mounts,
        labels,
        annotations,
        log_path: format!("{}/{}.log", container.name, inputs.attempt),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        tty: container.tty.unwrap_or_default(),
        linux: Some(linux),
        ..ContainerConfig::default()
    }
}

fn annotations(
    desired: &DesiredPod,
    container: &Container,
    inputs: &ContainerInputs,
    ports: String,
) -> HashMap<String, String> {
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let pairs = [
        (CONTAINER_HASH, spec_hash(container)),
        (CONTAINER_PORTS, ports),
        ("io.kubernetes.container.restartCount", inputs.attempt.to_string()),
        ("io.kubernetes.container.terminationMessagePath", path.to_owned()),
        (TERMINATION_POLICY, policy.to_owned()),
        ("io.kubernetes.pod.terminationGracePeriod", desired.grace_seconds().to_string()),
    ];
    let mut all: HashMap<String, String> = pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    if let Some(file) = &inputs.termination_file {
        all.insert(TERMINATION_FILE.to_owned(), file.clone());
    }
    all
}

/// CPU shares of a request, quota of a limit, memory limit (`kubernetes/pkg/kubelet/cm/helpers_linux.go`).
pub(super) fn resources(container: &Container) -> LinuxContainerResources {
    let of = |list: Option<&std::collections::BTreeMap<String, _>>, name: &str| {
        let value: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
            list.and_then(|list| list.get(name));
        value.map(|value| value.0.clone())
    };
    let given = container.resources.clone().unwrap_or_default();
    let cpu =
        |list| of(list, "cpu").and_then(|text| quantity::milli(&text)).and_then(|milli| i64::try_from(milli).ok());
    let limit = cpu(given.limits.as_ref());
    let request = cpu(given.requests.as_ref()).or(limit).unwrap_or_default();
    let memory = of(given.limits.as_ref(), "memory").and_then(|text| quantity::units(&text));
    LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: limit.map_or(0, |milli| (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(1000)),
        cpu_shares: (request.saturating_mul(1024) / 1000).max(MIN_SHARES),
        memory_limit_in_bytes: memory.unwrap_or_default(),
        ..LinuxContainerResources::default()
    }
}
