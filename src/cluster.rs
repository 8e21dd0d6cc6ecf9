//! What `skiff dev` and `skiff server` share: their flags, and putting runtime, server and agent together.

use std::{
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use skiff_agent::Credentials;
use skiff_server::{Config as ServerConfig, Datastore, NodeIdentity, Server, snapshot};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    node::{Node, NodeFlags, Place, Runtimes},
    oci::Choice,
    token_flags::TokenFlags,
};

/// How long everything together may take to end; what has not ended then is left to the operating system.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_millis(1900);

/// Threads of the asynchronous runtime: enough for a small machine, few enough for its memory.
const WORKER_THREADS: usize = 4;

/// How often it is looked whether the certificates of the node of this process end soon.
const RENEW_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the folder of `skiff server` is by default.
pub(crate) const SERVER_DATA_DIR: &str = "/var/lib/skiff";

/// The flags of a cluster. Names are k3s's where the meaning is the same.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// The folder that holds everything.
    #[arg(long, short, env = "SKIFF_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The API server's address.
    #[arg(long, env = "SKIFF_BIND_ADDRESS")]
    pub(crate) bind_address: Option<IpAddr>,
    /// The API server's port.
    #[arg(long, env = "SKIFF_HTTPS_LISTEN_PORT", default_value_t = 6443)]
    pub(crate) https_listen_port: u16,
    /// A further name or address by which the API server is reached; may be given several times.
    #[arg(long, env = "SKIFF_TLS_SAN", value_delimiter = ',')]
    pub(crate) tls_san: Vec<String>,
    /// Where the administrator's kubeconfig is written.
    #[arg(long, short = 'o', env = "SKIFF_WRITE_KUBECONFIG")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// The range of pod addresses.
    #[arg(long, env = "SKIFF_CLUSTER_CIDR")]
    pub(crate) cluster_cidr: Option<String>,
    /// The range of Service addresses.
    #[arg(long, env = "SKIFF_SERVICE_CIDR")]
    pub(crate) service_cidr: Option<String>,
    /// The range of node ports.
    #[arg(long, env = "SKIFF_SERVICE_NODE_PORT_RANGE", default_value = "30000-32767")]
    pub(crate) service_node_port_range: String,
    /// What of skiff's own parts is not to run; may be given several times.
    #[arg(long, env = "SKIFF_DISABLE", value_delimiter = ',')]
    pub(crate) disable: Vec<Part>,
    #[command(flatten)]
    pub(crate) token: TokenFlags,
    /// When the server saves a snapshot by itself, in cron's form and this machine's time zone, e.g. "0 */12 * * *";
    /// "" for never. By default twice a day for `skiff server`, never for `skiff dev`.
    #[arg(long, value_name = "CRON", env = "SKIFF_SNAPSHOT_SCHEDULE_CRON")]
    pub(crate) snapshot_schedule_cron: Option<String>,
    /// How many scheduled snapshots are kept.
    #[arg(long, value_name = "COUNT", env = "SKIFF_SNAPSHOT_RETENTION", default_value_t = crate::snapshot::RETENTION)]
    pub(crate) snapshot_retention: usize,
    /// Where snapshots are kept; by default server/snapshots in the folder that holds everything.
    #[arg(long, value_name = "FOLDER", env = "SKIFF_SNAPSHOT_DIR")]
    pub(crate) snapshot_dir: Option<PathBuf>,
}

/// What can be left out of a cluster. Names are k3s's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The provisioner of the class local-path.
    LocalStorage,
}

/// Defaults that differ between `skiff dev` and `skiff server`.
pub(crate) struct Defaults {
    /// The folder.
    pub(crate) data_dir: PathBuf,
    /// The API server's address.
    pub(crate) bind_address: IpAddr,
    /// The node's address.
    pub(crate) node_ip: IpAddr,
    /// Pod addresses.
    pub(crate) cluster_cidr: &'static str,
    /// Service addresses.
    pub(crate) service_cidr: &'static str,
    /// The port of the node's HTTPS API.
    pub(crate) kubelet_port: u16,
    /// Where the kubeconfig goes; `None` for the folder.
    pub(crate) write_kubeconfig: Option<PathBuf>,
    /// When snapshots are made.
    pub(crate) snapshot_schedule: &'static str,
    /// Where the cluster's state is kept.
    pub(crate) datastore: Datastore,
    /// The node's OCI runtime.
    pub(crate) oci: Choice,
}

