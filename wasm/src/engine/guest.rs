//! The state of one instance, and the limits that it shares with its container's other instances.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use wasmtime::{ResourceLimiter, Store, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p1::WasiP1Ctx};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::outgoing::{Hooks, Outgoing};

/// Most elements of one table.
const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Most core instances, tables and memories of one store.
const MAX_INSTANCES: usize = 128;
const MAX_TABLES: usize = 64;
const MAX_MEMORIES: usize = 16;
/// Most host resources (streams, files, sockets, requests) that a command may hold, as a process its descriptors.
pub(crate) const MAX_RESOURCES_OF_COMMAND: usize = 4096;
/// The same of an instance that answers one request, of which a pod has hundreds.
pub(crate) const MAX_RESOURCES_OF_REQUEST: usize = 512;
/// Most bytes of a request's or an answer's headers that a guest makes, as they lie in memory.
const MAX_FIELDS_BYTES: usize = 64 << 10;

/// What a container uses and may use. All its instances share it.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Bytes of linear memory now.
    memory: AtomicU64,
    /// Most bytes of linear memory; 0 means no limit.
    memory_limit: AtomicU64,
    /// CPU time used, in nanoseconds.
    pub(crate) cpu_ns: AtomicU64,
    /// CPU nanoseconds allowed in each second; 0 means no limit.
    pub(crate) cpu_limit_ns: AtomicU64,
}

impl Usage {
    /// Bytes of linear memory now.
    pub(crate) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// The memory limit in bytes; 0 means none.
    pub(crate) fn memory_limit(&self) -> u64 {
        self.memory_limit.load(Ordering::Relaxed)
    }

    /// Sets the limits: bytes of memory and thousandths of a CPU; 0 means none.
    pub(crate) fn set_limits(&self, memory_bytes: u64, cpu_millis: u64) {
        self.memory_limit.store(memory_bytes, Ordering::Relaxed);
        self.cpu_limit_ns.store(cpu_millis.saturating_mul(1_000_000), Ordering::Relaxed);
    }
}

/// A guest wanted more memory than its container may have.
#[derive(Debug, thiserror::Error)]
#[error("out of memory: {wanted} bytes are more than the container's limit of {limit}")]
pub(crate) struct OutOfMemory {
    wanted: u64,
    limit: u64,
    /// Whether it alone wanted more than the limit: that can never fit, whatever its siblings give back.
    pub(crate) alone: bool,
}

/// One instance's part of its container's limits.
pub(crate) struct Limits {
    usage: Arc<Usage>,
    /// This instance's part of [`Usage::memory`].
    memory: u64,
}

impl Limits {
    fn new(usage: Arc<Usage>) -> Self {
        Self { usage, memory: 0 }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.usage.memory.fetch_sub(self.memory, Ordering::Relaxed);
    }
}

/// What all instances of a container share.
#[derive(Clone)]
pub(crate) struct Pod {
    /// The environment, as `wasi:config` gives it.
    pub(crate) config: Arc<WasiConfigVariables>,
    /// The pod's address.
    pub(crate) address: Ipv4Addr,
    pub(crate) usage: Arc<Usage>,
    pub(crate) outgoing: Arc<Outgoing>,
}

/// The state of one instance of a component.
pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    table: ResourceTable,
    config: Arc<WasiConfigVariables>,
    /// The pod's address.
    address: Ipv4Addr,
    limits: Limits,
}

/// The state of one instance of a core module (WASI preview 1).
pub(crate) struct CoreGuest {
    pub(crate) wasi: WasiP1Ctx,
    limits: Limits,
}

impl CoreGuest {
    pub(crate) fn new(mut wasi: WasiP1Ctx, usage: Arc<Usage>) -> Self {
        wasi.ctx().table.set_max_capacity(MAX_RESOURCES_OF_COMMAND);
        Self { wasi, limits: Limits::new(usage) }
    }

    /// A store for this guest.
    pub(crate) fn into_store(self, engine: &wasmtime::Engine) -> Store<Self> {
        let mut store = Store::new(engine, self);
        store.limiter(|guest| &mut guest.limits);
        yield_at_ticks(&mut store);
        store
    }
}

/// Has the guest yield to others at each tick of the engine's epoch.
fn yield_at_ticks<T>(store: &mut Store<T>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
}

impl Guest {
    /// An instance of at most so many resources.
    pub(crate) fn new(wasi: WasiCtx, pod: Pod, max_resources: usize) -> Self {
        let Pod { config, address, usage, outgoing } = pod;
        let mut table = ResourceTable::new();
        table.set_max_capacity(max_resources);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELDS_BYTES);
        Self { wasi, http, hooks: Hooks(outgoing), table, config, address, limits: Limits::new(usage) }
    }

    /// A store for this guest.
    pub(crate) fn into_store(self, engine: &wasmtime::Engine) -> Store<Self> {
        let mut store = Store::new(engine, self);
        store.limiter(|guest| &mut guest.limits);
        yield_at_ticks(&mut store);
        store
    }

    /// The pod's address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The guest's `wasi:config` variables: its environment.
    pub(crate) fn config(&mut self) -> WasiConfig<'_> {
        WasiConfig::from(&*self.config)
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

impl ResourceLimiter for Limits {
    /// Allows growth up to the container's limit, over all its instances. What can never fit is out of memory and ends
    /// the container; what does not fit beside its siblings just now fails this instance alone.
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let grown = desired.saturating_sub(current) as u64;
        let limit = self.usage.memory_limit();
        let before = self.usage.memory.fetch_add(grown, Ordering::Relaxed);
        if limit == 0 || before + grown <= limit {
            self.memory += grown;
            return Ok(true);
        }
        self.usage.memory.fetch_sub(grown, Ordering::Relaxed);
        let alone = self.memory + grown;
        Err(OutOfMemory { wanted: alone.max(before + grown), limit, alone: alone > limit }.into())
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS && maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}
