//! Moves the bytes of TCP connections; each direction ends on its own.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::Shared;

/// How long an endpoint may take to accept.
const CONNECT: Duration = Duration::from_secs(5);
/// How many endpoints are tried.
const MAX_TRIES: usize = 4;
/// The wait after accepting failed, which it does for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// The size of each of a connection's two buffers.
const BUFFER_BYTES: usize = 16 * 1024;

/// Accepts until cancelled. Connections that were accepted live on.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Shared,
    connections: Arc<Semaphore>,
    cancel: CancellationToken,
) {
    loop {
        let permit = tokio::select! {
            () = cancel.cancelled() => return,
            permit = Arc::clone(&connections).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(e) = carry(client, peer, &shared).await {
                tracing::trace!(error = %e, "a proxied connection ended");
            }
            drop(permit);
        });
    }
}

async fn carry(mut client: TcpStream, peer: SocketAddr, shared: &Shared) -> io::Result<()> {
    let mut endpoint = connect(peer, shared).await?;
    let _slower = (client.set_nodelay(true), endpoint.set_nodelay(true));
    copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER_BYTES, BUFFER_BYTES).await.map(drop)
}

async fn connect(peer: SocketAddr, shared: &Shared) -> io::Result<TcpStream> {
    let mut error = io::Error::from(io::ErrorKind::ConnectionRefused);
    let tries = shared.lock().len().min(MAX_TRIES);
    for _ in 0..tries {
        let Some(endpoint) = shared.lock().choose(peer.ip(), Instant::now()) else { break };
        match tokio::time::timeout(CONNECT, TcpStream::connect(endpoint)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => error = e,
            Err(_) => error = io::Error::from(io::ErrorKind::TimedOut),
        }
        shared.lock().failed(peer.ip());
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::services::{choose::Chooser, plan::Backend};

    async fn proxied(endpoints: Vec<SocketAddr>) -> (SocketAddr, Shared, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Backend { service: Default::default(), endpoints, affinity: None };
        let shared = Arc::new(Mutex::new(Chooser::new(backend)));
        let cancel = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::clone(&shared), Arc::new(Semaphore::new(8)), cancel.clone()));
        (address, shared, cancel)
    }

    /// Answers with all that it read, once the client has ended its direction.
    async fn echo_at_end() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut data = vec![];
                stream.read_to_end(&mut data).await.unwrap();
                stream.write_all(&data).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn half_closed_connections_and_dead_endpoints_are_served() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (address, _, _) = proxied(vec![dead, echo_at_end().await]).await;
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = vec![];
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"hello");
        }
    }

    #[tokio::test]
    async fn a_connection_outlives_its_listener() {
        let (address, _, cancel) = proxied(vec![echo_at_end().await]).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"a").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
        stream.write_all(b"b").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"ab");
    }
}