/// A running cluster.
pub(crate) struct Cluster {
    /// The folder.
    pub(crate) data_dir: PathBuf,
    /// The kubeconfig.
    pub(crate) kubeconfig: PathBuf,
    /// The API server's URL.
    pub(crate) url: String,
    /// The node, unless there is none.
    pub(crate) node: Option<Node>,
    /// The control plane.
    pub(crate) server: Server,
    /// From the start of the process until the API server answered.
    pub(crate) server_ready_after: Duration,
    cancel: CancellationToken,
    _lock: Flock<File>,
}

/// The asynchronous runtime of a process.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(WORKER_THREADS))
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")
}

/// Cancels at SIGINT or SIGTERM; a second signal ends the process at once.
pub(crate) fn cancel_on_signals(cancel: &CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let cancel = cancel.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            if cancel.is_cancelled() {
                std::process::exit(130);
            }
            cancel.cancel();
        }
    });
    Ok(())
}

/// Where a developer's cluster lives by default.
pub(crate) fn dev_data_dir() -> Result<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = data.or_else(home).context("neither HOME nor XDG_DATA_HOME is set: give --data-dir")?;
    Ok(base.join("skiff"))
}

/// The folder that commands beside a cluster mean without `--data-dir`: the server's if there is one, else the
/// developer's.
pub(crate) fn found_data_dir() -> Result<PathBuf> {
    let server = PathBuf::from(SERVER_DATA_DIR);
    if server.is_dir() { Ok(server) } else { dev_data_dir() }
}

/// The Wasm runtime's folder.
pub(crate) fn wasm_root(data_dir: &Path) -> PathBuf {
    data_dir.join("agent/wasm")
}

impl Cluster {
    /// Starts runtime, control plane and node.
    pub(crate) async fn start(
        args: &ClusterArgs,
        defaults: Defaults,
        with_agent: bool,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let began = Instant::now();
        let data_dir = std::path::absolute(args.data_dir.clone().unwrap_or(defaults.data_dir.clone()))?;
        std::fs::create_dir_all(&data_dir).with_context(|| format!("making the folder {}", data_dir.display()))?;
        let lock = lock(&data_dir)?;
        // The runtime starts beside the server: neither needs the other.
        let runtime = async {
            if !with_agent {
                return Ok(None);
            }
            Runtimes::start(&defaults.oci, &data_dir, &cancel).await.map(Some)
        };
        let (runtimes, server) = tokio::join!(runtime, start_server(args, &defaults, &data_dir, cancel.child_token()));
        let (runtimes, server) = (runtimes?, server?);
        let server_ready_after = began.elapsed();
        let kubeconfig = args
            .write_kubeconfig
            .clone()
            .or(defaults.write_kubeconfig.clone())
            .unwrap_or_else(|| data_dir.join("kubeconfig"));
        server.write_kubeconfig(&kubeconfig).with_context(|| format!("writing {}", kubeconfig.display()))?;
        let node = match runtimes {
            Some(runtimes) => {
                Some(start_node(args, &defaults, &data_dir, &server, runtimes, cancel.child_token()).await?)
            }
            None => None,
        };
        let url = server.url().to_owned();
        Ok(Self { data_dir, kubeconfig, url, node, server, server_ready_after, cancel, _lock: lock })
    }

    /// Runs until the token is cancelled, then ends everything in order: node, runtime, server.
    pub(crate) async fn run(self) -> Result<()> {
        self.cancel.cancelled().await;
        let ended = tokio::time::timeout(SHUTDOWN_GRACE, async {
            if let Some(node) = self.node {
                node.stopped().await;
            }
            self.server.stopped().await;
        });
        ended.await.context("some tasks did not end in time; nothing that was acknowledged is lost")
    }
}

