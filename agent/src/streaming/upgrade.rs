//! `exec`, `attach` and `portForward`: the runtime answers a CRI call with the URL of a stream on loopback, and the
//! caller's upgraded connection is passed through to it.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming, header};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    AttachRequest, ContainerFilter, ContainerState, ExecRequest, ListContainersRequest, ListPodSandboxRequest,
    PodSandboxFilter, PodSandboxState, PortForwardRequest,
};
use k8s_openapi::api::core::v1::Pod;
use tokio::{io::copy_bidirectional, net::TcpStream};

use super::{
    answer::{self, Answer},
    route::{Place, Query},
};
use crate::{
    context::Context,
    pods::config::{CONTAINER_NAME, POD_UID},
    runtime::{Cri, CriError},
};

/// How long the runtime's streaming server may take to accept and to answer.
const CONNECT: Duration = Duration::from_secs(10);

/// What is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Exec,
    Attach,
    PortForward,
}

/// Passes a request through to the runtime.
pub(super) async fn pass(
    ctx: &Context,
    pod: &Pod,
    stream: Stream,
    place: &Place,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let Some(cri) = ctx.runtime(pod).map(|runtime| Arc::clone(&runtime.cri)) else {
        return answer::text(StatusCode::INTERNAL_SERVER_ERROR, "no runtime serves the pod");
    };
    let url = match url(&cri, pod, stream, place, query).await {
        Ok(Some(url)) => url,
        Ok(None) if stream == Stream::PortForward => return answer::text(StatusCode::NOT_FOUND, "pod is not running"),
        Ok(None) => return answer::text(StatusCode::NOT_FOUND, format!("container not found ({:?})", place.container)),
        Err(e) => return answer::text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    };
    relay(&url, request)
        .await
        .unwrap_or_else(|e| answer::text(StatusCode::BAD_GATEWAY, format!("error dialing the runtime: {e}")))
}

async fn url(
    cri: &Arc<dyn Cri>,
    pod: &Pod,
    stream: Stream,
    place: &Place,
    query: &Query,
) -> Result<Option<String>, CriError> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let (stdin, stdout, stderr, tty) =
        (query.flag("input"), query.flag("output"), query.flag("error"), query.flag("tty"));
    if stream == Stream::PortForward {
        let Some(pod_sandbox_id) = sandbox_id(&**cri, uid).await? else { return Ok(None) };
        let port = query.all("port").iter().filter_map(|port| port.parse().ok()).collect();
        return Ok(Some(cri.port_forward(PortForwardRequest { pod_sandbox_id, port }).await?.url));
    }
    let Some(container_id) = container_id(&**cri, uid, &place.container).await? else { return Ok(None) };
    Ok(Some(if stream == Stream::Attach {
        cri.attach(AttachRequest { container_id, stdin, tty, stdout, stderr }).await?.url
    } else {
        let cmd = query.all("command");
        // CRI allows no stderr of its own with a terminal.
        cri.exec(ExecRequest { container_id, cmd, tty, stdin, stdout, stderr: stderr && !tty }).await?.url
    }))
}

async fn sandbox_id(cri: &dyn Cri, uid: String) -> Result<Option<String>, CriError> {
    let label_selector = [(POD_UID.to_owned(), uid)].into();
    let filter = PodSandboxFilter { label_selector, ..PodSandboxFilter::default() };
    let items = cri.list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await?.items;
    Ok(items.into_iter().find(|item| item.state() == PodSandboxState::SandboxReady).map(|item| item.id))
}

async fn container_id(cri: &dyn Cri, uid: String, name: &str) -> Result<Option<String>, CriError> {
    let label_selector = [(POD_UID.to_owned(), uid), (CONTAINER_NAME.to_owned(), name.to_owned())].into();
    let filter = ContainerFilter { label_selector, ..ContainerFilter::default() };
    let all = cri.list_containers(ListContainersRequest { filter: Some(filter) }).await?.containers;
    Ok(all.into_iter().find(|item| item.state() == ContainerState::ContainerRunning).map(|item| item.id))
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Sends the same upgrade to the runtime's URL and joins the two connections.
async fn relay(url: &str, mut request: Request<Incoming>) -> Result<Answer, String> {
    let uri: Uri = url.parse().map_err(text)?;
    let authority = uri.authority().ok_or("the runtime's URL has no host")?.to_string();
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(&authority)).await.map_err(text)?.map_err(text)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut onward = Request::builder().method(request.method().clone()).uri(path);
    for (name, value) in request.headers() {
        if name != header::HOST && name != header::CONTENT_LENGTH {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.header(header::HOST, authority).body(Empty::<bytes::Bytes>::new()).map_err(text)?;
    let mut answered = tokio::time::timeout(CONNECT, sender.send_request(onward)).await.map_err(text)?.map_err(text)?;
    if answered.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answered.map(|body| body.map_err(std::io::Error::other).boxed()));
    }
    let headers = answered.headers().clone();
    let (near, far) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answered));
    tokio::spawn(async move {
        if let (Ok(near), Ok(far)) = tokio::join!(near, far) {
            let _ended = copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
        }
    });
    let body = Empty::new().map_err(|never| match never {}).boxed();
    let mut switching = Response::new(body);
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switching.headers_mut() = headers;
    Ok(switching)
}
