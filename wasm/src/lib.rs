//! The Wasm runtime: a CRI server (RuntimeService and ImageService on a Unix socket) around wasmtime, one process
//! a node. Any CRI client drives it: skiff's agent, a stock kubelet, `crictl`.
//!
//! - `server`: the process: lock, socket, end; the entry is [`run`];
//! - `cri`: CRI's messages, translated;
//! - `runtime`: sandboxes and containers, their lives and their records on disk;
//! - `run`: a container's program at work: a command, or an HTTP server with an instance a request;
//! - `engine`: what all guests share: compilation settings, limits, metering, the imports on offer;
//! - `compile`: each component compiled once, kept sealed on disk and mapped (`skiff-mapped`);
//! - `streaming`: exec, attach and port-forward, for clients that CRI sends there;
//! - [`images`]: the images, a folder that `skiff image` and the runtime share without talking.
//!
//! Threads: CRI calls run on the caller's tokio runtime; guests on one of their own, so that they do not hold up calls;
//! one thread ticks the epoch while guests run; one compiles, at low priority, while there is something to compile.

mod address;
mod compile;
mod cri;
mod disk;
mod engine;
mod error;
pub mod images;
mod log;
mod run;
mod runtime;
mod server;
mod streaming;

use std::path::PathBuf;

pub use compile::{CompileError, precompile};
pub use engine::program::ProgramError;
pub use error::RuntimeError;
pub use server::run;

/// What the runtime needs to know at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CRI socket to listen on.
    pub socket: PathBuf,
    /// The runtime's folder: images, compiled components, state of sandboxes and containers.
    pub root: PathBuf,
    /// The node's `registries.yaml`, read at each pull; that it is not there is no error.
    pub registries: Option<PathBuf>,
    /// End when standard input closes, so that a runtime whose parent is gone leaves nothing running (`skiff dev`).
    pub exit_on_stdin_close: bool,
}
