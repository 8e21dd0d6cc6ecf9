//! Saving and restoring, from store to file to store.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    num::NonZeroU32,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use proptest::{
    prelude::{any, proptest},
    test_runner::{Config as ProptestConfig, FileFailurePersistence},
};
use skiff_api::kinds::Durability;
use skiff_client::{fake::FakeApi, recorder::EventRecorder};
use skiff_store::{Expect, KeyValue, MemoryStore, RangeOptions, Revision, SqliteStore, Store, StoreError, Write};

use tokio_util::sync::CancellationToken;

use super::{
    file::{SnapshotReader, part_path},
    header::BLOCK_BYTES,
    records::Record,
    restore::{Request as RestoreRequest, finish_interrupted, restore},
    *,
};
use crate::{
    Datastore,
    datastore::SQLITE_FILE,
    pki::Pki,
    seal::Stretch,
    token::{self, Live, Token},
};

const SECRET: &str = "s3cret";

fn now() -> Timestamp {
    "2026-11-27T03:30:00Z".parse().unwrap()
}

/// A server's folder with certificates, and a store.
struct Place {
    dir: tempfile::TempDir,
    source: Source,
}

impl Place {
    fn new(store: Arc<dyn Store>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path().join("tls"), Timestamp::now()).unwrap();
        pki.service_account_key().unwrap();
        let source = Source::new(store, Datastore::Embedded.kind(), dir.path(), &pki);
        Self { dir, source }
    }

    fn request(&self) -> Request {
        let stretch = Stretch { salt: [3; 16], iterations: NonZeroU32::new(2).unwrap() };
        let folder = self.dir.path().join(FOLDER);
        let (name, node) = ("on-demand".to_owned(), "n1".to_owned());
        Request { folder, name, node, created: now(), secret: SECRET.to_owned(), stretch }
    }

    async fn save(&self) -> Saved {
        save(&self.source, &self.request()).await.unwrap()
    }
}

/// Writes, unless another has been quicker.
async fn write(store: &dyn Store, key: &str, expect: Expect, value: Option<&str>) {
    let value = value.map(|value| Bytes::from(value.to_owned()));
    store.write(Write { key: key.to_owned(), expect, value, durability: Durability::Synced }).await.unwrap();
}

async fn fill(store: &dyn Store, count: usize) {
    for i in 0..count {
        write(store, &format!("/core/configmaps/default/{i:04}"), Expect::Absent, Some(&format!("value {i}"))).await;
    }
}

fn pairs_in(path: &Path) -> Vec<(String, Bytes)> {
    let mut reader = SnapshotReader::open(path, SECRET).unwrap();
    let mut pairs = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        if let Record::Pair { key, value } = record {
            pairs.push((key, value));
        }
    }
    pairs
}

async fn pairs_at(store: &dyn Store, revision: Option<Revision>) -> Vec<(String, Bytes)> {
    let range = store.range("/", RangeOptions { revision, ..RangeOptions::default() }).await.unwrap();
    range.items.into_iter().map(|KeyValue { key, value, .. }| (key, value)).collect()
}

fn restoring(snapshot: &Path, server_dir: &Path) -> RestoreRequest {
    RestoreRequest {
        snapshot: snapshot.to_owned(),
        token: Token::parse(SECRET).unwrap(),
        server_dir: server_dir.to_owned(),
        datastore: Datastore::Embedded,
        now: now(),
    }
}

