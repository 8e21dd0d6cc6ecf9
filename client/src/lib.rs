//! The client of the Kubernetes API that controllers, scheduler and agent use, and the informers above it.
//!
//! One [`Transport`] trait, two implementations: in process (the API server's own, objects are shared and not
//! re-encoded) and HTTPS. Nobody above the trait knows which one it has.
//!
//! - [`Client`]: the typed API above a transport, and the untyped one for kinds known only at run time.
//! - [`clock`]: the time, on machines whose clock may be behind.
//! - [`files`]: files that must be whole and private.
//! - [`https`]: the transport over HTTP/2 and TLS.
//! - [`informer`]: a kind's objects in memory, kept current by list and watch, with changes to subscribe to.
//! - [`link`]: what a server and a node of another machine agree on beside the API.
//! - [`queue`]: the work queue of a controller.
//! - [`recorder`]: `Event`s that say what a component did.

pub mod backoff;
pub mod client;
pub mod clock;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod files;
pub mod https;
pub mod informer;
pub mod link;
pub mod queue;
pub mod recorder;

use std::sync::Arc;

pub use client::{Client, Kind, TypedEvent, TypedList};
pub use informer::{Change, Informer, Informers, Key};
pub use queue::Queue;
pub use recorder::{EventRecorder, EventType};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use skiff_api::{request::Request, status::ApiError, wire::Entry};

/// One page of a list.
#[derive(Debug)]
pub struct List {
    /// The revision at which the list is consistent.
    pub resource_version: u64,
    /// The objects, in key order.
    pub entries: Vec<Arc<Entry>>,
    /// The token of the next page, if there is one.
    pub continue_token: Option<String>,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// An object is there that was not (or did not match) before.
    Added(Arc<Entry>),
    /// An object changed.
    Modified(Arc<Entry>),
    /// An object is gone (or no longer matches): its last version, with the revision of the deletion.
    Deleted(Arc<Entry>),
    /// All events up to this revision have been sent.
    Bookmark {
        /// The revision.
        resource_version: u64,
        /// Whether this ends the initial events of a streaming list.
        initial_events_end: bool,
    },
}

/// The events of a watch. An error (410 Expired above all) is the last item.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ApiError>>;

/// A way to the API server.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Any request that is answered with one object (or a `Status`): its JSON.
    async fn call(&self, request: Request) -> Result<Bytes, ApiError>;

    /// A list.
    async fn list(&self, request: Request) -> Result<List, ApiError>;

    /// A watch; ends when it is dropped.
    async fn watch(&self, request: Request) -> Result<WatchStream, ApiError>;
}
