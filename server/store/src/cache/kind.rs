//! The objects of one kind, their recent changes, and those who watch them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use parking_lot::RwLock;
use skiff_api::wire::{Entry, Head};

use super::{
    Page,
    sorted::{Place, Position, Sorted, compare, place},
    watchers::{Change, Selection, Watchers},
};
use crate::{Event, KeyValue, Revision, StoreError};

/// How many recent changes of a kind are kept for watchers that come back and for pages of lists.
const RECENT_CHANGES: usize = 4_096;

/// How many bytes of objects the recent changes of a kind may keep alive.
const RECENT_BYTES: usize = 2 << 20;

/// See the module.
pub(super) struct Kind {
    /// The fields that selectors of this kind may name.
    pub(super) selectable: Vec<&'static str>,
    pub(super) state: RwLock<State>,
}

/// What changes of a kind.
pub(super) struct State {
    pub(super) entries: Sorted,
    /// All changes after `floor`.
    recent: VecDeque<Arc<Change>>,
    recent_bytes: usize,
    floor: Revision,
    /// The newest change.
    newest: Revision,
    /// Objects whose stored value makes no sense, by key.
    broken: BTreeMap<String, String>,
    pub(super) watchers: Watchers,
}

/// Namespace (empty for cluster-scoped objects) and name of a key `/group/resource/[namespace/]name`.
fn place_of(key: &str) -> Place<'_> {
    let rest = key.splitn(4, '/').nth(3).unwrap_or_default();
    rest.split_once('/').unwrap_or(("", rest))
}

