//! Logs, sessions and proxies, to a fake node and a fake pod.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    fakes::pod,
    harness::{ADMIN, Ca, DEADLINE, Harness, text},
};

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What the fake node was asked.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    uri: String,
    headers: http::HeaderMap,
    client: Option<String>,
}

/// A node's API: answers by path, and tells what it was asked.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    asked: mpsc::UnboundedReceiver<Asked>,
    /// Told when the follower of a log is gone.
    gone: mpsc::UnboundedReceiver<()>,
}

pub(crate) async fn node(ca: &Ca, tls: bool) -> Node {
    let listener = TcpListener::bind(if tls { "127.0.0.1:0" } else { "127.64.0.1:0" }).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked_sender, asked) = mpsc::unbounded_channel();
    let (gone_sender, gone) = mpsc::unbounded_channel();
    let acceptor = acceptor(ca);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (asked, gone) = (asked_sender.clone(), gone_sender.clone());
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if !tls {
                    return serve(stream, None, asked, gone).await;
                }
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                let (_, parsed) = <x509_parser::certificate::X509Certificate<'_> as x509_parser::prelude::FromDer<
                    '_,
                    _,
                >>::from_der(&certificate)
                .unwrap();
                let name = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
                serve(stream, Some(name), asked, gone).await;
            });
        }
    });
    Node { address, asked, gone }
}

fn acceptor(ca: &Ca) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .unwrap();
    let (chain, key) = ca.server();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve<S>(
    stream: S,
    client: Option<String>,
    asked: mpsc::UnboundedSender<Asked>,
    gone: mpsc::UnboundedSender<()>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (client, gone) = (client.clone(), gone.clone());
        let (method, uri) = (request.method().to_string(), request.uri().to_string());
        drop(asked.send(Asked { method, uri, headers: request.headers().clone(), client }));
        async move { Ok::<_, std::convert::Infallible>(answer(request, gone).await) }
    });
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await);
}

async fn answer(mut request: Request<Incoming>, gone: mpsc::UnboundedSender<()>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path.starts_with("/containerLogs/") && query.contains("follow=true") {
        return Response::new(following(gone));
    }
    if path.starts_with("/containerLogs/") && path.ends_with("/waiting") {
        let mut reply =
            Response::new(full("container \"waiting\" in pod \"web\" is waiting to start: ContainerCreating"));
        *reply.status_mut() = StatusCode::BAD_REQUEST;
        return reply;
    }
    if path.starts_with("/exec/") || path.starts_with("/portForward/") || path == "/upgrade" {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(echo(upgrade));
        let reply = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
        return reply.header("x-stream-protocol-version", "v4.channel.k8s.io").body(full("")).unwrap();
    }
    if request.method() == "POST" {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        return Response::new(full(body));
    }
    Response::builder().header("content-type", "text/plain").header("x-own", "1").body(full("hello\n")).unwrap()
}

/// A log that never ends; tells when it is dropped.
fn following(gone: mpsc::UnboundedSender<()>) -> Body {
    struct Tell(mpsc::UnboundedSender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            _ = self.0.send(());
        }
    }
    let tell = Tell(gone);
    let stream = futures::stream::unfold((0, tell), |(line, tell)| async move {
        if line == 2 {
            std::future::pending::<()>().await;
        }
        let frame = Frame::data(Bytes::from(format!("line {line}\n")));
        Some((Ok::<_, std::io::Error>(frame), (line + 1, tell)))
    });
    StreamBody::new(stream).boxed_unsync()
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let mut stream = TokioIo::new(upgrade.await.unwrap());
    let mut buffer = [0; 1024];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 || stream.write_all(&buffer[..count]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn with_node() -> (Harness, Node) {
    let harness = Harness::start().await;
    let node = node(&harness.ca, true).await;
    let mut web = pod("web", 7);
    web["spec"]["containers"] = json!([{"name": "main"}]);
    harness.registry.put("pods", web);
    let mut two = pod("two", 7);
    two["spec"]["containers"] = json!([{"name": "a"}, {"name": "waiting"}]);
    harness.registry.put("pods", two);
    let mut nowhere = pod("nowhere", 7);
    nowhere["spec"]["nodeName"] = Value::Null;
    harness.registry.put("pods", nowhere);
    let status = json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": node.address.port()}}});
    harness
        .registry
        .put("nodes", json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}, "status": status}));
    (harness, node)
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_log_is_the_nodes() {
    let (harness, mut node) = with_node().await;
    let reply = harness.send(Request::get(format!("{PODS}/web/log?tailLines=5&timestamps=true"))).await;
    assert_eq!((reply.status().as_u16(), &reply.headers()["content-type"]), (200, &"text/plain".parse().unwrap()));
    assert_eq!(text(reply).await, "hello\n");
    let asked = node.asked.recv().await.unwrap();
    assert_eq!(asked.uri, "/containerLogs/default/web/main?timestamps=true&tailLines=5");
    assert_eq!((asked.client.as_deref(), asked.headers.get("authorization")), (Some("kube-apiserver"), None));
}

