//! Random histories on the file and in memory come to the same; random keys and values come back as they were; random
//! damage to the file is an error at most.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use proptest::{collection::vec, prelude::*, sample::select};
use skiff_api::kinds::Durability;
use skiff_store::{
    Expect, MemoryStore, RangeOptions, Revision, SqliteStore, Store, StoreError, Write, WriteOutcome,
    cache::{Cacher, ListQuery},
    sqlite::SqliteOptions,
};

/// Few keys, so that they meet; some are prefixes of others.
const KEYS: [&str; 6] = ["/g/r/a", "/g/r/a-b", "/g/r/a/b", "/g/r/b", "/g/rr/a", "/h/r/ä"];

const PREFIXES: [&str; 5] = ["", "/g/r/", "/g/r/a", "/g/rr/", "/none/"];

/// One step of a history. What is a part of something is in parts of 256.
#[derive(Clone, Debug)]
enum Step {
    /// Creates, updates or deletes, as the expectation of a newest or an older state allows.
    Write {
        key: &'static str,
        stale: bool,
        value: Option<Vec<u8>>,
        heartbeat: bool,
    },
    Range {
        prefix: &'static str,
        at: Option<u8>,
        limit: usize,
        after: Option<&'static str>,
        count: bool,
    },
    Watch {
        after: u8,
    },
    Compact {
        before: u8,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![Just(None), vec(any::<u8>(), 0..20).prop_map(Some), Just(Some(vec![7; 6_000]))];
    let write = (select(&KEYS[..]), prop::bool::weighted(0.1), value, any::<bool>())
        .prop_map(|(key, stale, value, heartbeat)| Step::Write { key, stale, value, heartbeat });
    let at = prop_oneof![Just(None), any::<u8>().prop_map(Some)];
    let after = prop_oneof![Just(None), select(&KEYS[..]).prop_map(Some)];
    let range = (select(&PREFIXES[..]), at, 0_usize..4, after, any::<bool>())
        .prop_map(|(prefix, at, limit, after, count)| Step::Range { prefix, at, limit, after, count });
    let step = prop_oneof![
        12 => write,
        6 => range,
        2 => any::<u8>().prop_map(|after| Step::Watch { after }),
        1 => (0_u8..128).prop_map(|before| Step::Compact { before }),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..60)
}

fn part(of: Revision, part: u8) -> Revision {
    of * u64::from(part) / 255
}

/// A store's answer to a step, as text: what one store says the other must say too.
async fn answer(store: &dyn Store, step: &Step) -> String {
    let newest = store.revision().await.unwrap();
    match step {
        Step::Write { key, stale, value, heartbeat } => {
            let there = store.get(key).await.unwrap();
            let expect = there.as_ref().map_or(Expect::Absent, |pair| Expect::At(pair.mod_revision));
            let expect = if *stale { Expect::At(newest / 2) } else { expect };
            let durability = if *heartbeat { Durability::Heartbeat } else { Durability::Synced };
            let value = value.clone().map(Bytes::from);
            let write = Write { key: (*key).to_owned(), expect, value, durability };
            format!("{there:?} {:?}", store.write(write).await)
        }
        Step::Range { prefix, at, limit, after, count } => {
            let revision = at.map(|at| part(newest, at));
            let start_after = after.map(str::to_owned);
            let options = RangeOptions { revision, limit: *limit, start_after, count: *count };
            format!("{:?}", store.range(prefix, options).await)
        }
        Step::Watch { after } => {
            let after = part(newest, *after);
            let mut events = Vec::new();
            let mut watch = match store.watch(after).await {
                Ok(watch) => watch,
                Err(error) => return error.to_string(),
            };
            while events.len() < usize::try_from(newest - after).unwrap() {
                let batch = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap();
                events.extend(batch.unwrap());
            }
            format!("{events:?}")
        }
        Step::Compact { before } => format!("{:?}", store.compact(part(newest, *before)).await),
        Step::Reopen => String::new(),
    }
}

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    // Housekeeping and checkpoints come in between.
    let options = SqliteOptions {
        heartbeat_delay: Duration::from_millis(20),
        renewal_delay: Duration::from_millis(40),
        checkpoint_bytes: 32 << 10,
        ..SqliteOptions::default()
    };
    SqliteStore::open_with(path, options)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

async fn compare(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let memory = MemoryStore::new();
    let mut sqlite = open(&path).unwrap();
    for step in steps {
        if matches!(step, Step::Reopen) {
            sqlite.close().await.unwrap();
            sqlite = open(&path).unwrap();
        }
        prop_assert_eq!(answer(&sqlite, &step).await, answer(&memory, &step).await, "{:?}", step);
    }
    sqlite.close().await.unwrap();
    Ok(())
}

/// Writes any key with any value, and reads it back before and after a restart.
async fn write_and_read(pairs: Vec<(String, Vec<u8>)>) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for (key, value) in pairs {
        let expect = expected.get(&key).map_or(Expect::Absent, |(revision, _)| Expect::At(*revision));
        let bytes = Some(value.clone().into());
        let write = Write { key: key.clone(), expect, value: bytes, durability: Durability::Synced };
        let WriteOutcome::Done(revision) = store.write(write).await.unwrap() else { panic!("nobody else writes") };
        expected.insert(key, (revision, value));
    }
    store.close().await.unwrap();
    let store = open(&path).unwrap();
    let range = store.range("", RangeOptions::default()).await.unwrap();
    let found: Vec<_> = range.items.iter().map(|pair| (&pair.key, pair.mod_revision, &pair.value[..])).collect();
    let wanted: Vec<_> = expected.iter().map(|(key, (revision, value))| (key, *revision, &value[..])).collect();
    prop_assert_eq!(found, wanted);
    for key in expected.keys() {
        prop_assert!(store.get(key).await.unwrap().is_some());
        let after = RangeOptions { start_after: Some(key.clone()), ..RangeOptions::default() };
        let rest = store.range("", after).await.unwrap().items;
        prop_assert!(rest.iter().all(|pair| pair.key > *key), "{:?}", rest);
    }
    store.close().await.unwrap();
    Ok(())
}

