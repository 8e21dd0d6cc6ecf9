//! Port-forward: connections to a pod's address. Each is two streams that name the same request: one of data, one of
//! errors.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

use super::mux::{CHUNK_BYTES, Command, Event, Headers, Mux, header};
use crate::runtime::Runtime;

/// Connections of a session at once.
const MAX_CONNECTIONS: usize = 128;
/// Pieces of data that wait for a pod.
const QUEUE: usize = 8;
/// How long a pod may take to accept.
const CONNECT: Duration = Duration::from_secs(10);

/// The two streams of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pair {
    data: Option<u32>,
    error: Option<u32>,
    port: Option<u16>,
}

/// The streams that wait for their other half, by their request.
#[derive(Debug, Default)]
struct Pairs(HashMap<String, Pair>);

impl Pairs {
    /// Takes a stream; the pair (data, error, port) that it completes.
    fn take(&mut self, id: u32, headers: &Headers) -> Option<(u32, u32, u16)> {
        // Clients of long ago name no request: their streams come one after the other.
        let request = header(headers, "requestid").unwrap_or_default().to_owned();
        if self.0.len() >= MAX_CONNECTIONS && !self.0.contains_key(&request) {
            return None;
        }
        let pair = self.0.entry(request.clone()).or_default();
        pair.port = header(headers, "port").and_then(|port| port.parse().ok());
        match header(headers, "streamtype") {
            Some("data") => pair.data = Some(id),
            Some("error") => pair.error = Some(id),
            _ => return None,
        }
        let complete = (pair.data?, pair.error?, pair.port?);
        self.0.remove(&request);
        Some(complete)
    }
}

/// Serves a session until the client is gone.
pub(super) async fn serve(runtime: &Runtime, sandbox: &str, mut mux: Mux) {
    let Ok(address) = runtime.reach(sandbox) else { return };
    let mut pairs = Pairs::default();
    let mut open: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    let mut connections = JoinSet::new();
    while let Some(event) = mux.events.recv().await {
        match event {
            Event::Open { id, headers } => {
                if let Some((data, error, port)) = pairs.take(id, &headers) {
                    while connections.try_join_next().is_some() {}
                    open.retain(|_, connection| !connection.is_closed());
                    let (sender, from_client) = mpsc::channel(QUEUE);
                    let to = SocketAddr::new(IpAddr::V4(address), port);
                    let connection = Connection { to, data, error, commands: mux.commands.clone() };
                    if connections.len() < MAX_CONNECTIONS {
                        open.insert(data, sender);
                        connections.spawn(connection.run(from_client));
                    } else {
                        connection.fail("too many connections at once").await;
                    }
                }
            }
            Event::Data { id, bytes } => {
                if let Some(connection) = open.get(&id) {
                    // A connection that has ended takes no more.
                    let _ = connection.send(bytes).await;
                }
            }
            Event::End { id } => drop(open.remove(&id)),
        }
    }
}

struct Connection {
    to: SocketAddr,
    data: u32,
    error: u32,
    commands: mpsc::Sender<Command>,
}

impl Connection {
    async fn run(self, from_client: mpsc::Receiver<Bytes>) {
        let port = self.to.port();
        match tokio::time::timeout(CONNECT, TcpStream::connect(self.to)).await {
            Ok(Ok(stream)) => self.carry(stream, from_client).await,
            Ok(Err(error)) => {
                self.fail(&format!("error forwarding port {port} to the pod at {}: {error}", self.to)).await;
            }
            Err(_) => self.fail(&format!("error forwarding port {port} to the pod at {}: timed out", self.to)).await,
        }
    }

    async fn carry(&self, stream: TcpStream, mut from_client: mpsc::Receiver<Bytes>) {
        let _ = stream.set_nodelay(true);
        let (mut from_pod, mut to_pod) = stream.into_split();
        let there = async {
            while let Some(bytes) = from_client.recv().await {
                if to_pod.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            let _ = to_pod.shutdown().await;
        };
        let back = async {
            let mut chunk = vec![0; CHUNK_BYTES];
            while let Ok(size @ 1..) = from_pod.read(&mut chunk).await {
                let bytes = Bytes::copy_from_slice(chunk.get(..size).unwrap_or_default());
                if self.commands.send(Command::Data { id: self.data, bytes }).await.is_err() {
                    return;
                }
            }
        };
        // Once the pod has ended there is nobody to send to; what the client ends, the pod may still answer.
        let mut there = std::pin::pin!(there);
        let mut back = std::pin::pin!(back);
        tokio::select! {
            () = &mut back => {}
            () = &mut there => back.await,
        }
        self.end().await;
    }

    async fn fail(&self, why: &str) {
        let bytes = Bytes::copy_from_slice(why.as_bytes());
        let _ = self.commands.send(Command::Data { id: self.error, bytes }).await;
        self.end().await;
    }

    async fn end(&self) {
        for id in [self.data, self.error] {
            let _ = self.commands.send(Command::End { id }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(kind: &str, request: &str) -> Headers {
        let pairs = [("streamtype", kind), ("port", "80"), ("requestid", request)];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    #[test]
    fn streams_of_one_request_are_a_pair() {
        let mut pairs = Pairs::default();
        assert_eq!(pairs.take(1, &stream("error", "0")), None);
        assert_eq!(pairs.take(3, &stream("error", "1")), None);
        assert_eq!(pairs.take(5, &stream("data", "1")), Some((5, 3, 80)));
        assert_eq!(pairs.take(7, &stream("data", "0")), Some((7, 1, 80)));
        assert_eq!(pairs.take(9, &stream("other", "2")), None);
        for request in 0..1000 {
            assert_eq!(pairs.take(9, &stream("data", &request.to_string())), None);
        }
        assert!(pairs.0.len() <= MAX_CONNECTIONS);
    }
}
