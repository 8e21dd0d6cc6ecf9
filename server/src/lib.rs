//! The control plane put together: certificates, store, API server, scheduler and controllers in one process.
//!
//! [`Server::start`] opens them in the order in which each needs the one before, and returns when the API answers.
//! Scheduler and controllers are clients of the API server like any other: each asks as itself, through the
//! in-process transport, and is authorized by RBAC.

pub mod admin;
mod components;
mod datastore;
mod election;
mod identities;
mod join;
pub mod join_tokens;
mod kubeconfig;
mod manifests;
pub mod pki;
mod renewal;
pub mod rotate;
pub mod seal;
mod shared_pki;
pub mod snapshot;
pub mod token;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use skiff_api::{kinds::Kinds, status::ApiError};
use skiff_apiserver::{
    bootstrap,
    registry::{self, Registry, RegistryConfig},
    strategy::services::Cidr,
    tokens::{jws::SigningKey, usage},
};
use skiff_client::{client::Client, clock, files};
use skiff_store::{Store, StoreError, cache::Cacher};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use identities::Identities;
use kubeconfig::Kubeconfigs;
use pki::{Identity, Pki, PkiError};
use renewal::Renewal;
use seal::SealError;
use snapshot::SnapshotError;
use token::{Live, Token, TokenError};

pub use datastore::{Datastore, trusted_by_this_machine};
pub use skiff_store::etcd::EtcdTls;

/// The version of Kubernetes whose API is served.
pub const KUBERNETES_VERSION: &str = "v1.36.2";

/// What the control plane is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The control plane's folder: datastore and certificates.
    pub data_dir: PathBuf,
    /// Where the API server listens.
    pub bind_address: IpAddr,
    /// On which port; 0 takes any that is free.
    pub port: u16,
    /// The address at which nodes and pods reach the API server.
    pub advertise_address: IpAddr,
    /// Further names and addresses of the API server.
    pub tls_sans: Vec<String>,
    /// The range of pod addresses.
    pub cluster_cidr: String,
    /// The range of Service addresses.
    pub service_cidr: String,
    /// The range of node ports, `FIRST-LAST`.
    pub node_port_range: String,
    /// Where the cluster's state is kept.
    pub datastore: Datastore,
    /// The server token, where the operator gives one.
    pub token: Option<String>,
    /// Snapshots.
    pub snapshots: snapshot::service::Config,
    /// Whether volumes that are folders of nodes are provisioned.
    pub local_storage: bool,
}

