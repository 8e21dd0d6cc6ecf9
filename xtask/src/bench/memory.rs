//! What an idle cluster costs: memory, CPU and bytes written, over all its processes.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};

use super::{Line, cluster::Cluster, mebibytes};

/// Clock ticks a second in `/proc/PID/stat` (`getconf CLK_TCK`): 100 on every Linux that skiff runs on.
const TICKS_PER_SECOND: f64 = 100.0;

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
        Line { what: "idle RSS, all processes", measured: after.rss_mb, target: 64.0, unit: "MB" },
        Line { what: "idle CPU, all processes", measured: cpu, target: 0.5, unit: "% core" },
        Line { what: "idle disk writes", measured: written, target: 1.0, unit: "kB/s" },
    ])
}

/// Resident memory of all processes: pages that they share count once for each.
pub(super) fn rss_mb(cluster: &Cluster) -> Result<f64> {
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
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).with_context(|| name.to_owned());
        let rss_kib: u64 = field(&read("status")?, "VmRSS:").unwrap_or_default();
        sum.rss_mb += mebibytes(rss_kib << 10);
        sum.written_bytes += field::<f64>(&read("io")?, "write_bytes:").unwrap_or_default();
        let stat = read("stat")?;
        // utime and stime are the 12th and 13th field after the command's name, which ends with the last parenthesis.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
        sum.cpu_seconds += fields.filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND;
    }
    Ok(sum)
}

/// The number behind a name.
fn field<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}
