//! The one connection: made when it is needed, shared by all requests, made anew after its loss.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use skiff_api::status::{ApiError, Reason};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    tls::{HTTP2, Identity, SetupError, client_config, unverified_config},
    unreachable,
};

/// How long TCP, TLS and HTTP/2 may take to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an idle connection is asked whether it still lives; a dead one is noticed within this and
/// [`PING_TIMEOUT`]. As client-go's `HTTP2_READ_IDLE_TIMEOUT_SECONDS` and `HTTP2_PING_TIMEOUT_SECONDS`.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long the answer to that may take.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// How much of one answer may be under way unread.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// How much of all answers together may be under way unread: a watch that is not read must not hold up the rest.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

type Sender = http2::SendRequest<Full<Bytes>>;
type HttpRequest = http::Request<Full<Bytes>>;

/// What the next connection is made with.
struct Credentials {
    tls: Arc<ClientConfig>,
    bearer: Option<HeaderValue>,
}

/// Where a server is, and the name that its certificate must have.
#[derive(Clone, Debug)]
struct Server {
    base: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Server {
    fn parse(url: &str) -> Result<Self, SetupError> {
        let bad = || SetupError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if uri.scheme_str() != Some("https") {
            return Err(bad());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            base: format!("https://{authority}"),
            port: authority.port_u16().unwrap_or(443),
            name: ServerName::try_from(host.clone()).map_err(|_| bad())?,
            host,
        })
    }
}

pub(super) struct Connection {
    base: String,
    /// Those that are tried, the one first that answered last.
    servers: Mutex<Vec<Server>>,
    credentials: Mutex<Credentials>,
    sender: tokio::sync::Mutex<Option<Sender>>,
}

impl Connection {
    pub(super) fn new(server_url: &str, server_ca: &str, identity: &Identity) -> Result<Self, SetupError> {
        Self::with(server_url, credentials(server_ca, identity)?)
    }

    pub(super) fn unverified(server_url: &str) -> Result<Self, SetupError> {
        Self::with(server_url, Credentials { tls: unverified_config()?, bearer: None })
    }

    fn with(server_url: &str, credentials: Credentials) -> Result<Self, SetupError> {
        let server = Server::parse(server_url)?;
        Ok(Self {
            base: server.base.clone(),
            servers: Mutex::new(vec![server]),
            credentials: Mutex::new(credentials),
            sender: tokio::sync::Mutex::new(None),
        })
    }

    /// Connects to any of these from now on; the present connection stays.
    pub(super) fn set_servers<'a>(&self, urls: impl Iterator<Item = &'a str>) -> Result<(), SetupError> {
        let mut wanted = urls.map(Server::parse).collect::<Result<Vec<_>, _>>()?;
        let mut servers = self.servers.lock();
        if let Some(first) = servers.first() {
            wanted.sort_by_key(|server| server.base != first.base);
        }
        if !wanted.is_empty() {
            *servers = wanted;
        }
        Ok(())
    }

    /// Scheme and authority, to put before a path.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The value of the `Authorization` header, if there is one.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        self.credentials.lock().bearer.clone()
    }

    pub(super) fn set_identity(&self, server_ca: &str, identity: &Identity) -> Result<(), SetupError> {
        *self.credentials.lock() = credentials(server_ca, identity)?;
        // The old connection ends when the last request that holds it is done. If it is being made this very
        // moment, it may still be made with the old identity, and is replaced when the server ends it.
        if let Ok(mut sender) = self.sender.try_lock() {
            *sender = None;
        }
        Ok(())
    }

    /// Sends a request. One that cannot have reached the server is sent again, once, over a new connection.
    pub(super) async fn send(
        &self,
        request: impl Fn() -> Result<HttpRequest, ApiError>,
    ) -> Result<http::Response<Incoming>, ApiError> {
        let mut sender = self.sender().await?;
        match sender.try_send_request(request()?).await {
            Ok(response) => Ok(response),
            Err(mut failed) => {
                self.forget(&sender).await;
                if failed.take_message().is_none() {
                    return Err(unreachable(failed.error()));
                }
                let mut sender = self.sender().await?;
                sender.send_request(request()?).await.map_err(|e| unreachable(&e))
            }
        }
    }

    async fn sender(&self) -> Result<Sender, ApiError> {
        let mut slot = self.sender.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let fresh = self.connect_to_any().await?;
        *slot = Some(fresh.clone());
        Ok(fresh)
    }

    /// Lets go of a connection that failed, unless another request has already replaced it.
    async fn forget(&self, failed: &Sender) {
        let mut slot = self.sender.lock().await;
        if failed.is_closed() && slot.as_ref().is_some_and(http2::SendRequest::is_closed) {
            *slot = None;
        }
    }

    /// A connection to the first server that takes one; it is tried first the next time too.
    async fn connect_to_any(&self) -> Result<Sender, ApiError> {
        let servers = self.servers.lock().clone();
        let mut failed = None;
        for server in servers {
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&server)).await;
            match connecting.unwrap_or_else(|_| Err(too_late(&server))) {
                Ok(sender) => {
                    self.servers.lock().sort_by_key(|known| known.base != server.base);
                    return Ok(sender);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| ApiError::internal("there is no server to connect to")))
    }

    async fn connect(&self, server: &Server) -> Result<Sender, ApiError> {
        let stream = self.handshake(server).await.map_err(|e| unreachable(&e))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(&e))?;
        // Ends by itself: when the server closes it, or when the last sender is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the API server ended");
            }
        });
        Ok(sender)
    }

    async fn handshake(&self, server: &Server) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        let tls = Arc::clone(&self.credentials.lock().tls);
        TlsConnector::from(tls).connect(server.name.clone(), tcp).await
    }
}

fn too_late(server: &Server) -> ApiError {
    let message = format!("cannot reach the API server: no connection to {} in time", server.base);
    ApiError::new(Reason::ServiceUnavailable, message)
}

fn credentials(server_ca: &str, identity: &Identity) -> Result<Credentials, SetupError> {
    let bearer = match identity {
        Identity::Token(token) => {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| SetupError::Token)?;
            value.set_sensitive(true);
            Some(value)
        }
        Identity::Certificate { .. } | Identity::Anonymous => None,
    };
    Ok(Credentials { tls: Arc::new(client_config(server_ca, identity, HTTP2)?), bearer })
}
