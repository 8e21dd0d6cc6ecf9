//! The registry's own view of other objects: what admission is shown.

use skiff_api::{kinds::StorageKey, object::Object};
use skiff_store::cache::Cacher;

use super::Registry;
use crate::{
    admission::World,
    authz::{Attributes, Authorizer as _, Decision},
};

/// The storage key of a resource that is stored under its own name.
pub(crate) fn storage(group: &str, resource: &str) -> StorageKey {
    let group = if group.is_empty() { "core" } else { group };
    StorageKey { group: group.to_owned(), resource: resource.to_owned() }
}

/// Every Service in a cache.
pub(super) fn services(cacher: &Cacher) -> Vec<Object> {
    let entries = cacher.peek_all(&storage("", "services"), None);
    entries.iter().filter_map(|entry| entry.object().ok()).collect()
}

impl World for Registry {
    fn find(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Object> {
        self.cacher.peek(&storage(group, resource), namespace, name)?.object().ok()
    }

    fn all(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Object> {
        let entries = self.cacher.peek_all(&storage(group, resource), namespace);
        entries.iter().filter_map(|entry| entry.object().ok()).collect()
    }

    fn allows(&self, attributes: Attributes<'_>) -> bool {
        matches!(self.authorizer.authorize(attributes), Decision::Allow(_))
    }
}
