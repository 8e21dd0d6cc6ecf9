//! The HTTP requests that a pod's guests make: from the pod's own address, over connections that its instances share
//! and keep for a while, so many at once.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, LazyLock, Weak},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, Uri, uri::Scheme};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, lookup_host},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, timeout},
};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

/// Requests that a pod has under way at once; more wait.
const MAX_REQUESTS: usize = 256;
/// Connections that a pod keeps for its next requests, and for how long.
const MAX_IDLE: usize = 8;
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
/// How long each step may take where a guest says nothing of it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// A pod's way out.
pub(crate) struct Outgoing {
    /// The pod's address; none in particular on the node's network.
    address: Ipv4Addr,
    turns: Arc<Semaphore>,
    kept: Mutex<Kept>,
}

/// Connections that wait for their next request, oldest first.
#[derive(Default)]
struct Kept {
    idle: VecDeque<Idle>,
    /// Whether a task closes what waits for too long.
    is_watched: bool,
}

struct Idle {
    to: Peer,
    since: Instant,
    sender: Sender,
}

type Sender = SendRequest<WasiBody>;

/// Who is spoken to, and how.
#[derive(Clone, PartialEq, Eq)]
struct Peer {
    tls: bool,
    host: String,
    port: u16,
}

impl Peer {
    fn of(uri: &Uri) -> Result<Self> {
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }
}

impl Outgoing {
    pub(crate) fn new(address: Ipv4Addr) -> Self {
        Self { address, turns: Arc::new(Semaphore::new(MAX_REQUESTS)), kept: Mutex::default() }
    }

    /// Sends a request and waits for its answer's head.
    pub(crate) async fn send(
        self: Arc<Self>,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Response<WasiBody>> {
        let options = options.unwrap_or_default();
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| Error::ConnectionLimitReached)?;
        let to = Peer::of(request.uri())?;
        *request.uri_mut() = origin_form(request.uri())?;
        let connect_timeout = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let answer_timeout = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let mut kept = self.kept(&to);
        loop {
            let was_kept = kept.is_some();
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => {
                    let connecting = timeout(connect_timeout, self.connect(&to)).await;
                    connecting.map_err(|_| Error::ConnectionTimeout)??
                }
            };
            let sent = timeout(answer_timeout, sender.try_send_request(request)).await;
            match sent.map_err(|_| Error::ConnectionReadTimeout)? {
                Ok(answer) => {
                    let pause = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);
                    let body =
                        |inner| Answer { inner, pause, sleep: None, sender: Some((self, to, sender)), _turn: turn };
                    return Ok(answer.map(|inner| body(inner).boxed_unsync()));
                }
                // A kept connection may have been closed by its peer just now: the request was not sent at all.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if was_kept => request = unsent,
                    _ => return Err(exchange_error(&failed.into_error())),
                },
            }
        }
    }

    /// A connection from a former request.
    fn kept(&self, to: &Peer) -> Option<Sender> {
        let mut kept = self.kept.lock();
        kept.close_old();
        let at = kept.idle.iter().rposition(|idle| idle.to == *to && idle.sender.is_ready())?;
        Some(kept.idle.remove(at)?.sender)
    }

    /// Keeps a connection for the next request.
    fn keep(self: &Arc<Self>, to: Peer, sender: Sender) {
        let mut kept = self.kept.lock();
        if kept.idle.len() == MAX_IDLE {
            kept.idle.pop_front();
        }
        kept.idle.push_back(Idle { to, since: Instant::now(), sender });
        if !std::mem::replace(&mut kept.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    async fn connect(&self, to: &Peer) -> Result<Sender> {
        let stream = self.dial(to).await?;
        // Small requests must not wait for the acknowledgement of the head.
        let _ = stream.set_nodelay(true);
        if to.tls {
            let name = ServerName::try_from(to.host.clone()).map_err(|_| Error::HttpRequestUriInvalid)?;
            let connector = TlsConnector::from(TLS.clone());
            return handshake(connector.connect(name, stream).await.map_err(|_| Error::TlsProtocolError)?).await;
        }
        handshake(stream).await
    }

    async fn dial(&self, to: &Peer) -> Result<TcpStream> {
        let unknown = |_| Error::DnsError { rcode: None, info_code: None };
        let mut outcome = Err(Error::DestinationNotFound);
        for peer in lookup_host((to.host.as_str(), to.port)).await.map_err(unknown)? {
            outcome = self.dial_one(peer).await.map_err(|error| connect_error(&error));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Connects from the pod's own address, where the peer can answer to that.
    async fn dial_one(&self, peer: SocketAddr) -> io::Result<TcpStream> {
        if !answers_to(peer, self.address) {
            return TcpStream::connect(peer).await;
        }
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(self.address), 0))?;
        socket.connect(peer).await
    }
}

/// Whether a peer is reached from a pod's own address: the node's addresses of `skiff dev` lead nowhere else, and there
/// what goes out comes from the machine.
pub(super) fn answers_to(peer: SocketAddr, own: Ipv4Addr) -> bool {
    peer.is_ipv4() && (!own.is_loopback() || peer.ip().is_loopback())
}

fn connect_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        _ => Error::DestinationUnavailable,
    }
}

/// What a failed exchange means to a guest.
pub(crate) fn exchange_error(error: &hyper::Error) -> Error {
    if error.is_timeout() {
        Error::HttpResponseTimeout
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Error::ConnectionTerminated
    } else {
        Error::HttpProtocolError
    }
}

/// What `wasi:http` asks of a pod.
pub(crate) struct Hooks(pub(crate) Arc<Outgoing>);

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Progress)>> + Send> {
        let sent = self.0.clone().send(request, options);
        // A task of its own moves the bytes.
        Box::new(async { Ok((sent.await?, Box::new(std::future::ready(Ok(()))) as Progress)) })
    }
}

/// What moves a request's bytes.
type Progress = Box<dyn Future<Output = Result<()>> + Send>;

/// Whom guests trust: the authorities that Mozilla does.
static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
});

/// Agrees on HTTP/1.1; a task moves the bytes until the connection ends.
async fn handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| exchange_error(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a guest's outgoing connection ended early");
        }
    });
    Ok(sender)
}

impl Kept {
    /// Closes what has waited for too long.
    fn close_old(&mut self) {
        self.idle.retain(|idle| idle.since.elapsed() < MAX_IDLE_TIME && !idle.sender.is_closed());
    }
}

/// Closes what waits for too long, until nothing does.
async fn watch(outgoing: Weak<Outgoing>) {
    loop {
        tokio::time::sleep(MAX_IDLE_TIME).await;
        let Some(outgoing) = outgoing.upgrade() else { return };
        let mut kept = outgoing.kept.lock();
        kept.close_old();
        if kept.idle.is_empty() {
            kept.is_watched = false;
            return;
        }
    }
}

/// The path alone, as a server that is no proxy wants it.
fn origin_form(uri: &Uri) -> Result<Uri> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder().path_and_query(path).build().map_err(|_| Error::HttpRequestUriInvalid)
}

/// The body of an answer. Once it is read to its end, its connection is kept.
struct Answer {
    inner: Incoming,
    /// How long its next piece may take.
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    sender: Option<(Arc<Outgoing>, Peer, Sender)>,
    _turn: OwnedSemaphorePermit,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.pause)));
            ready!(sleep.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        this.sleep = None;
        if frame.is_none()
            && let Some((outgoing, to, sender)) = this.sender.take()
        {
            outgoing.keep(to, sender);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| exchange_error(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
