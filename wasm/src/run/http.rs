//! An HTTP component: a server on the pod's address that makes an instance for each request.
//!
//! Tasks: [`serve`] accepts; a task a connection speaks HTTP/1.1 or HTTP/2 (prior knowledge); a task a request runs the
//! guest, also beyond its answer's head. All end with the container: `stop` lets what is begun finish, `kill` does not.
//! An idle server holds a socket and one small task, no instance.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::channel::oneshot;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wasmtime::AsContextMut;
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView,
    handler::{Prepared, ProxyPre},
    p2::bindings::http::types::Scheme,
};

use super::{
    Exit, Signals, Spec, never_fits,
    patience::{self, Answer, Turn},
    trap_text,
};
use crate::engine::{guest::Guest, meter::Metered, program::World};

/// Connections that a pod has open at once; more wait in the kernel.
const MAX_CONNECTIONS: usize = 1024;
/// Requests that a pod works on at once; more wait.
const MAX_REQUESTS: usize = 256;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a request's head.
const MAX_HEAD_BYTES: u32 = 64 << 10;
/// Pause after the system refused to accept (out of descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Server {
    spec: Arc<Spec>,
    builder: auto::Builder<TokioExecutor>,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Finish what is begun.
    stop: CancellationToken,
    /// End at once: killed, or out of memory.
    abort: CancellationToken,
    /// Whether a request wanted more memory than the container may ever have.
    out_of_memory: AtomicBool,
}

/// Serves `listeners` until told to end. Whoever stops a server in time gets exit code 0, as from any server that
/// obeys SIGTERM.
pub(crate) async fn serve(spec: Arc<Spec>, listeners: Vec<TcpListener>, signals: Signals) -> Exit {
    let server = Arc::new(Server::new(spec, &signals));
    for listener in listeners {
        server.tasks.spawn(accept(server.clone(), listener));
    }
    server.tasks.close();
    // What ended it is asked of the state and not of which came first: an abort also lets all tasks end.
    server.tasks.wait().await;
    if server.out_of_memory.load(Ordering::Relaxed) {
        return Exit::out_of_memory("a request needed more memory than the container's limit".into());
    }
    if !server.abort.is_cancelled() {
        return Exit::code(0);
    }
    Exit::killed("")
}

/// Takes connections until the container ends.
async fn accept(server: Arc<Server>, listener: TcpListener) {
    loop {
        let next = async {
            let permit = server.connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = server.stop.cancelled() => return,
            () = server.abort.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let server = server.clone();
                server.tasks.clone().spawn(async move {
                    let _permit = permit;
                    server.connection(stream).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Server {
    fn new(spec: Arc<Spec>, signals: &Signals) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES as usize)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES);
        Self {
            spec,
            builder,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            tasks: TaskTracker::new(),
            stop: signals.stop.clone(),
            abort: signals.kill.child_token(),
            out_of_memory: AtomicBool::new(false),
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Small answers must not wait for the client's acknowledgement of the head.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let stream = TokioIo::new(patience::Connection::new(stream));
        let connection = self.builder.serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            () = self.abort.cancelled() => return,
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    () = self.abort.cancelled() => return,
                    ended = connection => ended,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Answers one request. The guest runs in a task of its own, since it may outlive both its answer's head and its
    /// client.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        let turn = Turn::default();
        let answer = self.answer_of_guest(request, turn.clone()).await;
        answer.map(|body| Answer::new(body, turn))
    }

    async fn answer_of_guest(self: Arc<Self>, request: Request<Incoming>, turn: Turn) -> Response<WasiBody> {
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            return plain(StatusCode::BAD_REQUEST, "the request names no host\n");
        }
        let Ok(permit) = self.requests.clone().acquire_owned().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        };
        let (sender, receiver) = oneshot::channel();
        let server = self.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            let _place = server.spec.places.take().await;
            server.guest(request.map(patience::Request::new), sender, turn).await;
        });
        match receiver.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.spec.stdio.note(&format!("request failed: {error:#}"));
                failed()
            }
            Err(_) => failed(),
        }
    }

    /// Runs the guest for one request, to its end.
    async fn guest(&self, request: Request<patience::Request>, sender: Sender, turn: Turn) {
        let spec = &self.spec;
        let guest = Metered::new(call(spec, request, sender), spec.pod.usage.clone(), spec.ticker.clone());
        let ended = tokio::select! {
            biased;
            () = self.abort.cancelled() => return,
            ended = guest => ended,
            () = turn.over() => {
                spec.stdio.note("request given up: its client does not take the answer");
                return;
            }
        };
        if let Err(error) = ended {
            spec.stdio.note(&format!("request failed: {}", trap_text(&error)));
            if never_fits(&error).is_some() {
                self.out_of_memory.store(true, Ordering::Relaxed);
                self.abort.cancel();
            }
        }
    }
}

type Sender = oneshot::Sender<wasmtime::Result<Response<WasiBody>>>;

async fn call(spec: &Spec, request: Request<patience::Request>, sender: Sender) -> wasmtime::Result<()> {
    let World::Http(pre) = &spec.program.world else { wasmtime::bail!("not an HTTP component") };
    match pre {
        ProxyPre::P2(pre) => {
            let mut store = spec.store()?;
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let answer = move |answer: Result<Response<WasiBody>, _>| {
                // The client may be gone.
                let _ = sender.send(answer.map_err(wasmtime::Error::from));
            };
            let out = store.data_mut().http().new_response_outparam_from_callback(answer)?;
            let proxy = pre.instantiate_async(&mut store).await?;
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
        }
        ProxyPre::P3(_) => call_p3(spec, pre, request, sender).await,
    }
}

async fn call_p3(
    spec: &Spec,
    pre: &ProxyPre<Guest>,
    request: Request<patience::Request>,
    sender: Sender,
) -> wasmtime::Result<()> {
    let mut store = spec.store()?;
    let proxy = pre.instantiate_async(&mut store).await?;
    let request = request.map(BodyExt::boxed_unsync);
    let run = async |accessor: &wasmtime::component::Accessor<Guest>| -> wasmtime::Result<()> {
        let prepared =
            accessor.with(|mut store| Prepared::new(store.as_context_mut(), &proxy, request, Guest::http, sender))?;
        prepared.run(accessor, std::future::pending()).await?;
        // The body is written by tasks that go on after the head was given.
        std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
        Ok(())
    };
    store.run_concurrent(run).await?
}

/// The guest failed; what and why is in its log.
fn failed() -> Response<WasiBody> {
    plain(StatusCode::INTERNAL_SERVER_ERROR, "the component failed: see the pod's log\n")
}

fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(wasmtime_wasi_http::Error::from);
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}
