//! Pod sandboxes: a record and an address. There is no process, namespace or device to set up.

use std::{net::Ipv4Addr, sync::Arc};

use k8s_cri::v1::{ContainerEventType, NamespaceMode, PodSandboxConfig, RunPodSandboxRequest};
use parking_lot::Mutex;

use super::{
    Runtime,
    records::{Kind, SandboxRecord},
};
use crate::{disk, error::Failure};

/// The runtime handlers that this runtime serves.
const HANDLERS: [&str; 2] = ["wasm", ""];

/// A pod sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) created_at: i64,
    pub(crate) handler: String,
    pub(crate) config: PodSandboxConfig,
    now: Mutex<Now>,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    ready: bool,
    address: Option<Ipv4Addr>,
}

impl Sandbox {
    pub(crate) fn new(record: SandboxRecord) -> Self {
        let SandboxRecord { id, created_at, ready, address, handler, config } = record;
        Self { id, created_at, handler, config, now: Mutex::new(Now { ready, address }) }
    }

    fn record(&self) -> SandboxRecord {
        let now = *self.now.lock();
        SandboxRecord {
            id: self.id.clone(),
            created_at: self.created_at,
            ready: now.ready,
            address: now.address,
            handler: self.handler.clone(),
            config: self.config.clone(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.now.lock().ready
    }

    /// The pod's own address; none on the node's network, nor once stopped.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.now.lock().address
    }

    /// Whether the pod shares the node's network.
    pub(crate) fn uses_host_network(&self) -> bool {
        uses_host_network(&self.config)
    }

    /// The name that only one sandbox has at a time.
    pub(crate) fn name(&self) -> String {
        sandbox_name(&self.config)
    }
}

fn uses_host_network(config: &PodSandboxConfig) -> bool {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.namespace_options.as_ref());
    options.is_some_and(|options| options.network == i32::from(NamespaceMode::Node))
}

fn sandbox_name(config: &PodSandboxConfig) -> String {
    let metadata = config.metadata.clone().unwrap_or_default();
    format!("sandbox {}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt)
}

impl Runtime {
    /// Makes a sandbox.
    pub(crate) fn run_sandbox(&self, request: RunPodSandboxRequest) -> Result<String, Failure> {
        let config = request.config.ok_or_else(|| Failure::Invalid("sandbox config is missing".into()))?;
        if config.metadata.is_none() {
            return Err(Failure::Invalid("sandbox config must include metadata".into()));
        }
        if !HANDLERS.contains(&request.runtime_handler.as_str()) {
            let problem = format!("no runtime for {:?} is configured", request.runtime_handler);
            return Err(Failure::Failed(format!("failed to get sandbox runtime: {problem}")));
        }
        let sandbox = self.add_sandbox(config, request.runtime_handler)?;
        self.records.save(Kind::Sandbox, &sandbox.id, &sandbox.record());
        for kind in [ContainerEventType::ContainerCreatedEvent, ContainerEventType::ContainerStartedEvent] {
            self.publish(&sandbox.id, &sandbox.id, kind);
        }
        Ok(sandbox.id.clone())
    }

    fn add_sandbox(&self, config: PodSandboxConfig, handler: String) -> Result<Arc<Sandbox>, Failure> {
        let mut state = self.state.lock();
        let name = sandbox_name(&config);
        if let Some(id) = state.names.get(&name) {
            let problem = format!("name {name:?} is reserved for {id:?}");
            return Err(Failure::AlreadyExists(format!("failed to reserve sandbox name: {problem}")));
        }
        let address = match uses_host_network(&config) {
            true => None,
            false => Some(
                state
                    .pool
                    .take()
                    .map_err(|error| Failure::Failed(format!("failed to setup network for sandbox: {error}")))?,
            ),
        };
        let created_at = disk::now_ns();
        let record = SandboxRecord { id: disk::new_id(), created_at, ready: true, address, handler, config };
        let sandbox = Arc::new(Sandbox::new(record));
        state.names.insert(name, sandbox.id.clone());
        state.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        Ok(sandbox)
    }

    /// Stops a sandbox: its containers end at once, its address is given back. One that is gone counts as stopped.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), Failure> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        for container in self.containers_of(&sandbox.id) {
            self.stop_container(&container, std::time::Duration::ZERO).await?;
        }
        let was = {
            let mut now = sandbox.now.lock();
            std::mem::replace(&mut *now, Now { ready: false, address: None })
        };
        if let Some(address) = was.address {
            self.state.lock().pool.give_back(address);
        }
        if was.ready {
            self.records.save(Kind::Sandbox, &sandbox.id, &sandbox.record());
            self.publish(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Removes a sandbox and its containers, stopping it first where need be.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), Failure> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(&sandbox.id).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        self.records.remove(Kind::Sandbox, &sandbox.id);
        let removed = {
            let mut state = self.state.lock();
            state.names.remove(&sandbox.name());
            state.sandboxes.remove(&sandbox.id)
        };
        if removed.is_some() {
            self.publish(&sandbox.id, &sandbox.id, ContainerEventType::ContainerDeletedEvent);
        }
        Ok(())
    }

    /// The address that a sandbox's guests listen on: the pod's own; on the node's network the node's.
    pub(crate) fn listen_address(&self, sandbox: &Sandbox) -> Result<Ipv4Addr, Failure> {
        if sandbox.uses_host_network() {
            let range = self.state.lock().pool.range().cloned();
            // Where pods live in 127.0.0.0/8 nothing of the cluster is to be seen from outside.
            let inside = range.is_some_and(|range| range.is_loopback());
            return Ok(if inside { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED });
        }
        sandbox.address().ok_or_else(|| Failure::Precondition(format!("sandbox {:?} is not ready", sandbox.id)))
    }
}
