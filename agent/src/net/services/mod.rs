//! Services proxied by sockets of this process: a listener on each ClusterIP and nodePort, for nodes whose pods have
//! loopback addresses (`skiff dev`).
//!
//! - [`plan`]: which listeners there are to be, and the endpoints behind each; pure.
//! - [`choose`]: which endpoint a client gets; pure.
//! - [`tcp`], [`udp`]: what moves the bytes.
//!
//! Where a Service has no endpoint there is no listener, so that a client is refused at once. A connection lives on
//! when its endpoint is taken away, as it does with kube-proxy.

pub mod choose;
pub mod plan;
mod tcp;
mod udp;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use parking_lot::Mutex;
use skiff_client::{EventRecorder, EventType, Informer};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use choose::Chooser;
use plan::{Backend, Frontend, Protocol};

/// How many connections are proxied at once; more wait in the listeners' backlogs.
const MAX_CONNECTIONS: usize = 8192;
/// When an address that could not be bound is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// A listener's endpoints, changed under its feet.
type Shared = Arc<Mutex<Chooser>>;

struct Proxy {
    open: BTreeMap<Frontend, (Shared, CancellationToken)>,
    failed: BTreeSet<Frontend>,
    connections: Arc<Semaphore>,
    recorder: EventRecorder,
    services: Arc<Informer<Service>>,
    cancel: CancellationToken,
}

/// Keeps the listeners those of the Services until cancelled.
pub async fn run(
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    recorder: EventRecorder,
    cancel: CancellationToken,
) {
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (open, failed) = (BTreeMap::new(), BTreeSet::new());
    let mut proxy =
        Proxy { open, failed, connections, recorder, services: Arc::clone(&services), cancel: cancel.clone() };
    loop {
        if services.is_synced() && slices.is_synced() {
            proxy.reconcile(plan::plan(&services.list(), &slices.list())).await;
        }
        let again = async {
            match proxy.failed.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(BIND_AGAIN).await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            change = service_changes.next() => if change.is_none() { return },
            change = slice_changes.next() => if change.is_none() { return },
            () = again => {}
        }
        // Many changes that arrive together make one plan.
        while service_changes.try_next().is_some() || slice_changes.try_next().is_some() {}
    }
}

impl Proxy {
    async fn reconcile(&mut self, wanted: BTreeMap<Frontend, Backend>) {
        self.open.retain(|frontend, (_, cancel)| {
            let keep = wanted.contains_key(frontend);
            if !keep {
                cancel.cancel();
            }
            keep
        });
        self.failed.retain(|frontend| wanted.contains_key(frontend));
        for (frontend, backend) in wanted {
            if let Some((shared, _)) = self.open.get(&frontend) {
                shared.lock().set(backend);
                continue;
            }
            let (namespace, name) = backend.service.clone();
            let shared = Arc::new(Mutex::new(Chooser::new(backend)));
            match self.listen(frontend, Arc::clone(&shared)).await {
                Ok(cancel) => {
                    self.failed.remove(&frontend);
                    self.open.insert(frontend, (shared, cancel));
                }
                Err(e) => self.refuse(frontend, &namespace, &name, &e),
            }
        }
    }

    async fn listen(&self, frontend: Frontend, shared: Shared) -> io::Result<CancellationToken> {
        let cancel = self.cancel.child_token();
        let address = frontend.address;
        match frontend.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(address).await?;
                tokio::spawn(tcp::serve(listener, shared, Arc::clone(&self.connections), cancel.clone()));
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(address).await?;
                tokio::spawn(udp::serve(socket, shared, cancel.clone()));
            }
        }
        Ok(cancel)
    }

    /// Tells once, on the Service, why it cannot be reached.
    fn refuse(&mut self, frontend: Frontend, namespace: &str, name: &str, error: &io::Error) {
        if !self.failed.insert(frontend) {
            return;
        }
        let address = frontend.address;
        let message = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "Cannot listen on {address}: ports below 1024 are closed to ordinary users; open them with \
                 `sudo sysctl net.ipv4.ip_unprivileged_port_start=0`, or give the Service a higher port"
            ),
            io::ErrorKind::AddrInUse => format!("Cannot listen on {address}: another program listens there"),
            _ => format!("Cannot listen on {address}: {error}"),
        };
        tracing::warn!(namespace, name, "{message}");
        if let Some(service) = self.services.get(namespace, name) {
            self.recorder.event(&*service, EventType::Warning, "FailedToListen", message);
        }
    }
}
