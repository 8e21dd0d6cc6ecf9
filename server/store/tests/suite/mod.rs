//! What every store must do, one function a behaviour.

mod more;
mod restore;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use skiff_api::kinds::Durability;
use skiff_store::{
    EtcdStore, Event, EventStream, Expect, KeyValue, MemoryStore, Range, RangeOptions, Revision, SqliteStore, Store,
    StoreError, Write, WriteOutcome, etcd::EtcdOptions, sqlite::SqliteOptions,
};

use crate::etcd_server::Etcd;
pub use more::*;
pub use restore::*;

/// A store, and where it lives.
pub struct Place {
    pub store: Arc<dyn Store>,
    _folder: Option<tempfile::TempDir>,
    _etcd: Option<Etcd>,
}

impl Place {
    pub fn memory() -> Self {
        Self { store: Arc::new(MemoryStore::new()), _folder: None, _etcd: None }
    }

    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions { heartbeat_delay: Duration::from_millis(200), ..SqliteOptions::default() };
        let store = SqliteStore::open_with(&folder.path().join("state.db"), options).unwrap();
        Self { store: Arc::new(store), _folder: Some(folder), _etcd: None }
    }
}

impl Place {
    pub async fn etcd() -> Self {
        let etcd = Etcd::start();
        let store = EtcdStore::open(EtcdOptions::new(vec![etcd.url()])).await.unwrap();
        Self { store: Arc::new(store), _folder: None, _etcd: Some(etcd) }
    }
}

pub fn synced(key: &str, expect: Expect, value: Option<&str>) -> Write {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    Write { key: key.to_owned(), expect, value, durability: Durability::Synced }
}

pub async fn put(store: &dyn Store, key: &str, expect: Expect, value: &str) -> Revision {
    done(store.write(synced(key, expect, Some(value))).await)
}

pub async fn create(store: &dyn Store, key: &str, value: &str) -> Revision {
    put(store, key, Expect::Absent, value).await
}

pub async fn delete(store: &dyn Store, key: &str, at: Revision) -> Revision {
    done(store.write(synced(key, Expect::At(at), None)).await)
}

pub async fn beat(store: &dyn Store, key: &str, expect: Expect, value: Option<&str>) -> Revision {
    done(store.write(Write { durability: Durability::Heartbeat, ..synced(key, expect, value) }).await)
}

pub fn done(outcome: Result<WriteOutcome, StoreError>) -> Revision {
    match outcome {
        Ok(WriteOutcome::Done(revision)) => revision,
        other => panic!("the write was not done: {other:?}"),
    }
}

pub fn keys(range: &Range) -> Vec<&str> {
    range.items.iter().map(|pair| pair.key.as_str()).collect()
}

/// The next `count` events.
pub async fn take(stream: &mut EventStream, count: usize) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
        events.extend(batch.expect("no event came").expect("the watch ended").unwrap());
    }
    assert_eq!(events.len(), count);
    events
}

async fn range(store: &dyn Store, prefix: &str, options: RangeOptions) -> Range {
    store.range(prefix, options).await.unwrap()
}

pub async fn create_gives_growing_revisions(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let second = create(store, "/g/r/b", "2").await;
    assert!(second > first);
    let pair = store.get("/g/r/a").await.unwrap().unwrap();
    let value = Bytes::from_static(b"1");
    assert_eq!(pair, KeyValue { key: "/g/r/a".to_owned(), value, create_revision: first, mod_revision: first });
    assert_eq!(store.revision().await.unwrap(), second);
}

pub async fn create_of_what_is_there_is_refused_with_it(place: &Place) {
    let store = &*place.store;
    create(store, "/g/r/a", "1").await;
    let there = store.get("/g/r/a").await.unwrap();
    let outcome = store.write(synced("/g/r/a", Expect::Absent, Some("2"))).await.unwrap();
    assert_eq!(outcome, WriteOutcome::Mismatch(there));
}

pub async fn get_of_what_is_not_there_is_none(place: &Place) {
    let store = &*place.store;
    create(store, "/g/r/ab", "1").await;
    assert_eq!(store.get("/g/r/a").await.unwrap(), None);
}