/// All files below a folder with their contents.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(tree(&path)),
            path => found.push((path.clone(), fs::read(path).unwrap())),
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_under_concurrent_writes_it_is_the_state_of_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.path().join(SQLITE_FILE)).unwrap());
    fill(&*store, 600).await;
    let place = Place::new(Arc::clone(&store));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..3 {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        writers.spawn(async move {
            for (turn, i) in (0..600).cycle().enumerate() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let key = format!("/core/configmaps/default/{i:04}");
                let there = store.get(&key).await.unwrap().map(|pair| pair.mod_revision);
                let (expect, value) = match (there, (i + writer) % 3) {
                    (Some(at), 0) => (Expect::At(at), None),
                    (Some(at), _) => (Expect::At(at), Some(format!("{writer} {turn}"))),
                    (None, _) => (Expect::Absent, Some("again".to_owned())),
                };
                write(&*store, &key, expect, value.as_deref()).await;
            }
        });
    }
    let mut last = 0;
    for _ in 0..3 {
        // A watch tells when the writers have been at it since the last snapshot.
        let mut written = store.watch(store.revision().await.unwrap()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), written.next()).await.expect("nobody writes").unwrap().unwrap();
        let saved = place.save().await;
        assert!(saved.header.revision > last);
        assert_eq!(pairs_in(&saved.path), pairs_at(&*store, Some(saved.header.revision)).await);
        last = saved.header.revision;
    }
    stop.store(true, Ordering::SeqCst);
    writers.join_all().await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_on_a_new_machine_it_is_the_same_cluster_with_later_revisions() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    fill(&*store, 700).await;
    let place = Place::new(Arc::clone(&store));
    let saved = place.save().await;
    assert_eq!((saved.header.objects, saved.header.revision), (700, 700));
    assert_eq!(fs::metadata(&saved.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(verify(&saved.path, SECRET).unwrap(), saved.header);

    let new = tempfile::tempdir().unwrap();
    let server_dir = new.path().join("data/server");
    let restored = restore(restoring(&saved.path, &server_dir)).await.unwrap();
    assert_eq!(restored.before, None);
    for (path, content) in tree(&place.dir.path().join("tls")) {
        let copy = server_dir.join("tls").join(path.file_name().unwrap());
        assert_eq!(fs::read(&copy).unwrap(), content);
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o077, 0);
    }
    let kept = Token::read(&token::path(&server_dir)).unwrap().unwrap();
    assert_eq!(kept.secret(), SECRET);
    let opened = SqliteStore::open(&server_dir.join(SQLITE_FILE)).unwrap();
    assert_eq!(pairs_at(&opened, None).await, pairs_at(&*store, None).await);
    assert!(restored.revision > saved.header.revision + REVISIONS_SKIPPED);
    assert_eq!(opened.revision().await.unwrap(), restored.revision);
    for old in [1, saved.header.revision, saved.header.revision + REVISIONS_SKIPPED] {
        assert!(matches!(opened.watch(old).await.err(), Some(StoreError::Compacted { .. })), "a watch from {old}");
    }
    opened.close().await.unwrap();
    assert!(!server_dir.join("restoring").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_is_moved_aside_and_its_revisions_never_come_again() {
    let place = Place::new(Arc::new(MemoryStore::new()));
    fill(&*place.source.store, 5).await;
    let saved = place.save().await;
    let server_dir = place.dir.path();
    let old = SqliteStore::open(&server_dir.join(SQLITE_FILE)).unwrap();
    let ahead = REVISIONS_SKIPPED * 3;
    old.restore(Box::pin(futures::stream::empty()), ahead).await.unwrap();
    write(&old, "/core/configmaps/default/old", Expect::Absent, Some("old")).await;
    old.close().await.unwrap();
    let old_keys = tree(&server_dir.join("tls"));

    let restored = restore(restoring(&saved.path, server_dir)).await.unwrap();
    assert!(restored.revision > ahead + REVISIONS_SKIPPED);
    let before = restored.before.unwrap();
    let kept = SqliteStore::open(&before.join(SQLITE_FILE)).unwrap();
    assert_eq!(pairs_at(&kept, None).await.len(), 1);
    assert_eq!(tree(&before.join("tls")).len(), old_keys.len());
    let opened = SqliteStore::open(&server_dir.join(SQLITE_FILE)).unwrap();
    assert_eq!(pairs_at(&opened, None).await.len(), 5);
    opened.close().await.unwrap();
    assert!(saved.path.exists(), "snapshots stay where they are");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_interrupted_goes_on_from_anywhere() {
    let moves = |dir: &Path| {
        let (aside, new) = (dir.join("before-restore-7"), dir.join("restoring"));
        fs::create_dir_all(&aside).unwrap();
        let mut moves = Vec::new();
        moves.push((dir.join("state.db-wal"), aside.join("state.db-wal")));
        for name in ["state.db", "tls", "token"] {
            moves.push((dir.join(name), aside.join(name)));
            moves.push((new.join(name), dir.join(name)));
        }
        moves
    };
    for done in 0..=7 {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in ["state.db", "state.db-wal", "tls/server-ca.crt", "token"] {
            put(name, "old");
        }
        for name in ["state.db", "tls/server-ca.crt", "token"] {
            put(&format!("restoring/{name}"), "new");
        }
        put("restoring/whole", "before-restore-7");
        for (from, to) in moves(dir.path()).into_iter().take(done) {
            fs::rename(from, to).unwrap();
        }
        finish_interrupted(dir.path()).unwrap();
        finish_interrupted(dir.path()).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        for name in ["state.db", "tls/server-ca.crt", "token"] {
            assert_eq!(read(name).as_deref(), Some("new"), "{name} after {done} moves");
            assert_eq!(read(&format!("before-restore-7/{name}")).as_deref(), Some("old"), "{name} after {done}");
        }
        assert_eq!(read("state.db-wal"), None, "the old log does not meet the new file");
        assert!(!dir.path().join("restoring").exists());
    }
}

#[test]
fn a_restore_that_was_not_whole_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), "old").unwrap();
    fs::create_dir(dir.path().join("restoring")).unwrap();
    fs::write(dir.path().join("restoring/token"), "new").unwrap();
    finish_interrupted(dir.path()).unwrap();
    assert_eq!(tree(dir.path()), [(dir.path().join("token"), b"old".to_vec())]);
    finish_interrupted(&dir.path().join("none")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_altered_or_with_a_wrong_token_it_is_refused_and_nothing_is_touched() {
    let place = Place::new(Arc::new(MemoryStore::new()));
    // Random enough that compression leaves several chunks.
    let mut number = 1_u64;
    for i in 0..60 {
        let mut digits = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{number:016x}")
        };
        let value: String = (0..300).map(|_| digits()).collect();
        write(&*place.source.store, &format!("/core/secrets/default/{i:02}"), Expect::Absent, Some(&value)).await;
    }
    let saved = place.save().await;
    let whole = fs::read(&saved.path).unwrap();
    assert!(whole.len() > BLOCK_BYTES + (128 << 10), "{} bytes", whole.len());
    let server_dir = tempfile::tempdir().unwrap();
    fs::write(server_dir.path().join("token"), "what is there").unwrap();
    let before = tree(server_dir.path());
    let bad = place.dir.path().join("bad.snapshot");

    let chunk = (64 << 10) + 16;
    let boundaries = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 48, BLOCK_BYTES + 48 + chunk, whole.len() - 1];
    let sampled = (0..whole.len()).step_by(9_973);
    for end in boundaries.into_iter().chain(sampled) {
        fs::write(&bad, &whole[..end]).unwrap();
        assert!(restore(restoring(&bad, server_dir.path())).await.is_err(), "{end} bytes of {}", whole.len());
        let noticed = file::glance(&bad).map(|(_, whole)| whole).unwrap_or_default();
        assert!(!noticed && status(&bad).is_err(), "without the token, {end} bytes");
    }
    fs::write(&bad, [&whole[..], b"\n"].concat()).unwrap();
    assert!(restore(restoring(&bad, server_dir.path())).await.is_err(), "something put on");
    let iterations = BLOCK_BYTES + 12..BLOCK_BYTES + 16;
    let everywhere = (0..whole.len()).step_by(4_001).chain((0..BLOCK_BYTES + 64).step_by(41));
    for at in everywhere.filter(|at| !iterations.contains(at)) {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        fs::write(&bad, &altered).unwrap();
        assert!(restore(restoring(&bad, server_dir.path())).await.is_err(), "byte {at}");
    }
    let wrong = RestoreRequest { token: Token::parse("wrong").unwrap(), ..restoring(&saved.path, server_dir.path()) };
    let said = explain(&restore(wrong).await.unwrap_err());
    assert!(said.contains("sealed with another token") && said.contains("--token"), "{said}");
    assert_eq!(tree(server_dir.path()), before);
    restore(restoring(&saved.path, server_dir.path())).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_written() {
    let place = Place::new(Arc::new(MemoryStore::new()));
    fill(&*place.source.store, 50).await;
    let request = place.request();
    fs::create_dir_all(&request.folder).unwrap();
    // Whatever is written there finds no space.
    let path = folder::new_path(&request.folder, &request.name, &request.node, request.created);
    std::os::unix::fs::symlink("/dev/full", part_path(&path)).unwrap();
    let error = save(&place.source, &request).await.unwrap_err();
    assert!(error.is_full(), "{}", explain(&error));
    assert_eq!(fs::read_dir(&request.folder).unwrap().count(), 0);
    place.save().await;
}

#[tokio::test]
async fn a_datastore_that_fails_leaves_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join(SQLITE_FILE)).unwrap());
    store.close().await.unwrap();
    let place = Place::new(store);
    let said = explain(&save(&place.source, &place.request()).await.unwrap_err());
    assert!(said.starts_with("reading the datastore: "), "{said}");
    assert_eq!(fs::read_dir(place.request().folder).unwrap().count(), 0);
    let misnamed = Request { name: "../x".to_owned(), ..place.request() };
    assert!(matches!(save(&place.source, &misnamed).await, Err(SnapshotError::Name { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_the_authorities_is_not_restored() {
    let place = Place::new(Arc::new(MemoryStore::new()));
    fs::remove_file(place.dir.path().join("tls/server-ca.crt")).unwrap();
    let saved = place.save().await;
    let new = tempfile::tempdir().unwrap();
    let said = explain(&restore(restoring(&saved.path, new.path())).await.unwrap_err());
    assert!(said.contains("server-ca.crt"), "{said}");
    finish_interrupted(new.path()).unwrap();
    assert_eq!(tree(new.path()), []);
}

#[tokio::test]
async fn prune_keeps_the_newest_of_each_name() {
    let place = Place::new(Arc::new(MemoryStore::new()));
    let mut paths = Vec::new();
    for (name, seconds) in [("scheduled", 10), ("scheduled", 20), ("on-demand", 5), ("scheduled", 30)] {
        let created = Timestamp::from_second(seconds).unwrap();
        let request = Request { name: name.to_owned(), created, ..place.request() };
        paths.push(save(&place.source, &request).await.unwrap().path);
    }
    let folder = place.request().folder;
    let whole = fs::read(&paths[3]).unwrap();
    fs::write(&paths[3], &whole[..whole.len() - 1]).unwrap();
    let removed = folder::prune(&folder, None, None, 1).unwrap();
    assert_eq!(removed.iter().map(|one| &one.path).collect::<Vec<_>>(), [&paths[0]]);
    let left: Vec<_> = folder::list(&folder).unwrap().into_iter().map(|one| one.path).collect();
    assert_eq!(left, [&paths[3], &paths[1], &paths[2]].map(Clone::clone), "a damaged one displaces nothing");
}

#[tokio::test]
async fn there_are_never_two_at_once() {
    let place = Place::new(Arc::new(MemoryStore::new()));
    let config = service::Config {
        folder: place.request().folder,
        schedule: String::new(),
        retention: 1,
        node: "n1".to_owned(),
    };
    let token = Live::new(Token::parse(SECRET).unwrap());
    let snapshots =
        service::Snapshots::new(place.source.clone(), token.clone(), config.clone(), Arc::new(now)).unwrap();
    let turn = snapshots.hold_turn().await;
    assert!(matches!(snapshots.save("on-demand").await, Err(SnapshotError::Busy)));
    drop(turn);
    snapshots.save("on-demand").await.unwrap();

    let wrong = service::Config { schedule: "every day".to_owned(), ..config };
    let said = service::Snapshots::new(place.source.clone(), token, wrong, Arc::new(now)).err().unwrap().to_string();
    assert!(said.contains("--snapshot-schedule-cron") && said.contains("exactly 5 fields"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn the_schedule_saves_each_time_once_and_keeps_the_newest() {
    let place = Place::new(Arc::new(MemoryStore::new()));
    let folder = place.request().folder;
    let config = service::Config {
        folder: folder.clone(),
        schedule: "* * * * *".to_owned(),
        retention: 2,
        node: "n1".to_owned(),
    };
    let began = tokio::time::Instant::now();
    let clock = move || now() + jiff::SignedDuration::try_from(began.elapsed()).unwrap();
    let token = Live::new(Token::parse(SECRET).unwrap());
    let snapshots = service::Snapshots::new(place.source.clone(), token, config, Arc::new(clock)).unwrap();
    let (api, cancel) = (FakeApi::new(), CancellationToken::new());
    let recorder = EventRecorder::new(api.client(), "test", "n1", cancel.child_token());
    let following = tokio::spawn(snapshots.follow_schedule(recorder, cancel.child_token()));
    let created = || {
        let list = folder::list(&folder).unwrap().into_iter();
        list.map(|one| one.header.unwrap().0.created.to_string()).collect::<Vec<_>>()
    };
    let wanted = ["2026-11-27T03:33:00Z", "2026-11-27T03:32:00Z"];
    // Time is not that of the wall: it passes when nothing else is to be done.
    while created() != wanted {
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(clock() < now() + jiff::SignedDuration::from_mins(60), "{:?}", created());
    }
    cancel.cancel();
    following.await.unwrap();
}

/// A small snapshot, for what alters it.
fn small() -> &'static [u8] {
    static SMALL: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SMALL.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let place = Place::new(Arc::new(MemoryStore::new()));
            fill(&*place.source.store, 3).await;
            fs::read(place.save().await.path).unwrap()
        })
    })
}

fn read_anyhow(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let _ = (file::glance(file.path()), status(file.path()), verify(file.path(), SECRET));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_file_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6_000)) {
        read_anyhow(&bytes);
        read_anyhow(&[&small()[..BLOCK_BYTES], &bytes].concat());
        read_anyhow(&[&small()[..BLOCK_BYTES + 48], &bytes].concat());
    }

    #[test]
    fn an_altered_file_is_read_without_panic(at in any::<usize>(), byte in any::<u8>(), cut in any::<usize>()) {
        let mut bytes = small().to_vec();
        let at = at % bytes.len();
        // How often to stretch is limited, see the seal's own tests; the limit alone takes seconds.
        if !(BLOCK_BYTES + 12..BLOCK_BYTES + 16).contains(&at) {
            bytes[at] = byte;
        }
        let end = if cut % 2 == 0 { bytes.len() } else { cut % bytes.len() };
        read_anyhow(&bytes[..end]);
    }
}
