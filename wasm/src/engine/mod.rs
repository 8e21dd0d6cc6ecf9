//! The Wasm engine that all guests share: how it compiles, how it places instances, and what it offers to components.

pub(crate) mod guest;
pub(crate) mod meter;
pub(crate) mod outgoing;
pub(crate) mod places;
pub(crate) mod program;
mod sockets;
pub(crate) mod ticker;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Result, component::Linker};

use guest::{CoreGuest, Guest};
use places::Places;

/// How many instances may live at once, by what the machine's address space allows: each reserves 4 GiB of addresses
/// (not of memory), which 47 bits hold by the thousand and the 39 bits of some small boards do not.
const POOL_SIZES: [u32; 4] = [6000, 1500, 100, 24];
/// Core instances and tables that one component may bring, in relation to the pool.
const CORE_INSTANCES_PER_COMPONENT: u32 = 4;
/// Most bytes of a linear memory.
const MAX_MEMORY_BYTES: usize = 4 << 30;
/// Most elements of a table.
const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Freed slots that stay warm (their pages mapped) for the next request.
const WARM_SLOTS: u32 = 32;
/// Bytes of a freed memory that are reset by hand rather than given back to the kernel, so that the next request meets
/// no page fault: what a small guest writes to. Where the kernel tells which pages were written (6.7 and later), those
/// count wherever they lie, else the first ones, written or not.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;
const KEEP_RESIDENT_FIRST_BYTES: usize = 64 << 10;
/// Bytes of a freed table that are reset by hand.
const KEEP_RESIDENT_TABLE_BYTES: usize = 8 << 10;
/// Bytes of a guest's stack.
const STACK_BYTES: usize = 1 << 20;
/// Bytes of it for the guest's own frames; the rest is for the host's functions that it calls.
const WASM_STACK_BYTES: usize = 512 << 10;

/// An engine of the largest pool that this machine bears, and its places.
pub(crate) fn new_engine() -> Result<(wasmtime::Engine, Places)> {
    let mut outcome = Err(wasmtime::format_err!("no pool size was tried"));
    for size in POOL_SIZES {
        outcome = wasmtime::Engine::new(&config(size)).map(|engine| (engine, Places::new(size)));
        match &outcome {
            Ok(_) => break,
            Err(error) => tracing::debug!(size, %error, "the machine does not bear this many instances"),
        }
    }
    outcome
}

/// What compiling and running must agree on. The pool's size is no part of a compiled component.
fn config(pool_size: u32) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .memory_init_cow(true)
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(WASM_STACK_BYTES)
        // One thread of low priority compiles; helpers would not have its priority.
        .parallel_compilation(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(pool_size)));
    config
}

fn pool(size: u32) -> PoolingAllocationConfig {
    let tells_written = PoolingAllocationConfig::is_pagemap_scan_available();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(size)
        .total_core_instances(size.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(size)
        .total_tables(size.saturating_mul(2))
        .total_stacks(size)
        .max_memory_size(MAX_MEMORY_BYTES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_tables_per_module(8)
        .max_tables_per_component(16)
        .max_memories_per_component(8)
        .max_core_instances_per_component(64)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(if tells_written { KEEP_RESIDENT_BYTES } else { KEEP_RESIDENT_FIRST_BYTES })
        .table_keep_resident(KEEP_RESIDENT_TABLE_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Everything that a component may import.
pub(crate) fn new_linker(engine: &wasmtime::Engine) -> Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, Guest::config)?;
    sockets::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Everything that a core module may import: WASI preview 1.
pub(crate) fn new_core_linker(engine: &wasmtime::Engine) -> Result<wasmtime::Linker<CoreGuest>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |guest: &mut CoreGuest| &mut guest.wasi)?;
    Ok(linker)
}
