//! `skiff dev`: a single-node cluster for a developer's machine, without root.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use skiff_server::Datastore;
use skiff_wasm::images::Store;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, ClusterArgs, Defaults, cancel_on_signals, dev_data_dir, runtime, wasm_root},
    oci::Choice,
};

/// How long the start may take before it says what it waits for.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// The options of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// A component (.wasm) or OCI archive to import first; may be given several times.
    #[arg(long, value_name = "FILE")]
    import: Vec<PathBuf>,
    /// A manifest to apply once the cluster is up; may be given several times.
    #[arg(long, value_name = "FILE")]
    apply: Vec<PathBuf>,
}

/// Runs the cluster until Ctrl-C.
pub(crate) fn run(args: Args) -> Result<()> {
    let began = Instant::now();
    let data_dir = args.cluster.data_dir.clone().map_or_else(dev_data_dir, Ok)?;
    import(&args.import, &data_dir)?;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let defaults = Defaults {
        data_dir,
        bind_address: loopback,
        node_ip: loopback,
        cluster_cidr: "127.64.0.0/12",
        service_cidr: "127.43.0.0/16",
        kubelet_port: 0,
        write_kubeconfig: None,
        snapshot_schedule: "",
        datastore: Datastore::Embedded,
        oci: Choice::Without("skiff dev runs Wasm pods alone; OCI pods need skiff server"),
    };
    runtime()?.block_on(async {
        let cancel = CancellationToken::new();
        cancel_on_signals(&cancel)?;
        let cluster = Cluster::start(&args.cluster, defaults, true, cancel.clone()).await?;
        let ready = wait_until_ready(&cluster, &cancel).await;
        if ready {
            apply(&args.apply, &cluster).await?;
            greet(&cluster, began.elapsed(), &args);
        }
        cluster.run().await
    })
}

fn import(files: &[PathBuf], data_dir: &std::path::Path) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let store = Store::open(&wasm_root(data_dir)).context("opening the image store")?;
    for file in files {
        store.import(file, None).with_context(|| format!("importing {}", file.display()))?;
    }
    Ok(())
}

async fn apply(files: &[PathBuf], cluster: &Cluster) -> Result<()> {
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let applied = cluster.server.apply(&text).await.with_context(|| format!("applying {}", file.display()))?;
        for object in applied {
            println!("{object}");
        }
    }
    Ok(())
}

/// Waits until the node is Ready, saying so where it takes long; `false` if the user gave up first.
async fn wait_until_ready(cluster: &Cluster, cancel: &CancellationToken) -> bool {
    let Some(node) = &cluster.node else { return true };
    let ready = node.ready();
    tokio::pin!(ready);
    loop {
        tokio::select! {
            () = &mut ready => return true,
            () = cancel.cancelled() => return false,
            () = tokio::time::sleep(READY_PATIENCE) => {
                eprintln!("skiff: still waiting for the node to be Ready; -v shows what happens");
            }
        }
    }
}

/// Says what runs, where the kubeconfig is, and what to type next.
fn greet(cluster: &Cluster, ready_after: Duration, args: &Args) {
    let node = cluster.node.as_ref().map_or("none", |node| node.name.as_str());
    let version = env!("CARGO_PKG_VERSION");
    println!("skiff {version} is up: Kubernetes {}", skiff_server::KUBERNETES_VERSION);
    println!("  API server   {}   after {} ms", cluster.url, cluster.server_ready_after.as_millis());
    println!(
        "  node         {node}, Ready after {} ms, runs Wasm pods (runtimeClassName: wasm)",
        ready_after.as_millis()
    );
    println!("  data         {}", cluster.data_dir.display());
    println!("  kubeconfig   {}", cluster.kubeconfig.display());
    println!();
    println!("Next, in another terminal:");
    println!("  export KUBECONFIG={}", cluster.kubeconfig.display());
    if args.apply.is_empty() {
        println!("  skiff image import examples/hello/hello.wasm{}", data_dir_flag(args));
        println!("  kubectl apply -f examples/hello/hello.yaml");
    } else {
        println!("  kubectl get pods,services -o wide");
    }
    println!();
    println!("Ctrl-C stops everything; started again on the same folder it goes on where it stopped.");
}

/// The flag that other commands need to find this cluster.
fn data_dir_flag(args: &Args) -> String {
    args.cluster.data_dir.as_ref().map_or_else(String::new, |dir| format!(" --data-dir {}", dir.display()))
}