pub async fn update_needs_the_revision_it_expects(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let second = put(store, "/g/r/a", Expect::At(first), "2").await;
    let stale = store.write(synced("/g/r/a", Expect::At(first), Some("3"))).await.unwrap();
    let WriteOutcome::Mismatch(Some(there)) = stale else { panic!("{stale:?}") };
    assert_eq!((&there.value[..], there.create_revision, there.mod_revision), (&b"2"[..], first, second));
    let absent = store.write(synced("/g/r/b", Expect::At(first), Some("3"))).await.unwrap();
    assert_eq!(absent, WriteOutcome::Mismatch(None));
    assert_eq!(store.revision().await.unwrap(), second, "what is refused takes no revision");
}

pub async fn delete_needs_the_revision_it_expects(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let second = put(store, "/g/r/a", Expect::At(first), "2").await;
    let stale = store.write(synced("/g/r/a", Expect::At(first), None)).await.unwrap();
    assert!(matches!(stale, WriteOutcome::Mismatch(Some(there)) if there.mod_revision == second));
    delete(store, "/g/r/a", second).await;
    assert_eq!(store.get("/g/r/a").await.unwrap(), None);
    let again = store.write(synced("/g/r/a", Expect::At(second), None)).await.unwrap();
    assert_eq!(again, WriteOutcome::Mismatch(None));
}

pub async fn recreated_key_has_a_new_create_revision(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    delete(store, "/g/r/a", first).await;
    let second = create(store, "/g/r/a", "2").await;
    assert_eq!(store.get("/g/r/a").await.unwrap().unwrap().create_revision, second);
}

pub async fn one_of_many_swaps_wins(place: &Place) {
    let first = create(&*place.store, "/g/r/a", "0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..32 {
        let store = Arc::clone(&place.store);
        tasks.spawn(
            async move { store.write(synced("/g/r/a", Expect::At(first), Some(&i.to_string()))).await.unwrap() },
        );
    }
    let outcomes = tasks.join_all().await;
    let winners: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome, WriteOutcome::Done(_))).collect();
    assert_eq!(winners, [&WriteOutcome::Done(first + 1)]);
}

pub async fn range_has_only_the_prefix_in_order(place: &Place) {
    let store = &*place.store;
    for key in ["/g/r/b/x", "/g/r/a-b/x", "/g/r/a/x", "/g/r2/z", "/g/r"] {
        create(store, key, "v").await;
    }
    let found = range(store, "/g/r/", RangeOptions::default()).await;
    assert_eq!(keys(&found), ["/g/r/a-b/x", "/g/r/a/x", "/g/r/b/x"]);
    assert_eq!((found.revision, found.more), (5, false));
    assert_eq!(range(store, "", RangeOptions::default()).await.items.len(), 5);
    assert!(range(store, "/none/", RangeOptions::default()).await.items.is_empty());
}

pub async fn range_pages_cover_everything_once(place: &Place) {
    let store = &*place.store;
    for i in 0..10 {
        create(store, &format!("/g/r/{i}"), "v").await;
    }
    let mut options = RangeOptions { limit: 4, count: true, ..RangeOptions::default() };
    let mut seen = Vec::new();
    for (remaining, more) in [(6, true), (2, true), (0, false)] {
        let page = range(store, "/g/r/", options.clone()).await;
        assert_eq!((page.remaining, page.more), (Some(remaining), more));
        seen.extend(page.items.iter().map(|pair| pair.key.clone()));
        options.start_after = seen.last().cloned();
    }
    let expected: Vec<_> = (0..10).map(|i| format!("/g/r/{i}")).collect();
    assert_eq!(seen, expected);
}

