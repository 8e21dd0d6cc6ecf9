//! The watch cache, above every implementation of the store.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod etcd_server;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use serde_json::json;
use skiff_api::{
    kinds::{Durability, StorageKey},
    object::Object,
    selector::Selector,
    wire::Entry,
};
use skiff_store::{
    EtcdStore, Expect, MemoryStore, Revision, SqliteStore, Store, StoreError, Write, WriteOutcome,
    cache::{CacheEvent, CacheOutcome, CacheStream, Cacher, ListQuery, WatchQuery},
    etcd::EtcdOptions,
};

use etcd_server::Etcd;

struct Place {
    cache: Arc<Cacher>,
    store: Arc<dyn Store>,
    _folder: Option<tempfile::TempDir>,
    _etcd: Option<Etcd>,
}

fn fields(kind: &StorageKey) -> Vec<&'static str> {
    if kind.resource == "pods" { vec!["spec.nodeName"] } else { Vec::new() }
}

impl Place {
    async fn on(store: Arc<dyn Store>, folder: Option<tempfile::TempDir>) -> Self {
        let cache = Cacher::start(Arc::clone(&store), fields).await.unwrap();
        Self { cache, store, _folder: folder, _etcd: None }
    }

    async fn memory() -> Self {
        Self::on(Arc::new(MemoryStore::new()), None).await
    }

    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("state.db")).unwrap();
        Self::on(Arc::new(store), Some(folder)).await
    }

    async fn etcd() -> Self {
        let etcd = Etcd::start();
        let store = EtcdStore::open(EtcdOptions::new(vec![etcd.url()])).await.unwrap();
        Self { _etcd: Some(etcd), ..Self::on(Arc::new(store), None).await }
    }

    async fn write(&self, name: &str, expect: Expect, object: Option<&Object>) -> CacheOutcome {
        let (namespace, name) = name.split_once('/').unwrap();
        self.cache.write(&pods(), namespace, name, expect, object, Durability::Synced).await.unwrap()
    }

    async fn put(&self, name: &str, expect: Expect, label: &str) -> Revision {
        done(self.write(name, expect, Some(&pod(name, label))).await).resource_version
    }

    async fn create(&self, name: &str, label: &str) -> Revision {
        self.put(name, Expect::Absent, label).await
    }

    async fn delete(&self, name: &str, at: Revision) -> Arc<Entry> {
        done(self.write(name, Expect::At(at), None).await)
    }

    async fn watch(&self, query: WatchQuery) -> CacheStream {
        self.cache.watch(&pods(), query).await.unwrap()
    }
}

fn pods() -> StorageKey {
    StorageKey { group: "core".to_owned(), resource: "pods".to_owned() }
}

fn pod(name: &str, label: &str) -> Object {
    let (namespace, name) = name.split_once('/').unwrap();
    let metadata = json!({"name": name, "namespace": namespace, "labels": {"app": label}});
    Object::from_typed(&json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": label}}))
        .unwrap()
}

fn done(outcome: CacheOutcome) -> Arc<Entry> {
    match outcome {
        CacheOutcome::Done(entry) => entry,
        CacheOutcome::Mismatch(there) => panic!("refused, there is {there:?}"),
    }
}

fn labelled(text: &str) -> Selector {
    Selector::parse(Some(text), None, &[]).unwrap()
}

/// An event as a line: what, which object, its label, its revision.
fn line(event: &CacheEvent) -> String {
    let show = |what: &str, entry: &Entry| {
        let object = entry.object().unwrap();
        assert_eq!(object.resource_version(), Some(entry.resource_version), "the bytes carry the revision");
        let label = object.str_at(&["metadata", "labels", "app"]).unwrap_or_default();
        format!("{what} {}/{} {label} {}", object.namespace(), object.name(), entry.resource_version)
    };
    match event {
        CacheEvent::Added(entry) => show("added", entry),
        CacheEvent::Modified(entry) => show("modified", entry),
        CacheEvent::Deleted(entry) => show("deleted", entry),
        CacheEvent::Bookmark { revision, initial_end } => format!("bookmark {revision} {initial_end}"),
    }
}

async fn lines(stream: &mut CacheStream, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let event = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
        lines.push(line(&event.expect("no event came").expect("the watch ended").unwrap()));
    }
    lines
}

