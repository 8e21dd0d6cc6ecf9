//! The tunnels that nodes have opened, see [`skiff_client::link`]. The newest of a node is used first.
//!
//! What comes over a tunnel is believed as little as what comes from the network: the node's API proves by its
//! certificate which node it is, as on a direct connection. A node can harm its own tunnels alone: their number, their
//! streams and what is under way are limited, and every wait has an end.

use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use http_body_util::Empty;
use hyper::{
    client::conn::http2::{self, SendRequest},
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use skiff_client::link::{
    CONNECTION_WINDOW_BYTES, PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::dial::Bytestream;

/// How many tunnels of a node are kept; an older one ends.
const MAX_OF_NODE: usize = 4;

/// How long a tunnel may take to begin.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node may take to answer that a stream is open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);

/// One tunnel.
#[derive(Clone)]
struct Tunnel {
    id: u64,
    sender: SendRequest<Empty<Bytes>>,
    end: CancellationToken,
}

/// The tunnels, by the names of their nodes.
#[derive(Default)]
pub struct Tunnels {
    nodes: Mutex<HashMap<String, Vec<Tunnel>>>,
    ids: AtomicU64,
}

impl Tunnels {
    /// Carries a tunnel that a node opens, until it ends.
    pub async fn carry(&self, node: &str, upgrade: OnUpgrade, shutdown: &CancellationToken) {
        let beginning = async {
            let stream = upgrade.await?;
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(SEND_BUFFER_BYTES)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .handshake(stream)
                .await
        };
        let Ok(Ok((sender, connection))) = timeout(BEGIN_TIMEOUT, beginning).await else { return };
        let (id, end) = (self.ids.fetch_add(1, Ordering::Relaxed), shutdown.child_token());
        self.add(node, Tunnel { id, sender, end: end.clone() });
        tracing::debug!(node, "the node has opened a tunnel");
        if let Some(Err(error)) = end.run_until_cancelled(connection).await {
            tracing::debug!(node, %error, "a node's tunnel broke");
        }
        self.remove(node, id);
    }

    /// A stream to something of a node; `None` where no tunnel of it is alive.
    pub(super) async fn open(&self, node: &str, target: &str) -> io::Result<Option<Box<dyn Bytestream>>> {
        let tunnels = self.nodes.lock().get(node).cloned().unwrap_or_default();
        for Tunnel { id, sender, .. } in tunnels.into_iter().rev() {
            match timeout(OPEN_TIMEOUT, connect(sender, target)).await {
                Ok(Ok(stream)) => return stream.map(Some),
                Ok(Err(_)) => self.remove(node, id),
                // It is full, or dead and its ping has not told yet.
                Err(_) => {}
            }
        }
        Ok(None)
    }

    fn add(&self, node: &str, tunnel: Tunnel) {
        let mut nodes = self.nodes.lock();
        let tunnels = nodes.entry(node.to_owned()).or_default();
        if tunnels.len() == MAX_OF_NODE {
            tunnels.remove(0).end.cancel();
        }
        tunnels.push(tunnel);
    }

    fn remove(&self, node: &str, id: u64) {
        let mut nodes = self.nodes.lock();
        let Some(tunnels) = nodes.get_mut(node) else { return };
        tunnels.retain(|tunnel| {
            let keep = tunnel.id != id;
            if !keep {
                tunnel.end.cancel();
            }
            keep
        });
        if tunnels.is_empty() {
            nodes.remove(node);
        }
    }
}

/// Asks for a stream. The outer error is the tunnel's, the inner one that of what was asked for.
async fn connect(
    mut sender: SendRequest<Empty<Bytes>>,
    target: &str,
) -> Result<io::Result<Box<dyn Bytestream>>, hyper::Error> {
    let mut request = http::Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    match Uri::builder().authority(target).build() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(error) => return Ok(Err(io::Error::other(error))),
    }
    sender.ready().await?;
    let mut response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        let refusal = format!("the node refuses a connection to {target} ({})", response.status());
        return Ok(Err(io::Error::new(io::ErrorKind::ConnectionRefused, refusal)));
    }
    let stream = hyper::upgrade::on(&mut response).await?;
    Ok(Ok(Box::new(TokioIo::new(stream))))
}
