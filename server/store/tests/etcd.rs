//! What only etcd has: certificates, members that fail, and others that write.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod etcd_server;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, TlsOptions, UserAddOptions};
use etcd_server::{Etcd, Etcds, TlsFiles};
use futures::{StreamExt, future};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use skiff_api::{
    kinds::{Durability, StorageKey},
    object::Object,
};
use skiff_store::{
    EtcdStore, Event, EventStream, Expect, RangeOptions, Revision, Store, StoreError, Write, WriteOutcome,
    cache::{CacheEvent, CacheOutcome, Cacher, ListQuery, WatchQuery},
    etcd::{EtcdOptions, EtcdTls},
};

/// How long anything may take to come true on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(urls: &[String]) -> EtcdOptions {
    let (attempt, deadline) = (Duration::from_millis(700), Duration::from_secs(2));
    EtcdOptions { attempt, deadline, ..EtcdOptions::new(urls.to_vec()) }
}

async fn open(urls: &[String]) -> Arc<EtcdStore> {
    Arc::new(EtcdStore::open(options(urls)).await.unwrap())
}

async fn write(store: &dyn Store, key: &str, expect: Expect, value: &str) -> Result<WriteOutcome, StoreError> {
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    store.write(Write { key: key.to_owned(), expect, value, durability: Durability::Synced }).await
}

async fn create(store: &dyn Store, key: &str, value: &str) -> Revision {
    match write(store, key, Expect::Absent, value).await {
        Ok(WriteOutcome::Done(revision)) => revision,
        other => panic!("{key} is not created: {other:?}"),
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Tries until it succeeds; all that may be said until then is that the store is unavailable.
async fn eventually<T, Tried: Future<Output = Result<T, StoreError>>>(what: &str, attempt: impl Fn() -> Tried) -> T {
    within(what, async {
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(other) => panic!("{what}: {other}"),
            }
        }
    })
    .await
}

/// Events until one has this revision.
async fn watched(stream: &mut EventStream, until: Revision) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    watch_on(stream, &mut events, until).await;
    events
}