macro_rules! on_all {
    ($($behaviour:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                crate::$behaviour(&crate::Place::memory().await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                crate::$behaviour(&crate::Place::sqlite().await).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                crate::$behaviour(&crate::Place::etcd().await).await;
            })*
        }
    };
}

on_all!(
    writes_are_read_at_once,
    refused_writes_show_what_is_there,
    lists_are_paged_at_one_revision,
    pages_outlive_the_recent_changes,
    lists_at_a_compacted_revision_are_refused,
    watches_begin_with_what_is_there,
    watches_go_on_from_a_revision,
    watches_from_too_long_ago_are_refused,
    selections_are_entered_and_left,
    a_watcher_that_falls_behind_is_ended,
    a_timeout_ends_with_a_bookmark,
    closing_ends_watches,
    an_unreadable_object_is_said_to_be_corrupt,
    many_watchers_see_the_same,
    a_restart_loads_everything,
    watches_of_an_object_that_cannot_be_read_end,
    pages_of_a_selection_cover_it_once,
    lists_have_what_was_acknowledged_before,
    a_dropped_watch_disturbs_no_other,
    bookmarks_tell_of_writes_elsewhere,
);

async fn writes_are_read_at_once(place: &Place) {
    let first = place.create("a/x", "1").await;
    let entry = place.cache.get(&pods(), "a", "x").await.unwrap().unwrap();
    assert_eq!((entry.resource_version, entry.object().unwrap().resource_version()), (first, Some(first)));
    assert_eq!(entry.head.fields, [("spec.nodeName", "1".to_owned())]);
    assert_eq!(place.cache.revision(), first);
    let second = place.put("a/x", Expect::At(first), "2").await;
    let gone = place.delete("a/x", second).await;
    assert!(gone.resource_version > second);
    assert_eq!(gone.object().unwrap().resource_version(), Some(gone.resource_version));
    assert_eq!(gone.object().unwrap().str_at(&["spec", "nodeName"]), Some("2"));
    assert!(place.cache.get(&pods(), "a", "x").await.unwrap().is_none());
    assert!(place.cache.peek_all(&pods(), None).is_empty());
}

async fn refused_writes_show_what_is_there(place: &Place) {
    let first = place.create("a/x", "1").await;
    let refused = place.write("a/x", Expect::Absent, Some(&pod("a/x", "2"))).await;
    assert!(matches!(refused, CacheOutcome::Mismatch(Some(there)) if there.resource_version == first));
    let refused = place.write("a/none", Expect::At(7), None).await;
    assert!(matches!(refused, CacheOutcome::Mismatch(None)));
}

async fn page_names(place: &Place, query: &ListQuery) -> (Vec<String>, Option<usize>, bool, Revision) {
    let page = place.cache.list(&pods(), query).await.unwrap();
    let names = page.entries.iter().map(|entry| format!("{}/{}", entry.head.namespace, entry.head.name)).collect();
    (names, page.remaining, page.more, page.revision)
}

async fn lists_are_paged_at_one_revision(place: &Place) {
    for name in ["a/1", "a/2", "a-b/1", "b/1", "b/2"] {
        place.create(name, name.split_once('/').unwrap().1).await;
    }
    let mut query = ListQuery { limit: 2, ..ListQuery::default() };
    let expected = (vec!["a-b/1".to_owned(), "a/1".to_owned()], Some(3), true, 5);
    assert_eq!(page_names(place, &query).await, expected);
    place.delete("a/2", 2).await;
    place.create("a/3", "x").await;
    place.put("b/1", Expect::At(4), "changed").await;
    query.revision = Some(5);
    query.start_after = Some(("a".to_owned(), "1".to_owned()));
    let expected = (vec!["a/2".to_owned(), "b/1".to_owned()], Some(1), true, 5);
    assert_eq!(page_names(place, &query).await, expected);
    let old = place.cache.list(&pods(), &query).await.unwrap().entries[1].resource_version;
    assert_eq!(old, 4, "a page has the versions of its revision");

    let query = ListQuery { namespace: Some("a".to_owned()), limit: 1, ..ListQuery::default() };
    assert_eq!(page_names(place, &query).await, (vec!["a/1".to_owned()], Some(1), true, 8));
    let query = ListQuery { selector: labelled("app=1"), limit: 1, ..ListQuery::default() };
    assert_eq!(page_names(place, &query).await, (vec!["a-b/1".to_owned()], None, true, 8));
    let future = ListQuery { revision: Some(99), ..ListQuery::default() };
    let refused = place.cache.list(&pods(), &future).await.unwrap_err();
    assert_eq!(refused, StoreError::Future { asked: 99, newest: 8 });
}

