//! Puts the node together and keeps it until it is told to end.

use std::sync::{Arc, atomic::AtomicU64};

use k8s_cri::v1::VersionRequest;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
    node::v1::RuntimeClass,
};
use skiff_api::request::Options;
use skiff_client::{Client, EventRecorder, Informers, clock, https};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Credentials, ServiceProxy,
    cgroups::Cgroups,
    context::{Context, make_dir},
    keep::{
        transport::Keeping,
        vault::{Vault, VaultError},
    },
    net::{anyip, routes, services},
    node::{Facts, Machine, NodeKeeper, guard},
    pods::{
        manager,
        statics::{
            Statics,
            folder::{self, Folder},
            mirror,
        },
    },
    runtime::{
        Cri, CriError,
        grpc::CriSocket,
        router::{Runtime, Runtimes},
    },
    streaming,
    tunnel::Tunnels,
    volumes::sources::Sources,
};

/// How many orders wait for the pods' manager.
const ORDERS: usize = 64;

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The way to the API server cannot be set up.
    #[error("cannot set up the connection to the API server")]
    Client(#[from] https::SetupError),
    /// A folder cannot be made.
    #[error("cannot make the folder {folder}")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// More is reserved than there is.
    #[error("{0}")]
    Reserved(String),
    /// What is kept for times without the server cannot be read or written.
    #[error("the node's own copy of what it runs")]
    Vault(#[from] VaultError),
    /// A container runtime does not answer.
    #[error("the container runtime at {socket} does not answer")]
    Runtime {
        /// Its socket.
        socket: String,
        /// Why.
        #[source]
        source: CriError,
    },
    /// The Services' addresses cannot be bound.
    #[error("the addresses of Services")]
    Addresses(#[from] anyip::AnyIpError),
    /// The node's HTTPS API cannot be served.
    #[error("cannot serve the node's API")]
    Serve(#[from] streaming::ServeError),
}

/// A running node.
#[derive(Debug)]
pub struct Agent {
    ready: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

impl Agent {
    /// Starts the node. It registers and becomes Ready in the background: [`Self::ready`].
    pub async fn start(config: Config, cancel: CancellationToken) -> Result<Self, AgentError> {
        make_dir(&config.data_dir)
            .map_err(|source| AgentError::Folder { folder: config.data_dir.display().to_string(), source })?;
        if let Some(behind) = clock::learn_from(&config.data_dir) {
            tracing::warn!(?behind, "the clock is behind the last time that this node has seen, which counts instead");
        }
        let (transport, client) = connect(&config)?;
        let (runtimes, runtime_version) = runtimes(&config).await?;
        let mut facts = Facts {
            name: config.node_name.clone(),
            ip: config.node_ip,
            port: config.kubelet_port,
            max_pods: config.max_pods,
            machine: Machine::read(&config.data_dir),
            runtime_version,
            handlers: runtimes.handlers().map(str::to_owned).collect(),
            without_oci: config.without_oci.clone(),
            labels: config.labels.clone(),
            taints: config.taints.clone(),
            local_path: config.local_path.clone(),
            settings: config.settings.clone(),
        };
        facts.check().map_err(AgentError::Reserved)?;
        let recorder = EventRecorder::new(client.clone(), "kubelet", &config.node_name, cancel.clone());
        let (network, network_ready) = watch::channel(false);
        let (ready_sender, ready) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let informers = Informers::new(client.clone(), cancel.clone());
        let ctx = context(&config, client.clone(), recorder.clone(), &informers, runtimes.clone(), &facts);
        let api = streaming::Api::new(&config.credentials.borrow(), Arc::clone(&ctx))?;
        let listener = streaming::Listener::bind(&config, Arc::clone(&api)).await?;
        facts.port = listener.port().unwrap_or(facts.port);
        tasks.spawn(listener.run(cancel.clone()));
        let (server_url, credentials) = (config.server_url.clone(), config.credentials.clone());
        let renewed = follow_credentials(credentials.clone(), Arc::clone(&transport), Arc::clone(&api), cancel.clone());
        tasks.spawn(renewed);
        if config.tunnels {
            let tunnels = Arc::new(Tunnels { server_url, credentials, transport, api, ctx: Arc::clone(&ctx) });
            tasks.spawn(tunnels.run(informers.of::<EndpointSlice>(), cancel.clone()));
        }
        let conditions = ctx.conditions.subscribe();
        let keeper = NodeKeeper { client, facts, runtimes, network, conditions, ready: ready_sender, recorder };
        tasks.spawn(guard::run(Arc::clone(&ctx), config.settings.clone(), cancel.clone()));
        tasks.spawn(keeper.run(cancel.clone()));
        if config.service_proxy == ServiceProxy::UserSpace {
            anyip::own(&config.service_cidr).await?;
            let slices = informers.of::<EndpointSlice>();
            tasks.spawn(services::run(Arc::clone(&ctx.services), slices, ctx.recorder.clone(), cancel.clone()));
        }
        if let Some(cluster) = routes::routed(&config.cluster_cidr) {
            let (nodes, own) = (informers.of::<Node>(), config.node_name.clone());
            tasks.spawn(routes::run(nodes, own, cluster, cancel.clone()));
        }
        let statics = follow_statics(&config, &ctx, &mut tasks, &cancel)?;
        tasks.spawn(keep_pods(ctx, statics, network_ready, cancel));
        Ok(Self { ready, tasks })
    }

    /// Waits until the node was told to be Ready.
    pub async fn ready(&self) {
        // The sender goes with the node's task, at the end.
        let mut ready = self.ready.clone();
        let _ended = ready.wait_for(|ready| *ready).await;
    }

    /// Waits until everything has ended after the token was cancelled.
    pub async fn stopped(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(e) = ended {
                tracing::error!(error = %e, "a task of the node failed");
            }
        }
    }
}

/// Follows the files of static pods; those that are there now are known when this returns.
fn follow_statics(
    config: &Config,
    ctx: &Arc<Context>,
    tasks: &mut JoinSet<()>,
    cancel: &CancellationToken,
) -> Result<watch::Receiver<Statics>, AgentError> {
    let path = &config.pod_manifest_path;
    make_dir(path).map_err(|source| AgentError::Folder { folder: path.display().to_string(), source })?;
    let (sender, statics) = watch::channel(Statics::new());
    let folder = Folder::new(path, &config.node_name);
    tasks.spawn(folder::follow(folder, sender, ctx.recorder.clone(), cancel.clone()));
    tasks.spawn(mirror::keep(Arc::clone(ctx), statics.clone(), cancel.clone()));
    Ok(statics)
}

/// Pods are started once the runtimes have a network to put them in.
async fn keep_pods(
    ctx: Arc<Context>,
    mut statics: watch::Receiver<Statics>,
    mut network: watch::Receiver<bool>,
    cancel: CancellationToken,
) {
    tokio::select! {
        () = cancel.cancelled() => return,
        ready = network.wait_for(|ready| *ready) => if ready.is_err() { return },
    }
    // The files are read first: what they describe must not be taken for something that nobody wants.
    let known = async {
        ctx.runtime_classes.synced().await;
        statics.changed().await
    };
    tokio::select! {
        () = cancel.cancelled() => return,
        known = known => if known.is_err() { return },
    }
    manager::run(ctx, statics, cancel).await;
}

/// The way to the API server, and the client above it, which keeps what passes.
fn connect(config: &Config) -> Result<(Arc<https::Https>, Client), AgentError> {
    let credentials = config.credentials.borrow().clone();
    let transport = https::Https::new(&https::Config {
        server_url: config.server_url.clone(),
        server_ca: credentials.server_ca.clone(),
        identity: identity(&credentials),
        user_agent: "skiff-agent".to_owned(),
    })?;
    let vault = Vault::open(&config.data_dir.join("kept"))?;
    Ok((Arc::clone(&transport), Client::new(Keeping::new(transport, vault))))
}

fn identity(credentials: &Credentials) -> https::Identity {
    https::Identity::Certificate { certificate: credentials.client_cert.clone(), key: credentials.client_key.clone() }
}

/// Puts renewed certificates to use.
async fn follow_credentials(
    mut credentials: watch::Receiver<Credentials>,
    transport: Arc<https::Https>,
    api: Arc<streaming::Api>,
    cancel: CancellationToken,
) {
    // Where nobody renews them, the sender is gone.
    while let Some(Ok(())) = cancel.run_until_cancelled(credentials.changed()).await {
        let now = credentials.borrow_and_update().clone();
        if let Err(error) = transport.set_identity(&now.server_ca, &identity(&now)) {
            tracing::error!(%error, "the renewed client certificate cannot be used");
        }
        if let Err(error) = api.set_credentials(&now) {
            tracing::error!(%error, "the renewed serving certificate cannot be used");
        }
    }
}

/// The runtimes, and what the node says that it runs: name and version of the first.
async fn runtimes(config: &Config) -> Result<(Runtimes, String), AgentError> {
    let mut all = vec![];
    let mut shown = None;
    for endpoint in &config.runtimes {
        let cri = CriSocket::new(&endpoint.socket);
        let version = cri
            .version(VersionRequest::default())
            .await
            .map_err(|source| AgentError::Runtime { socket: endpoint.socket.display().to_string(), source })?;
        let name = version.runtime_name;
        shown.get_or_insert_with(|| format!("{name}://{}", version.runtime_version));
        let (handlers, network) = (endpoint.handlers.clone(), endpoint.network.clone());
        all.push(Runtime { cri: Arc::new(cri), name, handlers, network });
    }
    Ok((Runtimes::new(all), shown.unwrap_or_default()))
}

fn context(
    config: &Config,
    client: Client,
    recorder: EventRecorder,
    informers: &Informers,
    runtimes: Runtimes,
    facts: &Facts,
) -> Arc<Context> {
    let mine = Options { field_selector: Some(format!("spec.nodeName={}", config.node_name)), ..Options::default() };
    Arc::new(Context {
        clock: Arc::new(jiff::Timestamp::now),
        conditions: watch::Sender::default(),
        node_cores_nano: AtomicU64::default(),
        orders: broadcast::Sender::new(ORDERS),
        node_name: config.node_name.clone(),
        host_ips: vec![config.node_ip],
        data_dir: config.data_dir.clone(),
        sources: Sources::new(&client, informers.cancelled()),
        client,
        recorder,
        runtimes,
        cgroups: Cgroups::default(),
        allowed_unsafe_sysctls: config.settings.allowed_unsafe_sysctls.clone(),
        memory_bytes: facts.machine.memory_kib * 1024,
        allocatable: facts.allocatable(),
        pods: informers.select::<Pod>(None, &mine),
        services: informers.of::<Service>(),
        runtime_classes: informers.of::<RuntimeClass>(),
    })
}