/// Adds events to those that have come, until one has this revision.
async fn watch_on(stream: &mut EventStream, events: &mut Vec<Arc<Event>>, until: Revision) {
    while events.last().map_or(0, |event| event.revision) < until {
        let batch = within("an event comes", stream.next()).await;
        events.extend(batch.expect("the watch ended").unwrap());
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, for an address, or for a user of etcd's of that name.
fn signed(ca: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

fn file(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// An etcd that knows only whom an authority has signed.
fn with_certificates(ca: &CertifiedIssuer<'static, KeyPair>, folder: &Path) -> Etcd {
    Etcd::start_tls(|address| {
        let (cert, key) = signed(ca, address);
        let (cert, key) = (file(folder, "etcd.crt", &cert), file(folder, "etcd.key", &key));
        TlsFiles { ca: file(folder, "ca.crt", &ca.pem()), cert, key }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_that_etcd_knows_are_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(), authority());
    let etcd = with_certificates(&ours, folder.path());
    let with = |ca: &CertifiedIssuer<'static, KeyPair>, identity| {
        let tls = Some(EtcdTls { ca: ca.pem(), identity });
        EtcdStore::open(EtcdOptions { tls, ..options(&[etcd.url()]) })
    };
    let store = with(&ours, Some(signed(&ours, "skiff"))).await.unwrap();
    let revision = create(&store, "/g/r/a", "1").await;
    assert_eq!(store.get("/g/r/a").await.unwrap().unwrap().mod_revision, revision);
    let mut watch = store.watch(0).await.unwrap();
    assert_eq!(watched(&mut watch, revision).await.len(), 1);

    let refusals = [
        ("no certificate", with(&ours, None).await),
        ("another authority's certificate", with(&ours, Some(signed(&theirs, "skiff"))).await),
        ("an etcd of another authority", with(&theirs, Some(signed(&ours, "skiff"))).await),
        ("no TLS", EtcdStore::open(options(&[etcd.url().replace("https://", "http://")])).await),
    ];
    for (what, refused) in refusals {
        assert!(matches!(refused.err(), Some(StoreError::Unavailable(_))), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_nobody_answers_for_is_unavailable() {
    let etcd = Etcd::start();
    let urls = [etcd.url()];
    let store = open(&urls).await;
    create(&*store, "/g/r/a", "1").await;
    drop(etcd);
    refuses_everything(&*store, 1).await;
    let refused = EtcdStore::open(options(&urls)).await.err();
    assert!(matches!(refused, Some(StoreError::Unavailable(_))), "{refused:?}");
}

/// Each call ends in time, and none with an old answer.
async fn refuses_everything(store: &dyn Store, there: Revision) {
    let calls = async {
        tokio::join!(
            async { store.get("/g/r/a").await.err() },
            async { store.range("/", RangeOptions::default()).await.err() },
            async { write(store, "/g/r/a", Expect::At(there), "2").await.err() },
            async { store.revision().await.err() },
            async { store.health().await.err() },
            async { store.watch(0).await.err() },
            async { store.compact(there).await.err() },
        )
    };
    let (get, range, write, revision, health, watch, compact) = within("calls end", calls).await;
    let refusals = [get, range, write, revision, health, watch, compact];
    for (at, refused) in refusals.iter().enumerate() {
        assert!(matches!(refused, Some(StoreError::Unavailable(_))), "{at}: {refused:?}");
    }
}

/// One writer of many: creates keys of its own, one after the other, until told to stop; gives what was acknowledged.
async fn keep_writing(
    store: Arc<EtcdStore>,
    writer: usize,
    stop: tokio_util::sync::CancellationToken,
) -> Vec<(String, Revision)> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let key = format!("/g/r/{writer}-{n}");
        match write(&*store, &key, Expect::Absent, "v").await {
            Ok(WriteOutcome::Done(revision)) => acknowledged.push((key, revision)),
            // Neither acknowledged nor refused: it may be there or not.
            Err(StoreError::Unavailable(_)) => {}
            other => panic!("{key}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_killed_leader_loses_nothing_acknowledged() {
    let mut etcds = Etcds::start();
    let store = open(&etcds.urls()).await;
    let mut watch = store.watch(0).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> =
        (0..4).map(|writer| tokio::spawn(keep_writing(Arc::clone(&store), writer, stop.clone()))).collect();
    let mut seen = within("there are writes", watched(&mut watch, 100)).await;
    let leader = etcds.leader().await;
    etcds.members[leader].kill();
    // With the two that are left everything goes on.
    let newest = eventually("a write after the leader's death", || write(&*store, "/g/r/after", Expect::Absent, "v"));
    let newest = match newest.await {
        WriteOutcome::Done(revision) => revision,
        // An earlier try, of which nothing was known, was done.
        WriteOutcome::Mismatch(there) => there.expect("it is there").mod_revision,
    };
    watch_on(&mut watch, &mut seen, newest).await;
    stop.cancel();
    let acknowledged = within("the writers end", future::try_join_all(writers)).await.unwrap().concat();
    etcds.members[leader].start();

    let newest = eventually("the revision is known", || store.revision()).await;
    watch_on(&mut watch, &mut seen, newest).await;
    assert!(seen.windows(2).all(|pair| pair[0].revision < pair[1].revision), "the watch is out of order");
    let seen: BTreeMap<_, _> = seen.iter().map(|event| (event.key.as_str(), event.revision)).collect();
    let all = eventually("everything is read", || store.range("/g/r/", RangeOptions::default())).await;
    let there: BTreeMap<_, _> = all.items.iter().map(|pair| (pair.key.as_str(), pair.mod_revision)).collect();
    assert_eq!(seen, there, "the watch has told what is there, no more and no less");
    for (key, revision) in &acknowledged {
        assert_eq!(there.get(key.as_str()), Some(revision), "{key} was acknowledged");
    }
    // The member that was dead has caught up and serves alone as well as the others.
    let returned = open(&[etcds.members[leader].url.clone()]).await;
    let last = eventually("it is read from the member that was dead", || returned.revision()).await;
    assert!(last >= newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_frozen_majority_is_unavailable_and_recovers() {
    let etcds = Etcds::start();
    let store = open(&etcds.urls()).await;
    let first = create(&*store, "/g/r/a", "1").await;
    let mut watch = store.watch(0).await.unwrap();
    assert_eq!(watched(&mut watch, first).await.len(), 1);
    let leader = etcds.leader().await;
    let frozen = [leader, (leader + 1) % 3];
    frozen.iter().for_each(|at| etcds.members[*at].freeze());
    refuses_everything(&*store, first).await;
    frozen.iter().for_each(|at| etcds.members[*at].thaw());
    let second = eventually("a write after it", || write(&*store, "/g/r/b", Expect::Absent, "2")).await;
    eventually("the store is well", || store.health()).await;
    let newest = match second {
        WriteOutcome::Done(revision) => revision,
        WriteOutcome::Mismatch(there) => there.expect("it is there").mod_revision,
    };
    let later = watched(&mut watch, newest).await;
    assert!(later.iter().any(|event| event.key == "/g/r/b"), "the watch goes on where it was");
    assert!(later.iter().all(|event| event.revision > first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_to_etcd_holds_up_nobody() {
    let etcd = Etcd::start();
    let store = open(&[etcd.url()]).await;
    let cache = Cacher::start(Arc::clone(&store) as Arc<dyn Store>, |_| Vec::new()).await.unwrap();
    let mut other = etcd_client::Client::connect([etcd.url()], None).await.unwrap();
    for n in 0..20 {
        other.put("/of/another", n.to_string(), None).await.unwrap();
        let newest = store.revision().await.unwrap();
        // Its revision is another's: the cache must learn that it has come all the same.
        let page = within("a list", cache.list(&pods(), &ListQuery::default())).await.unwrap();
        assert!(page.revision >= newest, "{} is older than {newest}", page.revision);
    }
    let mut watch = store.watch(0).await.unwrap();
    let last = create(&*store, "/g/r/a", "1").await;
    let events = watched(&mut watch, last).await;
    let ours: Vec<_> = events.iter().filter(|event| !event.is_progress()).map(|event| event.key.as_str()).collect();
    assert_eq!(ours, ["/g/r/a"]);
}

fn pods() -> StorageKey {
    StorageKey { group: "core".to_owned(), resource: "pods".to_owned() }
}

fn pod(name: &str, version: usize) -> Object {
    let metadata = json!({"name": name, "namespace": "a", "labels": {"version": version.to_string()}});
    Object::from_typed(&json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata})).unwrap()
}

async fn put(cache: &Cacher, name: &str, expect: Expect, version: usize) -> Revision {
    let object = pod(name, version);
    match cache.write(&pods(), "a", name, expect, Some(&object), Durability::Synced).await.unwrap() {
        CacheOutcome::Done(entry) => entry.resource_version,
        CacheOutcome::Mismatch(there) => panic!("{name} has {there:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_see_one_anothers_writes_at_once_and_in_order() {
    const ROUNDS: usize = 60;
    let etcd = Etcd::start();
    let mut caches = Vec::new();
    for _ in 0..2 {
        let store = open(&[etcd.url()]).await;
        caches.push(Cacher::start(store, |_| Vec::new()).await.unwrap());
    }
    let mut watches = Vec::new();
    for cache in &caches {
        watches.push(cache.watch(&pods(), WatchQuery { after: Some(0), ..WatchQuery::default() }).await.unwrap());
    }
    let mut at = put(&caches[0], "x", Expect::Absent, 0).await;
    let mut revisions = vec![at];
    for round in 1..ROUNDS {
        let (reader, writer) = (&caches[round % 2], &caches[(round + 1) % 2]);
        // What one has acknowledged, the other reads at once: by get, by list, and as what to swap from.
        let read = reader.get(&pods(), "a", "x").await.unwrap().expect("it is there");
        assert_eq!(read.resource_version, at, "a stale read in round {round}");
        let page = reader.list(&pods(), &ListQuery::default()).await.unwrap();
        assert!(page.revision >= at && page.entries[0].resource_version == at, "a stale list in round {round}");
        at = put(writer, "x", Expect::At(at), round).await;
        revisions.push(at);
    }
    for watch in &mut watches {
        let mut seen = Vec::new();
        while seen.len() < ROUNDS {
            match within("an event", watch.next()).await.expect("the watch ended").unwrap() {
                CacheEvent::Added(entry) | CacheEvent::Modified(entry) => seen.push(entry.resource_version),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, revisions);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_compacts_for_all() {
    let etcd = Etcd::start();
    let often = |every| EtcdOptions { compact_every: Some(every), ..options(&[etcd.url()]) };
    let (one, two) = (
        EtcdStore::open(often(Duration::from_millis(40))).await.unwrap(),
        EtcdStore::open(often(Duration::from_millis(50))).await.unwrap(),
    );
    let first = create(&one, "/g/r/a", "1").await;
    let compacted = within("history is compacted", async {
        loop {
            match two.watch(first).await {
                Err(StoreError::Compacted { asked, oldest }) => break (asked, oldest),
                Err(other) => panic!("{other}"),
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    assert!(compacted.0 == first && compacted.1 > first, "{compacted:?}");
    let newest = two.revision().await.unwrap();
    assert!(two.range("/", RangeOptions { revision: Some(newest), ..RangeOptions::default() }).await.is_ok());
    assert_eq!(two.get("/g/r/a").await.unwrap().unwrap().mod_revision, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_broken_off_is_not_shown() {
    let etcd = Etcd::start();
    let (one, two) = (open(&[etcd.url()]).await, open(&[etcd.url()]).await);
    create(&*one, "/g/r/old", "1").await;
    let cache = Cacher::start(Arc::clone(&two) as Arc<dyn Store>, |_| Vec::new()).await.unwrap();
    let batch = |keys: &[&str]| Ok(keys.iter().map(|key| ((*key).to_owned(), Bytes::from_static(b"v"))).collect());
    let broken = StoreError::Corrupt("the source broke".to_owned());
    let source = futures::stream::iter([batch(&["/g/r/new"]), Err(broken.clone())]).boxed();
    assert_eq!(one.restore(source, 0).await, Err(broken));
    // Neither this server, nor another, nor the next start shows half of it.
    let next = open(&[etcd.url()]).await;
    for store in [&one, &two, &next] {
        let refused = store.range("/", RangeOptions::default()).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        let refused = write(&**store, "/g/r/more", Expect::Absent, "v").await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    assert!(cache.get(&pods(), "a", "x").await.is_err());
    let newest = next.restore(futures::stream::iter([batch(&["/g/r/new"])]).boxed(), 0).await.unwrap();
    for store in [&one, &two, &next] {
        let range = store.range("/", RangeOptions::default()).await.unwrap();
        assert_eq!((range.revision, range.items.len()), (newest, 1));
    }
    let kind = pods();
    eventually("the cache has loaded what was restored", || cache.get(&kind, "a", "x")).await;
    assert!(cache.revision() >= newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_does_not_take_is_too_large_and_holds_up_nothing() {
    let etcd = Etcd::start();
    let store = open(&[etcd.url()]).await;
    // Beyond what etcd stores, and beyond what it reads at all.
    for bytes in [1_700_000, 2_900_000] {
        let refused = write(&*store, "/g/r/large", Expect::Absent, &"x".repeat(bytes)).await;
        assert!(matches!(refused, Err(StoreError::TooLarge(_))), "{bytes}: {refused:?}");
    }
    let revision = create(&*store, "/g/r/large", &"x".repeat(1_000_000)).await;
    let refused = write(&*store, "/g/r/large", Expect::At(revision), &"x".repeat(1_700_000)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge(_))), "{refused:?}");
    assert_eq!(store.get("/g/r/large").await.unwrap().unwrap().mod_revision, revision);
}

/// A client of an etcd with certificates.
async fn client(etcd: &Etcd, ca: &CertifiedIssuer<'static, KeyPair>, user: &str) -> Client {
    let (cert, key) = signed(ca, user);
    let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca.pem())).identity(Identity::from_pem(cert, key));
    Client::connect([etcd.url()], Some(ConnectOptions::new().with_tls(tls))).await.unwrap()
}

/// Lets the user `skiff` read and write `/skiff/` and nothing else.
async fn limit_to_the_prefix(admin: &mut Client) {
    for name in ["root", "skiff"] {
        admin.user_add(name, "", Some(UserAddOptions::new().with_no_pwd())).await.unwrap();
        admin.role_add(name).await.unwrap();
        admin.user_grant_role(name, name).await.unwrap();
    }
    let own = Permission::read_write("/skiff/").with_prefix();
    admin.role_grant_permission("skiff", own).await.unwrap();
    admin.auth_enable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_etcd_with_skiffs_own_keys_alone_is_enough() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), authority());
    let etcd = with_certificates(&ours, folder.path());
    let mut admin = client(&etcd, &ours, "root").await;
    limit_to_the_prefix(&mut admin).await;
    admin.put("/of/another", "1", None).await.unwrap();
    let refused = client(&etcd, &ours, "skiff").await.get("/of/another", None).await;
    assert!(refused.unwrap_err().to_string().contains("permission denied"));

    let tls = Some(EtcdTls { ca: ours.pem(), identity: Some(signed(&ours, "skiff")) });
    let store = Arc::new(EtcdStore::open(EtcdOptions { tls, ..options(&[etcd.url()]) }).await.unwrap());
    let cache = Cacher::start(Arc::clone(&store) as Arc<dyn Store>, |_| Vec::new()).await.unwrap();
    let first = put(&cache, "x", Expect::Absent, 0).await;
    for n in 0..3 {
        admin.put("/of/another", n.to_string(), None).await.unwrap();
        let page = within("a list", cache.list(&pods(), &ListQuery::default())).await.unwrap();
        assert_eq!((page.entries.len(), page.entries[0].resource_version), (1, first));
    }
    store.health().await.unwrap();
    store.size_bytes().await.unwrap();
    let second = put(&cache, "x", Expect::At(first), 1).await;
    store.compact(second).await.unwrap();
    let compacted = store.watch(first).await.err();
    assert!(matches!(compacted, Some(StoreError::Compacted { .. })), "{compacted:?}");
    assert_eq!(store.share("name", b"value").await.unwrap(), b"value");
}
