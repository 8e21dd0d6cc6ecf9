//! A snapshot moves a cluster between kinds of datastores; against a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "tests")]

#[path = "../store/tests/etcd_server/mod.rs"]
mod etcd_server;

use std::{num::NonZeroU32, path::Path, sync::Arc};

use bytes::Bytes;
use etcd_server::Etcd;
use jiff::Timestamp;
use skiff_api::kinds::Durability;
use skiff_server::{
    Datastore,
    pki::Pki,
    seal::{self, Purpose, Stretch},
    snapshot::{self, REVISIONS_SKIPPED, Request, Source, restore},
    token::Token,
};
use skiff_store::{
    EtcdStore, Expect, MemoryStore, RangeOptions, SqliteStore, Store, StoreError, Write, etcd::EtcdOptions,
};

const SECRET: &str = "s3cret";

fn request(folder: &Path) -> Request {
    Request {
        folder: folder.to_owned(),
        name: "on-demand".to_owned(),
        node: "n1".to_owned(),
        created: Timestamp::now(),
        secret: SECRET.to_owned(),
        stretch: Stretch { salt: [3; 16], iterations: NonZeroU32::MIN },
    }
}

fn restoring(snapshot: &Path, server_dir: &Path, datastore: Datastore) -> restore::Request {
    restore::Request {
        snapshot: snapshot.to_owned(),
        token: Token::parse(SECRET).unwrap(),
        server_dir: server_dir.to_owned(),
        datastore,
        now: Timestamp::now(),
    }
}

async fn pairs(store: &dyn Store) -> Vec<(String, Bytes)> {
    let range = store.range("/", RangeOptions::default()).await.unwrap();
    range.items.into_iter().map(|pair| (pair.key, pair.value)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_moves_a_cluster_to_etcd_and_back() {
    let etcd = Etcd::start();
    let datastore = Datastore::Etcd { endpoints: vec![etcd.url()], tls: None };
    let [first, second, third] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    for i in 0..400 {
        let (key, value) = (format!("/core/configmaps/default/{i:03}"), Bytes::from(format!("value {i}")));
        let write = Write { key, expect: Expect::Absent, value: Some(value), durability: Durability::Synced };
        memory.write(write).await.unwrap();
    }
    let pki = Pki::open(first.path().join("tls"), Timestamp::now()).unwrap();
    let source = Source::new(Arc::clone(&memory), "sqlite", first.path(), &pki);
    let saved = snapshot::save(&source, &request(first.path())).await.unwrap();

    let restored = restore::restore(restoring(&saved.path, second.path(), datastore.clone())).await.unwrap();
    assert!(restored.revision > saved.header.revision + REVISIONS_SKIPPED);
    let store = EtcdStore::open(EtcdOptions::new(vec![etcd.url()])).await.unwrap();
    assert_eq!(pairs(&store).await, pairs(&*memory).await);
    assert!(matches!(store.watch(saved.header.revision).await.err(), Some(StoreError::Compacted { .. })));
    let shared = store.shared("certificates").await.unwrap().expect("servers share the authorities");
    let shared = seal::open(&shared, SECRET, Purpose::Certificates).unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&shared).unwrap()["server-ca.crt"] == pki.server_ca());
    store.close().await.unwrap();

    let at_rest = Source::at_rest(&datastore, second.path()).await.unwrap();
    let back = snapshot::save(&at_rest, &request(second.path())).await.unwrap();
    at_rest.store.close().await.unwrap();
    assert_eq!((back.header.datastore.as_str(), &back.header.authority), ("etcd", &saved.header.authority));
    // Sharing the authorities has taken a revision too.
    assert!(back.header.revision >= restored.revision, "{} {}", back.header.revision, restored.revision);
    assert_eq!(back.header.objects, 400);
    restore::restore(restoring(&back.path, third.path(), Datastore::Embedded)).await.unwrap();
    let sqlite = SqliteStore::open(&third.path().join("state.db")).unwrap();
    assert_eq!(pairs(&sqlite).await, pairs(&*memory).await);
    sqlite.close().await.unwrap();
}
