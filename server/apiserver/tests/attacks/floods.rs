//! Requests that are slow, large or many: others are served meanwhile.

use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use skiff_apiserver::front::limits::{MAX_STREAMS, MAX_WATCHES_OF_USER};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::site::{DEADLINE, Site, split};

#[tokio::test]
async fn slow_headers_are_given_up_on() {
    let site = Site::start().await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = site.connect(None).await;
        stream.write_all(b"GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
        slow.push(stream);
    }
    site.still_serves().await;
    for mut stream in slow {
        let mut rest = Vec::new();
        // The server gives up: it says so or not, but it closes.
        let _end = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the server closes");
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }
}

#[tokio::test]
async fn oversized_requests_are_refused() {
    let site = Site::start().await;
    let token = site.token("one").await;
    let auth = format!("authorization: Bearer {token}\r\n");
    let post = "POST /api/v1/namespaces/one/configmaps HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let announced = format!("{post}{auth}content-length: 9999999999\r\n\r\n");
    assert_eq!(split(&site.raw(None, announced.as_bytes()).await).0, 413);
    let nobody = format!("{post}content-length: 1000000\r\n\r\n");
    assert_eq!(
        split(&site.raw(None, nobody.as_bytes()).await).0,
        403,
        "a body is not read for one who may not send it"
    );
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a".repeat(40_000));
    assert!([400, 414, 431].contains(&split(&site.raw(None, long.as_bytes()).await).0));
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let many = format!("GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{many}\r\n");
    assert!([400, 431].contains(&split(&site.raw(None, many.as_bytes()).await).0));
    site.still_serves().await;
}

#[tokio::test]
async fn a_flood_of_watches_leaves_room_for_others() {
    let site = Site::start().await;
    let token = site.token("one").await;
    let mut watches = Vec::new();
    for _ in 0..200 {
        let mut stream = site.connect(None).await;
        let watch = format!(
            "GET /api/v1/namespaces/one/configmaps?watch=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(watch.as_bytes()).await.unwrap();
        watches.push(stream);
    }
    site.still_serves().await;
    // None of them reads, and what they do not read keeps nobody from writing.
    for number in 0..20 {
        let map = serde_json::json!({"metadata": {"name": format!("m{number}")}, "data": {"k": "x".repeat(100_000)}});
        site.make("/api/v1/namespaces/one/configmaps", map).await;
    }
    site.still_serves().await;
}

/// A connection that carries many streams.
async fn http2(site: &Site) -> SendRequest<Empty<Bytes>> {
    let stream = TokioIo::new(site.connect_for(None, b"h2").await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Begins a watch.
async fn watch(sender: &mut SendRequest<Empty<Bytes>>, token: &str) -> Response<Incoming> {
    let request = Request::get("https://localhost/api/v1/namespaces/one/configmaps?watch=1")
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::new());
    sender.send_request(request.unwrap()).await.unwrap()
}

/// One user has as many watches as one may have, on as few connections as carry them: further ones are refused, others
/// are served, and what is given up may be had again.
#[tokio::test]
async fn a_users_watches_end_at_the_limit_and_leave_room_for_others() {
    let site = Site::start().await;
    let flooder = site.token("one").await;
    let binding = serde_json::json!({"metadata": {"name": "jane"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "jane"}]});
    site.make("/apis/rbac.authorization.k8s.io/v1/namespaces/one/rolebindings", binding).await;
    let streams = usize::try_from(MAX_STREAMS).unwrap();
    let floods = (0..MAX_WATCHES_OF_USER / streams).map(|_| async {
        let mut sender = http2(&site).await;
        let mut held = Vec::new();
        for _ in 0..streams {
            let answer = watch(&mut sender, &flooder).await;
            assert_eq!(answer.status(), StatusCode::OK);
            held.push(answer);
        }
        (sender, held)
    });
    let flood = join_all(floods).await;

    let mut last = http2(&site).await;
    assert_eq!(watch(&mut last, &flooder).await.status(), StatusCode::TOO_MANY_REQUESTS);
    // What is limited are watches: it may still read, and others may do all.
    site.still_serves().await;
    let watched = "GET /api/v1/namespaces/one/configmaps?watch=1&timeoutSeconds=1";
    assert_eq!(site.ask(Some(site.certificate("jane", &[])), watched, "", "").await.0, 200);

    drop(flood);
    let again = tokio::time::timeout(DEADLINE, async {
        while watch(&mut last, &flooder).await.status() != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    again.await.expect("what was given up may be had again");
}