#[tokio::test]
async fn a_followed_log_ends_with_its_client() {
    let (harness, mut node) = with_node().await;
    let mut reply = harness.send(Request::get(format!("{PODS}/web/log?follow=true"))).await;
    let mut seen = Vec::new();
    while seen.len() < "line 0\nline 1\n".len() {
        let frame = tokio::time::timeout(DEADLINE, reply.body_mut().frame()).await.unwrap().unwrap().unwrap();
        seen.extend_from_slice(&frame.into_data().unwrap());
    }
    drop(reply);
    tokio::time::timeout(DEADLINE, node.gone.recv()).await.expect("the node's request ends").unwrap();
}

#[tokio::test]
async fn logs_that_there_are_not() {
    let (harness, _node) = with_node().await;
    for (path, code, message) in [
        ("two/log", 400, "a container name must be specified for pod two, choose one of: [a waiting]"),
        ("two/log?container=x", 400, "container x is not valid for pod two"),
        (
            "two/log?container=waiting",
            400,
            "container \"waiting\" in pod \"web\" is waiting to start: ContainerCreating",
        ),
        ("gone/log", 404, "pods \"gone\" not found"),
        (
            "web/log?tailLines=-1",
            422,
            "PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        let (status, body) = harness.get(&format!("{PODS}/{path}"), "*/*").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, body["message"].as_str().unwrap()), (code, message), "{path}");
    }
    assert_eq!(harness.get(&format!("{PODS}/nowhere/log"), "*/*").await, (204, String::new()));
}

#[tokio::test]
async fn a_node_that_is_away_is_500() {
    let (harness, node) = with_node().await;
    drop(node);
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    harness.registry.objects.lock().unwrap().iter_mut().filter(|(resource, _)| resource == "nodes").for_each(
        |(_, node)| {
            node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = port.into();
        },
    );
    let (status, body) = harness.get(&format!("{PODS}/web/log"), "*/*").await;
    assert_eq!(status, 500);
    assert!(body.contains("error trying to reach service"), "{body}");
}

/// Upgrades and says something; what comes back, with the head of the answer.
async fn upgraded(harness: &Harness, request: &str) -> (String, String) {
    let mut stream = harness.connect(None, b"http/1.1").await;
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        tokio::time::timeout(DEADLINE, stream.read_exact(&mut byte)).await.unwrap().unwrap();
        answer.push(byte[0]);
    }
    stream.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut echoed)).await.unwrap().unwrap();
    (String::from_utf8(answer).unwrap(), String::from_utf8_lossy(&echoed).into_owned())
}

