//! The watch cache: every object in memory as encoded bytes; reads and watches are served from it.
//!
//! One task follows the store's events and takes each into its kind ([`kind`]), which tells its watchers
//! ([`watchers`]); each watcher reads from a bounded queue ([`stream`]). Objects are kept in [`sorted`] chunks, so
//! that a list holds no lock while it is read.

mod feed;
mod fresh;
mod kind;
mod sorted;
mod stream;
mod watchers;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::stream::BoxStream;
use memchr::memmem;
use parking_lot::RwLock;
use skiff_api::{
    kinds::{Durability, StorageKey},
    object::Object,
    selector::Selector,
    wire::{self, Entry},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{Expect, KeyValue, RangeOptions, Revision, Store, StoreError, Write, WriteOutcome};
use fresh::Fresh;
use kind::{Kind, entry_of, page};
use stream::{Reader, Subscription};
use watchers::{QUEUE_EVENTS, Selection, Watcher};

/// What a list asks of the cache.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only what this selects.
    pub selector: Selector,
    /// How many at most; 0 for all.
    pub limit: usize,
    /// Only after this `(namespace, name)`.
    pub start_after: Option<(String, String)>,
    /// At exactly this revision (the later pages of a list, or `resourceVersionMatch=Exact`).
    pub revision: Option<Revision>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// The revision at which the page is consistent.
    pub revision: Revision,
    /// The objects in key order.
    pub entries: Vec<Arc<Entry>>,
    /// How many objects follow after this page; `None` where a selector makes counting dear.
    pub remaining: Option<usize>,
    /// Whether objects follow after this page.
    pub more: bool,
}

/// What a watch asks of the cache.
#[derive(Clone, Debug, Default)]
pub struct WatchQuery {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only what this selects.
    pub selector: Selector,
    /// Every change after this revision; `None` sends the present objects as `Added` first (`resourceVersion` 0 or unset).
    pub after: Option<Revision>,
    /// Whether a bookmark marks the end of the initial objects (`sendInitialEvents`).
    pub mark_initial_end: bool,
    /// Whether bookmarks are sent from time to time, and before the end when the time is up.
    pub bookmarks: bool,
    /// After which time the watch ends of itself.
    pub timeout: Option<Duration>,
}

/// One change as a watcher with a selector sees it.
#[derive(Clone, Debug)]
pub enum CacheEvent {
    /// Came into being, or into the selection.
    Added(Arc<Entry>),
    /// Changed.
    Modified(Arc<Entry>),
    /// Gone, or out of the selection: the last version, with the revision of the change.
    Deleted(Arc<Entry>),
    /// All up to this revision has been sent; `initial_end` ends the initial objects.
    Bookmark {
        /// The revision.
        revision: Revision,
        /// Whether this ends the initial objects.
        initial_end: bool,
    },
}

/// The events of a watch. Ends with an error when the watcher fell behind or the cache lost its place, without one
/// when its time is up or the cache is closed. Dropping it ends the watch.
pub type CacheStream = BoxStream<'static, Result<CacheEvent, StoreError>>;

/// How a write through the cache ended.
#[derive(Debug)]
pub enum CacheOutcome {
    /// Done: the new version, or, for a delete, the last one with the revision of the deletion.
    Done(Arc<Entry>),
    /// Not done: this is what is there.
    Mismatch(Option<Arc<Entry>>),
}

/// How many objects are read from the store at once.
const LOAD_PAGE: usize = 500;

/// The watch cache above a store.
pub struct Cacher {
    shared: Arc<Shared>,
}

/// Gives the selectable fields of a kind.
type Selectable = dyn Fn(&StorageKey) -> Vec<&'static str> + Send + Sync;

/// What the cache and its feed share.
struct Shared {
    store: Arc<dyn Store>,
    fresh: Fresh,
    kinds: RwLock<HashMap<StorageKey, Arc<Kind>>>,
    selectable: Box<Selectable>,
    /// The newest revision that every kind has taken in and told its watchers of.
    published: watch::Sender<Revision>,
    /// The revision that the objects were loaded at.
    loaded: AtomicU64,
    next_watcher: AtomicU64,
    stop: CancellationToken,
}

impl Drop for Cacher {
    fn drop(&mut self) {
        self.close();
    }
}

