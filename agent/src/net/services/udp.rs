//! Moves UDP datagrams: a socket to an endpoint for each client, forgotten when it falls silent.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Shared;

/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// A client that is silent this long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// How many clients a listener serves at once; datagrams of more are dropped.
const MAX_CLIENTS: usize = 1024;

/// Serves until cancelled.
pub(super) async fn serve(socket: UdpSocket, shared: Shared, cancel: CancellationToken) {
    let socket = Arc::new(socket);
    let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            () = cancel.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((length, client)) = received else { continue };
        // The task of a client that fell silent has let go of its socket.
        clients.retain(|_, upstream| Arc::strong_count(upstream) > 1);
        let upstream = match clients.get(&client) {
            Some(upstream) => Arc::clone(upstream),
            None if clients.len() >= MAX_CLIENTS => continue,
            None => match open(client, &socket, &shared, &cancel).await {
                Some(upstream) => {
                    clients.insert(client, Arc::clone(&upstream));
                    upstream
                }
                None => continue,
            },
        };
        let _lost = upstream.send(&buffer[..length]).await;
    }
}

async fn open(
    client: SocketAddr,
    socket: &Arc<UdpSocket>,
    shared: &Shared,
    cancel: &CancellationToken,
) -> Option<Arc<UdpSocket>> {
    let endpoint = shared.lock().choose(client.ip(), Instant::now())?;
    let any = if endpoint.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let upstream = Arc::new(UdpSocket::bind(any).await.ok()?);
    upstream.connect(endpoint).await.ok()?;
    let (back, socket, cancel) = (Arc::clone(&upstream), Arc::clone(socket), cancel.clone());
    tokio::spawn(async move {
        let answers = async {
            let mut buffer = vec![0; MAX_DATAGRAM];
            while let Ok(Ok(length)) = tokio::time::timeout(IDLE, back.recv(&mut buffer)).await {
                let _lost = socket.send_to(&buffer[..length], client).await;
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = answers => {}
        }
    });
    Some(upstream)
}
