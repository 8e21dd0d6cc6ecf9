//! A node of this process, in `skiff server`, `skiff dev` and `skiff agent` alike: its flags, and putting runtimes and
//! agent together.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use skiff_agent::{
    Agent, Config as AgentConfig, Credentials, PodNetwork, RuntimeEndpoint, ServiceProxy, Settings, Taint,
    runtime::process::{ProcessConfig, RuntimeProcess},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::wasm_root,
    oci::{Choice, Oci},
};

/// The RuntimeClass handlers that the Wasm runtime serves. Where there is an OCI runtime that takes pods without a class.
const WASM_HANDLERS: [&str; 2] = ["wasm", ""];

/// An address of the world, to ask for the way there. Nothing is sent; it is TEST-NET-1's (RFC 5737).
pub(crate) const WORLD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The flags of a node. Names are k3s's where the meaning is the same.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeFlags {
    /// The node's name; by default the host's.
    #[arg(long, env = "SKIFF_NODE_NAME")]
    node_name: Option<String>,
    /// The node's address.
    #[arg(long, env = "SKIFF_NODE_IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// A label that the node registers with, KEY=VALUE; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", env = "SKIFF_NODE_LABEL", value_delimiter = ',', value_parser = label)]
    node_label: Vec<(String, String)>,
    /// A taint that the node registers with, KEY=VALUE:EFFECT; may be given several times.
    #[arg(long, value_name = "KEY=VALUE:EFFECT", env = "SKIFF_NODE_TAINT", value_delimiter = ',', value_parser = taint)]
    node_taint: Vec<Taint>,
    /// The port of the node's HTTPS API; 0 takes any that is free.
    #[arg(long, env = "SKIFF_KUBELET_PORT")]
    kubelet_port: Option<u16>,
    /// How many pods the node takes.
    #[arg(long, env = "SKIFF_MAX_PODS", default_value_t = 5000)]
    max_pods: u32,
    /// Where volumes of the class local-path are kept on the node; by default storage in the folder that holds
    /// everything.
    #[arg(long, value_name = "FOLDER", env = "SKIFF_DEFAULT_LOCAL_STORAGE_PATH")]
    default_local_storage_path: Option<PathBuf>,
    /// A setting of the node in the kubelet's words, as KEY=VALUE, e.g. eviction-hard=memory.available<5%; may be given
    /// several times.
    #[arg(long, value_name = "KEY=VALUE", env = "SKIFF_KUBELET_ARG")]
    kubelet_arg: Vec<String>,
    /// The folder of static pods' files; by default agent/pod-manifests in the folder that holds everything.
    #[arg(long, value_name = "FOLDER", env = "SKIFF_POD_MANIFEST_PATH")]
    pod_manifest_path: Option<PathBuf>,
}

impl NodeFlags {
    /// The node's name.
    pub(crate) fn name(&self) -> Result<String> {
        self.node_name.clone().map_or_else(host_name, Ok)
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("it must be KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn taint(text: &str) -> Result<Taint, String> {
    let (left, effect) = text.rsplit_once(':').ok_or("it must be KEY=VALUE:EFFECT")?;
    let (key, value) = left.split_once('=').map_or((left, None), |(key, value)| (key, Some(value)));
    if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err("it must be KEY=VALUE:EFFECT with an effect NoSchedule, PreferNoSchedule or NoExecute".to_owned());
    }
    let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

/// Where a node is.
pub(crate) struct Place {
    /// Its address.
    pub(crate) ip: IpAddr,
    /// The port of its HTTPS API, where the flags do not say.
    pub(crate) kubelet_port: u16,
    /// The API server.
    pub(crate) server_url: String,
    /// Pod addresses, of all nodes.
    pub(crate) cluster_cidr: String,
    /// Service addresses.
    pub(crate) service_cidr: String,
    /// Whether API servers reach it through tunnels.
    pub(crate) tunnels: bool,
    /// Who it is.
    pub(crate) credentials: watch::Receiver<Credentials>,
}

/// The node of this process.
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    agent: Agent,
    runtimes: Runtimes,
}

impl Node {
    /// Starts the node over runtimes that run.
    pub(crate) async fn start(
        flags: &NodeFlags,
        place: Place,
        data_dir: &Path,
        runtimes: Runtimes,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let name = flags.name()?;
        let storage = flags.default_local_storage_path.clone().unwrap_or_else(|| data_dir.join("storage"));
        let manifests = flags.pod_manifest_path.clone().unwrap_or_else(|| data_dir.join("agent/pod-manifests"));
        let config = AgentConfig {
            node_name: name.clone(),
            server_url: place.server_url,
            node_ip: place.ip,
            kubelet_port: flags.kubelet_port.unwrap_or(place.kubelet_port),
            data_dir: data_dir.join("agent"),
            runtimes: runtimes.endpoints(data_dir),
            max_pods: flags.max_pods,
            service_proxy: ServiceProxy::UserSpace,
            cluster_cidr: place.cluster_cidr,
            service_cidr: place.service_cidr,
            without_oci: runtimes.oci.endpoint.as_ref().err().cloned(),
            labels: flags.node_label.iter().cloned().collect::<BTreeMap<_, _>>(),
            taints: flags.node_taint.clone(),
            local_path: Some(std::path::absolute(storage)?),
            pod_manifest_path: std::path::absolute(manifests)?,
            settings: Settings::parse(&flags.kubelet_arg)?,
            tunnels: place.tunnels,
            credentials: place.credentials,
        };
        let agent = Agent::start(config, cancel).await.context("starting the node")?;
        Ok(Self { name, agent, runtimes })
    }

