//! The verbs, once for all kinds.

use std::sync::Arc;

use bytes::Bytes;
use skiff_api::{request::Request, status::ApiError, user::UserInfo, wire::Entry};
use skiff_client::{List, WatchStream};

/// What a request is answered with, before it is put into the form that the client asked for.
pub enum Answer {
    /// One object. 200, or 201 where it was created.
    Object {
        /// HTTP status.
        status: u16,
        /// The object.
        entry: Arc<Entry>,
    },
    /// A body that is no stored object: a review, a `Scale`, a `Status`, a `Binding`'s success.
    Json {
        /// HTTP status.
        status: u16,
        /// The body.
        body: Bytes,
    },
    /// A list.
    List {
        /// The page.
        list: List,
        /// `metadata.remainingItemCount`.
        remaining: Option<usize>,
    },
    /// A watch.
    Watch(WatchStream),
}

/// An answer and the warnings that go with it as `Warning: 299` headers.
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// The warnings.
    pub warnings: Vec<String>,
}

/// Requests on resources, from authorization to the answer. The HTTPS front and the in-process transport call
/// the same one.
#[async_trait::async_trait]
pub trait Dispatch: Send + Sync + 'static {
    /// Authorizes and does what is asked. `connect` subresources (log, exec, attach, portforward, proxy) are
    /// the front's and do not come here, but for their authorization.
    async fn dispatch(&self, user: &UserInfo, request: Request) -> Result<Answered, ApiError>;
}
