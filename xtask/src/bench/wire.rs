//! The cheapest client that there can be, so that what is measured is the server: requests are bytes made beforehand,
//! answers are read by their `content-length` and not looked into. One connection is one TLS session of HTTP/1.1.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The largest answer that is read: a list of all that a bench makes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Where the server is and who asks.
#[derive(Clone)]
pub(super) struct Target {
    /// The server's address.
    pub(super) address: SocketAddr,
    tls: Arc<ClientConfig>,
    /// A bearer token instead of a certificate.
    token: Option<String>,
}

impl Target {
    /// From PEM: the server's CA and the client's certificate and key, which are left out for a client with a token.
    pub(super) fn new(
        address: SocketAddr,
        ca: &str,
        identity: Option<(&str, &str)>,
        token: Option<String>,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.context("reading the server's CA")?)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, tls: Arc::new(config), token })
    }

    /// A request as bytes.
    pub(super) fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        self.request_as("application/json", method, path, body)
    }

    /// The same with a body of another type.
    pub(super) fn request_as(&self, content_type: &str, method: &str, path: &str, body: &str) -> Vec<u8> {
        let token = self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: skiff-bench\r\naccept: application/json\r\n{token}\
             content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}",
            self.address
        )
        .into_bytes()
    }

    /// A connection.
    pub(super) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.context("the handshake")?;
        Ok(Connection { stream, buffer: Vec::with_capacity(64 << 10) })
    }
}

/// A connection that is kept alive.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends a request and reads its answer: the status, and how many bytes the body has.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, usize)> {
        let (status, head, length) = self.send(request).await?;
        ensure!(length <= MAX_ANSWER_BYTES, "an answer of {length} bytes");
        while self.buffer.len() < head + length {
            self.fill().await?;
        }
        self.buffer.drain(..head + length);
        Ok((status, length))
    }

    /// The same with the body.
    pub(super) async fn read(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        let (status, head, length) = self.send(request).await?;
        while self.buffer.len() < head + length {
            self.fill().await?;
        }
        let body = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Ok((status, body))
    }

    /// Sends a request and reads the head of its answer: status, bytes of the head, bytes of the body.
    async fn send(&mut self, request: &[u8]) -> Result<(u16, usize, usize)> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..end])?;
                let status = head.get(9..12).and_then(|code| code.parse().ok()).context("no status")?;
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length = length.context("an answer without a length")?.trim().parse()?;
                return Ok((status, end + 4, length));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server has closed the connection");
        }
        Ok(())
    }

    /// Begins a watch; what was read of it already stays in the buffer.
    pub(super) async fn begin_stream(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        while find(&self.buffer, b"\r\n\r\n").is_none() {
            self.fill().await?;
        }
        let end = find(&self.buffer, b"\r\n\r\n").unwrap_or_default();
        ensure!(self.buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.buffer[..end]));
        self.buffer.drain(..end + 4);
        Ok(())
    }

    /// The bytes of a stream that came since the last call, the marks of its chunks included.
    pub(super) async fn next_bytes(&mut self) -> Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }
}

/// Where a pattern begins.
pub(super) fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