pub async fn range_at_an_old_revision(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let second = create(store, "/g/r/b", "1").await;
    let third = put(store, "/g/r/a", Expect::At(first), "2").await;
    let fourth = delete(store, "/g/r/b", second).await;
    let fifth = create(store, "/g/r/b", "again").await;
    type Then<'a> = &'a [(&'a str, &'a str, Revision)];
    let expected: [(Revision, Then<'_>); 5] = [
        (first, &[("/g/r/a", "1", first)]),
        (second, &[("/g/r/a", "1", first), ("/g/r/b", "1", second)]),
        (third, &[("/g/r/a", "2", third), ("/g/r/b", "1", second)]),
        (fourth, &[("/g/r/a", "2", third)]),
        (fifth, &[("/g/r/a", "2", third), ("/g/r/b", "again", fifth)]),
    ];
    for (revision, pairs) in expected {
        let options = RangeOptions { revision: Some(revision), count: true, ..RangeOptions::default() };
        let then = range(store, "/g/r/", options).await;
        let text = |pair: &KeyValue| String::from_utf8(pair.value.to_vec()).unwrap();
        let found: Vec<_> = then.items.iter().map(|pair| (pair.key.as_str(), text(pair), pair.mod_revision)).collect();
        let pairs: Vec<_> = pairs.iter().map(|(key, value, revision)| (*key, (*value).to_owned(), *revision)).collect();
        assert_eq!((then.revision, found), (revision, pairs));
        let options = RangeOptions { revision: Some(revision), limit: 1, count: true, ..RangeOptions::default() };
        assert_eq!(range(store, "/g/r/", options).await.remaining, Some(then.items.len() - 1));
    }
}

pub async fn range_at_a_future_revision_is_refused(place: &Place) {
    let store = &*place.store;
    let newest = create(store, "/g/r/a", "1").await;
    let asked = newest + 1;
    let refused = store.range("/g/r/", RangeOptions { revision: Some(asked), ..RangeOptions::default() }).await;
    assert_eq!(refused.unwrap_err(), StoreError::Future { asked, newest });
}

pub async fn range_at_a_compacted_revision_is_refused(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let second = create(store, "/g/r/b", "1").await;
    create(store, "/g/r/c", "1").await;
    store.compact(second).await.unwrap();
    let at = |revision| RangeOptions { revision: Some(revision), ..RangeOptions::default() };
    let refused = store.range("/g/r/", at(first)).await.unwrap_err();
    assert_eq!(refused, StoreError::Compacted { asked: first, oldest: second });
    assert_eq!(range(store, "/g/r/", at(second)).await.items.len(), 2, "the compacted revision itself is kept");
}

pub async fn paging_while_writing_is_consistent(place: &Place) {
    let store = Arc::clone(&place.store);
    for i in 0..50 {
        create(&*store, &format!("/g/r/{i:02}"), "old").await;
    }
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for i in 0..50 {
                let key = format!("/g/r/{i:02}");
                let there = store.get(&key).await.unwrap().unwrap().mod_revision;
                match i % 3 {
                    0 => drop(delete(&*store, &key, there).await),
                    1 => drop(put(&*store, &key, Expect::At(there), "new").await),
                    _ => drop(create(&*store, &format!("{key}-more"), "new").await),
                }
            }
        }
    });
    let mut options = RangeOptions { limit: 7, revision: Some(50), ..RangeOptions::default() };
    let mut seen = Vec::new();
    loop {
        let page = range(&*store, "/g/r/", options.clone()).await;
        assert_eq!(page.revision, 50);
        seen.extend(page.items);
        if !page.more {
            break;
        }
        options.start_after = seen.last().map(|pair| pair.key.clone());
    }
    writer.await.unwrap();
    assert_eq!(seen.len(), 50);
    assert!(seen.iter().all(|pair| &pair.value[..] == b"old"));
}

pub async fn watch_from_now_sees_each_change(place: &Place) {
    let store = &*place.store;
    create(store, "/g/r/before", "0").await;
    let mut watch = store.watch(store.revision().await.unwrap()).await.unwrap();
    let first = create(store, "/g/r/a", "1").await;
    let second = put(store, "/g/r/a", Expect::At(first), "2").await;
    let events = take(&mut watch, 2).await;
    assert_eq!((events[0].revision, events[0].value.as_deref(), &events[0].previous), (first, Some(&b"1"[..]), &None));
    assert_eq!((events[1].revision, events[1].value.as_deref()), (second, Some(&b"2"[..])));
    let previous = events[1].previous.as_ref().unwrap();
    assert_eq!((&previous.value[..], previous.mod_revision), (&b"1"[..], first));
}

