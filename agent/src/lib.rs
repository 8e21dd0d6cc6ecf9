//! The node: keeps the pods that are bound to it, with or without the server.
//!
//! - [`pods`]: the life of a pod: a pure core, and a worker a pod around it.
//! - [`runtime`]: CRI runtimes, and the supervision of the Wasm runtime's process.
//! - [`volumes`], [`probes`]: what pods have and how they are asked how they are.
//! - [`node`]: the Node object, its status and its Lease.
//! - [`keep`]: what the node needs to go on without the server.
//! - [`net`]: Services on this node.
//! - [`join`]: joining a cluster from another machine; `tunnel`: the way from its servers back to this node.
//! - [`streaming`]: the node's HTTPS API: logs, exec, attach, port-forward.
//!
//! Entry point: [`Agent::start`].

mod agent;
pub mod cgroups;
mod context;
pub mod join;
pub mod keep;
pub mod net;
pub mod node;
pub mod pods;
pub mod probes;
mod quantity;
pub mod runtime;
pub mod streaming;
mod tunnel;
pub mod volumes;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

pub use k8s_openapi::api::core::v1::Taint;
use tokio::sync::watch;

pub use agent::{Agent, AgentError};
pub use node::settings::Settings;

/// What a node needs to know at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// The API server, e.g. `https://127.0.0.1:6443`.
    pub server_url: String,
    /// The node's address, shown as its InternalIP.
    pub node_ip: IpAddr,
    /// Where the node's HTTPS API listens (10250 by default).
    pub kubelet_port: u16,
    /// The agent's folder: pods, volumes, logs, the runtime's socket.
    pub data_dir: PathBuf,
    /// The sockets of the container runtimes, each with the RuntimeClass handlers that it serves.
    pub runtimes: Vec<RuntimeEndpoint>,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// How Services are proxied on this node.
    pub service_proxy: ServiceProxy,
    /// The range of pod addresses of the whole cluster.
    pub cluster_cidr: String,
    /// The range of Service addresses, made this machine's own where Services are proxied in user space.
    pub service_cidr: String,
    /// Why the node runs no OCI containers, if it does not: shown in its conditions.
    pub without_oci: Option<String>,
    /// What the operator sets of the node.
    pub settings: Settings,
    /// The folder of static pods' files.
    pub pod_manifest_path: PathBuf,
    /// Where volumes that are folders of this node are kept; `None` for none.
    pub local_path: Option<PathBuf>,
    /// Labels that the node has from its registration on.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node has from its registration on.
    pub taints: Vec<Taint>,
    /// Whether the node opens tunnels to the API servers, because they may not reach it.
    pub tunnels: bool,
    /// Certificates and keys, of the moment.
    pub credentials: watch::Receiver<Credentials>,
}

/// A CRI runtime.
#[derive(Clone, Debug)]
pub struct RuntimeEndpoint {
    /// The CRI socket.
    pub socket: PathBuf,
    /// Handlers that it serves; `""` is that of pods without a RuntimeClass.
    pub handlers: Vec<String>,
    /// How its pods get their addresses.
    pub network: PodNetwork,
}

/// How the pods of a runtime get their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// From a range that is routed to the machine itself; the runtime binds them.
    AnyIp,
    /// On a bridge, by CNI plugins.
    Bridge {
        /// The bridge's name.
        name: String,
        /// The folder that the runtime reads the CNI configuration from.
        configuration: PathBuf,
        /// The folder where addresses that are given out are noted.
        leases: PathBuf,
    },
}

/// How Services are proxied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceProxy {
    /// Sockets of this process on each ClusterIP (`skiff dev`).
    UserSpace,
    /// Not at all.
    Disabled,
}

/// The node's identity, all as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who signed the API server's certificate.
    pub server_ca: String,
    /// Who signs the certificates of the node API's clients.
    pub client_ca: String,
    /// The node's client certificate (`system:node:NAME`, `system:nodes`).
    pub client_cert: String,
    /// Its key.
    pub client_key: String,
    /// The certificate of the node's HTTPS API.
    pub serving_cert: String,
    /// Its key.
    pub serving_key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}
