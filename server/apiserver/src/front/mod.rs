//! The front: from a connection to a request, and from an answer to the form that was asked for.
//!
//! - [`listen`]: sockets, TLS ([`tls`]), HTTP/1.1 and HTTP/2, the end.
//! - [`authn`]: who asks; [`access`]: may they, for what does not go through the registry.
//! - [`resources`]: requests on resources: body, registry, then [`answer`], [`table`], [`watch`] in the form that
//!   [`negotiate`] found.
//! - [`paths`]: everything else: discovery and OpenAPI ([`catalog`]), [`health`], [`metrics`], [`version`].
//! - [`actions`]: what an administrator asks of the server itself.
//! - `nodes`: what nodes on other machines ask before and beside the API.
//! - [`connect`]: what is passed on to nodes, pods and Services.
//! - [`limits`]: what a client may take.

pub mod access;
pub mod actions;
pub mod answer;
pub mod authn;
pub mod body;
pub mod catalog;
pub mod connect;
pub mod health;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod negotiate;
mod nodes;
pub mod paths;
pub mod resources;
pub mod respond;
pub mod shares;
pub mod table;
pub mod tls;
pub mod version;
pub mod watch;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use hyper::{Request as HttpRequest, body::Incoming};
use skiff_api::{
    request::{Parsed, Request},
    status::{ApiError, Reason},
    user::UserInfo,
};
use skiff_client::link::ClusterConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::{
    actions::Actions,
    authn::{Authenticator, impersonate::impersonate},
    body::Body,
    catalog::Catalog,
    connect::Connector,
    health::Health,
    limits::{
        MAX_BODIES_KIB, MAX_HEADERS, MAX_IN_FLIGHT, MAX_LONG_RUNNING, MAX_URI_BYTES, MAX_WATCHES_OF_USER,
        QUEUE_TIMEOUT, REQUEST_TIMEOUT,
    },
    listen::{Patience, Peer},
    metrics::{Label, Metrics},
    respond::Reply,
    shares::{Share, Shares},
    version::Version,
};
use crate::{
    authz::{Attributes, Authorizer},
    registry::Dispatch,
    spans::Spans,
    tokens::discovery::IssuerDocuments,
};

static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What is limited for all clients together.
struct Slots {
    in_flight: Arc<Semaphore>,
    long_running: Arc<Semaphore>,
    bodies_kib: Arc<Semaphore>,
    watches: Arc<Shares>,
}

/// All that requests are answered with. One a server, shared by its connections.
pub struct Front {
    dispatch: Arc<dyn Dispatch>,
    authorizer: Arc<dyn Authorizer>,
    authenticator: Authenticator,
    catalog: Arc<dyn Catalog>,
    connector: Connector,
    issuer: Option<IssuerDocuments>,
    cluster: Option<ClusterConfig>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    spans: Arc<Spans>,
    version: Version,
    patience: Patience,
    slots: Slots,
    actions: Actions,
    shutdown: CancellationToken,
}

/// What a [`Front`] is made of.
pub struct FrontParts {
    /// The registry.
    pub dispatch: Arc<dyn Dispatch>,
    /// May they.
    pub authorizer: Arc<dyn Authorizer>,
    /// Who asks.
    pub authenticator: Authenticator,
    /// Kinds and their documents.
    pub catalog: Arc<dyn Catalog>,
    /// The way to nodes.
    pub connector: Connector,
    /// By what others check tokens that are issued here.
    pub issuer: Option<IssuerDocuments>,
    /// What nodes on other machines are told of the cluster; `None` where none may join.
    pub cluster: Option<ClusterConfig>,
    /// Health checks.
    pub health: Arc<Health>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// How long it takes to know who asks and whether they may.
    pub spans: Arc<Spans>,
    /// What `/version` says.
    pub version: Version,
    /// How long clients are waited for.
    pub patience: Patience,
}

/// A request on its way, and what is learnt about it for metrics.
pub struct Call {
    /// Its head. The credentials have been taken out.
    pub parts: Parts,
    /// The other end.
    pub peer: Arc<Peer>,
    /// What it counts as.
    pub label: Label,
}

impl Front {
    /// A front of these parts.
    pub fn new(parts: FrontParts) -> Arc<Self> {
        let slots = Slots {
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            long_running: Arc::new(Semaphore::new(MAX_LONG_RUNNING)),
            bodies_kib: Arc::new(Semaphore::new(MAX_BODIES_KIB)),
            watches: Shares::new(MAX_WATCHES_OF_USER),
        };
        Arc::new(Self {
            dispatch: parts.dispatch,
            authorizer: parts.authorizer,
            authenticator: parts.authenticator,
            catalog: parts.catalog,
            connector: parts.connector,
            issuer: parts.issuer,
            cluster: parts.cluster,
            health: parts.health,
            metrics: parts.metrics,
            spans: parts.spans,
            version: parts.version,
            patience: parts.patience,
            slots,
            actions: Actions::default(),
            shutdown: CancellationToken::new(),
        })
    }

    /// What administrators ask of the server itself.
    pub fn actions(&self) -> &Actions {
        &self.actions
    }