/// Makes so many changes that the first are no longer remembered.
async fn churn(place: &Place, name: &str, mut at: Revision) -> Revision {
    for _ in 0..5_000 / 50 {
        let mut writes = Vec::new();
        for i in 0..50 {
            let key = format!("/core/pods/churn/{i}-{at}");
            let value = Some(skiff_api::wire::encode(&pod(&format!("churn/{i}-{at}"), "c")));
            let write = Write { key, expect: Expect::Absent, value, durability: Durability::Heartbeat };
            writes.push(place.store.write(write));
        }
        futures::future::try_join_all(writes).await.unwrap();
        at = place.put(name, Expect::At(at), "again").await;
    }
    at
}

async fn pages_outlive_the_recent_changes(place: &Place) {
    let first = place.create("a/x", "old").await;
    churn(place, "a/x", first).await;
    let query = ListQuery { revision: Some(first), limit: 3, ..ListQuery::default() };
    let page = place.cache.list(&pods(), &query).await.unwrap();
    assert_eq!((page.entries.len(), page.entries[0].resource_version, page.more), (1, first, false));
}

async fn lists_at_a_compacted_revision_are_refused(place: &Place) {
    let first = place.create("a/x", "old").await;
    let last = churn(place, "a/x", first).await;
    place.store.compact(last).await.unwrap();
    let query = ListQuery { revision: Some(first), ..ListQuery::default() };
    let refused = place.cache.list(&pods(), &query).await.unwrap_err();
    assert_eq!(refused, StoreError::Compacted { asked: first, oldest: last });
}

async fn watches_begin_with_what_is_there(place: &Place) {
    place.create("b/x", "1").await;
    place.create("a/x", "1").await;
    let query = WatchQuery { mark_initial_end: true, ..WatchQuery::default() };
    let mut watch = place.watch(query).await;
    place.create("a/y", "1").await;
    let expected = ["added a/x 1 2", "added b/x 1 1", "bookmark 2 true", "added a/y 1 3"];
    assert_eq!(lines(&mut watch, 4).await, expected);
}

async fn watches_go_on_from_a_revision(place: &Place) {
    let first = place.create("a/x", "1").await;
    let second = place.put("a/x", Expect::At(first), "2").await;
    place.delete("a/x", second).await;
    let mut watch = place.watch(WatchQuery { after: Some(first), ..WatchQuery::default() }).await;
    place.create("a/x", "3").await;
    assert_eq!(lines(&mut watch, 3).await, ["modified a/x 2 2", "deleted a/x 2 3", "added a/x 3 4"]);
    let refused = place.cache.watch(&pods(), WatchQuery { after: Some(99), ..WatchQuery::default() }).await;
    assert_eq!(refused.err(), Some(StoreError::Future { asked: 99, newest: 4 }));
}

async fn watches_from_too_long_ago_are_refused(place: &Place) {
    let first = place.create("a/x", "1").await;
    churn(place, "a/x", first).await;
    let refused = place.cache.watch(&pods(), WatchQuery { after: Some(first), ..WatchQuery::default() }).await;
    assert!(matches!(refused.err(), Some(StoreError::Compacted { asked, .. }) if asked == first));
}

async fn selections_are_entered_and_left(place: &Place) {
    let query = WatchQuery { selector: labelled("app=in"), ..WatchQuery::default() };
    let mut live = place.watch(query.clone()).await;
    let mut elsewhere = place.watch(WatchQuery { namespace: Some("b".to_owned()), ..WatchQuery::default() }).await;
    let fields = Selector::parse(None, Some("spec.nodeName=in"), &["spec.nodeName"]).unwrap();
    let mut by_field = place.watch(WatchQuery { selector: fields, ..WatchQuery::default() }).await;
    let named = Selector::parse(None, Some("metadata.name=x"), &[]).unwrap();
    let mut by_name = place.watch(WatchQuery { selector: named, ..WatchQuery::default() }).await;
    let mut at = place.create("a/x", "out").await;
    for label in ["in", "in", "out", "out", "in"] {
        at = place.put("a/x", Expect::At(at), label).await;
    }
    place.delete("a/x", at).await;
    place.create("b/y", "out").await;
    let expected = ["added a/x in 2", "modified a/x in 3", "deleted a/x in 4", "added a/x in 6", "deleted a/x in 7"];
    assert_eq!(lines(&mut live, 5).await, expected);
    let mut replayed = place.watch(WatchQuery { after: Some(1), ..query }).await;
    assert_eq!(lines(&mut replayed, 5).await, expected);
    assert_eq!(lines(&mut elsewhere, 1).await, ["added b/y out 8"]);
    assert_eq!(lines(&mut by_field, 5).await, expected);
    assert_eq!(lines(&mut by_name, 7).await[6], "deleted a/x in 7");
}

