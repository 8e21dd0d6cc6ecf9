//! The `skiff` binary: one file a subcommand, no logic of its own.

mod agent;
mod cluster;
mod config_file;
mod datastore_flags;
mod dev;
mod heap;
mod image;
mod node;
mod oci;
mod output;
mod server;
mod snapshot;
mod token;
mod token_flags;
mod wasm_runtime;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Kubernetes for small machines, with WebAssembly components as first-class pods.
#[derive(Parser)]
#[command(name = "skiff", version, about, args_override_self = true)]
struct Cli {
    /// Log more: -v what happens, -vv each step. `SKIFF_LOG` takes a filter (`info,skiff_agent=debug`).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

/// One file a subcommand.
#[derive(Subcommand)]
enum Command {
    /// Runs a single-node cluster for a developer's machine, without root.
    Dev(Box<dev::Args>),
    /// Runs the API server, scheduler, controllers and, unless --disable-agent, a node.
    Server(Box<server::Args>),
    /// Runs a node of a cluster whose servers are on other machines.
    Agent(Box<agent::Args>),
    /// Puts images and components into the node, shows and removes them.
    Image(image::Args),
    /// Saves the cluster into a file, lists, restores and removes such files.
    Snapshot(snapshot::Args),
    /// Makes, lists and deletes the tokens that nodes join with; changes the server's.
    Token(token::Args),
    /// Runs the Wasm runtime (started by the node; it speaks CRI).
    #[command(hide = true)]
    WasmRuntime(wasm_runtime::Args),
}

fn main() -> ExitCode {
    let arguments = match config_file::arguments(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return output::fail(&error),
    };
    let cli = Cli::parse_from(arguments);
    output::init_log(cli.verbose);
    if matches!(cli.command, Command::Dev(_) | Command::Server(_) | Command::Agent(_) | Command::WasmRuntime(_)) {
        heap::share();
    }
    let done = match cli.command {
        Command::Dev(args) => dev::run(*args),
        Command::Server(args) => server::run(*args),
        Command::Agent(args) => agent::run(&args),
        Command::Image(args) => image::run(args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Token(args) => token::run(args),
        Command::WasmRuntime(args) => wasm_runtime::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}
