//! One tunnel: a connection to a server, upgraded, over which the server asks and the node answers. Kept until
//! cancelled; after a break it is opened again, later each time and never by all nodes at once.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1, server::conn::http2, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use skiff_client::{
    backoff,
    https::{self, client_config},
    link::{
        CONNECT_PATH, CONNECTION_WINDOW_BYTES, MAX_STREAMS, NODE_API, PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER_BYTES,
        STREAM_WINDOW_BYTES, TUNNEL_PROTOCOL,
    },
};
use tokio::{io::copy_bidirectional, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::Tunnels;
use crate::Credentials;

/// The first and the longest wait before a tunnel is opened again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long TCP, TLS and the upgrade may take together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a pod may take to accept.
const POD_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0:?} is not the URL of a server")]
    Url(String),
    #[error("the node's certificates")]
    Setup(#[from] https::SetupError),
    #[error("no connection")]
    Connect(#[from] io::Error),
    #[error("the connection broke")]
    Http(#[from] hyper::Error),
    #[error("the server answers {0}")]
    Refused(StatusCode),
}

/// Keeps a tunnel to a server until cancelled.
pub(super) async fn keep(tunnels: Arc<Tunnels>, url: String, cancel: CancellationToken) {
    let mut again = backoff::Backoff::new(AGAIN.0, AGAIN.1);
    loop {
        let credentials = tunnels.credentials.borrow().clone();
        let opening =
            async { timeout(OPEN_TIMEOUT, open(&url, &credentials)).await.unwrap_or_else(|_| Err(too_late())) };
        let Some(opened) = cancel.run_until_cancelled(opening).await else { return };
        match opened {
            Ok(stream) => {
                tracing::info!(server = url, "the tunnel is open");
                again.reset();
                let Some(ended) = cancel.run_until_cancelled(serve(&tunnels, stream)).await else { return };
                let error = ended.err().map(|error| error.to_string());
                tracing::info!(server = url, error, "the tunnel ended");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, server = url, "the tunnel cannot be opened yet");
            }
        }
        let delay = again.next(backoff::random());
        if cancel.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return;
        }
    }
}

fn too_late() -> LinkError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// Connects as the node and upgrades.
async fn open(url: &str, credentials: &Credentials) -> Result<Upgraded, LinkError> {
    let bad = || LinkError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
    let identity = https::Identity::Certificate {
        certificate: credentials.client_cert.clone(),
        key: credentials.client_key.clone(),
    };
    let tls = client_config(&credentials.server_ca, &identity, b"http/1.1")?;
    let tcp = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await?;
    tcp.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the upgrade, or with the sender.
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from_static(CONNECT_PATH);
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(authority.as_str()).map_err(|_| bad())?);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(TUNNEL_PROTOCOL));
    let mut answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(LinkError::Refused(answer.status()));
    }
    Ok(hyper::upgrade::on(&mut answer).await?)
}

/// Answers the server until the connection ends; a dead one is noticed by pings.
async fn serve(tunnels: &Arc<Tunnels>, stream: Upgraded) -> Result<(), hyper::Error> {
    let service = service_fn(|request| {
        let tunnels = Arc::clone(tunnels);
        async move { Ok::<_, Infallible>(answer(tunnels, request).await) }
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(stream, service)
        .await
}

async fn answer(tunnels: Arc<Tunnels>, request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let target = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let status = match (request.method(), target.as_str()) {
        (&Method::CONNECT, NODE_API) => {
            tokio::spawn(async move {
                if let Ok(stream) = hyper::upgrade::on(request).await {
                    tunnels.api.serve(TokioIo::new(stream)).await;
                }
            });
            StatusCode::OK
        }
        (&Method::CONNECT, target) => match target.parse() {
            Ok(address) if tunnels.is_here(address) => join(address, request).await,
            _ => StatusCode::FORBIDDEN,
        },
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

/// Joins a stream to a connection of this machine's.
async fn join(address: SocketAddr, request: Request<Incoming>) -> StatusCode {
    let Ok(Ok(mut far)) = timeout(POD_TIMEOUT, TcpStream::connect(address)).await else {
        return StatusCode::BAD_GATEWAY;
    };
    tokio::spawn(async move {
        let _slower = far.set_nodelay(true);
        if let Ok(near) = hyper::upgrade::on(request).await {
            let _ended = copy_bidirectional(&mut TokioIo::new(near), &mut far).await;
        }
    });
    StatusCode::OK
}