#[tokio::test]
async fn a_session_is_a_tunnel_to_the_node() {
    let (harness, mut node) = with_node().await;
    let exec =
        format!("POST {PODS}/web/exec?command=sh&command=-c&command=echo%20a%26b&stdin=true&stdout=true&tty=false");
    let (head, echoed) = upgraded(&harness, &exec).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: SPDY/3.1\r\n") && head.contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"),
        "{head}"
    );
    assert_eq!(echoed, "ping");
    let asked = node.asked.recv().await.unwrap();
    assert_eq!(
        (asked.method.as_str(), asked.uri.as_str()),
        ("POST", "/exec/default/web/main?command=sh&command=%2Dc&command=echo%20a%26b&input=1&output=1")
    );
    assert_eq!((asked.headers["upgrade"].to_str().unwrap(), asked.headers.get("authorization")), ("SPDY/3.1", None));
    upgraded(&harness, &format!("POST {PODS}/web/portforward")).await;
    assert!(node.asked.recv().await.unwrap().uri.starts_with("/portForward/default/web"));
}

#[tokio::test]
async fn sessions_that_there_are_not() {
    let (harness, _node) = with_node().await;
    let (status, body) = harness.get(&format!("{PODS}/web/exec?command=sh"), "*/*").await;
    assert_eq!(status, 400);
    assert!(body.contains("Upgrade request required"), "{body}");
    // One who may get may not open a session, however it is asked for.
    let request =
        Request::get(format!("{PODS}/web/exec?command=sh")).header("host", "x").header("connection", "Upgrade");
    let request =
        request.header("upgrade", "websocket").header("authorization", format!("Bearer {}", crate::harness::VIEWER));
    assert_eq!(harness.send_as(None, request.body(Full::default()).unwrap()).await.status(), 403);
}

#[tokio::test]
async fn the_end_cuts_tunnels() {
    let (harness, _node) = with_node().await;
    let mut stream = harness.connect(None, b"http/1.1").await;
    let head = format!(
        "POST {PODS}/web/exec?command=sh HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    assert!(tokio::time::timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap() > 0);
    harness.cancel.cancel();
    let ended = tokio::time::timeout(DEADLINE, stream.read(&mut buffer)).await.expect("the tunnel ends");
    assert!(!matches!(ended, Ok(1..)));
}

#[tokio::test]
async fn a_proxy_passes_on() {
    let harness = Harness::start().await;
    let mut backend = node(&harness.ca, false).await;
    let mut web = pod("web", 7);
    web["status"]["podIP"] = json!(backend.address.ip().to_string());
    web["spec"]["containers"] = json!([{"name": "main", "ports": [{"containerPort": backend.address.port()}]}]);
    harness.registry.put("pods", web);
    let reply = harness.send(Request::get(format!("{PODS}/web/proxy/a%2Fb?x=1&y=%20")).header("te", "trailers")).await;
    assert_eq!((reply.status().as_u16(), &reply.headers()["x-own"]), (200, &"1".parse().unwrap()));
    assert_eq!(text(reply).await, "hello\n");
    let asked = backend.asked.recv().await.unwrap();
    assert_eq!(asked.uri, "/a%2Fb?x=1&y=%20");
    assert_eq!((asked.headers.get("te"), asked.headers.get("authorization")), (None, None));
    assert_eq!(asked.headers["x-forwarded-uri"], format!("{PODS}/web/proxy/a%2Fb"));
    let posted =
        harness.send_body(Request::post(format!("{PODS}/web:{}/proxy/echo", backend.address.port())), "body").await;
    assert_eq!(text(posted).await, "body");
    let redirected = harness.send(Request::get(format!("{PODS}/web/proxy?x=1"))).await;
    assert_eq!(
        (redirected.status().as_u16(), &redirected.headers()["location"]),
        (301, &format!("{PODS}/web/proxy/?x=1").parse().unwrap())
    );
}

#[tokio::test]
async fn a_proxy_is_no_way_to_the_servers_own_loopback() {
    let harness = Harness::start().await;
    for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "::ffff:127.0.0.1", "localhost"] {
        let mut web = pod("web", 7);
        web["status"]["podIP"] = json!(address);
        *harness.registry.objects.lock().unwrap() = vec![("pods".to_owned(), web)];
        assert_eq!(harness.get(&format!("{PODS}/web:80/proxy/"), "*/*").await.0, 400, "{address}");
    }
    let _ = TcpStream::connect(harness.address).await.unwrap();
}
