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

/// What a watcher's changes have in common, as far as an index can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    Everywhere,
    Name(String),
    Field(&'static str, String),
    Namespace(String),
}

impl Scope {
    /// The narrowest scope that holds everything of a selection.
    fn of(selection: &Selection, selectable: &[&'static str]) -> Self {
        if let Some(name) = selection.selector.pinned_name() {
            return Self::Name(name.to_owned());
        }
        let pinned =
            |field: &&'static str| Some(Self::Field(field, selection.selector.pinned_field(field)?.to_owned()));
        let field = selectable.iter().find_map(pinned);
        let namespace = || selection.namespace.clone().map(Self::Namespace);
        field.or_else(namespace).unwrap_or(Self::Everywhere)
    }
}

/// The watchers of a kind, by what they look at, so that a change is shown only to those it may concern.
#[derive(Default)]
pub(super) struct Watchers {
    everywhere: Vec<Watcher>,
    by_name: HashMap<String, Vec<Watcher>>,
    by_namespace: HashMap<String, Vec<Watcher>>,
    by_field: HashMap<&'static str, HashMap<String, Vec<Watcher>>>,
    /// Which watcher is where, until its stream is dropped.
    scopes: HashMap<u64, Scope>,
}

/// Tells those of an index whom a change concerns; ends those that are too slow.
fn tell_some(watchers: Option<&mut Vec<Watcher>>, change: &Change) {
    let tell =
        |watcher: &Watcher| change.seen_by(&watcher.selection).is_none_or(|event| watcher.send(event, change.revision));
    if let Some(watchers) = watchers {
        watchers.retain(tell);
    }
}

impl Watchers {
    /// `selectable` are the fields that heads of the kind have.
    pub(super) fn add(&mut self, watcher: Watcher, selectable: &[&'static str]) {
        let scope = Scope::of(&watcher.selection, selectable);
        self.scopes.insert(watcher.id, scope.clone());
        match scope {
            Scope::Everywhere => self.everywhere.push(watcher),
            Scope::Name(name) => self.by_name.entry(name).or_default().push(watcher),
            Scope::Namespace(namespace) => self.by_namespace.entry(namespace).or_default().push(watcher),
            Scope::Field(field, value) => {
                self.by_field.entry(field).or_default().entry(value).or_default().push(watcher);
            }
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        let take = |index: &mut HashMap<String, Vec<Watcher>>, key: &str| {
            let Some(watchers) = index.get_mut(key) else { return };
            watchers.retain(|watcher| watcher.id != id);
            if watchers.is_empty() {
                index.remove(key);
            }
        };
        match self.scopes.remove(&id) {
            None => {}
            Some(Scope::Everywhere) => self.everywhere.retain(|watcher| watcher.id != id),
            Some(Scope::Name(name)) => take(&mut self.by_name, &name),
            Some(Scope::Namespace(namespace)) => take(&mut self.by_namespace, &namespace),
            Some(Scope::Field(field, value)) => {
                if let Some(index) = self.by_field.get_mut(field) {
                    take(index, &value);
                }
            }
        }
    }

    /// Tells all whom it concerns.
    pub(super) fn dispatch(&mut self, change: &Change) {
        let Some(head) = change.head() else { return };
        tell_some(Some(&mut self.everywhere), change);
        tell_some(self.by_name.get_mut(&head.name), change);
        tell_some(self.by_namespace.get_mut(&head.namespace), change);
        for (field, index) in &mut self.by_field {
            let value = |entry: &Option<Arc<Entry>>| {
                let fields = &entry.as_ref()?.head.fields;
                fields.iter().find(|(name, _)| name == field).map(|(_, value)| value.clone())
            };
            let (before, now) = (value(&change.previous), value(&change.entry));
            let left = before.filter(|before| now.as_ref() != Some(before));
            for value in now.into_iter().chain(left) {
                tell_some(index.get_mut(&value), change);
            }
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Vec<Watcher>> {
        let by_field = self.by_field.values_mut().flat_map(HashMap::values_mut);
        let indexed = self.by_name.values_mut().chain(self.by_namespace.values_mut()).chain(by_field);
        std::iter::once(&mut self.everywhere).chain(indexed)
    }

    /// Tells those who asked for bookmarks that they have everything up to a revision.
    pub(super) fn bookmark(&mut self, revision: Revision) {
        // One that is gone is taken off by its own stream.
        self.all().flatten().filter(|watcher| watcher.bookmarks).for_each(|watcher| {
            let _ = watcher.queue.try_send(CacheEvent::Bookmark { revision, initial_end: false });
        });
    }

    /// Ends all watches, with an error or, when the cache is closed, without.
    pub(super) fn end(&mut self, error: Option<&StoreError>) {
        let mut watchers = std::mem::take(self);
        for watcher in watchers.all().flat_map(std::mem::take) {
            if let Some(error) = error {
                let _ = watcher.ended.set(error.clone());
            }
        }
    }
}