async fn a_watcher_that_falls_behind_is_ended(place: &Place) {
    let mut slow = place.watch(WatchQuery::default()).await;
    let first = place.create("a/x", "1").await;
    churn(place, "a/x", first).await;
    let mut seen = 0;
    let error = loop {
        match slow.next().await.expect("an end has a reason") {
            Ok(_) => seen += 1,
            Err(error) => break error,
        }
    };
    assert!((1..3_000).contains(&seen), "{seen}");
    assert!(matches!(error, StoreError::Compacted { .. }));
    assert!(slow.next().await.is_none());
}

async fn a_timeout_ends_with_a_bookmark(place: &Place) {
    let query = WatchQuery { bookmarks: true, timeout: Some(Duration::from_millis(50)), ..WatchQuery::default() };
    let watch = place.watch(query).await;
    place.create("a/x", "1").await;
    let seen: Vec<String> = watch.map(|event| line(&event.unwrap())).collect().await;
    assert_eq!(seen, ["added a/x 1 1", "bookmark 1 false"]);
}

async fn closing_ends_watches(place: &Place) {
    let mut watch = place.watch(WatchQuery::default()).await;
    place.create("a/x", "1").await;
    place.cache.close();
    assert_eq!(lines(&mut watch, 1).await, ["added a/x 1 1"]);
    assert!(watch.next().await.is_none());
    assert!(place.cache.get(&pods(), "a", "x").await.unwrap().is_some(), "reads go on");
    let refused = place.cache.watch(&pods(), WatchQuery::default()).await;
    assert!(matches!(refused.err(), Some(StoreError::Unavailable(_))));
}

async fn an_unreadable_object_is_said_to_be_corrupt(place: &Place) {
    place.create("a/x", "1").await;
    let value = Some("no object".into());
    let key = "/core/pods/a/broken".to_owned();
    let write = Write { key, expect: Expect::Absent, value, durability: Durability::Synced };
    place.store.write(write).await.unwrap();
    for cache in [Arc::clone(&place.cache), Cacher::start(Arc::clone(&place.store), fields).await.unwrap()] {
        // The cache has taken in the broken object once it has a later write.
        let (kind, later) = (pods(), pod("a/later", "1"));
        let write = cache.write(&kind, "a", "later", Expect::Absent, Some(&later), Durability::Synced);
        let _ = write.await.unwrap();
        let why = cache.get(&pods(), "a", "broken").await.unwrap_err().to_string();
        assert!(why.contains("/core/pods/a/broken"), "{why}");
        assert!(matches!(cache.list(&pods(), &ListQuery::default()).await, Err(StoreError::Corrupt(_))));
        assert!(cache.get(&pods(), "a", "x").await.unwrap().is_some(), "other objects are read");
    }
}

