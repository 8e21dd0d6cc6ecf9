//! The cheapest client of a pod: HTTP/1.1 without TLS, requests as bytes made beforehand, answers read to their end
//! and not looked into.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::load::Caller;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How the body of an answer ends that is sent in chunks: components stream, so their answers are.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A connection that is kept alive.
pub(super) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes();
        Ok(Self { stream, request, buffer: Vec::with_capacity(4 << 10) })
    }

    /// Sends the request and reads its answer, which must be a good one; its bytes.
    pub(super) async fn exchange(&mut self) -> Result<usize> {
        self.stream.write_all(&self.request).await?;
        self.buffer.clear();
        while !self.buffer.ends_with(LAST_CHUNK) {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server has closed the connection");
            }
            ensure!(self.buffer.len() <= MAX_ANSWER_BYTES, "an answer without end");
        }
        ensure!(self.buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.buffer));
        Ok(self.buffer.len())
    }
}

impl Caller for Connection {
    async fn call(&mut self, _: u64) -> Result<usize> {
        self.exchange().await
    }
}
