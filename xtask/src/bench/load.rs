//! A load: so many connections that ask again and again, and what it came to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{cluster::milliseconds, memory::cpu_seconds};

/// How long each rate is measured, after a second of warming up.
pub(super) const WINDOW: Duration = Duration::from_secs(8);

/// What asks on one connection.
pub(super) trait Caller: 'static {
    /// Asks for the n-th time of all, and gives the bytes of the answer's body.
    async fn call(&mut self, n: u64) -> Result<usize>;
}

/// What a load came to.
pub(super) struct Load {
    pub(super) rate: f64,
    pub(super) p99_ms: f64,
    /// Bytes of the last answer's body.
    pub(super) bytes: f64,
}

/// A second of warming up, then requests for the window.
pub(super) async fn rate(callers: Vec<impl Caller>) -> Result<Load> {
    let (counted, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let number = Arc::new(AtomicU64::new(0));
    let tasks = tokio::task::LocalSet::new();
    let mut running = Vec::new();
    for mut caller in callers {
        let (counted, stop, number) = (Arc::clone(&counted), Arc::clone(&stop), Arc::clone(&number));
        running.push(tasks.spawn_local(async move {
            let (mut took, mut bytes) = (Vec::new(), 0);
            while !stop.load(Relaxed) {
                let began = Instant::now();
                bytes = caller.call(number.fetch_add(1, Relaxed)).await?;
                if counted.load(Relaxed) {
                    took.push(began.elapsed());
                }
            }
            anyhow::Ok((took, bytes))
        }));
    }
    tasks
        .run_until(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            counted.store(true, Relaxed);
            let began = Instant::now();
            tokio::time::sleep(WINDOW).await;
            let seconds = began.elapsed().as_secs_f64();
            stop.store(true, Relaxed);
            let (mut all, mut last) = (Vec::new(), 0);
            for task in running {
                let (took, bytes) = task.await??;
                all.extend(took);
                last = last.max(bytes);
            }
            Ok(load(all, seconds, last))
        })
        .await
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn load(mut took: Vec<Duration>, seconds: f64, bytes: usize) -> Load {
    Load { rate: took.len() as f64 / seconds, p99_ms: milliseconds(p99(&mut took)), bytes: bytes as f64 }
}

/// What all but a hundredth stay below.
pub(super) fn p99(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

/// Runs a load, and tells how many seconds of CPU a process used in the measured window.
pub(super) async fn with_cpu(process: u32, load: impl Future<Output = Result<Load>>) -> Result<(Load, f64)> {
    let before = cpu_seconds(process)?;
    let began = Instant::now();
    let load = load.await?;
    // The warming up is about as busy as the window.
    let share = WINDOW.as_secs_f64() / began.elapsed().as_secs_f64();
    Ok((load, (cpu_seconds(process)? - before) * share))
}
