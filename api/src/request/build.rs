//! Requests made by clients.

use bytes::Bytes;

use super::{ContentType, GroupVersionResource, Options, Request, Verb};
use crate::{object::Object, selector::FieldSelector};

impl GroupVersionResource {
    /// A resource; `group` is empty for the core group.
    pub fn new(group: &str, version: &str, resource: &str) -> Self {
        Self { group: group.to_owned(), version: version.to_owned(), resource: resource.to_owned() }
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Request {
    /// A request on a resource without any option. An empty namespace or name is none.
    pub fn new(verb: Verb, resource: GroupVersionResource, namespace: &str, name: &str) -> Self {
        Self {
            verb,
            resource,
            namespace: some(namespace),
            name: some(name),
            subresource: None,
            subpath: None,
            options: Options::default(),
            content_type: ContentType::default(),
            body: Bytes::new(),
        }
    }

    /// Reads one object.
    pub fn get(resource: GroupVersionResource, namespace: &str, name: &str) -> Self {
        Self::new(Verb::Get, resource, namespace, name)
    }

    /// Lists the objects of a namespace, or of all if it is empty.
    pub fn list(resource: GroupVersionResource, namespace: &str) -> Self {
        Self::new(Verb::List, resource, namespace, "")
    }

    /// Watches the objects of a namespace, or of all if it is empty, with bookmarks.
    pub fn watch(resource: GroupVersionResource, namespace: &str) -> Self {
        let mut request = Self::new(Verb::Watch, resource, namespace, "");
        request.options.allow_watch_bookmarks = true;
        request
    }

    /// Creates an object in its own namespace.
    pub fn create(resource: GroupVersionResource, object: &Object) -> Self {
        Self { body: object.to_vec().into(), ..Self::new(Verb::Create, resource, object.namespace(), "") }
    }

    /// Replaces an object.
    pub fn update(resource: GroupVersionResource, object: &Object) -> Self {
        Self { body: object.to_vec().into(), ..Self::new(Verb::Update, resource, object.namespace(), object.name()) }
    }

    /// Patches an object.
    pub fn patch(
        resource: GroupVersionResource,
        namespace: &str,
        name: &str,
        content_type: ContentType,
        patch: impl Into<Bytes>,
    ) -> Self {
        Self { content_type, body: patch.into(), ..Self::new(Verb::Patch, resource, namespace, name) }
    }

    /// Deletes one object.
    pub fn delete(resource: GroupVersionResource, namespace: &str, name: &str) -> Self {
        Self::new(Verb::Delete, resource, namespace, name)
    }

    /// The same on a subresource.
    #[must_use]
    pub fn subresource(mut self, name: &str) -> Self {
        self.subresource = some(name);
        self
    }

    /// The same for objects with these labels only.
    #[must_use]
    pub fn label_selector(mut self, selector: impl ToString) -> Self {
        self.options.label_selector = some(&selector.to_string());
        self
    }

    /// The same for objects with these fields only.
    #[must_use]
    pub fn field_selector(mut self, selector: impl ToString) -> Self {
        let text = selector.to_string();
        if matches!(self.verb, Verb::List | Verb::Watch) {
            let parsed = FieldSelector::parse(&text).unwrap_or_default();
            self.name = parsed.pinned("metadata.name").and_then(some);
        }
        self.options.field_selector = some(&text);
        self
    }
}
