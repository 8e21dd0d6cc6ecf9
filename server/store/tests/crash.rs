//! Killed at any moment, under load: what was acknowledged is there, nothing is there by halves, revisions grow, and
//! a watcher goes on without a gap.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use skiff_api::kinds::Durability;
use skiff_store::{
    Event, Expect, RangeOptions, Revision, SqliteStore, Store, StoreError, Write, WriteOutcome, sqlite::SqliteOptions,
};

const ROUNDS: u32 = 30;
const WRITERS: usize = 8;
/// Where the child finds its store; without it the child's test does nothing.
const FOLDER: &str = "SKIFF_STORE_CRASH_FOLDER";

fn open(folder: &Path) -> SqliteStore {
    let options = SqliteOptions {
        heartbeat_delay: Duration::from_millis(30),
        history_revisions: 20_000,
        tick: Duration::from_millis(20),
        ..SqliteOptions::default()
    };
    SqliteStore::open_with(&folder.join("state.db"), options).unwrap()
}

/// A value whose every part says the same number.
fn value(number: u64) -> Bytes {
    format!("{number} ").repeat(100).into()
}

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap());
    let first = numbers.next().unwrap();
    assert!(numbers.all(|number: u64| number == first), "half a write: {text}");
    first
}

/// Writes until it is killed, each key its own counter; says what was acknowledged.
async fn write_for_ever(store: Arc<SqliteStore>, writer: usize) {
    let heartbeat = writer.is_multiple_of(4);
    let durability = if heartbeat { Durability::Heartbeat } else { Durability::Synced };
    let class = if heartbeat { "beat" } else { "sync" };
    for turn in 0_u64.. {
        let key = format!("/g/{class}/{writer}-{}", turn % 5);
        let there = store.get(&key).await.unwrap();
        let expect = there.as_ref().map_or(Expect::Absent, |pair| Expect::At(pair.mod_revision));
        let next = there.as_ref().map_or(1, |pair| number(&pair.value) + 1);
        // Now and then a key goes, and comes again.
        let delete = there.is_some() && next.is_multiple_of(11) && !heartbeat;
        let write = Write { key: key.clone(), expect, value: (!delete).then(|| value(next)), durability };
        let outcome = store.write(write).await.unwrap();
        let WriteOutcome::Done(revision) = outcome else { panic!("{key} is nobody else's: {outcome:?}") };
        let line = format!("ack {key} {revision} {}\n", if delete { 0 } else { next });
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

/// Not a test of its own: what the test runs as a child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let store = Arc::new(open(&folder));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_for_ever(Arc::clone(&store), writer));
    }
    writers.join_all().await;
}

/// The newest acknowledged write of a key; the number 0 is a delete.
type Acknowledged = HashMap<String, (Revision, u64)>;

/// Runs the child until it is killed after some acknowledgements. Returns the newest revision it acknowledged.
fn run_and_kill(folder: &Path, acknowledged: &mut Acknowledged, random: &mut StdRng) -> Revision {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut left = random.random_range(1..400);
    let mut newest = 0;
    for line in lines {
        let line = line.unwrap_or_default();
        let words: Vec<&str> = line.split(' ').collect();
        // A line may be cut where the child was killed.
        if let ["ack", key, revision, number] = words[..]
            && let (Ok(revision), Ok(number)) = (revision.parse(), number.parse())
        {
            let before = acknowledged.insert(key.to_owned(), (revision, number)).map_or(0, |(revision, _)| revision);
            assert!(revision > before, "revision {revision} of {key} after {before}");
            newest = newest.max(revision);
        }
        left -= 1;
        if left == 0 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    newest
}

fn check_acknowledged(found: &BTreeMap<String, (Revision, u64)>, acknowledged: &Acknowledged) {
    for (key, (revision, number)) in acknowledged.iter().filter(|(key, _)| key.starts_with("/g/sync/")) {
        match found.get(key) {
            // The write that was under way may have been done too.
            Some((at, there)) if at == revision => assert_eq!(there, number, "{key}"),
            Some((at, _)) => assert!(at > revision, "{key} is at {at}, {revision} was acknowledged"),
            None => assert!(*number == 0 || (*number + 1) % 11 == 0, "{key} at {revision} is gone"),
        }
    }
}

fn apply(mirror: &mut BTreeMap<String, (Revision, u64)>, event: &Event) {
    let before = match &event.value {
        Some(value) => mirror.insert(event.key.clone(), (event.revision, number(value))),
        None => mirror.remove(&event.key),
    };
    let previous = event.previous.as_ref().map(|previous| (previous.mod_revision, number(&previous.value)));
    assert_eq!(previous, before, "a change of {} is missing before {}", event.key, event.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let (mut acknowledged, mut mirror, mut place) = (Acknowledged::new(), BTreeMap::new(), 0);
    let mut refused = 0;
    for round in 0..ROUNDS {
        let newest = run_and_kill(folder.path(), &mut acknowledged, &mut random);
        let store = open(folder.path());
        let start = store.revision().await.unwrap();
        assert!(start >= newest, "round {round}: {newest} was acknowledged, {start} is the newest");

        // Who saw the newest revision goes on, or lists again.
        match store.watch(newest).await {
            Ok(_) => {}
            Err(StoreError::Compacted { .. }) => refused += 1,
            Err(other) => panic!("round {round}: {other}"),
        }
        // Who saw the end of the last round goes on without a gap.
        let mut watch = store.watch(place).await.unwrap();
        let there = store.get("/g/end").await.unwrap();
        let expect = there.map_or(Expect::Absent, |pair| Expect::At(pair.mod_revision));
        let end = Write { key: "/g/end".to_owned(), expect, value: Some(value(1)), durability: Durability::Synced };
        let WriteOutcome::Done(end) = store.write(end).await.unwrap() else { panic!("nobody else writes") };
        assert_eq!(end, start + 1);
        while place < end {
            for event in watch.next().await.unwrap().unwrap() {
                assert!(event.revision > place);
                place = event.revision;
                apply(&mut mirror, &event);
            }
        }
        let range = store.range("/g/", RangeOptions::default()).await.unwrap();
        let found: BTreeMap<_, _> =
            range.items.iter().map(|pair| (pair.key.clone(), (pair.mod_revision, number(&pair.value)))).collect();
        assert_eq!(found, mirror, "round {round}");
        check_acknowledged(&found, &acknowledged);
        // What was lost of the heartbeats will be acknowledged anew, with greater revisions.
        store.close().await.unwrap();
    }
    assert!(acknowledged.len() >= WRITERS, "the children did write");
    println!("{ROUNDS} rounds, {place} revisions, {refused} watchers list again");
}
