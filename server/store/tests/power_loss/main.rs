//! Power lost at any moment, under load. A child writes to a store under `strace`; what a disk may hold after a power
//! loss is made from the trace ([`disk`]); the store that is opened on it must have everything that the child said was
//! acknowledged before.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
#[path = "../load/mod.rs"]
mod load;
mod trace;

use std::path::Path;

use load::{Acknowledged, WRITERS};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use skiff_store::{Store, StoreError};
use trace::{Act, Step};

/// How many moments are tried.
const MOMENTS: usize = 300;

/// How many writes each writer of the child does.
const TURNS: u64 = 60;

/// Not a test of its own: what the tests run as a child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    load::run_child().await;
}

/// What a child does from an empty folder to a clean end.
fn record() -> Vec<Step> {
    let folder = tempfile::tempdir().unwrap();
    trace::record(&load::child(folder.path(), Some(TURNS)), folder.path())
}

fn last_line(steps: &[Step]) -> usize {
    steps.iter().map(|step| step.ended).max().unwrap_or_default()
}

/// What the child had said by a line.
fn acknowledged(steps: &[Step], line: usize) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    for step in steps.iter().take_while(|step| step.began <= line) {
        if let Act::Say { text } = &step.act {
            acknowledged.take(text);
        }
    }
    acknowledged
}

/// Writes down what the disk holds. The shared memory of the write-ahead log is never synced: it holds anything.
fn restore(folder: &Path, steps: &[Step], line: usize, heed_syncs: bool, random: &mut StdRng) {
    for (file, content) in disk::after_power_loss(steps, line, heed_syncs, random) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if !name.ends_with("-shm") {
            std::fs::write(folder.join(name), content).unwrap();
        }
    }
    if random.random_bool(0.5) {
        let mut garbage = vec![0; 32 << 10];
        random.fill_bytes(&mut garbage);
        std::fs::write(folder.join("state.db-shm"), garbage).unwrap();
    }
}

/// Opens what a power loss left and checks it.
async fn check(folder: &Path, mut acknowledged: Acknowledged) -> Result<(), String> {
    let store = load::open(folder).map_err(|error| error.to_string())?;
    // Who watched from the oldest revision that is kept goes on from there.
    let place = match store.watch(0).await.err() {
        None => 0,
        Some(StoreError::Compacted { oldest, .. }) => oldest,
        Some(other) => return Err(other.to_string()),
    };
    let mut mirror = load::everything(&store, Some(place)).await?;
    load::check(&store, &mut acknowledged, place, &mut mirror).await?;
    store.close().await.map_err(|error| error.to_string())?;
    let file = rusqlite::Connection::open(folder.join("state.db")).map_err(|error| error.to_string())?;
    let sound: String =
        file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    if sound == "ok" { Ok(()) } else { Err(sound) }
}

/// Power losses at random moments; returns what was found wrong.
async fn lose_power(steps: &[Step], moments: usize, heed_syncs: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut random = StdRng::seed_from_u64(11);
    let last = last_line(steps);
    for _ in 0..moments {
        let line = random.random_range(0..=last);
        let folder = tempfile::tempdir().unwrap();
        restore(folder.path(), steps, line, heed_syncs, &mut random);
        if let Err(why) = check(folder.path(), acknowledged(steps, line)).await {
            wrong.push(format!("power lost at line {line} of {last}: {why}"));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_lost_at_any_moment_nothing_acknowledged_is_lost() {
    let steps = record();
    let all = acknowledged(&steps, last_line(&steps));
    assert!(all.keys.len() >= WRITERS, "the child did write");
    let wrong = lose_power(&steps, MOMENTS, true).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The same moments on a disk that heeds no sync: were nothing found wrong there, nothing would be tested here.
    let wrong = lose_power(&steps, MOMENTS / 10, false).await;
    assert!(wrong.len() > MOMENTS / 40, "a disk that forgets is not noticed: {wrong:?}");
}
