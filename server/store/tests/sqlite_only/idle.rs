//! What an idle cluster costs the disk: heartbeats, and nothing else.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use skiff_store::{Expect, SqliteStore, Store, sqlite::SqliteOptions};

use crate::suite::{beat, create, put};

/// A page in the write-ahead log, with its header.
const FRAME_BYTES: u64 = 4_096 + 24;

/// How many pages a batch of renewals of one Lease may cost in the log: the Lease's row, its history, the history's
/// index; and one more of each, where a page is full.
const BATCH_FRAMES: u64 = 6;

fn log_bytes(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("state.db-wal")).unwrap().len()
}

#[tokio::test]
async fn a_batch_of_renewals_costs_few_pages() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { renewal_delay: Duration::from_secs(3600), ..SqliteOptions::default() };
    let store = SqliteStore::open_with(&folder.path().join("state.db"), options).unwrap();
    let value = "v".repeat(600);
    let mut lease = create(&store, "/coordination.k8s.io/leases/kube-node-lease/n", &value).await;
    let mut other = 0;
    for i in 0..300 {
        other = create(&store, &format!("/core/configmaps/default/{i}"), &value).await;
    }
    let (mut alone, mut together) = (0, 0);
    for round in 0..20 {
        let renewals = if round % 2 == 0 { 0 } else { 6 };
        for _ in 0..renewals {
            lease =
                beat(&store, "/coordination.k8s.io/leases/kube-node-lease/n", Expect::At(lease), Some(&value)).await;
        }
        // A synced write takes along what waits.
        let before = log_bytes(folder.path());
        other = put(&store, "/core/configmaps/default/299", Expect::At(other), &value).await;
        let cost = (log_bytes(folder.path()) - before) / FRAME_BYTES;
        if renewals == 0 {
            alone += cost;
        } else {
            together += cost;
        };
    }
    assert!(together <= alone + 10 * BATCH_FRAMES, "{together} pages with renewals, {alone} without");
    store.close().await.unwrap();
}

#[tokio::test]
async fn renewals_wait_longer_than_other_heartbeats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let options = SqliteOptions {
        heartbeat_delay: Duration::from_millis(20),
        renewal_delay: Duration::from_secs(3600),
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open_with(&path, options).unwrap();
    let reader = Connection::open(&path).unwrap();
    let number = |sql: &str| reader.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned();
    let newest = || number("SELECT coalesce(max(mod_rev), 0) FROM current");
    let on_disk = async |revision| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while newest() < revision {
            assert!(Instant::now() < deadline, "it never reached the disk");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let first = beat(&store, "/g/leases/a", Expect::Absent, Some("1")).await;
    on_disk(first).await;
    let renewed = beat(&store, "/g/leases/a", Expect::At(first), Some("2")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(newest(), first, "a renewal waits");
    // Another heartbeat does not, and takes it along: what is on disk is a whole prefix of the history.
    let event = beat(&store, "/g/events/a", Expect::Absent, Some("1")).await;
    on_disk(event).await;
    assert_eq!(number("SELECT mod_rev FROM current WHERE key = '/g/leases/a'"), renewed);
    store.close().await.unwrap();
}