/// One process a folder.
pub(crate) fn lock(data_dir: &Path) -> Result<Flock<File>> {
    let Some(lock) = try_lock(data_dir)? else {
        bail!(
            "another skiff runs on {}: stop it first, or give this one its own --data-dir and --https-listen-port",
            data_dir.display()
        )
    };
    Ok(lock)
}

/// The folder's lock; `None` where another process has it.
pub(crate) fn try_lock(data_dir: &Path) -> Result<Option<Flock<File>>> {
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).with_context(|| format!("locking {}", path.display())),
    }
}

async fn start_server(
    args: &ClusterArgs,
    defaults: &Defaults,
    data_dir: &Path,
    cancel: CancellationToken,
) -> Result<Server> {
    let config = ServerConfig {
        data_dir: data_dir.join("server"),
        bind_address: args.bind_address.unwrap_or(defaults.bind_address),
        port: args.https_listen_port,
        advertise_address: args.node.node_ip.unwrap_or(defaults.node_ip),
        tls_sans: args.tls_san.clone(),
        cluster_cidr: args.cluster_cidr.clone().unwrap_or_else(|| defaults.cluster_cidr.to_owned()),
        service_cidr: args.service_cidr.clone().unwrap_or_else(|| defaults.service_cidr.to_owned()),
        node_port_range: args.service_node_port_range.clone(),
        datastore: defaults.datastore.clone(),
        token: args.token.given()?,
        snapshots: snapshots(args, defaults, data_dir)?,
        local_storage: !args.disable.contains(&Part::LocalStorage),
    };
    Server::start(config, cancel).await.context("starting the control plane")
}

fn snapshots(args: &ClusterArgs, defaults: &Defaults, data_dir: &Path) -> Result<snapshot::service::Config> {
    let folder = args.snapshot_dir.clone().unwrap_or_else(|| data_dir.join("server").join(snapshot::FOLDER));
    Ok(snapshot::service::Config {
        folder: std::path::absolute(folder)?,
        schedule: args.snapshot_schedule_cron.clone().unwrap_or_else(|| defaults.snapshot_schedule.to_owned()),
        retention: args.snapshot_retention,
        node: args.node.name()?,
    })
}

/// The node of this process. It shows certificates that the control plane beside it makes, and makes anew in time.
async fn start_node(
    args: &ClusterArgs,
    defaults: &Defaults,
    data_dir: &Path,
    server: &Server,
    runtimes: Runtimes,
    cancel: CancellationToken,
) -> Result<Node> {
    let name = args.node.name()?;
    let ip = args.node.node_ip.unwrap_or(defaults.node_ip);
    let authority = server.node_authority();
    let issue = move |name: &str| authority.issue(name, ip).context("making the node's certificates");
    let (sender, credentials) = watch::channel(credentials(issue(&name)?));
    let (renewed, stop) = (name.clone(), cancel.clone());
    tokio::spawn(async move {
        while stop.run_until_cancelled(tokio::time::sleep(RENEW_EVERY)).await.is_some() {
            match issue(&renewed) {
                Ok(issued) => drop(sender.send(self::credentials(issued))),
                Err(error) => tracing::warn!("{error:#}; the present ones stay"),
            }
        }
    });
    let place = Place {
        ip,
        kubelet_port: defaults.kubelet_port,
        server_url: server.url().to_owned(),
        cluster_cidr: args.cluster_cidr.clone().unwrap_or_else(|| defaults.cluster_cidr.to_owned()),
        service_cidr: args.service_cidr.clone().unwrap_or_else(|| defaults.service_cidr.to_owned()),
        tunnels: false,
        credentials,
    };
    Node::start(&args.node, place, data_dir, runtimes, cancel).await
}

fn credentials(issued: NodeIdentity) -> Credentials {
    Credentials {
        server_ca: issued.server_ca,
        client_ca: issued.client_ca,
        client_cert: issued.client.cert,
        client_key: issued.client.key,
        serving_cert: issued.serving.cert,
        serving_key: issued.serving.key,
    }
}
