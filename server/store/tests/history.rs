//! Random concurrent runs, each of which must be explicable as one after the other: linearizability of the
//! compare-and-swap register, on every implementation, and on etcd while its members are killed and frozen.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod etcd_server;
mod linearizable;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use etcd_server::{Etcd, Etcds};
use futures::{StreamExt, future};
use linearizable::{Action, Done, History, Op, Outcome, Pair};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use skiff_api::kinds::Durability;
use skiff_store::{
    EtcdStore, Event, Expect, KeyValue, MemoryStore, Revision, SqliteStore, Store, StoreError, Write, WriteOutcome,
    etcd::EtcdOptions,
};

const SEEDS: [u64; 2] = [1, 0x5eed];
const KEYS: u64 = 3;
const CLIENTS: u64 = 6;

/// How many steps of a client are one run without faults.
const STEPS: usize = 60;

/// How many there may be with faults, so that the search for an order has a bound.
const MAX_STEPS: usize = 20_000;

/// What the clients of a run share.
#[derive(Default)]
struct Run {
    clock: AtomicU64,
    values: AtomicU64,
    /// Acknowledged writes.
    done: AtomicU64,
    /// Whether the clients are to end.
    over: AtomicBool,
}

impl Run {
    /// Waits until clients have written again.
    async fn go_on(&self) {
        let enough = self.done.load(Ordering::SeqCst) + 40;
        let written = async {
            while self.done.load(Ordering::SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), written).await.expect("nothing is written any more");
    }
}

fn pair_of(there: &KeyValue) -> Pair {
    Pair { value: std::str::from_utf8(&there.value).unwrap().parse().unwrap(), revision: there.mod_revision }
}

/// What a client last knew of each key.
type Known = Vec<Option<Pair>>;

fn choose(random: &mut SmallRng, known: Option<Pair>, value: u64) -> Action {
    let expect = match known {
        _ if random.random_ratio(1, 10) => Expect::Absent,
        Some(pair) if random.random_ratio(9, 10) => Expect::At(pair.revision),
        Some(pair) => Expect::At(pair.revision.saturating_sub(1)),
        None => Expect::Absent,
    };
    match random.random_range(0..10) {
        0..4 => Action::Read,
        4 if expect != Expect::Absent => Action::Swap { expect, value: None },
        _ => Action::Swap { expect, value: Some(value) },
    }
}

async fn act(store: &dyn Store, key: &str, action: Action, durability: Durability) -> Outcome {
    match action {
        Action::Read => match store.get(key).await {
            Ok(there) => Outcome::Found(there.as_ref().map(pair_of)),
            Err(error) => unknown(&error),
        },
        Action::Swap { expect, value } => {
            let value = value.map(|value| Bytes::from(value.to_string()));
            match store.write(Write { key: key.to_owned(), expect, value, durability }).await {
                Ok(WriteOutcome::Done(revision)) => Outcome::Swapped(revision),
                Ok(WriteOutcome::Mismatch(there)) => Outcome::Found(there.as_ref().map(pair_of)),
                Err(error) => unknown(&error),
            }
        }
    }
}

/// The only error that there may be is one that says to try again.
fn unknown(error: &StoreError) -> Outcome {
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    Outcome::Unknown
}

async fn client(store: Arc<dyn Store>, run: Arc<Run>, seed: u64, pause: Option<Duration>) -> Vec<Op> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut known: Known = vec![None; usize::try_from(KEYS).unwrap()];
    let mut ops = Vec::new();
    while ops.len() < STEPS || (pause.is_some() && !run.over.load(Ordering::SeqCst) && ops.len() < MAX_STEPS) {
        let key = random.random_range(0..known.len());
        let action = choose(&mut random, known[key], run.values.fetch_add(1, Ordering::SeqCst));
        let durability = if random.random() { Durability::Synced } else { Durability::Heartbeat };
        let began = run.clock.fetch_add(1, Ordering::SeqCst);
        let outcome = act(&*store, &format!("/g/r/{key}"), action, durability).await;
        let ended = run.clock.fetch_add(1, Ordering::SeqCst);
        known[key] = match (action, outcome) {
            (_, Outcome::Found(there)) => there,
            (Action::Swap { value, .. }, Outcome::Swapped(revision)) => value.map(|value| Pair { value, revision }),
            _ => known[key],
        };
        if matches!(outcome, Outcome::Swapped(_)) {
            run.done.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        ops.push(Op { key, began, ended, action, outcome });
    }
    ops
}

