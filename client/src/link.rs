//! What a server and a node on another machine agree on beside the Kubernetes API: where a node learns whom to trust
//! and how the cluster is set up, and the tunnel by which the server reaches the node.
//!
//! The tunnel is a connection that the node opens: a `GET` of [`CONNECT_PATH`] that upgrades to [`TUNNEL_PROTOCOL`].
//! From then on both speak HTTP/2 with their parts exchanged: the server asks, with `CONNECT`, for [`NODE_API`] or for
//! the address of a pod of this node, and the node joins the stream to that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where anybody gets the certificate of the API server's authority, as PEM. The path is k3s's.
pub const CA_PATH: &str = "/cacerts";

/// Where a node gets a [`ClusterConfig`].
pub const CONFIG_PATH: &str = "/skiff/v1/config";

/// Where a node opens its tunnel.
pub const CONNECT_PATH: &str = "/skiff/v1/connect";

/// What the tunnel's connection upgrades to.
pub const TUNNEL_PROTOCOL: &str = "skiff-tunnel";

/// What the server asks for when it means the node's own HTTPS API.
pub const NODE_API: &str = "kubelet:10250";

/// How many streams a tunnel carries at a time: logs, sessions, forwarded ports.
pub const MAX_STREAMS: u32 = 256;

/// How much of one stream may be under way unread.
pub const STREAM_WINDOW_BYTES: u32 = 64 << 10;

/// How much of all streams together: so that those that nobody reads never hold up the others.
pub const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * STREAM_WINDOW_BYTES;

/// What is buffered for a stream whose other end reads slowly.
pub const SEND_BUFFER_BYTES: usize = 64 << 10;

/// How often each end asks whether the other still lives. Routers forget a silent connection, some within a minute.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long the answer to that may take.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a node needs to know of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfig {
    /// Who signs the API servers' certificates, as PEM.
    pub server_ca: String,
    /// Who signs the certificates of the node API's clients, as PEM.
    pub client_ca: String,
    /// The range of pod addresses.
    pub cluster_cidr: String,
    /// The range of Service addresses.
    pub service_cidr: String,
}
