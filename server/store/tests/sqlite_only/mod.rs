//! What concerns the file alone: reopening, the lock, the schema, lost revisions, space given back.

mod idle;
mod upgrade;

use std::{path::Path, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use rusqlite::Connection;
use skiff_store::{Expect, RangeOptions, SqliteStore, Store, StoreError, sqlite::SqliteOptions};

use crate::suite::{beat, create, delete, put, take};

/// A copy of a store's files as a power loss would leave them: all that was synced.
fn copy_files(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = format!("state.db{suffix}");
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

fn lazy() -> SqliteOptions {
    let late = Duration::from_secs(3600);
    SqliteOptions { heartbeat_delay: late, renewal_delay: late, ..SqliteOptions::default() }
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = SqliteStore::open_with(&path, lazy()).unwrap();
    let first = create(&store, "/g/r/a", "1").await;
    let second = put(&store, "/g/r/a", Expect::At(first), "2").await;
    let third = beat(&store, "/g/leases/a", Expect::Absent, Some("beat")).await;
    store.compact(first).await.unwrap();
    store.close().await.unwrap();

    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.revision().await.unwrap(), third, "a clean end goes on where it ended");
    assert_eq!(&store.get("/g/leases/a").await.unwrap().unwrap().value[..], b"beat");
    let events = take(&mut store.watch(first).await.unwrap(), 2).await;
    assert_eq!((events[0].revision, &events[0].previous.as_ref().unwrap().value[..]), (second, &b"1"[..]));
    assert_eq!(store.watch(0).await.err(), Some(StoreError::Compacted { asked: 0, oldest: first }));
    assert_eq!(create(&store, "/g/r/b", "1").await, third + 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn power_loss_costs_heartbeats_alone_and_gives_no_revision_twice() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open_with(&folder.path().join("state.db"), lazy()).unwrap();
    let kept = beat(&store, "/g/leases/a", Expect::Absent, Some("kept")).await;
    let synced = create(&store, "/g/r/a", "1").await;
    let lost = beat(&store, "/g/leases/a", Expect::At(kept), Some("lost")).await;
    copy_files(folder.path(), other.path());

    let store = SqliteStore::open_with(&other.path().join("state.db"), lazy()).unwrap();
    let start = store.revision().await.unwrap();
    assert!(start > lost);
    let lease = store.get("/g/leases/a").await.unwrap().unwrap();
    assert_eq!((&lease.value[..], lease.mod_revision), (&b"kept"[..], kept));
    assert_eq!(&store.get("/g/r/a").await.unwrap().unwrap().value[..], b"1");
    let refused = Some(StoreError::Compacted { asked: lost, oldest: start });
    assert_eq!(store.watch(lost).await.err(), refused);
    let at = |revision| RangeOptions { revision: Some(revision), ..RangeOptions::default() };
    assert_eq!(store.range("/", at(lost)).await.err(), refused);
    assert_eq!(store.range("/", at(start)).await.unwrap().items.len(), 2);
    let mut before = store.watch(kept).await.unwrap();
    let mut now = store.watch(start).await.unwrap();
    let next = create(&store, "/g/r/b", "1").await;
    assert_eq!(next, start + 1);
    let events = take(&mut before, 1).await;
    assert_eq!(events[0].revision, synced);
    assert_eq!(take(&mut before, 1).await[0].revision, next);
    assert_eq!(take(&mut now, 1).await[0].revision, next);
    store.close().await.unwrap();

    let store = SqliteStore::open(&other.path().join("state.db")).unwrap();
    assert_eq!(store.watch(lost).await.err(), refused, "the span stays refused");
    assert_eq!(store.revision().await.unwrap(), next);
    store.close().await.unwrap();
}

#[tokio::test]
async fn heartbeats_reach_the_disk_by_themselves() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = SqliteOptions { heartbeat_delay: Duration::from_millis(20), ..SqliteOptions::default() };
    let path = folder.path().join("state.db");
    let store = SqliteStore::open_with(&path, options).unwrap();
    beat(&store, "/g/leases/a", Expect::Absent, Some("1")).await;
    let reader = Connection::open(&path).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let rows = || reader.query_row("SELECT count(*) FROM current", [], |row| row.get::<_, i64>(0)).unwrap();
    while rows() == 0 {
        assert!(std::time::Instant::now() < deadline, "the heartbeat never reached the disk");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(other);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = SqliteStore::open(&path).unwrap();
    let refused = SqliteStore::open(&path).err().unwrap().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    store.close().await.unwrap();
    SqliteStore::open(&path).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_is_said_to_be_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, "this is no database ".repeat(500)).unwrap();
    assert!(matches!(SqliteStore::open(&path).err(), Some(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("state.db")).unwrap();
    create(&store, "/g/r/a", "1").await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_shrinks_as_space_is_freed() {
    const WRITERS: usize = 32;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let value = "x".repeat(8_000);
            for i in 0..50 {
                let key = format!("/g/r/{writer}-{i}");
                let at = create(&*store, &key, &value).await;
                delete(&*store, &key, at).await;
            }
        });
    }
    tasks.join_all().await;
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    // Space is given back between writes, and the file shrinks at a checkpoint; writes go on meanwhile.
    let mut at = create(&*store, "/g/r/beat", "v").await;
    let mut least = u64::MAX;
    while least > 3 << 20 {
        assert!(std::time::Instant::now() < deadline, "the file has {least} bytes");
        at = put(&*store, "/g/r/beat", Expect::At(at), "v").await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        least = std::fs::metadata(&path).unwrap().len();
    }
    let log = std::fs::metadata(folder.path().join("state.db-wal")).unwrap().len();
    assert!(log < 48 << 20, "the write-ahead log has {log} bytes");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_within_a_restore_leaves_what_was_there() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open_with(&folder.path().join("state.db"), lazy()).unwrap();
    let newest = create(&store, "/g/r/old", "1").await;
    let (from, to) = (folder.path().to_owned(), other.path().to_owned());
    // Enough that pages of the open transaction reach the log on disk.
    let value = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let big = (0..8).map(move |i| Ok(vec![(format!("/g/r/{i}"), value.clone())]));
    let crash = stream::once(async move {
        copy_files(&from, &to);
        Ok(vec![("/g/r/last".to_owned(), bytes::Bytes::from_static(b"1"))])
    });
    let restored = store.restore(stream::iter(big).chain(crash).boxed(), 50).await.unwrap();
    let log = std::fs::metadata(other.path().join("state.db-wal")).unwrap().len();
    assert!(log > 2 << 20, "the log of {log} bytes has nothing of the restore: the test shows nothing");

    let crashed = SqliteStore::open(&other.path().join("state.db")).unwrap();
    let found = crashed.range("", RangeOptions::default()).await.unwrap();
    assert_eq!(
        found.items.iter().map(|pair| (&pair.key[..], pair.mod_revision)).collect::<Vec<_>>(),
        [("/g/r/old", newest)]
    );
    crashed.close().await.unwrap();

    assert_eq!(store.range("", RangeOptions::default()).await.unwrap().items.len(), 9);
    drop(store);
    let path = folder.path().join("state.db");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let again = loop {
        match SqliteStore::open(&path) {
            Ok(store) => break store,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(again.revision().await.unwrap(), restored, "a start after it goes on where it ended");
    assert_eq!(again.range("", RangeOptions::default()).await.unwrap().items.len(), 9);
    assert_eq!(create(&again, "/g/r/next", "1").await, restored + 1);
    again.close().await.unwrap();
}
