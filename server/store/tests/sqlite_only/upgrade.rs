//! Files of older schemas.

use rusqlite::{Connection, params};
use skiff_store::{Expect, RangeOptions, SqliteStore, Store, StoreError};

use crate::suite::{create, keys, put, take};

/// The first schema, as it was made when it was the newest.
const SCHEMA_1: &str = "
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    CREATE TABLE migration (version INTEGER PRIMARY KEY, skiff TEXT NOT NULL) STRICT;
    CREATE TABLE current (
        create_rev INTEGER PRIMARY KEY, mod_rev INTEGER NOT NULL, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL
    ) STRICT;
    CREATE TABLE log (
        rev INTEGER PRIMARY KEY, key TEXT NOT NULL, deleted INTEGER NOT NULL,
        prev_create INTEGER, prev_mod INTEGER, prev_value BLOB
    ) STRICT;
    CREATE INDEX log_by_key ON log (key);
    CREATE TABLE compaction (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL) STRICT;
    INSERT INTO compaction VALUES (1, 0);
    CREATE TABLE reservation (
        one INTEGER PRIMARY KEY CHECK (one = 1), until INTEGER NOT NULL, clean INTEGER NOT NULL
    ) STRICT;
    INSERT INTO reservation VALUES (1, 0, 1);
    CREATE TABLE lost (after INTEGER PRIMARY KEY, until INTEGER NOT NULL) STRICT;
    INSERT INTO migration VALUES (1, '0.1.0');
    PRAGMA user_version = 1;
    -- Revisions: 1 creates a, 2 creates b, 3 updates a, 4 deletes b.
    INSERT INTO current VALUES (1, 3, '/g/r/a', x'32');
    INSERT INTO log VALUES (1, '/g/r/a', 0, NULL, NULL, NULL);
    INSERT INTO log VALUES (2, '/g/r/b', 0, NULL, NULL, NULL);
    INSERT INTO log VALUES (3, '/g/r/a', 0, 1, 1, x'31');
    INSERT INTO log VALUES (4, '/g/r/b', 1, 2, 2, x'31');
    UPDATE reservation SET until = 4;
";

#[tokio::test]
async fn a_file_of_the_first_schema_is_brought_to_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    Connection::open(&path).unwrap().execute_batch(SCHEMA_1).unwrap();

    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.revision().await.unwrap(), 4);
    let at = |revision| RangeOptions { revision: Some(revision), ..RangeOptions::default() };
    assert_eq!(keys(&store.range("/", at(4)).await.unwrap()), ["/g/r/a"]);
    let then = store.range("/", at(2)).await.unwrap();
    let then: Vec<_> = then.items.iter().map(|pair| (pair.key.as_str(), &pair.value[..], pair.mod_revision)).collect();
    assert_eq!(then, [("/g/r/a", &b"1"[..], 1), ("/g/r/b", b"1", 2)]);
    let events = take(&mut store.watch(0).await.unwrap(), 4).await;
    let values: Vec<_> = events.iter().map(|event| event.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"1"[..]), Some(b"1"), Some(b"2"), None]);
    assert_eq!(put(&store, "/g/r/a", Expect::At(3), "3").await, 5);
    store.close().await.unwrap();

    let file = Connection::open(&path).unwrap();
    let versions: Vec<u32> = file
        .prepare("SELECT version FROM migration")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(versions, [1, 2]);
    let version: u32 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let indices: i64 = file
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = ?1", params!["log_by_key"], |row| row.get(0))
        .unwrap();
    assert_eq!((version, indices), (2, 0));
}

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = SqliteStore::open(&path).unwrap();
    create(&store, "/g/r/a", "1").await;
    store.close().await.unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path).err().unwrap();
    assert_eq!(refused, StoreError::NewerSchema { found: 7, known: 2 });
    let told = refused.to_string();
    assert!(told.contains("schema 7") && told.contains("use the newer skiff"), "{told}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