/// What happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Cut { at: u16 },
    Overwrite { at: u16, bytes: Vec<u8> },
    Repeat { from: u16, to: u16 },
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop_oneof![vec(any::<u8>(), 1..64), Just(vec![0; 4_096]), Just(vec![0xff; 700])];
    prop_oneof![
        1 => any::<u16>().prop_map(|at| Damage::Cut { at }),
        6 => (any::<u16>(), bytes).prop_map(|(at, bytes)| Damage::Overwrite { at, bytes }),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(from, to)| Damage::Repeat { from, to }),
    ]
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) * file.len() / (usize::from(u16::MAX) + 1);
        match self {
            Self::Cut { at } => file.truncate(place(*at)),
            Self::Overwrite { at, bytes } => {
                let at = place(*at);
                let end = file.len().min(at + bytes.len());
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
            Self::Repeat { from, to } => {
                // A page where another should be.
                let (from, to) = (place(*from) / 4_096 * 4_096, place(*to) / 4_096 * 4_096);
                let end = file.len().min(from + 4_096);
                let last = file.len() - (end - from);
                file.copy_within(from..end, to.min(last));
            }
        }
    }
}

/// A file with a history, and its write-ahead log as a power loss leaves it.
async fn sound_files() -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path).unwrap();
    for i in 0..60 {
        let key = format!("/core/pods/default/{}", i % 25);
        let there = store.get(&key).await.unwrap();
        let expect = there.map_or(Expect::Absent, |pair| Expect::At(pair.mod_revision));
        let name = i % 25;
        let value = format!(r#"{{"metadata":{{"name":"{name}","namespace":"default","labels":{{"n":"{i}"}}}}}}"#);
        let value = (i % 7 != 6).then(|| value.into());
        store.write(Write { key, expect, value, durability: Durability::Synced }).await.unwrap();
    }
    let files = [path.clone(), folder.path().join("state.db-wal")].map(|file| std::fs::read(file).unwrap());
    store.close().await.unwrap();
    files
}

/// Does everything that a store can be asked; any error will do.
async fn use_damaged(path: &Path) {
    let Ok(store) = open(path) else { return };
    let store = std::sync::Arc::new(store);
    let newest = store.revision().await.unwrap_or_default();
    for revision in [None, Some(newest / 2), Some(newest)] {
        let options = RangeOptions { revision, limit: 3, count: true, ..RangeOptions::default() };
        let _any = store.range("/", options).await;
    }
    let _any = store.get("/core/pods/default/7").await;
    if let Ok(mut watch) = store.watch(newest.saturating_sub(20)).await
        && newest > 0
    {
        let _any = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    }
    let kind = skiff_api::kinds::StorageKey { group: "core".to_owned(), resource: "pods".to_owned() };
    if let Ok(cache) = Cacher::start(std::sync::Arc::clone(&store) as _, |_| Vec::new()).await {
        let _any = cache.list(&kind, &ListQuery::default()).await;
    }
    for expect in [Expect::Absent, Expect::At(newest)] {
        let write = Write { key: "/x".to_owned(), expect, value: Some("x".into()), durability: Durability::Synced };
        let _any = store.write(write).await;
    }
    let _any = store.compact(newest / 2).await;
    let _any = store.size_bytes().await;
    let _any = store.health().await;
    let _any = store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_the_same_on_the_file_and_in_memory(steps in steps()) {
        run(compare(steps))?;
    }

    #[test]
    fn any_key_and_value_come_back(pairs in vec((any::<String>(), vec(any::<u8>(), 0..200)), 1..20)) {
        run(write_and_read(pairs))?;
    }
}

/// How many panics there were, in whatever thread.
static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        report(panic);
    }));
    let sound = run(sound_files());
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(damages in vec((0_usize..2, damage()), 1..6), with_log in any::<bool>())| {
        let mut files = sound.clone();
        damages.iter().for_each(|(file, damage)| damage.apply(&mut files[*file]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(&path, &files[0]).unwrap();
        if with_log {
            std::fs::write(folder.path().join("state.db-wal"), &files[1]).unwrap();
        }
        run(use_damaged(&path));
        prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    });
}
