//! `cargo xtask bench`: the numbers that skiff promises, measured on a release build, each beside its target.

mod api;
mod cluster;
mod fanout;
mod gates;
mod memory;
mod pods;
mod store;
mod wire;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use cluster::Cluster;

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
}

/// How long an idle cluster settles before its memory and CPU are read.
const SETTLE: Duration = Duration::from_secs(10);

/// A measured value beside what was promised; less is better.
struct Line {
    what: &'static str,
    measured: f64,
    target: f64,
    unit: &'static str,
}

/// Measures and prints everything.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Part::Store) = args.part {
        return store::run();
    }
    let binary = args.binary.clone().map_or_else(build, Ok)?;
    if let Some(Part::Api) = args.part {
        return api::run(&binary);
    }
    let runtime = tokio::runtime::Runtime::new().context("starting the asynchronous runtime")?;
    let mut lines = start_up(&binary, args.rounds)?;
    let mut cluster = Cluster::new(&binary)?;
    cluster.start()?;
    lines.extend(memory::idle(&cluster, SETTLE, Duration::from_secs(60 * args.idle_minutes))?);
    lines.extend(runtime.block_on(pods::one_pod(&cluster, args.rounds))?);
    lines.extend(runtime.block_on(pods::scale(&cluster))?);
    cluster.stop()?;
    lines.push(Line {
        what: "binary, stripped",
        measured: mebibytes(std::fs::metadata(&binary)?.len()),
        target: 40.0,
        unit: "MB",
    });
    println!("{:<56} {:>10} {:>10}", "", "measured", "target");
    for Line { what, measured, target, unit } in lines {
        let verdict = if measured <= target { "ok" } else { "falls short" };
        println!("{what:<56} {measured:>10.2} {target:>10.2} {unit:<8} {verdict} (x{:.2})", measured / target);
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    let root = crate::project_root();
    let status = Command::new("cargo").args(["build", "--release", "--package", "skiff"]).current_dir(&root).status();
    ensure!(status.context("running cargo")?.success(), "the release build failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/skiff"))
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
    let line = |what, values: &mut Vec<f64>, target| Line { what, measured: median(values), target, unit: "ms" };
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
