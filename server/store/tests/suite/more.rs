//! Further behaviours that Kubernetes' own storage tests hold their stores to.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use skiff_api::kinds::Durability;
use skiff_store::{EventStream, Expect, RangeOptions, StoreError, Write, WriteOutcome};

use super::{Place, beat, create, delete, done, keys, put, synced, take};

/// What a stream gives next.
async fn next(stream: &mut EventStream) -> Option<Result<usize, StoreError>> {
    let batch = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.expect("nothing came");
    batch.map(|batch| batch.map(|events| events.len()))
}

pub async fn deleting_what_is_absent_changes_nothing(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    assert_eq!(store.write(synced("/g/r/b", Expect::Absent, None)).await.unwrap(), WriteOutcome::Mismatch(None));
    let there = store.get("/g/r/a").await.unwrap();
    assert_eq!(store.write(synced("/g/r/a", Expect::Absent, None)).await.unwrap(), WriteOutcome::Mismatch(there));
    let mut watch = store.watch(first).await.unwrap();
    let second = create(store, "/g/r/c", "1").await;
    assert_eq!(take(&mut watch, 1).await[0].revision, second);
}

pub async fn refused_writes_are_no_events(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let mut watch = store.watch(first).await.unwrap();
    for expect in [Expect::Absent, Expect::At(first + 100)] {
        let refused = store.write(synced("/g/r/a", expect, Some("no"))).await.unwrap();
        assert!(matches!(refused, WriteOutcome::Mismatch(Some(there)) if there.mod_revision == first));
    }
    let second = put(store, "/g/r/a", Expect::At(first), "2").await;
    let events = take(&mut watch, 1).await;
    assert_eq!((events[0].revision, events[0].value.as_deref()), (second, Some(&b"2"[..])));
}

pub async fn watch_of_a_recreated_key_sees_both_lives(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let second = delete(store, "/g/r/a", first).await;
    let third = create(store, "/g/r/a", "3").await;
    let fourth = put(store, "/g/r/a", Expect::At(third), "4").await;
    let mut watch = store.watch(first).await.unwrap();
    let events = take(&mut watch, 3).await;
    let seen: Vec<_> = events.iter().map(|e| (e.revision, e.value.is_some(), e.previous.is_some())).collect();
    assert_eq!(seen, [(second, false, true), (third, true, false), (fourth, true, true)]);
    assert_eq!(events[2].previous.as_ref().unwrap().create_revision, third);
}

pub async fn a_watch_that_is_dropped_disturbs_no_other(place: &Place) {
    let store = &*place.store;
    let start = create(store, "/g/r/a", "1").await;
    let mut kept = store.watch(start).await.unwrap();
    let mut dropped = store.watch(start).await.unwrap();
    let second = create(store, "/g/r/b", "1").await;
    take(&mut dropped, 1).await;
    drop(dropped);
    let third = create(store, "/g/r/c", "1").await;
    let events = take(&mut kept, 2).await;
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [second, third]);
}

pub async fn a_watch_goes_on_through_a_compaction(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let mut watch = store.watch(first).await.unwrap();
    let second = put(store, "/g/r/a", Expect::At(first), "2").await;
    take(&mut watch, 1).await;
    store.compact(second).await.unwrap();
    let third = put(store, "/g/r/a", Expect::At(second), "3").await;
    let events = take(&mut watch, 1).await;
    assert_eq!((events[0].revision, events[0].previous.as_ref().unwrap().mod_revision), (third, second));
}

pub async fn an_error_is_the_last_thing_a_watch_says(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let mut watch = store.watch(first).await.unwrap();
    let mut at = first;
    for i in 0..20 {
        at = put(store, "/g/r/a", Expect::At(at), &i.to_string()).await;
    }
    store.compact(at).await.unwrap();
    put(store, "/g/r/a", Expect::At(at), "after").await;
    // What it has been handed already it may still say; after it has lost its place it says so, and no more.
    let mut seen = 0;
    while seen < 21 {
        match next(&mut watch).await {
            Some(Ok(events)) => seen += events,
            Some(Err(error)) => {
                assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
                return assert_eq!(next(&mut watch).await, None);
            }
            None => panic!("the watch ended without a reason"),
        }
    }
}

pub async fn pages_of_a_compacted_revision_can_go_on_at_the_newest(place: &Place) {
    let store = &*place.store;
    for i in 0..6 {
        create(store, &format!("/g/r/{i}"), "old").await;
    }
    let page = store.range("/g/r/", RangeOptions { limit: 2, ..RangeOptions::default() }).await.unwrap();
    let second = create(store, "/g/r/6", "new").await;
    store.compact(second).await.unwrap();
    let start_after = Some("/g/r/1".to_owned());
    let next = RangeOptions { limit: 2, revision: Some(page.revision), start_after: start_after.clone(), count: false };
    let refused = store.range("/g/r/", next).await.unwrap_err();
    assert_eq!(refused, StoreError::Compacted { asked: page.revision, oldest: second });
    let next = RangeOptions { start_after, count: true, ..RangeOptions::default() };
    let rest = store.range("/g/r/", next).await.unwrap();
    assert_eq!(keys(&rest), ["/g/r/2", "/g/r/3", "/g/r/4", "/g/r/5", "/g/r/6"]);
    assert!(rest.revision >= second);
}

pub async fn reads_have_what_was_acknowledged_before(place: &Place) {
    const WRITERS: usize = 6;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&place.store);
        tasks.spawn(async move {
            for i in 0..25 {
                let key = format!("/g/r/{writer}/{i}");
                let revision = match i % 3 {
                    0 => beat(&*store, &key, Expect::Absent, Some("v")).await,
                    _ => create(&*store, &key, "v").await,
                };
                let found = store.range(&format!("/g/r/{writer}/"), RangeOptions::default()).await.unwrap();
                assert_eq!(found.items.len(), i + 1);
                assert!(found.revision >= revision && store.revision().await.unwrap() >= revision);
                assert_eq!(store.get(&key).await.unwrap().unwrap().mod_revision, revision);
            }
        });
    }
    tasks.join_all().await;
    let all = place.store.range("/g/r/", RangeOptions::default()).await.unwrap();
    assert_eq!(all.items.len(), WRITERS * 25);
}

pub async fn keys_and_values_are_kept_as_they_are(place: &Place) {
    let store = &*place.store;
    let large = vec![0xfe; 1_000_000];
    let values: [&[u8]; 5] = [b"", b"\0", b"k8s\0\n\x0a\x02v1", b"\xff\xfe not text", &large];
    for (i, value) in values.iter().enumerate() {
        let key = format!("/g/r/ä %2F\"'{i}");
        let value = Some(Bytes::copy_from_slice(value));
        let write = Write { key, expect: Expect::Absent, value, durability: Durability::Synced };
        done(store.write(write).await);
    }
    let found = store.range("/g/r/ä %2F\"'", RangeOptions::default()).await.unwrap();
    assert_eq!(found.items.len(), values.len());
    for (pair, value) in found.items.iter().zip(values) {
        assert!(pair.value == value, "{}", pair.key);
        let first = RangeOptions { revision: Some(pair.mod_revision), ..RangeOptions::default() };
        assert!(store.range(&pair.key, first).await.unwrap().items[0].value == value);
    }
}
