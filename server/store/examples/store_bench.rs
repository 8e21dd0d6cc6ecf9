//! How fast the store and the watch cache are: durable creates, and lists of 500 out of 100,000.
//!
//! `cargo run --release -p skiff-store --example store_bench`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use skiff_api::{
    kinds::{Durability, StorageKey},
    object::Object,
};
use skiff_store::{
    Expect, SqliteStore, Store,
    cache::{Cacher, ListQuery},
};

const OBJECTS: usize = 100_000;

fn config_map(name: &str) -> Object {
    let metadata = json!({"name": name, "namespace": "bench", "uid": "00000000-0000-0000-0000-000000000000"});
    let data = json!({"text": "x".repeat(350)});
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data});
    Object::from_typed(&object).unwrap()
}

fn kind() -> StorageKey {
    StorageKey { group: "core".to_owned(), resource: "configmaps".to_owned() }
}

async fn creates(cache: &Arc<Cacher>, writers: usize, count: usize, tag: &str) {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (cache, tag) = (Arc::clone(cache), tag.to_owned());
        tasks.spawn(async move {
            let mut waits = Vec::new();
            for i in 0..count / writers {
                let name = format!("{tag}-{writer}-{i}");
                let object = config_map(&name);
                let began = Instant::now();
                cache.write(&kind(), "bench", &name, Expect::Absent, Some(&object), Durability::Synced).await.unwrap();
                waits.push(began.elapsed());
            }
            waits
        });
    }
    let mut waits: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let elapsed = started.elapsed();
    waits.sort();
    let at = |part: usize| waits[(waits.len() - 1) * part / 1_000];
    println!(
        "{writers} writers: {:.0} creates/s, p50 {:?}, p99 {:?}, p99.9 {:?}, worst {:?}",
        waits.len() as f64 / elapsed.as_secs_f64(),
        at(500),
        at(990),
        at(999),
        at(1_000),
    );
}

async fn lists(cache: &Cacher) {
    for (what, after) in [("first", None), ("middle", Some(("bench".to_owned(), "many-9-".to_owned())))] {
        let query = ListQuery { limit: 500, start_after: after, ..ListQuery::default() };
        let started = Instant::now();
        for _ in 0..2_000 {
            assert_eq!(cache.list(&kind(), &query).await.unwrap().entries.len(), 500);
        }
        println!("list of 500, {what} page: {:.0}/s", 2_000.0 / started.elapsed().as_secs_f64());
    }
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1024
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    let cache = Cacher::start(Arc::clone(&store), |_| Vec::new()).await.unwrap();
    creates(&cache, 1, 2_000, "one").await;
    creates(&cache, 16, OBJECTS, "many").await;
    creates(&cache, 64, 40_000, "more").await;
    lists(&cache).await;
    let size = store.size_bytes().await.unwrap() >> 20;
    println!("{size} MB of files, {} MB resident", resident_mb());
    cache.close();
    store.close().await.unwrap();
    let started = Instant::now();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    let cache = Cacher::start(Arc::clone(&store), |_| Vec::new()).await.unwrap();
    println!("{} objects loaded in {:?}", cache.peek_all(&kind(), None).len(), started.elapsed());
}
