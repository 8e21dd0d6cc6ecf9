//! A kind's objects in memory, kept current by list and watch: one for each kind in a process, shared by all that
//! need it.
//!
//! # Flow
//! `Reflector` (one task an informer) lists, watches, and feeds `Cache`; `Cache` applies a change only if it is
//! newer than what it has, and tells every subscriber.
//!
//! # Guarantees
//! - Objects never go back in time, and an object that was deleted does not come back.
//! - A subscriber is told of every change, or is told [`Change::Resync`] and looks at everything: nothing is lost
//!   silently.
//! - What a component has written itself it can see at once, if it hands the answer to [`Informer::observe`].

mod cache;
pub mod reflector;
mod subscription;

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use skiff_api::{
    request::{Options, Request, Verb},
    wire::Entry,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Client, WatchEvent,
    client::{Kind, many, resource_of},
};
use cache::Cache;
pub use subscription::{Change, Subscription};

/// The place of an object within its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The key of a namespace and a name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: Kind>(object: &K) -> Self {
        let metadata = object.metadata();
        Self::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// The informers of a process. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    cancel: CancellationToken,
    by_kind: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Informers {
    /// No informers yet. Each begins when it is first asked for and ends with `cancel`.
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { shared: Arc::new(Shared { client, cancel, by_kind: Mutex::default() }) }
    }

    /// The informer of all objects of a kind. Must be called within a Tokio runtime.
    pub fn of<K: Kind>(&self) -> Arc<Informer<K>> {
        let mut by_kind = self.shared.by_kind.lock();
        if let Some(known) = by_kind.get(&TypeId::of::<K>()).and_then(|any| Arc::clone(any).downcast().ok()) {
            return known;
        }
        let informer = self.select::<K>(None, &Options::default());
        by_kind.insert(TypeId::of::<K>(), Arc::clone(&informer) as Arc<dyn Any + Send + Sync>);
        informer
    }

    /// A further informer, of the objects of one namespace or those that the options' selectors select. Not shared:
    /// keep the `Arc`. Must be called within a Tokio runtime.
    pub fn select<K: Kind>(&self, namespace: Option<&str>, options: &Options) -> Arc<Informer<K>> {
        let informer = Arc::new(Informer::new());
        let list = many(Verb::List, resource_of::<K>(), namespace, options);
        self.reflect(list, Arc::clone(&informer));
        informer
    }

    /// The client that the informers use.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Ends when the informers do.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.shared.cancel
    }

    fn reflect<K: Kind>(&self, list: Request, informer: Arc<Informer<K>>) {
        let (client, cancel) = (self.shared.client.clone(), self.shared.cancel.clone());
        tokio::spawn(reflector::run(client, list, informer, cancel));
    }
}

/// The objects of one kind (or a selection of them).
pub struct Informer<K> {
    cache: Mutex<Cache<K>>,
    synced: watch::Sender<bool>,
    /// Objects that could not be read as `K`.
    unreadable: AtomicU64,
}

impl<K: Kind> Informer<K> {
    fn new() -> Self {
        Self { cache: Mutex::new(Cache::default()), synced: watch::Sender::new(false), unreadable: AtomicU64::new(0) }
    }

    /// One object. `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.cache.lock().get(&Key::new(namespace, name))
    }

    /// All objects, in the order of namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.cache.lock().list()
    }

    /// The objects of a namespace, in the order of their names.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.cache.lock().list_in(namespace)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.cache.lock().len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps an index from now on: `values` says under which values an object is found by [`Self::indexed`].
    /// Indices are known by their names; the second call with a name does nothing.
    pub fn index(&self, name: &'static str, values: fn(&K) -> Vec<String>) {
        self.cache.lock().add_index(name, values);
    }

    /// The objects that an index has under a value, in no particular order; none if there is no such index.
    pub fn indexed(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        self.cache.lock().indexed(index, value)
    }

    /// The changes from now on. The first item is always [`Change::Resync`]: look at [`Self::list`], then follow.
    pub fn subscribe(&self) -> Subscription<K> {
        self.cache.lock().subscribe()
    }

    /// Waits until the first list is in. Ends early, and without the list, only when the process does.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // Fails only if the sender is gone, and `self` holds it.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Takes in the answer to a write of one's own, ahead of the watch, so that the next look sees it. What is not
    /// newer than what is known is ignored, so this can never bring back an object that was deleted since.
    pub fn observe(&self, object: K) {
        let revision = revision_of(&object);
        self.cache.lock().observe(revision, lean(object));
    }

    /// The revision up to which the watch has told everything.
    pub fn resource_version(&self) -> u64 {
        self.cache.lock().revision()
    }

    /// How many objects could not be read as this kind since the start; they are left out.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    fn read(&self, entry: &Entry) -> Option<K> {
        match serde_json::from_slice::<K>(&entry.json) {
            Ok(object) => Some(lean(object)),
            Err(error) => {
                self.unreadable.fetch_add(1, Ordering::Relaxed);
                let (namespace, name) = (&entry.head.namespace, &entry.head.name);
                tracing::warn!(kind = K::KIND, namespace, name, %error, "an object cannot be read and is left out");
                None
            }
        }
    }
}

impl<K: Kind> reflector::Sink for Informer<K> {
    fn replace(&self, entries: &[Arc<Entry>], resource_version: u64) {
        let objects = entries.iter().filter_map(|entry| Some((entry.resource_version, self.read(entry)?))).collect();
        self.cache.lock().replace(objects, resource_version);
        self.synced.send_replace(true);
    }

    fn apply(&self, event: &WatchEvent) {
        match event {
            WatchEvent::Added(entry) | WatchEvent::Modified(entry) => {
                let Some(object) = self.read(entry) else { return };
                self.cache.lock().upsert(entry.resource_version, object);
            }
            WatchEvent::Deleted(entry) => {
                let key = Key::new(&*entry.head.namespace, &*entry.head.name);
                self.cache.lock().delete(&key, entry.resource_version);
            }
            WatchEvent::Bookmark { resource_version, .. } => self.cache.lock().bookmark(*resource_version),
        }
    }
}

fn revision_of<K: Kind>(object: &K) -> u64 {
    object.metadata().resource_version.as_ref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Without what nobody reads from memory: the bookkeeping of server-side apply is often half of an object. And as a
/// copy, whose lists have no room to spare: one that is read from JSON has room for four where it holds one.
fn lean<K: Kind>(mut object: K) -> K {
    object.metadata_mut().managed_fields = None;
    object.clone()
}