    /// Cancelled when the server begins to end: watches and tunnels end with it.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// How long clients are waited for.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Answers a request, whatever happens.
    pub async fn handle(self: Arc<Self>, peer: Arc<Peer>, request: HttpRequest<Incoming>) -> Reply {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let audit_id = audit_id(&parts.headers);
        let label = Label::path(&parts.method);
        let mut call = Call { parts, peer, label };
        // Boxed so that a connection at rest does not hold room for the largest of all requests.
        let answering = AssertUnwindSafe(Box::pin(self.answer(&mut call, body))).catch_unwind().await;
        let answered = answering.unwrap_or_else(|_| {
            tracing::error!(path = call.parts.uri.path(), "a request's handler panicked");
            Err(ApiError::internal("the request could not be handled"))
        });
        let mut reply =
            answered.unwrap_or_else(|error| respond::error(&error, &call.parts.headers, call.parts.uri.query()));
        self.metrics.observe(&call.label, reply.status().as_u16(), started.elapsed());
        let headers = reply.headers_mut();
        headers.insert(&AUDIT_ID, audit_id);
        if let header::Entry::Vacant(entry) = headers.entry(header::CACHE_CONTROL) {
            entry.insert(HeaderValue::from_static("no-cache, private"));
        }
        if call.parts.method == Method::HEAD { without_body(reply) } else { reply }
    }

    async fn answer(&self, call: &mut Call, body: Incoming) -> Result<Reply, ApiError> {
        check_head(&call.parts)?;
        let began = Instant::now();
        let user = self.authenticator.identify(&call.peer.identity, &mut call.parts.headers).await;
        self.spans.authenticated(began, &user);
        let user = impersonate(user?, &mut call.parts.headers, &*self.authorizer)?;
        let uri = call.parts.uri.clone();
        match Request::parse(call.parts.method.as_str(), uri.path(), uri.query())? {
            Parsed::Resource(request) => resources::answer(self, &user, call, request, body).await,
            Parsed::Path(path) => {
                if let Some(action) = self.actions.get(&path) {
                    return actions::answer(self, &user, &call.parts, &path, &*action).await;
                }
                if let Some(reply) = nodes::answer(self, &user, call, &path) {
                    return reply;
                }
                let answering = paths::answer(self, &user, &call.parts, &path);
                tokio::time::timeout(REQUEST_TIMEOUT, answering).await.map_err(|_| timed_out())?
            }
        }
    }

    /// Refuses what a user may not do, where it does not go through the registry.
    fn authorize(&self, attributes: Attributes<'_>) -> Result<(), ApiError> {
        let began = Instant::now();
        let permitted = access::check(&*self.authorizer, attributes);
        self.spans.authorized(began, &permitted);
        permitted
    }

    /// A turn for a request; 429 where none comes up in time. Administrators do not queue, so that they can mend
    /// what makes others queue.
    async fn turn(&self, user: &UserInfo) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let slots = Arc::clone(&self.slots.in_flight);
        if let Ok(permit) = Arc::clone(&slots).try_acquire_owned() {
            return Ok(Some(permit));
        }
        if user.groups.iter().any(|group| group == "system:masters") {
            return Ok(None);
        }
        let permit = tokio::time::timeout(QUEUE_TIMEOUT, slots.acquire_owned()).await;
        permit.ok().and_then(Result::ok).map(Some).ok_or_else(too_many)
    }

    /// Room for a request that goes on for long; 429 where there is none.
    fn long_running_turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.slots.long_running).try_acquire_owned().map_err(|_| too_many())
    }

    /// One of a user's watches; 429 where they have too many.
    fn watch_share(&self, user: &UserInfo) -> Result<Option<Share>, ApiError> {
        if user.groups.iter().any(|group| group == "system:masters") {
            return Ok(None);
        }
        self.slots.watches.take(&user.name).map(Some).ok_or_else(too_many)
    }
}

fn too_many() -> ApiError {
    ApiError::new(Reason::TooManyRequests, "Too many requests, please try again later.")
}

/// 504, worded as Kubernetes does.
fn timed_out() -> ApiError {
    ApiError::new(Reason::Timeout, "Timeout: request did not complete within the allotted timeout")
}

/// Refuses a head that is too large where HTTP/2 let it through.
fn check_head(parts: &Parts) -> Result<(), ApiError> {
    let too_large = |message: &str| ApiError { code: 431, ..ApiError::new(Reason::Unknown, message) };
    if parts.headers.len() > MAX_HEADERS {
        return Err(too_large("the request has too many headers"));
    }
    let uri_bytes = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    if uri_bytes > MAX_URI_BYTES {
        return Err(ApiError { code: 414, ..too_large("the request's URL is too long") });
    }
    Ok(())
}

/// The request's audit id: the client's own, or a new one.
fn audit_id(headers: &HeaderMap) -> HeaderValue {
    const MAX_BYTES: usize = 64;
    if let Some(id) = headers.get(&AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= MAX_BYTES) {
        return id.clone();
    }
    let mut buffer = uuid::Uuid::encode_buffer();
    let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("none"))
}

/// The same answer to a `HEAD`.
fn without_body(mut reply: Reply) -> Reply {
    if let Some(length) = reply.body().exact_len() {
        reply.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    reply.map(|_| Body::empty())
}