pub async fn watch_from_an_old_revision_sees_what_came_since(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let second = put(store, "/g/r/a", Expect::At(first), "2").await;
    let third = delete(store, "/g/r/a", second).await;
    for (after, expected) in [(0, vec![first, second, third]), (first, vec![second, third]), (second, vec![third])] {
        let mut watch = store.watch(after).await.unwrap();
        let events = take(&mut watch, expected.len()).await;
        assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), expected);
    }
}

pub async fn watch_from_a_future_revision_is_refused(place: &Place) {
    let store = &*place.store;
    let newest = create(store, "/g/r/a", "1").await;
    let refused = store.watch(newest + 7).await.err();
    assert_eq!(refused, Some(StoreError::Future { asked: newest + 7, newest }));
}

pub async fn watch_from_a_compacted_revision_is_refused(place: &Place) {
    let store = &*place.store;
    for key in ["/g/r/a", "/g/r/b", "/g/r/c"] {
        create(store, key, "1").await;
    }
    store.compact(2).await.unwrap();
    assert_eq!(store.watch(1).await.err(), Some(StoreError::Compacted { asked: 1, oldest: 2 }));
    let mut watch = store.watch(2).await.unwrap();
    assert_eq!(take(&mut watch, 1).await[0].revision, 3);
    assert_eq!(store.compact(9).await, Err(StoreError::Future { asked: 9, newest: 3 }));
}

pub async fn watch_of_a_delete_has_the_last_object(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "last").await;
    let second = delete(store, "/g/r/a", first).await;
    let mut watch = store.watch(first).await.unwrap();
    let events = take(&mut watch, 1).await;
    let previous = events[0].previous.clone().unwrap();
    assert_eq!((events[0].revision, &events[0].value), (second, &None));
    assert_eq!((&previous.value[..], previous.mod_revision), (&b"last"[..], first));
}

pub async fn watch_has_no_gap_under_concurrent_writers(place: &Place) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 60;
    let mut watch = place.store.watch(0).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&place.store);
        tasks.spawn(async move {
            for i in 0..EACH {
                let key = format!("/g/r/{writer}-{i}");
                match (writer + i) % 2 {
                    0 => create(&*store, &key, "v").await,
                    _ => beat(&*store, &key, Expect::Absent, Some("v")).await,
                };
            }
        });
    }
    let live = take(&mut watch, usize::try_from(WRITERS * EACH).unwrap()).await;
    tasks.join_all().await;
    let revisions: Vec<_> = live.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (1..=WRITERS * EACH).collect::<Vec<_>>());
    let again = take(&mut place.store.watch(0).await.unwrap(), live.len()).await;
    assert_eq!(again, live);
}

pub async fn slow_watcher_misses_nothing(place: &Place) {
    const COUNT: usize = 1_500;
    let mut watch = place.store.watch(0).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let value = "x".repeat(1_500);
    for writer in 0..30 {
        let (store, value) = (Arc::clone(&place.store), value.clone());
        tasks.spawn(async move {
            let mut at = create(&*store, &format!("/g/r/{writer}"), "first").await;
            for _ in 1..COUNT / 30 {
                at = put(&*store, &format!("/g/r/{writer}"), Expect::At(at), &value).await;
            }
        });
    }
    tasks.join_all().await;
    let events = take(&mut watch, COUNT).await;
    assert!(events.iter().zip(1..).all(|(event, revision)| event.revision == revision));
    let size = |event: &Arc<Event>| event.value.as_ref().unwrap().len();
    assert!(events.iter().all(|event| size(event) == if event.previous.is_some() { 1_500 } else { 5 }));
}

pub async fn heartbeats_are_seen_at_once(place: &Place) {
    let store = &*place.store;
    let mut watch = store.watch(0).await.unwrap();
    let first = beat(store, "/g/leases/a", Expect::Absent, Some("1")).await;
    let second = beat(store, "/g/leases/a", Expect::At(first), Some("2")).await;
    let there = store.get("/g/leases/a").await.unwrap().unwrap();
    assert_eq!((&there.value[..], there.create_revision, there.mod_revision), (&b"2"[..], first, second));
    assert_eq!(keys(&range(store, "/g/leases/", RangeOptions::default()).await), ["/g/leases/a"]);
    let then = range(store, "/g/leases/", RangeOptions { revision: Some(first), ..RangeOptions::default() }).await;
    assert_eq!((&then.items[0].value[..], then.items[0].mod_revision), (&b"1"[..], first));
    assert_eq!(take(&mut watch, 2).await[1].revision, second);
    let stale = Write { durability: Durability::Heartbeat, ..synced("/g/leases/a", Expect::At(first), Some("3")) };
    assert_eq!(store.write(stale).await.unwrap(), WriteOutcome::Mismatch(Some(there)));
    let third = beat(store, "/g/leases/a", Expect::At(second), None).await;
    assert_eq!(store.get("/g/leases/a").await.unwrap(), None);
    assert_eq!(take(&mut watch, 1).await[0].revision, third);
}

