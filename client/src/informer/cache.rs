//! The objects of an informer, and what is done with each change. No I/O.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    Key,
    subscription::{Change, Publisher, Subscription},
};
use crate::client::Kind;

struct Item<K> {
    revision: u64,
    object: Arc<K>,
}

struct Index<K> {
    values: fn(&K) -> Vec<String>,
    keys: HashMap<String, HashSet<Key>>,
}

pub(super) struct Cache<K> {
    objects: BTreeMap<Key, Item<K>>,
    /// Up to which revision the watch has told everything.
    revision: u64,
    indices: HashMap<&'static str, Index<K>>,
    publisher: Publisher<K>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), revision: 0, indices: HashMap::new(), publisher: Publisher::default() }
    }
}

impl<K: Kind> Cache<K> {
    pub(super) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.get(key).map(|item| Arc::clone(&item.object))
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        self.objects.values().map(|item| Arc::clone(&item.object)).collect()
    }

    pub(super) fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = self.objects.range(Key::new(namespace, "")..);
        from.take_while(|(key, _)| key.namespace == namespace).map(|(_, item)| Arc::clone(&item.object)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn subscribe(&mut self) -> Subscription<K> {
        self.publisher.subscribe()
    }

    pub(super) fn add_index(&mut self, name: &'static str, values: fn(&K) -> Vec<String>) {
        if self.indices.contains_key(name) {
            return;
        }
        let mut index = Index { values, keys: HashMap::new() };
        for (key, item) in &self.objects {
            index.insert(key, &item.object);
        }
        self.indices.insert(name, index);
    }

    pub(super) fn indexed(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let keys = self.indices.get(index).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| self.get(key)).collect()
    }

    /// The result of a list: what is not in it is gone, unless it was written after the list was made.
    pub(super) fn replace(&mut self, objects: Vec<(u64, K)>, revision: u64) {
        let listed: HashSet<Key> = objects.iter().map(|(_, object)| Key::of(object)).collect();
        let gone: Vec<Key> = self
            .objects
            .iter()
            .filter(|(key, item)| item.revision <= revision && !listed.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.remove(&key);
        }
        for (revision, object) in objects {
            self.put(revision, object);
        }
        self.revision = self.revision.max(revision);
    }

    /// A change from the watch.
    pub(super) fn upsert(&mut self, revision: u64, object: K) {
        self.put(revision, object);
        self.revision = self.revision.max(revision);
    }

    /// The answer to a write. An object that is not known may only be taken in if the watch has not got so far
    /// yet: otherwise it is unknown because it has been deleted since.
    pub(super) fn observe(&mut self, revision: u64, object: K) {
        if self.objects.contains_key(&Key::of(&object)) || revision > self.revision {
            self.put(revision, object);
        }
    }

    pub(super) fn delete(&mut self, key: &Key, revision: u64) {
        self.revision = self.revision.max(revision);
        // A newer one of the same name may have been observed already.
        if self.objects.get(key).is_some_and(|item| item.revision <= revision) {
            self.remove(key);
        }
    }

    pub(super) fn bookmark(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    fn remove(&mut self, key: &Key) {
        let Some(item) = self.objects.remove(key) else { return };
        for index in self.indices.values_mut() {
            index.remove(key, &item.object);
        }
        self.publisher.publish(Change::Deleted(item.object));
    }

    fn put(&mut self, revision: u64, object: K) {
        let key = Key::of(&object);
        let same_object = self.objects.get(&key).map(|old| old.object.metadata().uid == object.metadata().uid);
        match (self.objects.get(&key), same_object) {
            (Some(old), _) if old.revision >= revision => return,
            (Some(_), Some(false)) => self.remove(&key),
            _ => {}
        }
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), Item { revision, object: Arc::clone(&new) });
        for index in self.indices.values_mut() {
            index.change(&key, old.as_ref().map(|item| &*item.object), &new);
        }
        self.publisher.publish(match old {
            Some(old) => Change::Modified { old: old.object, new },
            None => Change::Added(new),
        });
    }
}

impl<K> Index<K> {
    fn change(&mut self, key: &Key, old: Option<&K>, new: &K) {
        let before = old.map(self.values).unwrap_or_default();
        if old.is_some() && before == (self.values)(new) {
            return;
        }
        if let Some(old) = old {
            self.remove(key, old);
        }
        self.insert(key, new);
    }

    fn insert(&mut self, key: &Key, object: &K) {
        for value in (self.values)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(name: &str, uid: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.namespace = Some("x".to_owned());
        map.metadata.uid = Some(uid.to_owned());
        map
    }

    /// A subscription whose resync has been taken.
    fn follow(cache: &mut Cache<ConfigMap>) -> Subscription<ConfigMap> {
        let mut changes = cache.subscribe();
        assert_eq!(told(&mut changes), ["resync"]);
        changes
    }

    fn told(subscription: &mut Subscription<ConfigMap>) -> Vec<String> {
        let uid = |map: &ConfigMap| map.metadata.uid.clone().unwrap_or_default();
        std::iter::from_fn(|| subscription.try_next())
            .map(|change| match change {
                Change::Added(new) => format!("+{}", uid(&new)),
                Change::Modified { new, .. } => format!("~{}", uid(&new)),
                Change::Deleted(old) => format!("-{}", uid(&old)),
                Change::Resync => "resync".to_owned(),
            })
            .collect()
    }

    #[test]
    fn what_is_older_than_what_is_known_is_ignored() {
        let mut cache = Cache::default();
        let mut changes = follow(&mut cache);
        cache.upsert(5, map("a", "1"));
        cache.observe(9, map("a", "1"));
        cache.upsert(7, map("a", "1"));
        cache.upsert(9, map("a", "1"));
        assert_eq!(told(&mut changes), ["+1", "~1"]);
    }

    #[test]
    fn an_observed_object_does_not_come_back_after_its_deletion() {
        let mut cache = Cache::default();
        let mut changes = follow(&mut cache);
        cache.upsert(5, map("a", "1"));
        cache.delete(&Key::new("x", "a"), 6);
        cache.observe(5, map("a", "1"));
        assert_eq!(told(&mut changes), ["+1", "-1"]);
        cache.observe(8, map("a", "2"));
        cache.delete(&Key::new("x", "a"), 7);
        assert_eq!(told(&mut changes), ["+2"]);
    }

    #[test]
    fn another_object_of_the_same_name_is_told_as_deleted_and_added() {
        let mut cache = Cache::default();
        let mut changes = follow(&mut cache);
        cache.upsert(5, map("a", "1"));
        cache.upsert(9, map("a", "2"));
        assert_eq!(told(&mut changes), ["+1", "-1", "+2"]);
    }

    #[test]
    fn a_list_tells_only_the_differences() {
        let mut cache = Cache::default();
        cache.add_index("uid", |map: &ConfigMap| map.metadata.uid.clone().into_iter().collect());
        for (revision, name) in [(1, "a"), (2, "b"), (3, "c")] {
            cache.upsert(revision, map(name, name));
        }
        cache.observe(12, map("new", "new"));
        let mut changes = follow(&mut cache);
        cache.replace(vec![(1, map("a", "a")), (8, map("b", "b")), (9, map("d", "d"))], 10);
        assert_eq!(told(&mut changes), ["-c", "~b", "+d"]);
        assert_eq!(cache.list_in("x").len(), 4);
        assert!(cache.indexed("uid", "c").is_empty() && cache.indexed("uid", "d").len() == 1);
    }
}
