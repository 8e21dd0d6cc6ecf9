//! What an idle cluster costs: memory, CPU and bytes written, over all its processes.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};

use super::{cluster::Cluster, line::Line, mebibytes};

/// Reads memory after the cluster has settled, and CPU and writes over a window.
pub(super) fn idle(cluster: &Cluster, settle: Duration, window: Duration) -> Result<Vec<Line>> {
    thread::sleep(settle);
    let before = usage(cluster)?;
    thread::sleep(window);
    let after = usage(cluster)?;
    let seconds = window.as_secs_f64();
    let cpu = (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0;
    let written = (after.written_bytes - before.written_bytes) / seconds / 1000.0;
    Ok(vec![
        Line::at_most(64.0, "idle RSS, all processes", after.rss_mb, "MB"),
        Line::at_most(0.5, "idle CPU, all processes", cpu, "% core"),
        Line::at_most(1.0, "idle disk writes", written, "kB/s"),
    ])
}

/// Resident memory of all processes: pages that they share count once for each.
pub(super) fn all_rss_mb(cluster: &Cluster) -> Result<f64> {
    Ok(usage(cluster)?.rss_mb)
}

#[derive(Default)]
struct Usage {
    rss_mb: f64,
    cpu_seconds: f64,
    written_bytes: f64,
}

fn usage(cluster: &Cluster) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in cluster.processes()? {
        sum.rss_mb += rss_mb(pid)?;
        sum.written_bytes += field::<f64>(&of_process(pid, "io")?, "write_bytes:").unwrap_or_default();
        sum.cpu_seconds += cpu_seconds(pid)?;
    }
    Ok(sum)
}

/// Resident memory of a process.
pub(super) fn rss_mb(pid: u32) -> Result<f64> {
    let kib: u64 = field(&of_process(pid, "status")?, "VmRSS:").context("no VmRSS")?;
    Ok(mebibytes(kib << 10))
}

/// The CPU time that a process has used.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    /// Clock ticks a second (`getconf CLK_TCK`): 100 on every Linux that skiff runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = of_process(pid, "stat")?;
    // utime and stime are the 12th and 13th field after the command's name, which ends with the last parenthesis.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
    Ok(fields.filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
}

fn of_process(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("reading {file} of process {pid}"))
}

/// The number behind a name.
fn field<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}
