//! The objects of one kind in key order, cheap to keep a copy of.
//!
//! A sorted sequence in chunks that are shared until written to: a copy for a long list costs one reference a
//! chunk, a page is counted from chunk lengths, and the key is the entry's own head, stored once.

use std::{cmp::Ordering, sync::Arc};

use skiff_api::wire::Entry;

/// A chunk is split when it holds this many.
const CHUNK_ENTRIES: usize = 512;

/// An object's place: namespace (empty for cluster-scoped objects) and name.
pub(super) type Place<'a> = (&'a str, &'a str);

/// The order of the keys `namespace/name`, which is not that of the pairs: `a-b/x` comes before `a/x`.
pub(super) fn compare(a: Place<'_>, b: Place<'_>) -> Ordering {
    if a.0 == b.0 {
        return a.1.cmp(b.1);
    }
    bytes(a).cmp(bytes(b))
}

fn bytes<'a>((namespace, name): Place<'a>) -> impl Iterator<Item = u8> + 'a {
    namespace.bytes().chain((!namespace.is_empty()).then_some(b'/')).chain(name.bytes())
}

/// An entry's place.
pub(super) fn place(entry: &Entry) -> Place<'_> {
    (&entry.head.namespace, &entry.head.name)
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Sorted {
    /// None is empty.
    chunks: Vec<Arc<Vec<Arc<Entry>>>>,
    len: usize,
}

/// Where something is or would be.
#[derive(Clone, Copy)]
pub(super) struct Position {
    chunk: usize,
    offset: usize,
}

