//! The node's HTTPS API, as a kubelet serves it: logs, exec, attach, port-forward, statistics. Callers show a client
//! certificate, and may do what the API server says that they may.
//!
//! - [`route`]: what a path asks for; pure. - [`line`]: entries of log files; pure.
//! - `logs`: reads and follows log files. - `upgrade`: passes streams through to the runtime.
//! - `auth`: who calls. - `info`, `cadvisor`: what the node tells of itself.

mod answer;
mod auth;
mod cadvisor;
mod info;
pub mod line;
mod logs;
pub mod route;
mod upgrade;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Method, Request, StatusCode, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use jiff::Timestamp;
use parking_lot::RwLock;
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{Config, Credentials, context::Context};
use answer::Answer;
use auth::Caller;
use route::{Place, Query, Route};
use upgrade::Stream;

/// How many connections are served at once.
const MAX_CONNECTIONS: usize = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The wait after accepting failed, which it does for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The node's API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What should be PEM is not.
    #[error("cannot read the {what} as PEM")]
    Pem {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificates do not make a TLS server.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The certificates of clients cannot be verified.
    #[error("cannot verify client certificates")]
    Clients(#[from] rustls::server::VerifierBuilderError),
}

/// The node's API, to be served over any connection.
pub(crate) struct Api {
    tls: RwLock<TlsAcceptor>,
    ctx: Arc<Context>,
}

/// The node's API, listening.
pub struct Listener {
    listener: TcpListener,
    api: Arc<Api>,
}

fn tls(credentials: &Credentials) -> Result<TlsAcceptor, ServeError> {
    let pem = |what| move |source| ServeError::Pem { what, source };
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(credentials.client_ca.as_bytes()) {
        roots.add(certificate.map_err(pem("client CA"))?).map_err(ServeError::Tls)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let chain = CertificateDer::pem_slice_iter(credentials.serving_cert.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(credentials.serving_key.as_bytes()).map_err(pem("serving key"))?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(skiff_client::clock::TlsTime))
        .with_safe_default_protocol_versions()
        .map_err(ServeError::Tls)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.map_err(pem("serving certificate"))?, key)
        .map_err(ServeError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Api {
    /// The API of a node with these certificates.
    pub(crate) fn new(credentials: &Credentials, ctx: Arc<Context>) -> Result<Arc<Self>, ServeError> {
        Ok(Arc::new(Self { tls: RwLock::new(tls(credentials)?), ctx }))
    }

    /// Shows other certificates from the next connection on.
    pub(crate) fn set_credentials(&self, credentials: &Credentials) -> Result<(), ServeError> {
        let next = tls(credentials)?;
        *self.tls.write() = next;
        Ok(())
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let tls = self.tls.read().clone();
        connection(stream, tls, Arc::clone(&self.ctx)).await;
    }
}

impl Listener {
    /// Listens on the node's address and kubelet port.
    pub(crate) async fn bind(config: &Config, api: Arc<Api>) -> Result<Self, ServeError> {
        let address = SocketAddr::new(config.node_ip, config.kubelet_port);
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?;
        Ok(Self { listener, api })
    }

    /// The port it listens on: that of the configuration, or the one that was free if it left the choice.
    pub(crate) fn port(&self) -> Option<u16> {
        self.listener.local_addr().ok().map(|address| address.port())
    }

    /// Serves until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            // Beyond the limit a connection is closed at once, so that callers learn of it.
            let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
            let (api, cancel) = (Arc::clone(&self.api), cancel.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = api.serve(stream) => {}
                }
                drop(permit);
            });
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, tls: TlsAcceptor, ctx: Arc<Context>) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let Some(caller) = certificate.and_then(|certificate| Caller::of(certificate)) else { return };
    let caller = Arc::new(caller);
    let service = service_fn(move |request| {
        let (ctx, caller) = (Arc::clone(&ctx), Arc::clone(&caller));
        async move { Ok::<_, Infallible>(answer(ctx, &caller, request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    if let Err(e) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::trace!(error = %e, "a connection to the node's API ended");
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

async fn answer(ctx: Arc<Context>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let Some(route) = Route::parse(request.uri().path()) else {
        return answer::text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let verb = verb(request.method());
    if let Err(why) = caller.may(&ctx.client, &ctx.node_name, verb, route.subresource()).await {
        return answer::text(StatusCode::FORBIDDEN, why);
    }
    let query = Query::parse(request.uri().query());
    match route {
        Route::Health => answer::text(StatusCode::OK, "ok"),
        Route::Pods => info::pods(&ctx),
        Route::Configz => info::configz(&ctx),
        Route::Stats => info::summary(&ctx).await,
        Route::Metrics => info::metrics(&ctx).await,
        Route::Cadvisor => cadvisor::metrics(&ctx).await,
        Route::Logs(place) => log(ctx, place, &query).await,
        Route::Exec(place) => stream(&ctx, Stream::Exec, &place, &query, request).await,
        Route::Attach(place) => stream(&ctx, Stream::Attach, &place, &query, request).await,
        Route::PortForward(place) => stream(&ctx, Stream::PortForward, &place, &query, request).await,
    }
}

async fn log(ctx: Arc<Context>, place: Place, query: &Query) -> Answer {
    let Some(pod) = ctx.pod(&place.namespace, &place.pod) else {
        return answer::text(StatusCode::NOT_FOUND, format!("pod {:?} does not exist\n", place.pod));
    };
    let spec = pod.spec.as_ref();
    let names = spec.into_iter().flat_map(|spec| {
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| &container.name);
        spec.init_containers.iter().flatten().chain(&spec.containers).map(|container| &container.name).chain(ephemeral)
    });
    if !names.into_iter().any(|name| *name == place.container) {
        let message = format!("container {:?} not found in pod {:?}\n", place.container, place.pod);
        return answer::text(StatusCode::NOT_FOUND, message);
    }
    let options = match logs::options(query, Timestamp::now()) {
        Ok(options) => options,
        Err(why) => return answer::text(StatusCode::BAD_REQUEST, why),
    };
    match logs::body(ctx, pod, place, options).await {
        Ok(body) => answer::stream(body),
        Err(why) => answer::text(StatusCode::BAD_REQUEST, why),
    }
}

async fn stream(ctx: &Context, stream: Stream, place: &Place, query: &Query, request: Request<Incoming>) -> Answer {
    match ctx.pod(&place.namespace, &place.pod) {
        Some(pod) => upgrade::pass(ctx, &pod, stream, place, query, request).await,
        None => answer::text(StatusCode::NOT_FOUND, "pod does not exist"),
    }
}