pub async fn heartbeats_and_synced_writes_share_one_order(place: &Place) {
    let store = &*place.store;
    let first = beat(store, "/g/leases/a", Expect::Absent, Some("1")).await;
    let second = create(store, "/g/r/a", "1").await;
    let third = beat(store, "/g/leases/a", Expect::At(first), Some("2")).await;
    let fourth = put(store, "/g/leases/a", Expect::At(third), "synced").await;
    assert_eq!([first, second, third, fourth], [1, 2, 3, 4]);
    assert_eq!(store.get("/g/leases/a").await.unwrap().unwrap().create_revision, first);
    let mut watch = store.watch(first).await.unwrap();
    let events = take(&mut watch, 3).await;
    assert_eq!(events[1].previous.as_ref().unwrap().mod_revision, first);
}

pub async fn heartbeats_show_in_pages_and_counts(place: &Place) {
    let store = &*place.store;
    let at = create(store, "/g/r/a", "v").await;
    create(store, "/g/r/b", "v").await;
    create(store, "/g/r/d", "v").await;
    beat(store, "/g/r/a", Expect::At(at), None).await;
    let c = beat(store, "/g/r/c", Expect::Absent, Some("v")).await;
    beat(store, "/g/r/e", Expect::Absent, Some("v")).await;
    beat(store, "/g/r/c", Expect::At(c), Some("w")).await;
    let mut options = RangeOptions { limit: 2, count: true, ..RangeOptions::default() };
    let page = range(store, "/g/r/", options.clone()).await;
    assert_eq!((keys(&page), page.remaining), (vec!["/g/r/b", "/g/r/c"], Some(2)));
    options.start_after = Some("/g/r/c".to_owned());
    let page = range(store, "/g/r/", options).await;
    assert_eq!((keys(&page), page.remaining, page.more), (vec!["/g/r/d", "/g/r/e"], Some(0), false));
}

pub async fn compaction_keeps_what_is_current(place: &Place) {
    let store = &*place.store;
    let mut at = create(store, "/g/r/a", "0").await;
    create(store, "/g/r/b", "kept").await;
    for i in 1..40 {
        at = put(store, "/g/r/a", Expect::At(at), &i.to_string()).await;
    }
    store.compact(at).await.unwrap();
    store.compact(2).await.unwrap();
    let now = range(store, "/g/r/", RangeOptions::default()).await;
    assert_eq!((now.items.len(), &now.items[0].value[..], now.revision), (2, &b"39"[..], at));
    let mut watch = store.watch(at).await.unwrap();
    let next = put(store, "/g/r/a", Expect::At(at), "40").await;
    assert_eq!(take(&mut watch, 1).await[0].previous.as_ref().unwrap().mod_revision, at);
    assert_eq!(next, at + 1);
}

pub async fn size_grows_with_content(place: &Place) {
    let store = &*place.store;
    let before = store.size_bytes().await.unwrap();
    create(store, "/g/r/a", &"x".repeat(100_000)).await;
    // etcd counts what it writes some moments later.
    let grown = async {
        while store.size_bytes().await.unwrap() < before + 100_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), grown).await.expect("the size does not grow");
    store.health().await.unwrap();
}

pub async fn close_ends_watches_and_refuses_writes(place: &Place) {
    let store = &*place.store;
    create(store, "/g/r/a", "1").await;
    let mut watch = store.watch(1).await.unwrap();
    store.close().await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
    assert!(end.is_none());
    let refused = store.write(synced("/g/r/b", Expect::Absent, Some("1"))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    store.close().await.unwrap();
}