impl Sorted {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The position of the first entry for which `before` does not hold; it must hold for a beginning of the
    /// sequence alone.
    pub(super) fn partition(&self, before: impl Fn(&Entry) -> bool) -> Position {
        let chunk = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|first| before(first)));
        let Some(last) = chunk.checked_sub(1) else { return Position { chunk: 0, offset: 0 } };
        Position { chunk: last, offset: self.chunks[last].partition_point(|entry| before(entry)) }
    }

    fn find(&self, at: Place<'_>) -> (Position, bool) {
        let position = self.partition(|entry| compare(place(entry), at) == Ordering::Less);
        // The end of a chunk is the beginning of the next one.
        let here = self.chunks.get(position.chunk).is_some_and(|chunk| chunk.len() > position.offset);
        let position = match !here && position.chunk + 1 < self.chunks.len() {
            true => Position { chunk: position.chunk + 1, offset: 0 },
            false => position,
        };
        let found = self.at(position).is_some_and(|entry| place(entry) == at);
        (position, found)
    }

    fn at(&self, position: Position) -> Option<&Arc<Entry>> {
        self.chunks.get(position.chunk)?.get(position.offset)
    }

    pub(super) fn get(&self, at: Place<'_>) -> Option<&Arc<Entry>> {
        let (position, found) = self.find(at);
        if found { self.at(position) } else { None }
    }

    /// Puts an entry at its place; returns what was there.
    pub(super) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let (position, found) = self.find(place(&entry));
        if found {
            let chunk = Arc::make_mut(&mut self.chunks[position.chunk]);
            return Some(std::mem::replace(&mut chunk[position.offset], entry));
        }
        self.len += 1;
        let Some(chunk) = self.chunks.get_mut(position.chunk) else {
            self.chunks.push(Arc::new(vec![entry]));
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        chunk.insert(position.offset, entry);
        if chunk.len() > CHUNK_ENTRIES {
            // Keys that come in order fill their chunks.
            let grows_at_end = position.offset + 1 == chunk.len();
            let tail = chunk.split_off(if grows_at_end { CHUNK_ENTRIES } else { CHUNK_ENTRIES / 2 });
            self.chunks.insert(position.chunk + 1, Arc::new(tail));
        }
        None
    }

    /// Takes the entry at a place away.
    pub(super) fn remove(&mut self, at: Place<'_>) -> Option<Arc<Entry>> {
        let (position, found) = self.find(at);
        if !found {
            return None;
        }
        self.len -= 1;
        let chunk = Arc::make_mut(&mut self.chunks[position.chunk]);
        let entry = chunk.remove(position.offset);
        self.join(position.chunk);
        Some(entry)
    }

    /// Drops a chunk that has become empty, joins one that has become small to the one before it.
    fn join(&mut self, index: usize) {
        if self.chunks[index].is_empty() {
            self.chunks.remove(index);
            return;
        }
        let Some(before) = index.checked_sub(1) else { return };
        if self.chunks[before].len() + self.chunks[index].len() <= CHUNK_ENTRIES / 4 {
            let moved = self.chunks.remove(index);
            Arc::make_mut(&mut self.chunks[before]).extend(moved.iter().cloned());
        }
    }

    /// How many entries are before a position.
    pub(super) fn rank(&self, position: Position) -> usize {
        self.chunks.iter().take(position.chunk).map(|chunk| chunk.len()).sum::<usize>() + position.offset
    }

    /// The entries from a position on.
    pub(super) fn from(&self, position: Position) -> impl Iterator<Item = &Arc<Entry>> {
        let (first, rest) = self
            .chunks
            .get(position.chunk..)
            .and_then(<[_]>::split_first)
            .map_or((&[][..], &[][..]), |(f, r)| (f.get(position.offset..).unwrap_or_default(), r));
        first.iter().chain(rest.iter().flat_map(|chunk| chunk.iter()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;
    use skiff_api::wire::Head;

    use super::*;

    fn entry(namespace: &str, name: &str, revision: u64) -> Arc<Entry> {
        let head = Head { namespace: namespace.to_owned(), name: name.to_owned(), ..Head::default() };
        Arc::new(Entry { resource_version: revision, head, json: Bytes::new() })
    }

    #[test]
    fn the_order_is_that_of_keys() {
        assert_eq!(compare(("a-b", "x"), ("a", "x")), Ordering::Less);
        assert_eq!(compare(("a", "x"), ("a", "x")), Ordering::Equal);
        assert_eq!(compare(("a", "y"), ("ab", "x")), Ordering::Less);
    }

    #[test]
    fn thousands_in_any_order_are_kept_in_order() {
        let mut sorted = Sorted::default();
        for i in 0..5_000_u64 {
            sorted.insert(entry("n", &format!("{:05}", i * 7_919 % 5_000), i));
        }
        let names: Vec<&str> = sorted.from(sorted.partition(|_| false)).map(|e| e.head.name.as_str()).collect();
        assert_eq!((names.len(), sorted.len()), (5_000, 5_000));
        assert!(names.is_sorted());
        for i in 0..5_000 {
            assert!(sorted.remove(("n", &format!("{i:05}"))).is_some());
        }
        assert_eq!((sorted.len(), sorted.chunks.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((any::<bool>(), 0..3_u8, 0..40_u8), 0..400), cut in 0..40_u8) {
            let (mut sorted, mut model) = (Sorted::default(), BTreeMap::new());
            for (revision, (put, namespace, name)) in (1..).zip(steps) {
                let (namespace, name) = (["a", "a-b", "ab"][usize::from(namespace)], format!("{name:02}"));
                let key = format!("{namespace}/{name}");
                let (was, expected) = match put {
                    true => (sorted.insert(entry(namespace, &name, revision)), model.insert(key, revision)),
                    false => (sorted.remove((namespace, &name)), model.remove(&key)),
                };
                prop_assert_eq!(was.map(|e| e.resource_version), expected);
            }
            let cut = format!("{cut:02}");
            let position = sorted.partition(|e| compare(place(e), ("a", &cut)) == Ordering::Less);
            let rest: Vec<u64> = sorted.from(position).map(|e| e.resource_version).collect();
            let expected: Vec<u64> = model.range(format!("a/{cut}")..).map(|(_, r)| *r).collect();
            prop_assert_eq!(sorted.rank(position), model.len() - expected.len());
            prop_assert_eq!(rest, expected);
        }
    }
}
