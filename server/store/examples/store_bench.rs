//! How fast the store and the watch cache above it are, what they cost, and whether a write ever waits long. Prints a
//! line of name, value and unit for each; `cargo xtask bench store` runs it and puts the targets beside.
//!
//! `cargo run --release -p skiff-store --example store_bench`

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a tool for developers")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use skiff_api::{
    kinds::{Durability, StorageKey},
    object::Object,
};
use skiff_store::{
    Expect, Revision, SqliteStore, Store,
    cache::{CacheOutcome, Cacher, ListQuery},
};
use tokio::task::JoinSet;

/// How many objects are there when lists, memory and the file are measured.
const OBJECTS: usize = 100_000;

/// How many writes and deletes the file must shrink after.
const CHURN: usize = 1_000_000;

/// How much history a compaction leaves, so that the watch cache keeps its place.
const KEPT: Revision = 10_000;

/// How long writes are watched for stalls.
const STALL_WINDOW: Duration = Duration::from_secs(20);

/// How long the file may take to shrink.
const PATIENCE: Duration = Duration::from_secs(120);

fn report(name: &str, value: f64, unit: &str) {
    println!("{name}\t{value:.2}\t{unit}");
}

fn config_map(name: &str) -> Object {
    let metadata = json!({"name": name, "namespace": "bench", "uid": "00000000-0000-0000-0000-000000000000"});
    let data = json!({"text": "x".repeat(350)});
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data});
    Object::from_typed(&object).unwrap()
}

fn kind() -> StorageKey {
    StorageKey { group: "core".to_owned(), resource: "configmaps".to_owned() }
}

async fn write(cache: &Cacher, name: &str, expect: Expect, object: Option<&Object>) -> Revision {
    match cache.write(&kind(), "bench", name, expect, object, Durability::Synced).await.unwrap() {
        CacheOutcome::Done(entry) => entry.resource_version,
        CacheOutcome::Mismatch(there) => panic!("{name} is nobody else's: {there:?}"),
    }
}

/// How long writes took.
struct Waits(Vec<Duration>);

impl Waits {
    fn of(tasks: Vec<Vec<Duration>>) -> Self {
        let mut waits: Vec<Duration> = tasks.into_iter().flatten().collect();
        waits.sort();
        Self(waits)
    }

    /// The wait that this part in a thousand did not exceed, in milliseconds.
    fn at_ms(&self, part: usize) -> f64 {
        self.0[(self.0.len() - 1) * part / 1_000].as_secs_f64() * 1_000.0
    }
}

async fn creates(cache: &Arc<Cacher>, writers: usize, count: usize) {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let cache = Arc::clone(cache);
        tasks.spawn(async move {
            let mut waits = Vec::new();
            for i in 0..count / writers {
                let name = format!("of-{writers}-{writer}-{i}");
                let object = config_map(&name);
                let began = Instant::now();
                write(&cache, &name, Expect::Absent, Some(&object)).await;
                waits.push(began.elapsed());
            }
            waits
        });
    }
    let waits = Waits::of(tasks.join_all().await);
    let rate = waits.0.len() as f64 / started.elapsed().as_secs_f64();
    report(&format!("creates, {writers} writers"), rate, "/s");
    report(&format!("creates, {writers} writers, p99"), waits.at_ms(990), "ms");
}

async fn lists(cache: &Cacher) {
    let middle = Some(("bench".to_owned(), "of-16-9-".to_owned()));
    for (what, start_after) in [("first", None), ("middle", middle)] {
        let query = ListQuery { limit: 500, start_after, ..ListQuery::default() };
        let started = Instant::now();
        for _ in 0..2_000 {
            assert_eq!(cache.list(&kind(), &query).await.unwrap().entries.len(), 500);
        }
        report(&format!("list of 500, {what} page"), 2_000.0 / started.elapsed().as_secs_f64(), "/s");
    }
}

/// Updates without a pause while the log is copied into the file and history is compacted again and again.
async fn stalls(cache: &Arc<Cacher>, store: &Arc<dyn Store>) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for writer in 0..16 {
        let (cache, stop) = (Arc::clone(cache), Arc::clone(&stop));
        tasks.spawn(async move {
            let name = format!("stall-{writer}");
            let object = config_map(&name);
            let mut at = write(&cache, &name, Expect::Absent, Some(&object)).await;
            let mut waits = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                at = write(&cache, &name, Expect::At(at), Some(&object)).await;
                waits.push(began.elapsed());
            }
            waits
        });
    }
    let started = Instant::now();
    while started.elapsed() < STALL_WINDOW {
        tokio::time::sleep(STALL_WINDOW / 10).await;
        store.compact(store.revision().await.unwrap() - KEPT).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let waits = Waits::of(tasks.join_all().await);
    report("updates through checkpoints and compactions", waits.0.len() as f64 / STALL_WINDOW.as_secs_f64(), "/s");
    report("updates through checkpoints and compactions, p99", waits.at_ms(990), "ms");
    report("updates through checkpoints and compactions, worst", waits.at_ms(1_000), "ms");
}

/// Creates and deletes, and waits until the file has given the space back.
async fn churn(cache: &Arc<Cacher>, store: &Arc<dyn Store>, path: &Path) {
    let before = file_bytes(path);
    let most = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for writer in 0..64 {
        let (cache, most, path) = (Arc::clone(cache), Arc::clone(&most), path.to_owned());
        tasks.spawn(async move {
            for i in 0..CHURN / 2 / 64 {
                let name = format!("churn-{writer}-{i}");
                let at = write(&cache, &name, Expect::Absent, Some(&config_map(&name))).await;
                write(&cache, &name, Expect::At(at), None).await;
                if i % 500 == 0 {
                    most.fetch_max(file_bytes(&path), Ordering::Relaxed);
                }
            }
        });
    }
    tasks.join_all().await;
    let most = most.load(Ordering::Relaxed);
    let ended = Instant::now();
    store.compact(store.revision().await.unwrap()).await.unwrap();
    while file_bytes(path) > before + (8 << 20) && ended.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    report("file at most, through a million writes and deletes", megabytes(most), "MB");
    report(
        "file after a million writes and deletes, over before",
        megabytes(file_bytes(path)) - megabytes(before),
        "MB",
    );
    report("time until it had shrunk", ended.elapsed().as_secs_f64(), "s");
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() * 1024
}

async fn start(path: &Path) -> (Arc<dyn Store>, Arc<Cacher>) {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(path).unwrap());
    let cache = Cacher::start(Arc::clone(&store), |_| Vec::new()).await.unwrap();
    (store, cache)
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let (store, cache) = start(&path).await;
    creates(&cache, 1, 2_000).await;
    creates(&cache, 16, OBJECTS / 2).await;
    creates(&cache, 64, OBJECTS / 2).await;
    lists(&cache).await;
    report("resident memory, 100,000 objects", megabytes(resident_bytes()), "MB");
    report("files, 100,000 objects", megabytes(store.size_bytes().await.unwrap()), "MB");
    cache.close();
    store.close().await.unwrap();
    let started = Instant::now();
    let (store, cache) = start(&path).await;
    assert!(cache.peek_all(&kind(), None).len() >= OBJECTS);
    report("opened and loaded, 100,000 objects", started.elapsed().as_secs_f64() * 1_000.0, "ms");
    stalls(&cache, &store).await;
    if std::env::args().any(|argument| argument == "--churn") {
        churn(&cache, &store, &path).await;
    }
    cache.close();
    store.close().await.unwrap();
}
