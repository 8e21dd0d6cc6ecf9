//! What clients should not send: answered in words, and the server goes on.

use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::harness::{ADMIN, Harness, as_admin, text};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn still_serves(harness: &Harness) {
    assert_eq!(harness.get(PODS, "*/*").await.0, 200);
}

async fn status(reply: http::Response<hyper::body::Incoming>) -> (u16, String, String) {
    let code = reply.status().as_u16();
    let value: Value = serde_json::from_str(&text(reply).await).unwrap();
    let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    (code, word("reason"), word("message"))
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let harness = Harness::start().await;
    let large = "x".repeat(3 * 1024 * 1024 + 1);
    let request = || Request::post(format!("https://localhost{PODS}")).header("content-type", "application/json");
    let expected = (413, "RequestEntityTooLarge".to_owned(), "Request entity too large: limit is 3145728".to_owned());
    let reply = harness.send_http2(as_admin(request()).body(Full::from(large)).unwrap()).await;
    assert_eq!(status(reply).await, expected);
    // Announced, but never sent: answered without waiting for it.
    let head = format!(
        "POST {PODS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\n"
    );
    let answer = harness.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    still_serves(&harness).await;
}

#[tokio::test]
async fn a_large_body_of_one_who_may_not() {
    let harness = Harness::start().await;
    let request = Request::post(PODS).header("host", "x").body(Full::from("x".repeat(100_000))).unwrap();
    let reply = harness.send_as(None, request).await;
    assert_eq!(reply.status(), 403);
    assert!(harness.registry.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_is_cut_off() {
    use tokio::io::AsyncWriteExt as _;
    let harness = Harness::start().await;
    let mut stream = harness.connect(None, b"http/1.1").await;
    let head = format!(
        "POST {PODS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: 100\r\n\r\n{{\"kind\""
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    still_serves(&harness).await;
    assert!(harness.registry.asked.lock().unwrap().iter().all(|(_, request)| request.verb.as_str() == "list"));
}

#[tokio::test]
async fn a_body_of_an_unknown_type() {
    let harness = Harness::start().await;
    for (method, content_type) in [
        ("POST", "application/x-www-form-urlencoded"),
        ("POST", "application/merge-patch+json"),
        ("PATCH", "application/json"),
        ("PATCH", ""),
        ("PUT", "text/plain; charset=utf-8"),
    ] {
        let path = if method == "POST" { PODS.to_owned() } else { format!("{PODS}/web") };
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let (code, reason, message) = status(harness.send_body(request, "{}").await).await;
        assert_eq!((code, reason.as_str()), (415, "UnsupportedMediaType"), "{method} {content_type}");
        assert!(message.starts_with(
            "the body of the request was in an unknown format - accepted media types include: application/json"
        ));
    }
}

#[tokio::test]
async fn content_types_reach_the_registry() {
    use skiff_api::request::ContentType;
    let harness = Harness::start().await;
    for (method, word, expected) in [
        ("PUT", "application/yaml; charset=utf-8", ContentType::Yaml),
        ("PUT", "application/json", ContentType::Json),
        ("PATCH", "application/apply-patch+yaml", ContentType::ApplyPatch),
        ("PATCH", "application/strategic-merge-patch+json", ContentType::StrategicMergePatch),
    ] {
        let request = Request::builder().method(method).uri(format!("{PODS}/web")).header("content-type", word);
        assert_eq!(harness.send_body(request, "a: 1").await.status(), 200);
        let (_, asked) = harness.registry.asked.lock().unwrap().last().unwrap().clone();
        assert_eq!((asked.content_type, &asked.body[..]), (expected, &b"a: 1"[..]));
    }
}

#[tokio::test]
async fn deep_nesting_and_nonsense() {
    let harness = Harness::start().await;
    for body in ["[".repeat(1_000_000), "{\"a\":".repeat(500_000), "\u{0}\u{1}".to_owned(), String::new()] {
        let request = Request::post(PODS).header("content-type", "application/json");
        assert_eq!(harness.send_body(request, body).await.status(), 400);
    }
    still_serves(&harness).await;
}

#[tokio::test]
async fn bad_queries_and_weird_paths() {
    let harness = Harness::start().await;
    for path in [
        format!("{PODS}?limit=x"),
        format!("{PODS}?limit=99999999999999999999999"),
        format!("{PODS}/%2e%2e/x"),
        format!("{PODS}/a%2Fb"),
        format!("{PODS}/%ff"),
        "//".to_owned(),
        "/api/v1//pods".to_owned(),
        "/apis/x/y/z/w/v/u/t".to_owned(),
        "/%00".to_owned(),
        "/*".to_owned(),
    ] {
        let (code, body) = harness.get(&path, "*/*").await;
        assert!((400..500).contains(&code), "{path}: {code} {body}");
        assert!(body.contains(r#""kind":"Status""#), "{path}: {body}");
    }
    still_serves(&harness).await;
}

#[tokio::test]
async fn no_http_at_all() {
    let harness = Harness::start().await;
    for bytes in [
        &b"\x16\x03\x01garbage\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = harness.raw(bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    still_serves(&harness).await;
}

#[tokio::test]
async fn too_many_or_too_large_headers() {
    let harness = Harness::start().await;
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let answer = harness.raw(format!("GET {PODS} HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let large = "x".repeat(200_000);
    let answer = harness.raw(format!("GET {PODS} HTTP/1.1\r\nhost: x\r\nx-large: {large}\r\n\r\n").as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut request = as_admin(Request::get(format!("https://localhost{PODS}")));
    for n in 0..150 {
        request = request.header(format!("x-{n}"), "1");
    }
    assert_eq!(harness.send_http2(request.body(Full::default()).unwrap()).await.status(), 431);
    still_serves(&harness).await;
}

#[tokio::test]
async fn a_method_that_there_is_not() {
    let harness = Harness::start().await;
    for method in ["TRACE", "BREW", "OPTIONS"] {
        let reply = harness.send(Request::builder().method(method).uri(PODS)).await;
        assert_eq!(reply.status(), 405, "{method}");
    }
    let reply = harness.send(Request::post("/version")).await;
    assert_eq!(status(reply).await.1, "MethodNotAllowed");
}

#[tokio::test]
async fn a_panic_is_one_requests_500() {
    let harness = Harness::start().await;
    for request in [Request::get(format!("{PODS}/panic")), Request::delete(format!("{PODS}/panic"))] {
        let (code, reason, _) = status(harness.send(request).await).await;
        assert_eq!((code, reason.as_str()), (500, "InternalError"));
    }
    still_serves(&harness).await;
}
