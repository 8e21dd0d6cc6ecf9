//! `skiff wasm-runtime`: the Wasm runtime as a process of its own.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

/// The options of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The CRI socket to listen on.
    #[arg(long)]
    socket: PathBuf,
    /// The runtime's folder.
    #[arg(long)]
    root: PathBuf,
    /// Where images are really pulled from, as k3s's registries.yaml.
    #[arg(long)]
    registries: Option<PathBuf>,
    /// End when standard input closes.
    #[arg(long)]
    exit_on_stdin_close: bool,
}

/// Serves CRI until it is told to end.
pub(crate) fn run(args: Args) -> Result<()> {
    let Args { socket, root, registries, exit_on_stdin_close } = args;
    let config = skiff_wasm::Config { socket, root, registries, exit_on_stdin_close };
    crate::cluster::runtime()?.block_on(async {
        let cancel = CancellationToken::new();
        crate::cluster::cancel_on_signals(&cancel)?;
        skiff_wasm::run(config, cancel).await.context("the Wasm runtime failed")
    })
}
