//! CRI's streaming: exec, attach and port-forward. A CRI call gets a URL on loopback, good once and for a minute; who
//! comes there speaks SPDY/3.1 or WebSocket, as a kubelet, `crictl` or `kubectl` does.
//!
//! - `tickets`: what was allowed and waits; - `agree`: which protocol is spoken; both pure.
//! - `mux`: streams, whatever carries them; `spdy` (with `headers`), `websocket` and `channels` carry them.
//! - `remote`: exec and attach (with `terminal` and `status`); `forward`: port-forward.
//!
//! Tasks: one accepts; one a connection; in it a driver turns frames into events, a session works on these.

mod agree;
mod channels;
mod forward;
mod headers;
mod mux;
mod remote;
mod spdy;
mod status;
mod terminal;
mod tickets;
mod websocket;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

pub(crate) use tickets::{Ticket, Wanted};

use crate::{disk, error::Failure, runtime::Runtime};
use agree::{Carrier, Terms};
use mux::{LINGER, Mux};
use tickets::Tickets;

/// Sessions at once.
const MAX_SESSIONS: usize = 256;
/// How long a client may take to ask.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system refused to accept, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes on their way between a WebSocket and what it carries.
const TUNNEL_BYTES: usize = 64 << 10;

/// Where tickets are issued.
pub(crate) struct Desk {
    address: SocketAddr,
    tickets: Mutex<Tickets>,
}

impl Desk {
    /// Keeps a ticket; the URL to take it up at.
    pub(crate) fn issue(&self, ticket: Ticket) -> Result<String, Failure> {
        let kind = match ticket {
            Ticket::Exec { .. } => "exec",
            Ticket::Attach { .. } => "attach",
            Ticket::PortForward { .. } => "portforward",
        };
        let token = disk::new_id();
        let url = format!("http://{}/{kind}/{token}", self.address);
        if !self.tickets.lock().issue(Instant::now(), token, ticket) {
            return Err(Failure::Failed("too many streams were asked for and not taken up".into()));
        }
        Ok(url)
    }

    fn take(&self, path: &str) -> Option<Ticket> {
        let token = path.rsplit('/').next()?;
        self.tickets.lock().take(Instant::now(), token)
    }
}

/// The streaming server, listening.
pub(crate) struct Server {
    listener: TcpListener,
    desk: Arc<Desk>,
}

impl Server {
    /// Listens on a free port of loopback.
    pub(crate) async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, desk: Arc::new(Desk { address, tickets: Mutex::default() }) })
    }

    pub(crate) fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Serves until cancelled.
    pub(crate) async fn run(self, runtime: Arc<Runtime>, cancel: CancellationToken) {
        let sessions = Arc::new(Semaphore::new(MAX_SESSIONS));
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Beyond the limit a connection is closed at once, so that callers learn of it.
            let Ok(permit) = sessions.clone().try_acquire_owned() else { continue };
            let _ = stream.set_nodelay(true);
            let (desk, runtime, cancel) = (self.desk.clone(), runtime.clone(), cancel.clone());
            tokio::spawn(async move {
                let permit = Arc::new(permit);
                let service = service_fn(move |request| {
                    let held = (permit.clone(), cancel.clone());
                    let answer = answer(&desk, &runtime, request, held);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a streaming connection ended early");
                }
            });
        }
    }
}

type Answer = Response<Full<Bytes>>;
/// A turn among the sessions, and what ends them all.
type Held = (Arc<tokio::sync::OwnedSemaphorePermit>, CancellationToken);

fn answer(desk: &Desk, runtime: &Arc<Runtime>, mut request: Request<Incoming>, held: Held) -> Answer {
    let Some(ticket) = desk.take(request.uri().path()) else {
        return plain(StatusCode::NOT_FOUND, "cannot locate request: its token is unknown, used or expired\n");
    };
    let terms = match agree::agree(request.headers(), matches!(ticket, Ticket::PortForward { .. })) {
        Ok(terms) => terms,
        Err(why) => return plain(StatusCode::BAD_REQUEST, &why),
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(terms.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    let runtime = runtime.clone();
    tokio::spawn(async move {
        let (_turn, cancel) = held;
        let session = async {
            match upgrade.await {
                Ok(upgraded) => session(&runtime, ticket, &terms, upgraded).await,
                Err(error) => tracing::debug!(%error, "a streaming client went away"),
            }
        };
        cancel.run_until_cancelled(session).await;
    });
    response
}

/// Serves one session to its end.
async fn session(runtime: &Arc<Runtime>, ticket: Ticket, terms: &Terms, upgraded: Upgraded) {
    let (mux, driven) = mux::pair();
    let io = TokioIo::new(upgraded);
    let plan = terms.plan(&ticket);
    let drive = async {
        match &terms.carrier {
            Carrier::Spdy => spdy::drive(io, driven).await,
            Carrier::Channels => channels::drive(io, plan, driven).await,
            Carrier::Tunnel => {
                let (inner, outer) = tokio::io::duplex(TUNNEL_BYTES);
                tokio::join!(channels::tunnel(io, outer), spdy::drive(inner, driven));
            }
        }
    };
    let mut drive = std::pin::pin!(drive);
    let work = work(runtime, ticket, terms, mux);
    tokio::select! {
        () = &mut drive => {}
        () = work => drop(tokio::time::timeout(LINGER, drive).await),
    }
}

async fn work(runtime: &Arc<Runtime>, ticket: Ticket, terms: &Terms, mux: Mux) {
    match ticket {
        Ticket::Exec { container, command, wanted } => {
            remote::exec(runtime, &container, &command, wanted, terms.status, mux).await;
        }
        Ticket::Attach { container, wanted } => remote::attach(runtime, &container, wanted, terms.status, mux).await,
        Ticket::PortForward { sandbox, .. } => forward::serve(runtime, &sandbox, mux).await,
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}
