//! What a user of the command line sees: errors and logs.

use std::{io::IsTerminal, process::ExitCode};

use tracing_subscriber::EnvFilter;

/// Prints an error with all its causes, each once, and gives the exit code of a failure.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    eprintln!("skiff: {}", causes.join(": "));
    ExitCode::FAILURE
}

/// Sends the log to standard error: warnings, or more with `-v`, or what `SKIFF_LOG` says.
pub(crate) fn init_log(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info,h2=warn",
        _ => "debug,h2=info,rustls=info,hyper=info,wasmtime=info,cranelift=info",
    };
    let filter = EnvFilter::try_from_env("SKIFF_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}