    /// Waits until the node is Ready.
    pub(crate) async fn ready(&self) {
        self.agent.ready().await;
    }

    /// Waits until everything has ended after the token was cancelled.
    pub(crate) async fn stopped(self) {
        self.agent.stopped().await;
        self.runtimes.stopped().await;
    }
}

/// The processes that run a node's pods.
pub(crate) struct Runtimes {
    wasm: RuntimeProcess,
    oci: Oci,
}

impl Runtimes {
    /// Both runtimes beside each other. Without an OCI runtime the node runs Wasm alone.
    pub(crate) async fn start(oci: &Choice, data_dir: &Path, cancel: &CancellationToken) -> Result<Self> {
        let (wasm, oci) =
            tokio::join!(start_wasm(data_dir, cancel.child_token()), Oci::start(oci, data_dir, cancel.child_token()));
        Ok(Self { wasm: wasm?, oci })
    }

    /// The runtimes' sockets, the OCI runtime's first.
    fn endpoints(&self, data_dir: &Path) -> Vec<RuntimeEndpoint> {
        let wasm = RuntimeEndpoint {
            socket: socket(data_dir),
            handlers: WASM_HANDLERS.map(str::to_owned).to_vec(),
            network: PodNetwork::AnyIp,
        };
        self.oci.endpoint.clone().ok().into_iter().chain([wasm]).collect()
    }

    async fn stopped(self) {
        self.wasm.stopped().await;
        if let Some(containerd) = self.oci.process {
            containerd.stopped().await;
        }
    }
}

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("agent/wasm.sock")
}

async fn start_wasm(data_dir: &Path, cancel: CancellationToken) -> Result<RuntimeProcess> {
    let root = wasm_root(data_dir);
    std::fs::create_dir_all(&root).with_context(|| format!("making the folder {}", root.display()))?;
    let program = std::env::current_exe().context("finding this program")?;
    let socket = socket(data_dir);
    let args = ["wasm-runtime".into(), "--socket".into(), socket.clone().into(), "--root".into(), root.into()];
    let registries = data_dir.join("registries.yaml");
    let args = args.into_iter().chain(["--registries".into(), registries.into(), "--exit-on-stdin-close".into()]);
    let args = args.collect();
    let process = ProcessConfig { program, args, env: vec![], log: None, socket, pid_file: None, renew: false };
    RuntimeProcess::start(process, cancel).await.context("starting the Wasm runtime")
}

/// The address that this host has towards another, or loopback where it has no route: a machine without a default
/// route starts all the same.
pub(crate) fn address_towards(target: SocketAddr) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { return loopback };
    let routed = socket.connect(target).and_then(|()| socket.local_addr());
    routed.map_or(loopback, |address| address.ip())
}

/// The host's name as a node's name: lower case, without what a DNS name cannot hold.
pub(crate) fn host_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("asking for the host's name")?;
    let name = name.trim().to_lowercase();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let name: String = name.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() {
        bail!("the host has no usable name: give --node-name");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn labels_and_taints_are_read_as_k3s_reads_them() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("=x").is_err());
        let read = |text: &str| taint(text).map(|t| (t.key, t.value.unwrap_or_default(), t.effect));
        let of = |key: &str, value: &str, effect: &str| Ok((key.to_owned(), value.to_owned(), effect.to_owned()));
        assert_eq!(read("k=v:NoSchedule"), of("k", "v", "NoSchedule"));
        assert_eq!(read("k:NoExecute"), of("k", "", "NoExecute"));
        assert!(read("k=v").is_err() && read("k=v:Never").is_err() && read(":NoExecute").is_err());
    }
}
