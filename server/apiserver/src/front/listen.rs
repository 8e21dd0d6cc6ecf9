//! From a listening socket to requests: accepts, shakes hands, speaks HTTP/1.1 or HTTP/2, and ends in time.
//!
//! One task a connection (HTTP/2 adds one a stream). When the server is told to stop it accepts no more, watches
//! end, requests being worked on may finish within a grace period, and what is left then is cut.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Front,
    authn::x509::{PeerIdentity, identity},
    limits::{
        ACCEPT_BACKOFF, CONNECTION_WINDOW_BYTES, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, MAX_CONNECTIONS, MAX_HEADER_BYTES,
        MAX_STREAMS, PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER_BYTES, SHUTDOWN_GRACE, STREAM_WINDOW_BYTES,
    },
    tls::{Acceptance, ServingTls},
};

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What its certificate says.
    pub identity: PeerIdentity,
}

/// How long the server waits for what a client should send.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the headers of an HTTP/1.1 request, and for the next request on such a connection.
    pub headers: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { handshake: HANDSHAKE_TIMEOUT, headers: HEADER_TIMEOUT }
    }
}

/// The two moments of the end: `stop` (finish what is begun) and `cut` (end now).
#[derive(Clone, Default)]
struct End {
    stop: CancellationToken,
    cut: CancellationToken,
}

/// Serves a listener until cancelled, then for at most the grace period.
pub async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
    tls: Arc<ServingTls>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let end = End { stop: front.shutdown().clone(), cut: CancellationToken::new() };
    let tasks = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some(accepted) = cancel.run_until_cancelled(accept(&listener, &slots)).await {
        let (stream, address, slot) = accepted?;
        let (front, acceptance, end) = (Arc::clone(&front), tls.current(), end.clone());
        tasks.spawn(async move {
            let cut = end.cut.clone();
            // A connection in mid-handshake has asked for nothing yet: it is dropped with the rest.
            cut.run_until_cancelled(connection(front, stream, address, acceptance, end)).await;
            drop(slot);
        });
    }
    drop(listener);
    end.stop.cancel();
    tasks.close();
    if timeout(SHUTDOWN_GRACE, tasks.wait()).await.is_err() {
        tracing::debug!(connections = tasks.len(), "cutting connections that did not end in time");
        end.cut.cancel();
        tasks.wait().await;
    }
    Ok(())
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<Accepted> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return Ok((stream, address, slot)),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: it passes when connections end, of which nothing tells.
                tracing::warn!(%error, "cannot accept connections for now");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn connection(front: Arc<Front>, stream: TcpStream, address: SocketAddr, acceptance: Acceptance, end: End) {
    // Without it, small frames of a watch would wait for the acknowledgement of those before.
    drop(stream.set_nodelay(true));
    let handshake = TlsAcceptor::from(acceptance.config).accept(stream);
    let stopped = end.stop.clone();
    let Some(Ok(Ok(stream))) = stopped.run_until_cancelled(timeout(front.patience().handshake, handshake)).await else {
        return;
    };
    let (_, session) = stream.get_ref();
    let identity = match &acceptance.verifier {
        Some(verifier) => identity(session.peer_certificates(), &**verifier, skiff_client::clock::unix_now()),
        None => PeerIdentity::None,
    };
    let speaks_http2 = session.alpn_protocol() == Some(b"h2");
    let peer = Arc::new(Peer { address, identity });
    let served =
        if speaks_http2 { http2(front, peer, stream, end).await } else { http1(front, peer, stream, end).await };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "a connection ended");
    }
}

/// The handler of one connection's requests.
macro_rules! handler {
    ($front:expr, $peer:expr) => {
        service_fn(move |request: hyper::Request<Incoming>| {
            let (front, peer) = (Arc::clone(&$front), Arc::clone(&$peer));
            async move { Ok::<_, Infallible>(front.handle(peer, request).await) }
        })
    };
}

async fn http1(front: Arc<Front>, peer: Arc<Peer>, stream: TlsStream<TcpStream>, end: End) -> hyper::Result<()> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(front.patience().headers)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), handler!(front, peer))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = end.stop.cancelled() => Pin::as_mut(&mut connection).graceful_shutdown(),
    }
    connection.await
}

async fn http2(front: Arc<Front>, peer: Arc<Peer>, stream: TlsStream<TcpStream>, end: End) -> hyper::Result<()> {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), handler!(front, peer));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = end.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
