//! The typed API above a transport, and the untyped one for kinds that are known only at run time.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::{
    Metadata, Resource,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use skiff_api::{
    object::Object,
    request::{ContentType, GroupVersionResource, Options, Request, Verb},
    status::ApiError,
};

use crate::{List, Transport, WatchEvent, WatchStream};

/// A kind of k8s-openapi that has metadata of its own and can be read and written.
pub trait Kind:
    Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + Send + Sync + 'static
{
}

/// The resource of a kind.
pub fn resource_of<K: Resource>() -> GroupVersionResource {
    GroupVersionResource {
        group: K::GROUP.to_owned(),
        version: K::VERSION.to_owned(),
        resource: K::URL_PATH_SEGMENT.to_owned(),
    }
}

/// One page of a list, typed.
#[derive(Clone, Debug)]
pub struct TypedList<K> {
    /// The revision at which the list is consistent.
    pub resource_version: u64,
    /// The objects.
    pub items: Vec<K>,
    /// The token of the next page, if there is one.
    pub continue_token: Option<String>,
}

/// One event of a typed watch.
#[derive(Clone, Debug)]
pub enum TypedEvent<K> {
    /// An object is there that was not (or did not match) before.
    Added(K),
    /// An object changed.
    Modified(K),
    /// An object is gone (or no longer matches): its last version.
    Deleted(K),
    /// All events up to this revision have been sent.
    Bookmark {
        /// The revision.
        resource_version: u64,
        /// Whether this ends the initial events of a streaming list.
        initial_events_end: bool,
    },
}

/// A client of the API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client(..)")
    }
}

impl Client {
    /// A client above a transport.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Any request that is answered with one object or a `Status`: its JSON as it came.
    pub async fn raw(&self, request: Request) -> Result<Bytes, ApiError> {
        self.transport.call(request).await
    }

    /// Any list, its objects as they came.
    pub async fn raw_list(&self, request: Request) -> Result<List, ApiError> {
        self.transport.list(request).await
    }

    /// Any watch, its objects as they came.
    pub async fn raw_watch(&self, request: Request) -> Result<WatchStream, ApiError> {
        self.transport.watch(request).await
    }

    /// One object. `namespace` is empty for cluster-scoped kinds.
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<K, ApiError> {
        parse(&self.raw(on::<K>(Verb::Get, namespace, name)).await?)
    }

    /// One page of the objects of a namespace, or of all namespaces.
    pub async fn list<K: Kind>(&self, namespace: Option<&str>, options: &Options) -> Result<TypedList<K>, ApiError> {
        let page = self.raw_list(many(Verb::List, resource_of::<K>(), namespace, options)).await?;
        let items = page.entries.iter().map(|entry| parse(&entry.json)).collect::<Result<_, _>>()?;
        Ok(TypedList { resource_version: page.resource_version, items, continue_token: page.continue_token })
    }

    /// Creates an object in the namespace that its metadata names.
    pub async fn create<K: Kind>(&self, object: &K) -> Result<K, ApiError> {
        let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
        let request = Request { body: body(object)?, ..on::<K>(Verb::Create, namespace, "") };
        parse(&self.raw(request).await?)
    }

    /// Creates by way of a subresource: `pods/binding`, `pods/eviction`, `serviceaccounts/token`.
    pub async fn create_subresource<K: Kind, B: Serialize>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        value: &B,
    ) -> Result<Bytes, ApiError> {
        let subresource = Some(subresource.to_owned());
        self.raw(Request { subresource, body: body(value)?, ..on::<K>(Verb::Create, namespace, name) }).await
    }

    /// Replaces an object; its `metadata.resourceVersion`, where set, must be the one that is there.
    pub async fn update<K: Kind>(&self, object: &K) -> Result<K, ApiError> {
        self.update_subresource(object, None).await
    }

    /// Replaces an object's status.
    pub async fn update_status<K: Kind>(&self, object: &K) -> Result<K, ApiError> {
        self.update_subresource(object, Some("status")).await
    }

    /// Replaces an object by way of a subresource, e.g. `finalize` of a namespace.
    pub async fn update_subresource<K: Kind>(&self, object: &K, subresource: Option<&str>) -> Result<K, ApiError> {
        let metadata = object.metadata();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let base = on::<K>(Verb::Update, namespace, metadata.name.as_deref().unwrap_or_default());
        let request = Request { subresource: subresource.map(str::to_owned), body: body(object)?, ..base };
        parse(&self.raw(request).await?)
    }

    /// Patches an object, or one of its subresources. A server-side apply needs a field manager: see
    /// [`Self::apply`].
    pub async fn patch<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        form: ContentType,
        patch: &Value,
    ) -> Result<K, ApiError> {
        let base = on::<K>(Verb::Patch, namespace, name);
        let subresource = subresource.map(str::to_owned);
        parse(&self.raw(Request { subresource, content_type: form, body: body(patch)?, ..base }).await?)
    }

    /// Server-side apply by a field manager, taking over fields that others own.
    pub async fn apply<K: Kind>(
        &self,
        manager: &str,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<K, ApiError> {
        let options = Options { field_manager: Some(manager.to_owned()), force: Some(true), ..Options::default() };
        let base = on::<K>(Verb::Patch, namespace, name);
        let request = Request { content_type: ContentType::ApplyPatch, options, body: body(patch)?, ..base };
        parse(&self.raw(request).await?)
    }

    /// Deletes an object. The answer is the object where its deletion only began, or a `Status`.
    pub async fn delete<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Bytes, ApiError> {
        self.raw(Request { body: delete_body(options)?, ..on::<K>(Verb::Delete, namespace, name) }).await
    }

    /// Watches the objects of a namespace, or of all namespaces.
    pub async fn watch<K: Kind>(
        &self,
        namespace: Option<&str>,
        options: &Options,
    ) -> Result<BoxStream<'static, Result<TypedEvent<K>, ApiError>>, ApiError> {
        let stream = self.raw_watch(many(Verb::Watch, resource_of::<K>(), namespace, options)).await?;
        Ok(stream.map(|event| event.and_then(typed_event)).boxed())
    }
}