impl Config {
    /// A control plane by itself in a folder: on loopback at any free port, without a schedule for snapshots.
    pub fn on_loopback(data_dir: PathBuf) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let snapshots = snapshot::service::Config {
            folder: data_dir.join("snapshots"),
            schedule: String::new(),
            retention: 1,
            node: "localhost".to_owned(),
        };
        Self {
            data_dir,
            bind_address: loopback,
            port: 0,
            advertise_address: loopback,
            tls_sans: Vec::new(),
            cluster_cidr: "127.64.0.0/12".to_owned(),
            service_cidr: "127.43.0.0/16".to_owned(),
            node_port_range: "30000-32767".to_owned(),
            datastore: Datastore::Embedded,
            token: None,
            snapshots,
            local_storage: true,
        }
    }
}

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A setting makes no sense.
    #[error("--{flag} {value}: {problem}")]
    Setting {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The port is taken or not allowed.
    #[error("cannot listen on {address}: choose another --https-listen-port, or stop what listens there")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Certificates.
    #[error("the cluster's certificates")]
    Pki(#[from] PkiError),
    /// The server token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Snapshots cannot be made as asked, or a restore that was interrupted cannot go on.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A certificate that was just made cannot be used.
    #[error("the TLS set-up")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificates that servers share.
    #[error("the cluster's certificates in the datastore")]
    SharedPki(#[source] SealError),
    /// The datastore.
    #[error("the datastore {place}")]
    Store {
        /// Its file, or its addresses.
        place: String,
        /// What went wrong.
        #[source]
        source: StoreError,
    },
    /// The objects that a fresh cluster holds.
    #[error("making the objects that every cluster has")]
    Bootstrap(#[source] ApiError),
    /// A file.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}

/// The two identities of a node, and whom it trusts.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// As a client of the API server: `system:node:NAME` in `system:nodes`.
    pub client: Identity,
    /// As the server of the node's HTTPS API.
    pub serving: Identity,
    /// Who signed the API server's certificate, as PEM.
    pub server_ca: String,
    /// Who signs clients, as PEM.
    pub client_ca: String,
}

/// Makes the certificates of a node of this process. Cheap to clone.
#[derive(Clone)]
pub struct NodeAuthority(Arc<Pki>);

impl NodeAuthority {
    /// The certificates of a node: those of before as long as they fit, and new ones in time.
    pub fn issue(&self, name: &str, address: IpAddr) -> Result<NodeIdentity, ServerError> {
        Ok(identities::issue_node(&self.0, name, address)?)
    }
}

/// A running control plane.
pub struct Server {
    pki: Arc<Pki>,
    kubeconfigs: Arc<Kubeconfigs>,
    admin: Client,
    store: Arc<dyn Store>,
    cacher: Arc<Cacher>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Server {
    /// Starts everything; the API answers when this returns. It ends when `cancel` is cancelled, see
    /// [`Server::stopped`].
    pub async fn start(config: Config, cancel: CancellationToken) -> Result<Self, ServerError> {
        let registry_config = registry_config(&config)?;
        let made = files::make_private_folder(&config.data_dir);
        made.map_err(|source| ServerError::File {
            action: "making the folder",
            path: config.data_dir.clone(),
            source,
        })?;
        snapshot::restore::finish_interrupted(&config.data_dir)?;
        let listener = listen(&config).await?;
        let port = listener.local_addr().map_or(config.port, |address| address.port());
        learn_the_time(&config.data_dir);
        let token = Token::resolve(config.token.as_deref(), &token::path(&config.data_dir), token::random()?)?;
        let opened = datastore::open(&config.datastore, &config.data_dir).await?;
        let pki = Arc::new(shared_pki::open(&opened, config.data_dir.join("tls"), &token).await?);
        token.keep(&token::path(&config.data_dir), pki.server_ca())?;
        let token = Live::new(token);
        let identities = Identities::issue(&pki, &config, &registry_config, clock::now())?;
        let key = SigningKey::from_pem(&pki.service_account_key()?).map_err(|error| ServerError::Tls(error.into()))?;
        let key = Arc::new(key);
        let (cacher, store, etcd) = (opened.cache().await?, opened.store, opened.etcd);

        let client_ca = pki.client_ca().to_owned();
        let registry_config = RegistryConfig { advertise_port: port, client_ca, ..registry_config };
        let registry = Registry::new(registry_config, Arc::clone(&cacher), Kinds::builtin());
        let tasks = TaskTracker::new();
        let authorizer = registry.authorizer();
        let follow = cancel.child_token();
        tasks.spawn(async move { authorizer.follow(follow).await });
        tasks.spawn(registry::follow_services(Arc::clone(&registry), cancel.child_token()));
        bootstrap::run(&registry).await.map_err(ServerError::Bootstrap)?;
        tasks.spawn(bootstrap::keep_aggregated(Arc::clone(&registry), cancel.child_token()));

        let (api, nodes, uses) =
            components::api_server(&registry, &identities, &pki, &key, &token, &config.cluster_cidr)?;
        let api = Arc::new(api);
        components::add_health(&api, &store);
        let tls = identities.serving_tls(&pki)?;
        let url = format!("https://{}", SocketAddr::new(reachable(config.bind_address), port));
        let kubeconfigs = Arc::new(Kubeconfigs::new(url, pki.server_ca(), identities.admin.clone()));
        let renewal = Renewal {
            pki: Arc::clone(&pki),
            config: config.clone(),
            registry: registry.config().clone(),
            serving: Arc::clone(&tls),
            nodes,
            kubeconfigs: Arc::clone(&kubeconfigs),
        };
        tasks.spawn(renewal.run(cancel.child_token()));
        let (serving, stop) = (Arc::clone(&api), cancel.child_token());
        tasks.spawn(async move {
            if let Err(error) = serving.serve(listener, tls, stop).await {
                tracing::error!(%error, "the API server no longer listens");
            }
        });
        tasks.spawn(bootstrap::keep_endpoints(Arc::clone(&registry), cancel.child_token()));
        tasks.spawn(bootstrap::keep_tracking(Arc::clone(&registry), cancel.child_token()));
        tasks.spawn(usage::run(components::itself(&api), uses, cancel.child_token()));
        let admin = Client::new(api.local(components::administrator(), "skiff"));
        components::start(&api, &config, &pki, &key, store.sole_writer(), &tasks, &cancel);
        components::add_rotation(&api, etcd, &pki, &token, &config.data_dir);
        let source = snapshot::Source::new(Arc::clone(&store), config.datastore.kind(), &config.data_dir, &pki);
        components::add_snapshots(&api, source, token, config.snapshots, &tasks, &cancel)?;
        let server = Self { pki, kubeconfigs, admin, store, cacher, tasks, cancel };
        server.write_kubeconfig(&admin::kubeconfig_path(&config.data_dir))?;
        Ok(server)
    }

    /// The API server's URL from this machine.
    pub fn url(&self) -> &str {
        self.kubeconfigs.url()
    }

    /// The cluster's certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// What makes the certificates of a node of this process.
    pub fn node_authority(&self) -> NodeAuthority {
        NodeAuthority(Arc::clone(&self.pki))
    }

    /// Writes the administrator's kubeconfig, for the owner alone; a file that says the same already is left alone.
    /// It is written anew when its certificate is renewed.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<(), ServerError> {
        self.kubeconfigs.write(path)
    }

    /// The API as the administrator of this process, without a connection.
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// Applies a manifest of one or more YAML documents as the administrator, server-side; gives `kind/name` of each.
    pub async fn apply(&self, manifest: &str) -> Result<Vec<String>, manifests::ManifestError> {
        manifests::apply(&self.admin, manifest).await
    }

    /// Waits until everything has ended after the token was cancelled, and brings all that was acknowledged to disk.
    pub async fn stopped(self) {
        self.cancel.cancelled().await;
        self.tasks.close();
        // What does not end in time is dropped with the process; the store below is closed in any case.
        if tokio::time::timeout(TASKS_GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks of the control plane did not end in time");
        }
        self.cacher.close();
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "closing the datastore");
        }
    }
}

/// How long the tasks get to end.
const TASKS_GRACE: Duration = Duration::from_millis(1200);

/// The address at which a client on this machine reaches a listener.
fn reachable(bind: IpAddr) -> IpAddr {
    match bind {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        address => address,
    }
}

async fn listen(config: &Config) -> Result<TcpListener, ServerError> {
    let address = SocketAddr::new(config.bind_address, config.port);
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}

/// It is at least as late as the control plane last wrote anything.
fn learn_the_time(data_dir: &Path) {
    for folder in [data_dir.to_owned(), data_dir.join("tls")] {
        if let Some(behind) = clock::learn_from(&folder) {
            tracing::warn!(
                ?behind,
                "the clock is behind the last time that this cluster has seen, which counts instead"
            );
        }
    }
}

fn registry_config(config: &Config) -> Result<RegistryConfig, ServerError> {
    let setting = |flag, value: &str, problem: &str| ServerError::Setting {
        flag,
        value: value.to_owned(),
        problem: problem.to_owned(),
    };
    let service_cidr = config
        .service_cidr
        .parse()
        .map_err(|_| setting("service-cidr", &config.service_cidr, "it must be an IPv4 range such as 10.43.0.0/16"))?;
    if !config.cluster_cidr.parse::<Cidr>().is_ok_and(|cidr| cidr.prefix <= components::NODE_PREFIX) {
        return Err(setting("cluster-cidr", &config.cluster_cidr, "it must be an IPv4 range of at least a /19"));
    }
    let ports = config.node_port_range.split_once('-').and_then(|(first, last)| {
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0 && first <= last).then_some(first..=last)
    });
    let node_ports = ports.ok_or_else(|| {
        setting("service-node-port-range", &config.node_port_range, "it must be a range such as 30000-32767")
    })?;
    let IpAddr::V4(advertise_address) = config.advertise_address else {
        return Err(setting("node-ip", &config.advertise_address.to_string(), "only IPv4 is served so far"));
    };
    let local_path_class = config.local_storage;
    Ok(RegistryConfig { service_cidr, node_ports, advertise_address, local_path_class, ..RegistryConfig::default() })
}
