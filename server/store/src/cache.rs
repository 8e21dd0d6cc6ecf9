//! The watch cache: every object in memory as encoded bytes; reads and watches are served from it.

use std::sync::Arc;

use futures::stream::BoxStream;
use skiff_api::{
    kinds::{Durability, StorageKey},
    object::Object,
    selector::Selector,
    wire::Entry,
};

use crate::{Expect, Revision, Store, StoreError};

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
    /// Whether bookmarks are sent from time to time.
    pub bookmarks: bool,
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

/// The events of a watch; ends with an error when the watcher fell behind or the cache lost its place.
pub type CacheStream = BoxStream<'static, Result<CacheEvent, StoreError>>;

/// How a write through the cache ended.
#[derive(Debug)]
pub enum CacheOutcome {
    /// Done: the new version, or, for a delete, the last one with the revision of the deletion.
    Done(Arc<Entry>),
    /// Not done: this is what is there.
    Mismatch(Option<Arc<Entry>>),
}

/// The watch cache above a store.
pub struct Cacher {}

impl Cacher {
    /// Loads every object of the store and follows its changes. `selectable` gives the selectable fields of a kind.
    pub async fn start(
        _store: Arc<dyn Store>,
        _selectable: impl Fn(&StorageKey) -> Vec<&'static str> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, StoreError> {
        Err(StoreError::Unavailable("the watch cache is not written yet".to_owned()))
    }

    /// The newest version of one object. Consistent: it has every write acknowledged before the call.
    pub async fn get(
        &self,
        _kind: &StorageKey,
        _namespace: &str,
        _name: &str,
    ) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(None)
    }

    /// The newest version that this process has seen, without asking the store (`resourceVersion=0`, admission,
    /// authorization).
    pub fn peek(&self, _kind: &StorageKey, _namespace: &str, _name: &str) -> Option<Arc<Entry>> {
        None
    }

    /// All that this process has seen of a kind, without asking the store.
    pub fn peek_all(&self, _kind: &StorageKey, _namespace: Option<&str>) -> Vec<Arc<Entry>> {
        Vec::new()
    }

    /// A page of objects. Consistent unless a revision is asked for.
    pub async fn list(&self, _kind: &StorageKey, _query: &ListQuery) -> Result<Page, StoreError> {
        Err(StoreError::Unavailable("the watch cache is not written yet".to_owned()))
    }

    /// A watch.
    pub async fn watch(&self, _kind: &StorageKey, _query: WatchQuery) -> Result<CacheStream, StoreError> {
        Err(StoreError::Unavailable("the watch cache is not written yet".to_owned()))
    }

    /// One compare-and-swap of an object (`None` deletes), published before it is acknowledged.
    pub async fn write(
        &self,
        _kind: &StorageKey,
        _namespace: &str,
        _name: &str,
        _expect: Expect,
        _object: Option<&Object>,
        _durability: Durability,
    ) -> Result<CacheOutcome, StoreError> {
        Err(StoreError::Unavailable("the watch cache is not written yet".to_owned()))
    }

    /// The newest revision published.
    pub fn revision(&self) -> Revision {
        0
    }
}
