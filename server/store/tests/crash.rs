//! Killed at any moment, under load: what was acknowledged is there, nothing is there by halves, revisions grow, and
//! a watcher goes on without a gap.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod load;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    time::Duration,
};

use load::{Acknowledged, Mirror, WRITERS};
use rand::{Rng, SeedableRng, rngs::StdRng};
use skiff_store::Store;

const ROUNDS: u32 = 300;

/// Not a test of its own: what the test runs as a child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    load::run_child().await;
}

/// Runs the child until it is killed after some acknowledgements and some time.
fn run_and_kill(folder: &Path, acknowledged: &mut Acknowledged, random: &mut StdRng) {
    let mut child = load::child(folder, None).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut left = random.random_range(1..120);
    for line in lines {
        acknowledged.take(&line.unwrap_or_default());
        left -= 1;
        if left == 0 {
            std::thread::sleep(Duration::from_micros(random.random_range(0..2_000)));
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let (mut acknowledged, mut mirror, mut place) = (Acknowledged::default(), Mirror::new(), 0);
    for round in 0..ROUNDS {
        run_and_kill(folder.path(), &mut acknowledged, &mut random);
        let store = load::open(folder.path()).unwrap();
        let checked = load::check(&store, &mut acknowledged, place, &mut mirror).await;
        place = checked.unwrap_or_else(|why| panic!("round {round}: {why}"));
        // What was lost of the heartbeats will be acknowledged anew, with greater revisions.
        store.close().await.unwrap();
    }
    assert!(acknowledged.keys.len() >= WRITERS, "the children did write");
}