/// The untyped API: the same verbs on objects of a resource that is named at run time.
impl Client {
    /// One object.
    pub async fn get_object(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Object, ApiError> {
        parse_object(&self.raw(on_object(Verb::Get, resource, namespace, name)).await?)
    }

    /// One page of objects.
    pub async fn list_objects(
        &self,
        resource: &GroupVersionResource,
        namespace: Option<&str>,
        options: &Options,
    ) -> Result<List, ApiError> {
        self.raw_list(many(Verb::List, resource.clone(), namespace, options)).await
    }

    /// Replaces an object.
    pub async fn update_object(&self, resource: &GroupVersionResource, object: &Object) -> Result<Object, ApiError> {
        let base = on_object(Verb::Update, resource, object.namespace(), object.name());
        parse_object(&self.raw(Request { body: Bytes::from(object.to_vec()), ..base }).await?)
    }

    /// Patches an object.
    pub async fn patch_object(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        name: &str,
        form: ContentType,
        patch: &Value,
    ) -> Result<Object, ApiError> {
        let base = on_object(Verb::Patch, resource, namespace, name);
        parse_object(&self.raw(Request { content_type: form, body: body(patch)?, ..base }).await?)
    }

    /// Deletes an object.
    pub async fn delete_object(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Bytes, ApiError> {
        let base = on_object(Verb::Delete, resource, namespace, name);
        self.raw(Request { body: delete_body(options)?, ..base }).await
    }

    /// Deletes all objects of a resource in a namespace.
    pub async fn delete_collection(
        &self,
        resource: &GroupVersionResource,
        namespace: Option<&str>,
        options: &DeleteOptions,
    ) -> Result<Bytes, ApiError> {
        let base = many(Verb::DeleteCollection, resource.clone(), namespace, &Options::default());
        self.raw(Request { body: delete_body(options)?, ..base }).await
    }
}

fn on<K: Kind>(verb: Verb, namespace: &str, name: &str) -> Request {
    on_object(verb, &resource_of::<K>(), namespace, name)
}

fn on_object(verb: Verb, resource: &GroupVersionResource, namespace: &str, name: &str) -> Request {
    Request::new(verb, resource.clone(), namespace, name)
}

/// A request on many objects.
pub(crate) fn many(verb: Verb, resource: GroupVersionResource, namespace: Option<&str>, options: &Options) -> Request {
    Request { options: options.clone(), ..Request::new(verb, resource, namespace.unwrap_or_default(), "") }
}

fn body<T: Serialize>(value: &T) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| ApiError::internal(format!("cannot encode the body: {e}")))
}

fn delete_body(options: &DeleteOptions) -> Result<Bytes, ApiError> {
    if *options == DeleteOptions::default() {
        return Ok(Bytes::new());
    }
    let mut options = options.clone();
    options.kind.get_or_insert_with(|| "DeleteOptions".to_owned());
    options.api_version.get_or_insert_with(|| "v1".to_owned());
    body(&options)
}

fn parse<K: DeserializeOwned>(json: &[u8]) -> Result<K, ApiError> {
    serde_json::from_slice(json)
        .map_err(|e| ApiError::internal(format!("the server's answer is not what was asked for: {e}")))
}

fn parse_object(json: &[u8]) -> Result<Object, ApiError> {
    Object::from_slice(json).map_err(|e| ApiError::internal(format!("the server's answer is no object: {e}")))
}

fn typed_event<K: Kind>(event: WatchEvent) -> Result<TypedEvent<K>, ApiError> {
    Ok(match event {
        WatchEvent::Added(entry) => TypedEvent::Added(parse(&entry.json)?),
        WatchEvent::Modified(entry) => TypedEvent::Modified(parse(&entry.json)?),
        WatchEvent::Deleted(entry) => TypedEvent::Deleted(parse(&entry.json)?),
        WatchEvent::Bookmark { resource_version, initial_events_end } => {
            TypedEvent::Bookmark { resource_version, initial_events_end }
        }
    })
}
