//! Slow clients, and the end.

use std::time::{Duration, Instant};

use http::Request;
use skiff_apiserver::{Config, front::listen::Patience};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::{
    fakes::pod,
    harness::{DEADLINE, Harness, as_admin, text},
};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn ends_in_time(harness: Harness) {
    let began = Instant::now();
    harness.cancel.cancel();
    tokio::time::timeout(DEADLINE, harness.serving).await.expect("the server ends").unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "took {:?}", began.elapsed());
}

#[tokio::test]
async fn the_end_comes_in_time_with_watches_and_idle_connections() {
    let harness = Harness::start().await;
    let watch = format!("{PODS}?watch=true");
    let over_http1 = harness.send(Request::get(&watch)).await;
    let request = as_admin(Request::get(format!("https://localhost{watch}"))).body(Default::default()).unwrap();
    let over_http2 = harness.send_http2(request).await;
    let _idle = harness.connect(None, b"http/1.1").await;
    let _idle_http2 = harness.connect(None, b"h2").await;
    let _no_handshake = TcpStream::connect(harness.address).await.unwrap();
    ends_in_time(harness).await;
    // The watches ended in an orderly way, and not in the middle of a chunk.
    assert_eq!((text(over_http1).await, text(over_http2).await), (String::new(), String::new()));
}

#[tokio::test]
async fn a_request_that_hangs_does_not_keep_the_server() {
    let harness = Harness::start().await;
    let stream = harness.connect(None, b"http/1.1").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, http_body_util::Full<bytes::Bytes>>(
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = as_admin(Request::get(format!("{PODS}/forever"))).body(Default::default()).unwrap();
    let asking = tokio::spawn(async move { sender.send_request(request).await });
    tokio::time::timeout(DEADLINE, async {
        while harness.registry.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    ends_in_time(harness).await;
    assert!(asking.await.unwrap().is_err());
}

#[tokio::test]
async fn readiness_tells_of_the_end() {
    let harness = Harness::start().await;
    let flag = harness.server.health().add_flag("informer-sync", skiff_apiserver::front::health::CheckScope::Ready);
    assert_eq!(harness.get("/readyz", "*/*").await.0, 500);
    flag.done();
    assert_eq!(harness.get("/readyz", "*/*").await, (200, "ok".to_owned()));
}

#[tokio::test]
async fn slow_headers_and_handshakes_are_given_up() {
    use tokio::io::AsyncWriteExt as _;
    let patience = Patience { handshake: Duration::from_millis(50), headers: Duration::from_millis(50) };
    let harness = Harness::start_with(Config { patience, ..Config::default() }).await;
    let mut silent = TcpStream::connect(harness.address).await.unwrap();
    let mut slow = harness.connect(None, b"http/1.1").await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(DEADLINE, silent.read_to_end(&mut bytes)).await.expect("closed").unwrap();
    drop(tokio::time::timeout(DEADLINE, slow.read_to_end(&mut bytes)).await.expect("closed"));
}

#[tokio::test]
async fn the_transport_in_process_shares_entries() {
    let harness = Harness::start().await;
    harness.registry.put("pods", pod("web", 7));
    let user = skiff_api::user::UserInfo { name: "system:kube-scheduler".to_owned(), ..Default::default() };
    let local = harness.server.local(user, "test");
    let request = |path: &str| match skiff_api::request::Request::parse("GET", path, None).unwrap() {
        skiff_api::request::Parsed::Resource(request) => request,
        skiff_api::request::Parsed::Path(path) => panic!("{path}"),
    };
    assert_eq!(local.call(request(&format!("{PODS}/web"))).await.unwrap(), pod("web", 7).to_string());
    assert_eq!(local.list(request(PODS)).await.unwrap().entries.len(), 1);
    assert!(local.call(request(PODS)).await.is_err());
    assert_eq!(local.call(request(&format!("{PODS}/gone"))).await.unwrap_err().code, 404);
    assert_eq!(harness.registry.asked.lock().unwrap()[0].0.name, "system:kube-scheduler");
}
