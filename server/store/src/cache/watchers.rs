//! Who watches a kind, and what each of them is told of a change.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use skiff_api::{
    selector::Selector,
    wire::{Entry, Head},
};
use tokio::sync::mpsc;

use super::{CacheEvent, respliced};
use crate::{Revision, StoreError};

/// How many events may wait for a watcher. One that falls further behind is ended and lists again.
pub(super) const QUEUE_EVENTS: usize = 1_024;

/// One change of one object, shared by all who watch it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    /// The new version; `None` where the object was deleted.
    pub(super) entry: Option<Arc<Entry>>,
    /// The version before; `None` where the object was created.
    pub(super) previous: Option<Arc<Entry>>,
    /// The version before with this change's revision, made when first asked for.
    gone: OnceLock<Option<Arc<Entry>>>,
}

impl Change {
    pub(super) fn new(revision: Revision, entry: Option<Arc<Entry>>, previous: Option<Arc<Entry>>) -> Self {
        Self { revision, entry, previous, gone: OnceLock::new() }
    }

    /// The head of the object: of the new version, or of the last one.
    pub(super) fn head(&self) -> Option<&Head> {
        self.entry.as_ref().or(self.previous.as_ref()).map(|entry| &entry.head)
    }

    /// The last version with the revision of the change, as a watcher is told of an object that is gone.
    pub(super) fn gone(&self) -> Option<Arc<Entry>> {
        self.gone.get_or_init(|| self.previous.as_ref().and_then(|entry| respliced(entry, self.revision))).clone()
    }

    /// What a watcher with a selection is told.
    pub(super) fn seen_by(&self, selection: &Selection) -> Option<CacheEvent> {
        let now = self.entry.as_ref().filter(|entry| selection.has(&entry.head));
        let before = self.previous.as_ref().is_some_and(|entry| selection.has(&entry.head));
        match (before, now) {
            (false, Some(entry)) => Some(CacheEvent::Added(Arc::clone(entry))),
            (true, Some(entry)) => Some(CacheEvent::Modified(Arc::clone(entry))),
            (true, None) => self.gone().map(CacheEvent::Deleted),
            (false, None) => None,
        }
    }
}

/// What of a kind is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
}

impl Selection {
    pub(super) fn has(&self, head: &Head) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == head.namespace) && self.selector.matches(head)
    }
}

/// Why a watch was ended, if not because the cache was closed.
pub(super) type Ended = Arc<OnceLock<StoreError>>;

/// One watcher.
pub(super) struct Watcher {
    pub(super) id: u64,
    pub(super) selection: Selection,
    pub(super) bookmarks: bool,
    pub(super) queue: mpsc::Sender<CacheEvent>,
    pub(super) ended: Ended,
}

impl Watcher {
    /// Whether the watcher is still there.
    fn send(&self, event: CacheEvent, revision: Revision) -> bool {
        match self.queue.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                let _ = self.ended.set(StoreError::Compacted { asked: 0, oldest: revision });
                false
            }
        }
    }
}

/// The watchers of a kind, by what they look at, so that a change is shown only to those it may concern.
#[derive(Default)]
pub(super) struct Watchers {
    everywhere: Vec<Watcher>,
    by_namespace: HashMap<String, Vec<Watcher>>,
}

impl Watchers {
    pub(super) fn add(&mut self, watcher: Watcher) {
        match &watcher.selection.namespace {
            None => self.everywhere.push(watcher),
            Some(namespace) => self.by_namespace.entry(namespace.clone()).or_default().push(watcher),
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.everywhere.retain(|watcher| watcher.id != id);
        self.by_namespace.retain(|_, watchers| {
            watchers.retain(|watcher| watcher.id != id);
            !watchers.is_empty()
        });
    }

    /// Tells all whom it concerns.
    pub(super) fn dispatch(&mut self, change: &Change) {
        let Some(head) = change.head() else { return };
        let tell = |watcher: &Watcher| match change.seen_by(&watcher.selection) {
            Some(event) => watcher.send(event, change.revision),
            None => true,
        };
        self.everywhere.retain(tell);
        if let Some(watchers) = self.by_namespace.get_mut(&head.namespace) {
            watchers.retain(tell);
        }
    }

    /// Tells those who asked for bookmarks that they have everything up to a revision.
    pub(super) fn bookmark(&mut self, revision: Revision) {
        let tell = |watcher: &Watcher| {
            !watcher.bookmarks || watcher.send(CacheEvent::Bookmark { revision, initial_end: false }, revision)
        };
        self.everywhere.retain(tell);
        self.by_namespace.values_mut().for_each(|watchers| watchers.retain(tell));
    }

    /// Ends all watches, with an error or, when the cache is closed, without.
    pub(super) fn end(&mut self, error: Option<&StoreError>) {
        let namespaced = std::mem::take(&mut self.by_namespace).into_values().flatten();
        for watcher in std::mem::take(&mut self.everywhere).into_iter().chain(namespaced) {
            if let Some(error) = error {
                let _ = watcher.ended.set(error.clone());
            }
        }
    }
}
