//! `cargo xtask bench`: the numbers that skiff promises, measured on a release build, each beside its target.

mod api;
mod cluster;
mod fanout;
mod gates;
mod line;
mod load;
mod memory;
mod plain;
mod pods;
mod soak;
mod store;
mod wasm;
mod wire;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use cluster::Cluster;
use line::Line;

/// The options of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often what is timed is done; the median is printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// This binary instead of a release build of the tree.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// For how many minutes an idle cluster's CPU and disk writes are watched. Renewals reach the disk every five
    /// minutes, so that a shorter time may show no writes at all.
    #[arg(long, default_value_t = 5)]
    idle_minutes: u64,
    /// For how many minutes a soak lasts. The first ones fill the cluster: less than ten say nothing of memory.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// One part alone, instead of start-up, memory and pods.
    #[arg(value_enum)]
    part: Option<Part>,
}

/// What is measured only when it is asked for.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// The store and the watch cache alone.
    Store,
    /// Requests, lists and watches of the API server over TLS.
    Api,
    /// Wasm pods: how soon they are Ready, how fast they answer, thousands of them on one node.
    Wasm,
    /// Half an hour of mixed load with 200 watchers: whether memory stays flat.
    Soak,
}

/// How long an idle cluster settles before its memory and CPU are read.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures and prints everything.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Part::Store) = args.part {
        return store::run();
    }
    let binary = args.binary.clone().map_or_else(build, Ok)?;
    match args.part {
        Some(Part::Api) => return api::run(&binary),
        Some(Part::Wasm) => return wasm::run(&binary, args.rounds),
        Some(Part::Soak) => return soak::run(&binary, args.minutes),
        Some(Part::Store) | None => {}
    }
    let runtime = tokio::runtime::Runtime::new().context("starting the asynchronous runtime")?;
    let mut lines = start_up(&binary, args.rounds)?;
    let mut cluster = Cluster::new(&binary)?;
    cluster.start()?;
    lines.extend(memory::idle(&cluster, SETTLE, Duration::from_secs(60 * args.idle_minutes))?);
    lines.push(runtime.block_on(pods::one_pod(&cluster, args.rounds))?);
    lines.extend(runtime.block_on(pods::scale(&cluster))?);
    cluster.stop()?;
    let binary_mb = mebibytes(std::fs::metadata(&binary)?.len());
    lines.push(Line::at_most(40.0, "binary, stripped", binary_mb, "MB"));
    Line::print_head();
    lines.iter().for_each(Line::print);
    Ok(())
}

fn build() -> Result<PathBuf> {
    let root = crate::project_root();
    let status = Command::new("cargo").args(["build", "--release", "--package", "skiff"]).current_dir(&root).status();
    ensure!(status.context("running cargo")?.success(), "the release build failed");
    Ok(crate::target_dir().join("release/skiff"))
}

/// First starts on fresh folders, and starts again on the same one.
fn start_up(binary: &std::path::Path, rounds: usize) -> Result<Vec<Line>> {
    let (mut first, mut first_api, mut again, mut again_api) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut ends = Vec::new();
    for _ in 0..rounds {
        let mut cluster = Cluster::new(binary)?;
        let started = cluster.start()?;
        first.push(started.node_ms);
        first_api.push(started.api_ms);
        ends.push(cluster.stop()?);
        let started = cluster.start()?;
        again.push(started.node_ms);
        again_api.push(started.api_ms);
        ends.push(cluster.stop()?);
    }
    let line = |what, values: &mut Vec<f64>, target| Line::at_most(target, what, median(values), "ms");
    Ok(vec![
        line("API server ready, first start", &mut first_api, 1000.0),
        line("API server ready, start again", &mut again_api, 300.0),
        line("node Ready, first start", &mut first, 1000.0),
        line("node Ready, start again", &mut again, 1000.0),
        line("from SIGTERM until everything has ended", &mut ends, 2000.0),
    ])
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
