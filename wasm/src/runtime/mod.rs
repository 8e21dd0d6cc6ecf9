//! The runtime's state: sandboxes and containers, by identifier, and what they share.
//!
//! The map of either is the truth while the runtime lives; the records on disk follow it. Locks are held for moments,
//! never over an `await`.

mod container;
mod exec;
mod files;
mod find;
mod lifecycle;
pub(crate) mod records;
mod sandbox;
mod spec;

use std::{collections::HashMap, io, path::PathBuf, sync::Arc};

use k8s_cri::v1::{ContainerEventResponse, ContainerEventType};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::broadcast};
use tokio_util::sync::CancellationToken;

pub(crate) use container::Container;
pub(crate) use sandbox::Sandbox;

use crate::{
    address::{Pool, Range},
    compile::Compiler,
    disk,
    engine::ticker::Ticker,
    error::Failure,
    images::Store,
};
use records::{ContainerRecord, Kind, NodeRecord, Records, SandboxRecord};

/// Events that a slow listener may fall behind; it then misses some, and asks for the state anyway.
const EVENT_BACKLOG: usize = 1024;
/// Most bytes of `registries.yaml`.
const MAX_REGISTRIES_BYTES: u64 = 1 << 20;
/// The name of the one record about the node.
const NODE: &str = "node";

/// Everything that CRI calls work on.
pub(crate) struct Runtime {
    pub(crate) images: Store,
    pub(crate) compiler: Compiler,
    ticker: Arc<Ticker>,
    /// Where guests run: a runtime of their own, so that they do not hold up CRI calls.
    guests: Handle,
    records: Records,
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEventResponse>,
    /// Where `registries.yaml` is, if anywhere.
    registries: Option<PathBuf>,
    shutdown: CancellationToken,
}

#[derive(Default)]
struct State {
    sandboxes: HashMap<String, Arc<Sandbox>>,
    containers: HashMap<String, Arc<Container>>,
    /// Names in use, each with the identifier that has it: a pod's attempt exists once.
    names: HashMap<String, String>,
    pool: Pool,
}

impl Runtime {
    /// Opens the state under `records`, with what a former runtime left there.
    pub(crate) fn open(
        images: Store,
        compiler: Compiler,
        records: Records,
        guests: Handle,
        registries: Option<PathBuf>,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        let ticker = Arc::new(Ticker::start(compiler.engine().clone())?);
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let state = Mutex::default();
        let runtime = Self { images, compiler, ticker, guests, records, state, events, registries, shutdown };
        runtime.restore()?;
        Ok(runtime)
    }

    /// Takes over what a former runtime left: sandboxes that are no longer ready, containers that have ended.
    fn restore(&self) -> io::Result<()> {
        let now = disk::now_ns();
        let mut state = self.state.lock();
        for mut record in self.records.load::<SandboxRecord>(Kind::Sandbox)? {
            record.ready = false;
            record.address = None;
            self.records.save(Kind::Sandbox, &record.id, &record);
            let sandbox = Arc::new(Sandbox::new(record));
            state.names.insert(sandbox.name(), sandbox.id.clone());
            state.sandboxes.insert(sandbox.id.clone(), sandbox);
        }
        for mut record in self.records.load::<ContainerRecord>(Kind::Container)? {
            record.life = record.life.after_restart(now);
            self.records.save(Kind::Container, &record.id, &record);
            let container = Arc::new(Container::restored(record));
            state.names.insert(container.name(), container.id.clone());
            state.containers.insert(container.id.clone(), container);
        }
        for node in self.records.load::<NodeRecord>(Kind::Node)? {
            if let Ok(range) = Range::parse(&node.pod_cidr) {
                state.pool.set_range(range);
            }
        }
        Ok(())
    }

    /// The text of `registries.yaml` as it is now; none where there is no such file.
    pub(crate) fn registries(&self) -> Result<String, Failure> {
        let Some(path) = &self.registries else { return Ok(String::new()) };
        match disk::read_bounded(path, MAX_REGISTRIES_BYTES) {
            Ok(bytes) => {
                String::from_utf8(bytes).map_err(|_| Failure::Failed(format!("{} is no text", path.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(Failure::io(format!("read {}", path.display()))(error)),
        }
    }

    /// Sets the range that pods get their addresses from.
    pub(crate) fn set_pod_cidr(&self, pod_cidr: &str) -> Result<(), Failure> {
        let range = Range::parse(pod_cidr).map_err(|error| Failure::Invalid(error.to_string()))?;
        self.state.lock().pool.set_range(range);
        self.records.save(Kind::Node, NODE, &NodeRecord { pod_cidr: pod_cidr.to_owned() });
        Ok(())
    }

    /// Whether pods can get addresses.
    pub(crate) fn has_network(&self) -> bool {
        self.state.lock().pool.range().is_some()
    }

    /// All sandboxes.
    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.state.lock().sandboxes.values().cloned().collect()
    }

    /// All containers.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.state.lock().containers.values().cloned().collect()
    }

    /// The containers of a sandbox.
    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.state.lock().containers.values().filter(|container| container.sandbox == sandbox).cloned().collect()
    }

    /// The sandbox with this identifier, or the only one whose identifier begins so.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Failure> {
        find(&self.state.lock().sandboxes, id).ok_or_else(|| Failure::sandbox(id))
    }

    /// The container with this identifier, or the only one whose identifier begins so.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Failure> {
        find(&self.state.lock().containers, id).ok_or_else(|| Failure::container(id))
    }

    /// What happens to containers from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.events.subscribe()
    }

    /// Tells who listens what happened to a container or a sandbox (whose events carry its own identifier).
    fn publish(&self, id: &str, sandbox: &str, kind: ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let sandbox = self.sandbox(sandbox).ok();
        let containers = sandbox.as_ref().map(|sandbox| self.containers_of(&sandbox.id)).unwrap_or_default();
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: disk::now_ns(),
            pod_sandbox_status: sandbox.map(|sandbox| crate::cri::view::sandbox_status(&sandbox)),
            containers_statuses: containers.iter().map(|one| crate::cri::view::container_status(one)).collect(),
        };
        // That nobody listens any more is no error.
        let _ = self.events.send(event);
    }

    /// Ends all guests and waits until they are gone.
    pub(crate) async fn end_all(&self) {
        let containers = self.containers();
        for container in &containers {
            container.signals.kill.cancel();
        }
        for container in containers {
            container.ended().await;
        }
    }
}

fn find<T>(all: &HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    /// Shorter beginnings of an identifier are not taken for one.
    const SHORTEST: usize = 4;
    if let Some(found) = all.get(id) {
        return Some(found.clone());
    }
    if id.len() < SHORTEST {
        return None;
    }
    let mut matching = all.iter().filter(|(known, _)| known.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, found)), None) => Some(found.clone()),
        _ => None,
    }
}
