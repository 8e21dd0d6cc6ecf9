//! The Wasm runtime: a CRI server (RuntimeService and ImageService on a Unix socket) around wasmtime, one process
//! a node.

use std::path::PathBuf;

/// What the runtime needs to know at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CRI socket to listen on.
    pub socket: PathBuf,
    /// The runtime's folder: images, compiled components, state of sandboxes and containers.
    pub root: PathBuf,
    /// End when standard input closes, so that a runtime whose parent is gone leaves nothing running (`skiff dev`).
    pub exit_on_stdin_close: bool,
}