/// The entry of a stored value. The key says where the object is, whatever its metadata says.
pub(super) fn entry_of(
    key: &str,
    value: &[u8],
    revision: Revision,
    selectable: &[&'static str],
) -> Result<Arc<Entry>, StoreError> {
    let corrupt = |why: &dyn std::fmt::Display| StoreError::Corrupt(format!("{key}: {why}"));
    let entry = Entry::from_stored(value, revision, selectable).map_err(|error| corrupt(&error))?;
    let (namespace, name) = place_of(key);
    if place(&entry) == (namespace, name) {
        return Ok(entry);
    }
    let head = Head { namespace: namespace.to_owned(), name: name.to_owned(), ..entry.head.clone() };
    Ok(Arc::new(Entry { resource_version: revision, head, json: entry.json.clone() }))
}

fn corrupt_text(error: StoreError) -> String {
    match error {
        StoreError::Corrupt(text) => text,
        other => other.to_string(),
    }
}

impl Kind {
    pub(super) fn new(selectable: Vec<&'static str>, floor: Revision) -> Self {
        let state = State {
            entries: Sorted::default(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            floor,
            newest: floor,
            broken: BTreeMap::new(),
            watchers: Watchers::default(),
        };
        Self { selectable, state: RwLock::new(state) }
    }

    /// Takes in an object that was there when the cache started.
    pub(super) fn load(&self, pair: &KeyValue) {
        let entry = entry_of(&pair.key, &pair.value, pair.mod_revision, &self.selectable);
        let mut state = self.state.write();
        match entry {
            Ok(entry) => drop(state.entries.insert(entry)),
            Err(error) => drop(state.broken.insert(pair.key.clone(), corrupt_text(error))),
        }
    }

    /// Takes in a change and tells the watchers.
    pub(super) fn apply(&self, event: &Event) {
        let entry = event.value.as_ref().map(|value| entry_of(&event.key, value, event.revision, &self.selectable));
        let mut state = self.state.write();
        state.newest = event.revision;
        state.broken.remove(&event.key);
        let (entry, previous) = match entry {
            Some(Ok(entry)) => (Some(Arc::clone(&entry)), state.entries.insert(entry)),
            None => (None, state.entries.remove(place_of(&event.key))),
            Some(Err(error)) => {
                tracing::error!(key = event.key, %error, "an object cannot be read");
                // Whoever watches must not take it for deleted.
                state.watchers.end(Some(&error));
                state.broken.insert(event.key.clone(), corrupt_text(error));
                (None, state.entries.remove(place_of(&event.key)))
            }
        };
        let change = Arc::new(Change::new(event.revision, entry, previous));
        state.watchers.dispatch(&change);
        state.remember(change);
    }
}

fn change_bytes(change: &Change) -> usize {
    // The new version is in the entries or the `previous` of a later change.
    change.previous.as_ref().map_or(0, |entry| entry.json.len()) + size_of::<Change>()
}

impl State {
    fn remember(&mut self, change: Arc<Change>) {
        self.recent_bytes += change_bytes(&change);
        self.recent.push_back(change);
        while self.recent.len() > RECENT_CHANGES || self.recent_bytes > RECENT_BYTES {
            let Some(oldest) = self.recent.pop_front() else { return };
            self.recent_bytes -= change_bytes(&oldest);
            self.floor = oldest.revision;
        }
    }

    /// Fails where an object of the selection cannot be read.
    pub(super) fn check(&self, prefix: &str) -> Result<(), StoreError> {
        match self.broken.iter().find(|(key, _)| key.starts_with(prefix)) {
            Some((_, why)) => Err(StoreError::Corrupt(why.clone())),
            None => Ok(()),
        }
    }

    /// Fails where this object cannot be read.
    pub(super) fn check_key(&self, key: &str) -> Result<(), StoreError> {
        self.broken.get(key).map_or(Ok(()), |why| Err(StoreError::Corrupt(why.clone())))
    }

    /// The revision that this state is complete up to, given the newest that all kinds have.
    pub(super) fn revision(&self, published: Revision) -> Revision {
        published.max(self.newest)
    }

    /// The changes after a revision, or the oldest revision that can be asked for.
    pub(super) fn since(&self, after: Revision) -> Result<impl DoubleEndedIterator<Item = &Arc<Change>>, Revision> {
        if after < self.floor {
            return Err(self.floor);
        }
        let first = self.recent.partition_point(|change| change.revision <= after);
        Ok(self.recent.range(first..))
    }

    /// The change of a revision.
    pub(super) fn change(&self, revision: Revision) -> Option<&Arc<Change>> {
        let index = self.recent.binary_search_by_key(&revision, |change| change.revision).ok()?;
        self.recent.get(index)
    }

    /// The objects as they were at a revision, if the recent changes reach back to it.
    pub(super) fn at(&self, revision: Revision) -> Option<Sorted> {
        let mut then = self.entries.clone();
        for change in self.since(revision).ok()?.rev() {
            match (&change.previous, &change.entry) {
                (Some(previous), _) => drop(then.insert(Arc::clone(previous))),
                (None, Some(entry)) => drop(then.remove(place(entry))),
                (None, None) => {}
            }
        }
        Some(then)
    }
}

/// Where a namespace (or everything) begins and ends.
fn bounds(entries: &Sorted, namespace: Option<&str>) -> (Position, Position) {
    match namespace {
        None => (entries.partition(|_| false), entries.partition(|_| true)),
        Some(namespace) => {
            let before = |entry: &Entry| compare(place(entry), (namespace, "")).is_lt();
            let until = |entry: &Entry| entry.head.namespace == namespace || before(entry);
            (entries.partition(before), entries.partition(until))
        }
    }
}

/// A page of objects at a revision.
pub(super) fn page(
    entries: &Sorted,
    selection: &Selection,
    start_after: Option<Place<'_>>,
    limit: usize,
    revision: Revision,
) -> Page {
    let namespace = selection.namespace.as_deref();
    let (mut start, end) = bounds(entries, namespace);
    if let Some(after) = start_after {
        let resumed = entries.partition(|entry| compare(place(entry), after).is_le());
        if entries.rank(resumed) > entries.rank(start) {
            start = resumed;
        }
    }
    let total = entries.rank(end).saturating_sub(entries.rank(start));
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut selected =
        entries.from(start).take(total).enumerate().filter(|(_, entry)| selection.selector.matches(&entry.head));
    let mut page = Vec::new();
    let mut passed = 0;
    for (index, entry) in selected.by_ref().take(limit) {
        page.push(Arc::clone(entry));
        passed = index + 1;
    }
    let more = selected.next().is_some();
    let remaining = (selection.selector.is_everything() || !more).then(|| if more { total - passed } else { 0 });
    Page { revision, entries: page, remaining, more }
}
