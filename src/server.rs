//! `skiff server`: the control plane, and a node unless `--disable-agent`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, ClusterArgs, Defaults, SERVER_DATA_DIR, cancel_on_signals, runtime},
    datastore_flags::DatastoreFlags,
    node::{WORLD, address_towards},
    oci::Choice,
};

/// When snapshots are made by default, as k3s does: at noon and midnight.
const SNAPSHOT_SCHEDULE: &str = "0 */12 * * *";

/// The options of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    datastore: DatastoreFlags,
    /// Runs the control plane alone.
    #[arg(long, env = "SKIFF_DISABLE_AGENT")]
    disable_agent: bool,
    /// The CRI socket of a containerd that runs already, or `none` for a node that runs Wasm alone; by default skiff
    /// runs its own, from the distribution's packages.
    #[arg(long, env = "SKIFF_CONTAINER_RUNTIME_ENDPOINT")]
    container_runtime_endpoint: Option<String>,
}

/// Runs until SIGINT or SIGTERM.
pub(crate) fn run(args: Args) -> Result<()> {
    let defaults = Defaults {
        data_dir: PathBuf::from(SERVER_DATA_DIR),
        bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        node_ip: address_towards(WORLD),
        cluster_cidr: "10.64.0.0/12",
        service_cidr: "10.43.0.0/16",
        kubelet_port: 10250,
        write_kubeconfig: Some(PathBuf::from("/etc/skiff/skiff.yaml")),
        snapshot_schedule: SNAPSHOT_SCHEDULE,
        datastore: args.datastore.datastore()?,
        oci: Choice::of(args.container_runtime_endpoint.as_deref()),
    };
    runtime()?.block_on(async {
        let cancel = CancellationToken::new();
        cancel_on_signals(&cancel)?;
        let cluster = Cluster::start(&args.cluster, defaults, !args.disable_agent, cancel).await?;
        println!("skiff server is up at {}; kubeconfig: {}", cluster.url, cluster.kubeconfig.display());
        cluster.run().await
    })
}
