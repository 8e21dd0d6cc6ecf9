//! `skiff agent`: a node of a cluster whose servers are on other machines.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use anyhow::{Context, Result};
use skiff_agent::join::{Join, join, token::Token};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{SERVER_DATA_DIR, SHUTDOWN_GRACE, cancel_on_signals, lock, runtime},
    node::{Node, NodeFlags, Place, Runtimes, WORLD, address_towards},
    oci::Choice,
};

/// The port of the node's API, the kubelet's.
const KUBELET_PORT: u16 = 10250;

/// The port of a server whose URL does not say.
const HTTPS_PORT: u16 = 443;

/// The options of the command. Names are k3s's where the meaning is the same.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A server of the cluster, e.g. https://10.0.0.1:6443.
    #[arg(long, short, value_name = "URL", env = "SKIFF_URL")]
    server: String,
    /// What the node joins with, the first time: a token of `skiff token create`, or the server's own, server/token.
    #[arg(long, short, env = "SKIFF_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token.
    #[arg(long, value_name = "FILE", env = "SKIFF_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The folder that holds everything.
    #[arg(long, short, env = "SKIFF_DATA_DIR", default_value = SERVER_DATA_DIR)]
    data_dir: PathBuf,
    #[command(flatten)]
    node: NodeFlags,
    /// The CRI socket of a containerd that runs already, or `none` for a node that runs Wasm alone; by default skiff
    /// runs its own, from the distribution's packages.
    #[arg(long, env = "SKIFF_CONTAINER_RUNTIME_ENDPOINT")]
    container_runtime_endpoint: Option<String>,
}

/// Runs until SIGINT or SIGTERM.
pub(crate) fn run(args: &Args) -> Result<()> {
    runtime()?.block_on(async {
        let cancel = CancellationToken::new();
        cancel_on_signals(&cancel)?;
        let data_dir = std::path::absolute(&args.data_dir)?;
        std::fs::create_dir_all(&data_dir).with_context(|| format!("making the folder {}", data_dir.display()))?;
        let _lock = lock(&data_dir)?;
        let (name, ip) = (args.node.name()?, args.node.node_ip.unwrap_or_else(|| own_address(&args.server)));
        let wanted = Join {
            server_url: args.server.clone(),
            token: token(args)?,
            node_name: name.clone(),
            node_ip: ip,
            folder: data_dir.join("agent/tls"),
        };
        let Some(joined) = join(wanted, cancel.clone()).await? else { return Ok(()) };
        let oci = Choice::of(args.container_runtime_endpoint.as_deref());
        let runtimes = Runtimes::start(&oci, &data_dir, &cancel).await?;
        let place = Place {
            ip,
            kubelet_port: KUBELET_PORT,
            server_url: args.server.clone(),
            cluster_cidr: joined.cluster.cluster_cidr,
            service_cidr: joined.cluster.service_cidr,
            tunnels: true,
            credentials: joined.credentials,
        };
        let node = Node::start(&args.node, place, &data_dir, runtimes, cancel.child_token()).await?;
        println!("skiff agent is up: node {name} of the cluster at {}", args.server);
        cancel.cancelled().await;
        let ended = tokio::time::timeout(SHUTDOWN_GRACE, node.stopped());
        ended.await.context("some tasks did not end in time")
    })
}

fn token(args: &Args) -> Result<Option<Token>> {
    let given = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file);
            Some(text.with_context(|| format!("reading the token from {}", file.display()))?)
        }
        (None, None) => None,
    };
    Ok(given.map(|text| Token::parse(&text)).transpose()?)
}

/// The address that this host has towards the server, or towards the world where that has no address now.
fn own_address(server: &str) -> IpAddr {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest).trim_end_matches('/');
    let resolved = host.to_socket_addrs().or_else(|_| (host, HTTPS_PORT).to_socket_addrs());
    let address: Option<SocketAddr> = resolved.ok().and_then(|mut all| all.find(SocketAddr::is_ipv4));
    address_towards(address.unwrap_or(WORLD))
}
