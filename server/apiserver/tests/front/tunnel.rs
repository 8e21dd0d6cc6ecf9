//! Tunnels of nodes that nobody reaches otherwise.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http2, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use skiff_client::link::{CA_PATH, CONFIG_PATH, CONNECT_PATH, NODE_API, TUNNEL_PROTOCOL};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    connect::node,
    fakes::pod,
    harness::{DEADLINE, Harness, Identity, text},
};

fn as_node(harness: &Harness, name: &str) -> Identity {
    harness.ca.client(&format!("system:node:{name}"), &["system:nodes"])
}

fn connecting() -> Request<http_body_util::Full<Bytes>> {
    let request = Request::get(CONNECT_PATH).header("host", "x").header("connection", "Upgrade");
    request.header("upgrade", TUNNEL_PROTOCOL).body(http_body_util::Full::default()).unwrap()
}

/// Opens the tunnel of a node.
async fn open(harness: &Harness, name: &str) -> Upgraded {
    let mut answer = harness.send_as(Some(as_node(harness, name)), connecting()).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    hyper::upgrade::on(&mut answer).await.unwrap()
}

/// Serves a tunnel: every stream leads to an address. Tells what was asked for.
fn serve(tunnel: Upgraded, to: SocketAddr) -> mpsc::UnboundedReceiver<String> {
    let (sender, asked) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        assert_eq!(request.method(), Method::CONNECT);
        sender.send(request.uri().to_string()).unwrap();
        tokio::spawn(async move {
            let mut far = TcpStream::connect(to).await.unwrap();
            let near = hyper::upgrade::on(request).await.unwrap();
            drop(copy_bidirectional(&mut TokioIo::new(near), &mut far).await);
        });
        async { Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(tunnel, service));
    asked
}

/// A node object whose address nobody answers at.
async fn unreachable_node(harness: &Harness, name: &str) {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let status = json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    harness
        .registry
        .put("nodes", json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}, "status": status}));
}

async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it comes about")
}

#[tokio::test]
async fn a_tunnel_carries_what_no_open_port_would() {
    let harness = Harness::start().await;
    unreachable_node(&harness, "n1").await;
    harness.registry.put("pods", pod("web", 7));
    let path = "/api/v1/nodes/n1/proxy/healthz";
    assert_eq!(harness.get(path, "*/*").await.0, 503, "there is no way to it");

    // What speaks no HTTP/2 is no tunnel, and leaves no trace.
    let mut garbage = TokioIo::new(open(&harness, "n1").await);
    garbage.write_all(&[0x55; 4096]).await.unwrap();
    drop(garbage.read_to_end(&mut Vec::new()).await);
    assert_eq!(harness.get(path, "*/*").await.0, 503);

    // Through another node's tunnel nobody is found: it is not even asked.
    let real = node(&harness.ca, true).await;
    let mut others = serve(open(&harness, "n2").await, real.address);
    assert_eq!(harness.get(path, "*/*").await.0, 503);
    assert!(others.try_recv().is_err());

    let mut asked = serve(open(&harness, "n1").await, real.address);
    let found = eventually(async || Some(harness.get(path, "*/*").await).filter(|(code, _)| *code == 200)).await;
    assert_eq!(found.1, "hello\n");
    assert_eq!(asked.recv().await.unwrap(), NODE_API);
    let log = harness.get("/api/v1/namespaces/default/pods/web/log", "*/*").await;
    assert_eq!(log, (200, "hello\n".to_owned()));
}

#[tokio::test]
async fn a_node_speaks_as_itself_alone() {
    let harness = Harness::start().await;
    unreachable_node(&harness, "n2").await;
    // The tunnel of n2 leads to the API of n1: its certificate gives it away.
    let real = node(&harness.ca, true).await;
    let mut asked = serve(open(&harness, "n2").await, real.address);
    let (code, body) = eventually(async || {
        let answer = harness.get("/api/v1/nodes/n2/proxy/healthz", "*/*").await;
        asked.try_recv().is_ok().then_some(answer)
    })
    .await;
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("certificate"), "{body}");

    // Who is no node opens no tunnel, whatever they may otherwise.
    for identity in [harness.ca.client("admin", &["system:masters"]), harness.ca.client("system:node:n1", &["dev"])] {
        let answer = harness.send_as(Some(identity), connecting()).await;
        assert_eq!(answer.status(), 403, "{}", text(answer).await);
    }
    let plain = Request::get(CONNECT_PATH).header("host", "x").body(http_body_util::Full::default()).unwrap();
    assert_eq!(harness.send_as(Some(as_node(&harness, "n1")), plain).await.status(), 400);
}

#[tokio::test]
async fn a_pod_is_reached_through_the_tunnel_of_its_node() {
    let harness = Harness::start().await;
    let backend = node(&harness.ca, false).await;
    let mut web = pod("web", 7);
    web["status"]["podIP"] = json!("10.64.3.4");
    harness.registry.put("pods", web);
    let mut asked = serve(open(&harness, "n1").await, backend.address);
    let path = "/api/v1/namespaces/default/pods/web:8080/proxy/";
    let found = eventually(async || Some(harness.get(path, "*/*").await).filter(|(code, _)| *code == 200)).await;
    assert_eq!((found.1.as_str(), asked.recv().await.unwrap().as_str()), ("hello\n", "10.64.3.4:8080"));
}

#[tokio::test]
async fn tunnels_end_with_the_server_and_old_ones_give_way() {
    let harness = Harness::start().await;
    let mut first = TokioIo::new(open(&harness, "n1").await);
    let mut more = Vec::new();
    for _ in 0..4 {
        let tunnel = open(&harness, "n1").await;
        more.push(serve(tunnel, harness.address));
    }
    // Nobody serves the first: it ends when there are enough newer ones.
    let read = tokio::time::timeout(DEADLINE, first.read_to_end(&mut Vec::new())).await;
    drop(read.expect("it ends"));
    harness.cancel.cancel();
    tokio::time::timeout(DEADLINE, harness.serving).await.expect("the server ends").unwrap().unwrap();
}

#[tokio::test]
async fn anybody_learns_the_authority_and_nodes_the_rest() {
    let harness = Harness::start().await;
    let get = |path: &str| Request::get(path).header("host", "x").body(http_body_util::Full::default()).unwrap();
    let answer = harness.send_as(None, get(CA_PATH)).await;
    assert_eq!((answer.status().as_u16(), text(answer).await.as_str()), (200, "the server's CA"));
    assert_eq!(harness.send_as(None, get(CONFIG_PATH)).await.status(), 403);
    let told = harness.send_as(Some(as_node(&harness, "n1")), get(CONFIG_PATH)).await;
    assert!(text(told).await.contains("\"serviceCidr\":\"10.43.0.0/16\""));
    let posted = Request::post(CA_PATH).header("host", "x").body(http_body_util::Full::default()).unwrap();
    assert_eq!(harness.send_as(None, posted).await.status(), 405);
}
