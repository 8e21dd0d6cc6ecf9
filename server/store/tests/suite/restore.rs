//! What a restore must do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use skiff_store::{Event, Expect, PairStream, RangeOptions, Revision, StoreError};

use super::{Place, beat, create, keys, put, take};

type Batch = Result<Vec<(String, Bytes)>, StoreError>;

/// Batches of pairs: a value is its key's last character.
pub fn pairs(batches: &[&[&str]]) -> PairStream {
    let pair = |key: &&str| ((*key).to_owned(), Bytes::from(key[key.len() - 1..].to_owned()));
    let batches: Vec<Batch> = batches.iter().map(|batch| Ok(batch.iter().map(pair).collect())).collect();
    stream::iter(batches).boxed()
}

async fn everything(place: &Place) -> skiff_store::Range {
    place.store.range("", RangeOptions::default()).await.unwrap()
}

pub async fn restore_replaces_everything_at_greater_revisions(place: &Place) {
    let store = &*place.store;
    create(store, "/g/r/a", "old").await;
    create(store, "/g/r/gone", "old").await;
    beat(store, "/g/leases/gone", Expect::Absent, Some("old")).await;
    let floor = 1_000_000;
    let newest = store.restore(pairs(&[&["/g/r/a", "/g/r/b"], &[], &["/g/r/c"]]), floor).await.unwrap();
    let now = everything(place).await;
    assert_eq!((keys(&now), now.revision), (vec!["/g/r/a", "/g/r/b", "/g/r/c"], newest));
    assert_eq!(store.revision().await.unwrap(), newest);
    for pair in &now.items {
        assert_eq!(pair.value, pair.key.as_bytes()[pair.key.len() - 1..]);
        assert!(pair.create_revision > floor && pair.create_revision == pair.mod_revision);
        assert_eq!(store.get(&pair.key).await.unwrap().as_ref(), Some(pair));
    }
    assert_eq!(store.get("/g/r/gone").await.unwrap(), None);
    assert_eq!(store.get("/g/leases/gone").await.unwrap(), None);

    let mut watch = store.watch(newest).await.unwrap();
    let there = now.items[0].mod_revision;
    let written = put(store, "/g/r/a", Expect::At(there), "new").await;
    assert!(written > newest);
    let event = &take(&mut watch, 1).await[0];
    assert_eq!((event.revision, event.previous.as_ref()), (written, Some(&now.items[0])));
    let then = RangeOptions { revision: Some(newest), ..RangeOptions::default() };
    assert_eq!(store.range("", then).await.unwrap().items, now.items);
}

pub async fn restore_never_gives_a_revision_again(place: &Place) {
    let store = &*place.store;
    let mut before = create(store, "/g/r/a", "0").await;
    for i in 0..20 {
        before = put(store, "/g/r/a", Expect::At(before), &i.to_string()).await;
    }
    let newest = store.restore(pairs(&[&["/g/r/a"]]), 3).await.unwrap();
    assert!(everything(place).await.items[0].mod_revision > before);
    let emptied = store.restore(pairs(&[]), 0).await.unwrap();
    assert!(emptied > newest, "a store that is restored to nothing has moved on too");
    assert!(everything(place).await.items.is_empty());
    assert!(create(store, "/g/r/a", "1").await > emptied);
}

pub async fn restore_ends_watches_and_refuses_what_was_before(place: &Place) {
    let store = &*place.store;
    let first = create(store, "/g/r/a", "1").await;
    let second = create(store, "/g/r/b", "1").await;
    let mut watch = store.watch(second).await.unwrap();
    let newest = store.restore(pairs(&[&["/g/r/a"]]), second + 100).await.unwrap();
    let lost = async {
        loop {
            match watch.next().await {
                Some(Ok(events)) => assert!(events.is_empty(), "a restore is no event: {events:?}"),
                Some(Err(error)) => return error,
                None => panic!("the watch ended without a word"),
            }
        }
    };
    let lost = tokio::time::timeout(Duration::from_secs(30), lost).await.expect("the watch goes on");
    assert!(matches!(lost, StoreError::Compacted { .. }), "{lost}");
    for asked in [first, second, second + 50, newest - 1] {
        assert!(matches!(store.watch(asked).await.err(), Some(StoreError::Compacted { .. })), "a watch from {asked}");
        let at = RangeOptions { revision: Some(asked), ..RangeOptions::default() };
        let refused = store.range("/", at).await.err();
        assert!(matches!(refused, Some(StoreError::Compacted { .. })), "a range at {asked}: {refused:?}");
    }
    let refused = store.watch(newest + 1).await.err();
    assert!(matches!(refused, Some(StoreError::Future { .. })), "{refused:?}");
}

pub async fn restore_refuses_keys_that_do_not_ascend(place: &Place) {
    let store = &*place.store;
    for batches in [[&["/g/r/b", "/g/r/a"][..], &[]], [&["/g/r/b"], &["/g/r/b"]]] {
        let refused = store.restore(pairs(&batches), 0).await;
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    }
    let refused = store.restore(pairs(&[&["/g/r/a"]]), Revision::MAX).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    store.restore(pairs(&[&["/g/r/a"]]), 0).await.unwrap();
    assert_eq!(keys(&everything(place).await), ["/g/r/a"]);
}

/// Of implementations that do it in one transaction.
pub async fn failed_restore_leaves_what_was_there(place: &Place) {
    let store = Arc::clone(&place.store);
    create(&*store, "/g/r/a", "1").await;
    let newest = beat(&*store, "/g/leases/a", Expect::Absent, Some("1")).await;
    let before = everything(place).await.items;
    let mut watch = store.watch(newest).await.unwrap();
    let good = Ok(vec![("/g/r/x".to_owned(), Bytes::from_static(b"x"))]);
    let broken = Err(StoreError::Corrupt("the source broke".to_owned()));
    let failed = store.restore(stream::iter([good.clone(), broken.clone()]).boxed(), 1_000).await;
    assert_eq!(failed, broken.map(|_: Vec<_>| 0));

    let (fed, was_fed) = tokio::sync::oneshot::channel();
    let endless = stream::once(async move {
        let _ = fed.send(());
        good
    });
    let given_up = store.restore(endless.chain(stream::pending()).boxed(), 1_000);
    tokio::select! {
        _ = given_up => panic!("nothing ended it"),
        _ = was_fed => {}
    }
    assert_eq!(everything(place).await.items, before);
    let written = create(&*store, "/g/r/b", "1").await;
    assert_eq!(written, newest + 1);
    let events: Vec<Arc<Event>> = take(&mut watch, 1).await;
    assert_eq!(events[0].revision, written);
}
