//! What a user of the command line sees: errors and logs.

use std::{io::IsTerminal, process::ExitCode};

use jiff::Timestamp;
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

/// How a command prints what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Rows with columns as wide as they need to be.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

/// A size as people read it.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// How long ago something was, as kubectl says it.
pub(crate) fn age(at: Timestamp) -> String {
    age_at(at, Timestamp::now())
}

fn age_at(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        for (bytes, expected) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB")] {
            assert_eq!(size(bytes), expected);
        }
        let at = Timestamp::UNIX_EPOCH;
        for (seconds, expected) in [(5, "5s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (200_000, "2d"), (-9, "0s")] {
            assert_eq!(age_at(at, at + jiff::SignedDuration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["NAME", "SIZE", ""], ["a-long-one", "1 B", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "NAME         SIZE\na-long-one   1 B    x\n");
    }
}