impl Cacher {
    /// Loads every object of the store and follows its changes. `selectable` gives the selectable fields of a kind.
    pub async fn start(
        store: Arc<dyn Store>,
        selectable: impl Fn(&StorageKey) -> Vec<&'static str> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, StoreError> {
        let shared = Arc::new(Shared {
            store,
            fresh: Fresh::default(),
            kinds: RwLock::default(),
            selectable: Box::new(selectable),
            published: watch::Sender::new(0),
            loaded: AtomicU64::new(0),
            next_watcher: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let events = shared.load().await?;
        tokio::spawn(feed::run(Arc::clone(&shared), events));
        Ok(Arc::new(Self { shared }))
    }

    /// Ends all watches and stops following the store. Reads go on with what is there; writes fail.
    pub fn close(&self) {
        self.shared.stop.cancel();
        self.shared.end_watches(None);
    }

    /// The newest version of one object. Consistent: it has every write acknowledged before the call.
    pub async fn get(&self, kind: &StorageKey, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, StoreError> {
        self.shared.catch_up().await?;
        let found = self.peek(kind, namespace, name);
        if found.is_none() {
            let key = kind.key(namespace, name);
            self.shared.kind(kind).state.read().check_key(&key)?;
        }
        Ok(found)
    }

    /// The newest version that this process has seen, without asking the store (`resourceVersion=0`, admission,
    /// authorization).
    pub fn peek(&self, kind: &StorageKey, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let kind = self.shared.existing(kind)?;
        let state = kind.state.read();
        state.entries.get((namespace, name)).cloned()
    }

    /// All that this process has seen of a kind, without asking the store.
    pub fn peek_all(&self, kind: &StorageKey, namespace: Option<&str>) -> Vec<Arc<Entry>> {
        let Some(kind) = self.shared.existing(kind) else { return Vec::new() };
        let entries = kind.state.read().entries.clone();
        let selection = Selection { namespace: namespace.map(str::to_owned), selector: Selector::everything() };
        page(&entries, &selection, None, 0, 0).entries
    }

    /// A page of objects. Consistent unless a revision is asked for.
    pub async fn list(&self, kind: &StorageKey, query: &ListQuery) -> Result<Page, StoreError> {
        self.shared.catch_up().await?;
        let cached = self.shared.kind(kind);
        let selection = Selection { namespace: query.namespace.clone(), selector: query.selector.clone() };
        let found = {
            let state = cached.state.read();
            state.check(&kind.prefix())?;
            let newest = state.revision(*self.shared.published.borrow());
            match query.revision {
                Some(asked) if asked > newest => return Err(StoreError::Future { asked, newest }),
                Some(asked) => state.at(asked).map(|entries| (entries, asked)),
                None => Some((state.entries.clone(), newest)),
            }
        };
        let after = query.start_after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        match (found, query.revision) {
            (Some((entries, revision)), _) => Ok(page(&entries, &selection, after, query.limit, revision)),
            (None, asked) => self.list_stored(kind, query, &selection, asked).await,
        }
    }

    /// A page at a revision older than the cache remembers, from the store's history.
    async fn list_stored(
        &self,
        kind: &StorageKey,
        query: &ListQuery,
        selection: &Selection,
        revision: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let cached = self.shared.kind(kind);
        let prefix = query.namespace.as_ref().map_or_else(|| kind.prefix(), |namespace| kind.key(namespace, ""));
        let mut start_after = query.start_after.as_ref().map(|(namespace, name)| kind.key(namespace, name));
        let wanted = if query.limit == 0 { usize::MAX } else { query.limit };
        let mut entries = Vec::new();
        loop {
            let limit = (wanted - entries.len()).min(LOAD_PAGE);
            let options = RangeOptions { revision, limit, start_after, count: false };
            let range = self.shared.store.range(&prefix, options).await?;
            for pair in &range.items {
                let entry = entry_of(&pair.key, &pair.value, pair.mod_revision, &cached.selectable)?;
                if selection.has(&entry.head) {
                    entries.push(entry);
                }
            }
            if !range.more || entries.len() >= wanted {
                return Ok(Page { revision: range.revision, entries, remaining: None, more: range.more });
            }
            start_after = range.items.last().map(|pair| pair.key.clone());
        }
    }

    /// A watch.
    pub async fn watch(&self, kind: &StorageKey, query: WatchQuery) -> Result<CacheStream, StoreError> {
        self.shared.catch_up().await?;
        let kind_state = self.shared.kind(kind);
        let selection = Selection { namespace: query.namespace, selector: query.selector };
        let (sender, queue) = mpsc::channel(QUEUE_EVENTS);
        let ended = Arc::new(OnceLock::new());
        let id = self.shared.next_watcher.fetch_add(1, Ordering::Relaxed);
        let mut first = VecDeque::new();
        {
            let mut state = kind_state.state.write();
            if self.shared.stop.is_cancelled() {
                return Err(closed());
            }
            let newest = state.revision(*self.shared.published.borrow());
            match query.after {
                Some(asked) if asked > newest => return Err(StoreError::Future { asked, newest }),
                Some(asked) => {
                    let changes = state.since(asked).map_err(|oldest| StoreError::Compacted { asked, oldest })?;
                    first.extend(changes.filter_map(|change| change.seen_by(&selection)));
                }
                None => {
                    state.check(&kind.prefix())?;
                    let present = page(&state.entries, &selection, None, 0, newest);
                    first.extend(present.entries.into_iter().map(CacheEvent::Added));
                }
            }
            if query.mark_initial_end {
                first.push_back(CacheEvent::Bookmark { revision: newest, initial_end: true });
            }
            let (bookmarks, ended) = (query.bookmarks, Arc::clone(&ended));
            let watcher = Watcher { id, selection, bookmarks, queue: sender, ended };
            state.watchers.add(watcher, &kind_state.selectable);
        }
        let reader = Reader {
            first,
            queue,
            ended,
            deadline: query.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            bookmarks: query.bookmarks,
            published: self.shared.published.subscribe(),
            subscription: Some(Subscription { kind: kind_state, id }),
        };
        Ok(reader.stream())
    }

    /// One compare-and-swap of an object (`None` deletes), published before it is acknowledged.
    pub async fn write(
        &self,
        kind: &StorageKey,
        namespace: &str,
        name: &str,
        expect: Expect,
        object: Option<&Object>,
        durability: Durability,
    ) -> Result<CacheOutcome, StoreError> {
        if self.shared.stop.is_cancelled() {
            return Err(closed());
        }
        let key = kind.key(namespace, name);
        let value = object.map(wire::encode);
        let before = if value.is_none() { self.peek(kind, namespace, name) } else { None };
        // A deletion that is done has deleted the version it expected.
        let before = before.filter(|entry| expect == Expect::At(entry.resource_version));
        let write = Write { key: key.clone(), expect, value: value.clone(), durability };
        let revision = match self.shared.store.write(write).await? {
            WriteOutcome::Done(revision) => revision,
            WriteOutcome::Mismatch(there) => return self.mismatch(kind, there).await,
        };
        let seen = self.shared.wait_for(revision).await;
        if self.shared.store.sole_writer() {
            seen?;
        }
        // It is done in any case; where the feed is late, later reads wait for it.
        let cached = self.shared.kind(kind);
        if let Some(change) = cached.state.read().change(revision)
            && let Some(entry) = change.entry.clone().or_else(|| change.gone())
        {
            return Ok(CacheOutcome::Done(entry));
        }
        // So much has happened since that the change is no longer remembered.
        let entry = match value {
            Some(value) => Some(entry_of(&key, &value, revision, &cached.selectable)?),
            None => before.and_then(|entry| respliced(&entry, revision)),
        };
        let unseen =
            || StoreError::Unavailable(format!("{key} is deleted, but the watch cache has not seen what it was"));
        entry.map(CacheOutcome::Done).ok_or_else(unseen)
    }

    /// What a refused write is told: the version that is there, once it can be read from the cache.
    async fn mismatch(&self, kind: &StorageKey, there: Option<KeyValue>) -> Result<CacheOutcome, StoreError> {
        let Some(pair) = there else { return Ok(CacheOutcome::Mismatch(None)) };
        self.shared.wait_for(pair.mod_revision).await?;
        let entry = entry_of(&pair.key, &pair.value, pair.mod_revision, &self.shared.kind(kind).selectable)?;
        Ok(CacheOutcome::Mismatch(Some(entry)))
    }

    /// Whether nobody but this process writes to the store.
    pub fn is_sole_writer(&self) -> bool {
        self.shared.store.sole_writer()
    }

    /// The newest revision published.
    pub fn revision(&self) -> Revision {
        *self.shared.published.borrow()
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the server is stopping".to_owned())
}

/// The same version under another revision: what a watcher is told of an object that is gone.
fn respliced(entry: &Entry, revision: Revision) -> Option<Arc<Entry>> {
    const FIELD: &[u8] = b"\"metadata\":{\"resourceVersion\":\"";
    let digits = memmem::find(&entry.json, FIELD)? + FIELD.len();
    let end = digits + memchr::memchr(b'"', &entry.json[digits..])?;
    let mut json = Vec::with_capacity(entry.json.len() + 2);
    json.extend_from_slice(&entry.json[..digits]);
    json.extend_from_slice(revision.to_string().as_bytes());
    json.extend_from_slice(&entry.json[end..]);
    Some(Arc::new(Entry { resource_version: revision, head: entry.head.clone(), json: json.into() }))
}
