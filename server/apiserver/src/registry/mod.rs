//! The verbs, once for all kinds.
//!
//! A request comes in at [`Dispatch::dispatch`] and goes, in this order, through [`access`] (may they), [`route`]
//! (which resource, which verb), and then one of [`read`], [`watch`], [`create`], [`update`] (and [`patch`] above
//! it), [`delete`] or [`sub`] (subresources that are no part of an object, and reviews). All writes end in
//! [`call::Call::swap`], the one place that writes to the store.
//!
//! A write that has begun is finished even where its client goes away meanwhile.

mod access;
mod admit;
mod call;
mod claims;
mod config;
mod create;
mod decide;
mod delete;
mod durability;
mod forms;
mod grants;
mod list_options;
pub mod meta;
mod options;
mod patch;
mod patches;
mod queues;
mod quota;
mod read;
mod route;
mod seed;
mod store_errors;
mod sub;
mod tokens;
mod update;
mod watch;
pub(crate) mod world;

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Instant,
};

use bytes::Bytes;
use skiff_api::{
    kinds::{Kinds, ResourceDef},
    request::{GroupVersionResource, Request, Verb},
    status::ApiError,
    user::UserInfo,
    wire::Entry,
};
use skiff_client::{List, WatchStream};
use skiff_store::cache::Cacher;

pub use claims::follow_services;
pub use config::RegistryConfig;
pub use decide::{DeleteDecision, DeleteOptions, DeleteRules, Lifetime, Propagation, decide_delete};
pub use sub::identity::{Identity, Reviewed};

use crate::{authz::Chain, spans::Spans, strategy::services::Allocators};
use queues::Queues;

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

/// All resources over one watch cache.
pub struct Registry {
    config: RegistryConfig,
    cacher: Arc<Cacher>,
    kinds: &'static Kinds,
    authorizer: Arc<Chain>,
    allocators: Allocators,
    queues: Queues,
    books: quota::Books,
    spans: Arc<Spans>,
    identity: OnceLock<Arc<dyn Identity>>,
    /// Itself, for the tasks that finish writes.
    this: Weak<Self>,
}

impl Registry {
    /// A registry over a cache. What the Services in the cache have of the address and port pools is taken.
    pub fn new(config: RegistryConfig, cacher: Arc<Cacher>, kinds: &'static Kinds) -> Arc<Self> {
        let services = world::services(&cacher);
        let allocators = Allocators::new(config.service_cidr, config.node_ports.clone(), &services);
        Arc::new_cyclic(|this| Self {
            authorizer: Arc::new(Chain::new(&cacher)),
            allocators,
            config,
            cacher,
            kinds,
            queues: Queues::default(),
            books: quota::Books::default(),
            spans: Arc::default(),
            identity: OnceLock::new(),
            this: this.clone(),
        })
    }

    /// Who decides what users may do.
    pub fn authorizer(&self) -> Arc<Chain> {
        self.authorizer.clone()
    }

    /// The watch cache.
    pub fn cacher(&self) -> &Arc<Cacher> {
        &self.cacher
    }

    /// The table of resources.
    pub fn kinds(&self) -> &'static Kinds {
        self.kinds
    }

    /// The resource of a group, version and plural name. The place of custom resources is here.
    fn find(&self, gvr: &GroupVersionResource) -> Option<Arc<ResourceDef>> {
        self.kinds.resource(&gvr.group, &gvr.version, &gvr.resource).cloned()
    }

    /// How long authorization and admission take.
    pub fn spans(&self) -> &Arc<Spans> {
        &self.spans
    }

    /// How the registry was set up.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// Gives the registry what issues and checks tokens. Only the first call counts.
    pub fn set_identity(&self, identity: Arc<dyn Identity>) {
        // A second identity would change what tokens mean while the server runs.
        let _ignored = self.identity.set(identity);
    }
}

/// Whether a verb only reads.
fn reads(verb: Verb) -> bool {
    matches!(verb, Verb::Get | Verb::List | Verb::Watch)
}

#[async_trait::async_trait]
impl Dispatch for Registry {
    async fn dispatch(&self, user: &UserInfo, request: Request) -> Result<Answered, ApiError> {
        let began = Instant::now();
        let permitted = access::permit(&*self.authorizer, user, &request);
        self.spans.authorized(began, &permitted);
        permitted?;
        if reads(request.verb) {
            return route::answer(self, user, &request).await;
        }
        let Some(this) = self.this.upgrade() else { return Err(ApiError::internal("the server is stopping")) };
        let user = user.clone();
        // In a task of its own, so that a write that has begun is finished when its client goes away.
        let write = tokio::spawn(async move { route::answer(&this, &user, &request).await });
        write.await.map_err(ApiError::internal)?
    }
}