/// Puts something at a pod's key that is no object, and the object back again.
async fn break_and_mend(place: &Place, name: &str, at: Revision) {
    let key = format!("/core/pods/{name}");
    let broken = Some("no object".into());
    let write = Write { key: key.clone(), expect: Expect::At(at), value: broken, durability: Durability::Synced };
    let WriteOutcome::Done(at) = place.store.write(write).await.unwrap() else { panic!("nobody else writes") };
    let refused = loop {
        // The cache takes it in a moment later.
        match place.cache.watch(&pods(), WatchQuery { after: Some(at), ..WatchQuery::default() }).await {
            Err(StoreError::Future { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            other => break other.err(),
        }
    };
    assert!(matches!(refused, Some(StoreError::Corrupt(_))), "{refused:?}");
    place.put(name, Expect::At(at), "mended").await;
}

async fn watches_of_an_object_that_cannot_be_read_end(place: &Place) {
    let first = place.create("a/x", "1").await;
    let mut watch = place.watch(WatchQuery { after: Some(first), ..WatchQuery::default() }).await;
    break_and_mend(place, "a/x", first).await;
    let error = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap();
    assert!(matches!(error, Some(Err(StoreError::Corrupt(_)))), "{error:?}: it was not deleted");
    assert!(watch.next().await.is_none());
    assert!(place.cache.get(&pods(), "a", "x").await.unwrap().is_some(), "it is read again");
    let mut watch = place.watch(WatchQuery::default()).await;
    assert_eq!(lines(&mut watch, 1).await, [format!("added a/x mended {}", first + 2)]);
}

async fn pages_of_a_selection_cover_it_once(place: &Place) {
    for i in 0..60 {
        place.create(&format!("a/{i:02}"), if i % 20 == 7 { "rare" } else { "common" }).await;
    }
    let mut query = ListQuery { selector: labelled("app=rare"), limit: 2, ..ListQuery::default() };
    let mut seen = Vec::new();
    loop {
        let (names, _, more, revision) = page_names(place, &query).await;
        seen.extend(names);
        place.create(&format!("a/{}-later", seen.len()), "rare").await;
        if !more {
            break;
        }
        query.revision = Some(revision);
        query.start_after = seen.last().and_then(|name| name.split_once('/')).map(|(a, b)| (a.into(), b.into()));
    }
    assert_eq!(seen, ["a/07", "a/27", "a/47"]);
}

async fn lists_have_what_was_acknowledged_before(place: &Place) {
    let writes = (0..6).map(|writer| async move {
        let namespace = Some(format!("n{writer}"));
        for i in 0..20 {
            let revision = place.create(&format!("n{writer}/{i}"), "1").await;
            let query = ListQuery { namespace: namespace.clone(), ..ListQuery::default() };
            let page = place.cache.list(&pods(), &query).await.unwrap();
            assert_eq!(page.entries.len(), i + 1);
            assert!(page.revision >= revision);
        }
    });
    futures::future::join_all(writes).await;
}

async fn a_dropped_watch_disturbs_no_other(place: &Place) {
    let mut kept = place.watch(WatchQuery::default()).await;
    let mut dropped = place.watch(WatchQuery::default()).await;
    place.create("a/x", "1").await;
    assert_eq!(lines(&mut dropped, 1).await, ["added a/x 1 1"]);
    drop(dropped);
    place.create("a/y", "1").await;
    assert_eq!(lines(&mut kept, 2).await, ["added a/x 1 1", "added a/y 1 2"]);
}

async fn bookmarks_tell_of_writes_elsewhere(place: &Place) {
    let query = WatchQuery {
        namespace: Some("a".to_owned()),
        bookmarks: true,
        timeout: Some(Duration::from_millis(50)),
        ..WatchQuery::default()
    };
    let mut watch = place.watch(query).await;
    place.create("b/x", "1").await;
    let key = StorageKey { group: "core".to_owned(), resource: "secrets".to_owned() };
    let secret = pod("a/s", "1");
    let write = place.cache.write(&key, "a", "s", Expect::Absent, Some(&secret), Durability::Synced);
    let newest = done(write.await.unwrap()).resource_version;
    let bookmark = lines(&mut watch, 1).await;
    assert_eq!(bookmark, [format!("bookmark {newest} false")]);
}

async fn many_watchers_see_the_same(place: &Place) {
    let mut watchers = Vec::new();
    for i in 0..200 {
        let named = Selector::parse(None, Some(&format!("metadata.name=p{i}")), &[]).unwrap();
        watchers.push(place.watch(WatchQuery { selector: named, ..WatchQuery::default() }).await);
    }
    for i in 0..200 {
        place.create(&format!("a/p{i}"), "1").await;
    }
    for (i, watch) in watchers.iter_mut().enumerate() {
        assert_eq!(lines(watch, 1).await, [format!("added a/p{i} 1 {}", i + 1)]);
    }
}

async fn a_restart_loads_everything(place: &Place) {
    let writes = (0..1_234).map(|i| async move { place.create(&format!("a/{i:04}"), "1").await });
    futures::future::join_all(writes).await;
    let cache = Cacher::start(Arc::clone(&place.store), fields).await.unwrap();
    let page = cache.list(&pods(), &ListQuery::default()).await.unwrap();
    assert_eq!((page.entries.len(), page.revision), (1_234, 1_234));
    assert!(page.entries.is_sorted_by(|a, b| a.head.name < b.head.name));
}