/// Runs clients on one or more handles of the same store: for some steps, or, with a pause after each, until it is
/// over.
async fn run(stores: &[Arc<dyn Store>], seed: u64, run: Arc<Run>, pause: Option<Duration>) -> History {
    let clients = (0..CLIENTS).map(|number| {
        let store = Arc::clone(&stores[usize::try_from(number).unwrap() % stores.len()]);
        tokio::spawn(client(store, Arc::clone(&run), seed.wrapping_mul(31).wrapping_add(number), pause))
    });
    let ops = future::try_join_all(clients).await.unwrap();
    History { ops: ops.concat() }
}

/// Every change since the beginning, as a watcher is told it, until all of these revisions have come.
async fn watched(store: &dyn Store, newest: Revision) -> Vec<Arc<Event>> {
    let mut watch = store.watch(0).await.unwrap();
    let mut events: Vec<Arc<Event>> = Vec::new();
    while events.last().map_or(0, |event| event.revision) < newest {
        let batch = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
        events.extend(batch.expect("no event came").expect("the watch ended").unwrap());
    }
    events
}

/// The history can be put in order, and a watcher is told of the same writes in the order of their revisions.
async fn verify(history: &History, store: &dyn Store) {
    history.check().unwrap_or_else(|why| panic!("{why}"));
    let newest = store.revision().await.unwrap();
    let events = watched(store, newest).await;
    assert!(events.windows(2).all(|pair| pair[0].revision < pair[1].revision), "events are out of order");
    for done in history.done() {
        let Done { key, value, revision } = done;
        let at = events.binary_search_by_key(&revision, |event| event.revision).expect("an acknowledged write is lost");
        let value = value.map(|value| Bytes::from(value.to_string()));
        assert_eq!((events[at].key.as_str(), &events[at].value), (format!("/g/r/{key}").as_str(), &value));
    }
}

async fn calm(stores: &[Arc<dyn Store>], seed: u64) {
    let history = run(stores, seed, Arc::default(), None).await;
    assert!(history.ops.iter().all(|op| op.outcome != Outcome::Unknown), "nothing fails without a fault");
    assert!(history.done().count() > 20, "the run has writes");
    verify(&history, &*stores[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_linearizable() {
    for seed in SEEDS {
        calm(&[Arc::new(MemoryStore::new())], seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_linearizable() {
    for seed in SEEDS {
        let folder = tempfile::tempdir().unwrap();
        calm(&[Arc::new(SqliteStore::open(&folder.path().join("state.db")).unwrap())], seed).await;
    }
}

async fn open(urls: &[String]) -> Arc<dyn Store> {
    let mut options = EtcdOptions::new(urls.to_vec());
    (options.attempt, options.deadline) = (Duration::from_millis(700), Duration::from_secs(2));
    Arc::new(EtcdStore::open(options).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_linearizable_for_two_servers() {
    for seed in SEEDS {
        let etcd = Etcd::start();
        let urls = [etcd.url()];
        calm(&[open(&urls).await, open(&urls).await], seed).await;
    }
}

/// Kills, freezes and brings back members, one after the other, so that there is a majority again after each.
async fn faults(etcds: &mut Etcds, run: &Run, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for fault in 0..4 {
        run.go_on().await;
        let leader = etcds.leader().await;
        let hit = if random.random_ratio(2, 3) { leader } else { random.random_range(0..3) };
        let pause = Duration::from_millis(random.random_range(100..700));
        if fault % 2 == 0 {
            etcds.members[hit].kill();
            tokio::time::sleep(pause).await;
            etcds.members[hit].start();
        } else {
            // Two of three: no majority is left for a while.
            let (one, two) = (&etcds.members[hit], &etcds.members[(hit + 1) % 3]);
            one.freeze();
            two.freeze();
            tokio::time::sleep(pause).await;
            one.thaw();
            two.thaw();
        }
    }
    run.go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn three_etcds_are_linearizable_while_members_are_killed_and_frozen() {
    let mut etcds = Etcds::start();
    let mut turned = etcds.urls();
    turned.rotate_left(1);
    let stores = [open(&etcds.urls()).await, open(&turned).await];
    let shared = Arc::new(Run::default());
    let clients = tokio::spawn({
        let (stores, shared) = (stores.clone(), Arc::clone(&shared));
        async move { run(&stores, SEEDS[0], shared, Some(Duration::from_millis(3))).await }
    });
    faults(&mut etcds, &shared, SEEDS[1]).await;
    shared.over.store(true, Ordering::SeqCst);
    let history = clients.await.unwrap();
    verify(&history, &*stores[0]).await;
}
