//! What the server serves, for the parts of the front that are about kinds and not about objects: the kind behind
//! a URL, discovery and OpenAPI documents.

use std::sync::Arc;

use bytes::Bytes;
use skiff_api::{kinds::ResourceDef, request::GroupVersionResource};

/// The kinds of the moment, built-in ones and those of CustomResourceDefinitions.
pub trait Catalog: Send + Sync + 'static {
    /// The resource of a URL.
    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<ResourceDef>>;

    /// The document of a path; `None` where there is none. Must be quick: it is asked for by every start of kubectl.
    fn document(&self, path: &str, form: DocumentForm) -> Option<Document>;
}

/// The forms in which the document of a path may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DocumentForm {
    /// `application/json`: `APIGroupList`, `APIResourceList`, OpenAPI.
    Plain,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2` (`/api` and `/apis` alone).
    Aggregated,
}

/// A document about kinds.
#[derive(Clone, Debug)]
pub struct Document {
    /// JSON.
    pub body: Bytes,
    /// A digest of the body in hexadecimal digits: its ETag, without quotes.
    pub digest: Arc<str>,
}
