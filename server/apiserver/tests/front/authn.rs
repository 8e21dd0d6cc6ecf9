//! Who asks, and may they.

use http::Request;
use http_body_util::Full;

use crate::{
    fakes::pod,
    harness::{Ca, Harness, VIEWER, text},
};

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "localhost")
}

const UNAUTHORIZED: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#;

#[tokio::test]
async fn a_certificate_names_its_user_and_groups() {
    let harness = Harness::start().await;
    harness.registry.put("pods", pod("web", 7));
    let identity = harness.ca.client("alice", &["dev"]);
    let request = get("/api/v1/namespaces/default/pods/web").body(Full::default()).unwrap();
    let reply = harness.send_as(Some(identity), request).await;
    assert_eq!(reply.status(), 200);
    let (user, _) = harness.registry.asked.lock().unwrap()[0].clone();
    assert_eq!(user.name, "alice");
    assert_eq!(user.groups, ["dev", "system:authenticated"]);
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_401_and_not_a_broken_connection() {
    let harness = Harness::start().await;
    let identity = Ca::new().client("mallory", &["system:masters"]);
    let request = get("/api/v1/pods").body(Full::default()).unwrap();
    let reply = harness.send_as(Some(identity), request).await;
    assert_eq!(reply.status(), 401);
    assert_eq!(text(reply).await, UNAUTHORIZED);
    assert!(harness.registry.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_certificate_is_no_clients() {
    let harness = Harness::start().await;
    let identity = harness.ca.server();
    let reply = harness.send_as(Some(identity), get("/api/v1/pods").body(Full::default()).unwrap()).await;
    assert_eq!(reply.status(), 401);
}

#[tokio::test]
async fn a_new_client_ca_counts_at_once() {
    let harness = Harness::start().await;
    let next = Ca::new();
    let (chain, key) = harness.ca.server();
    let material = skiff_apiserver::front::tls::TlsMaterial { chain, key, client_cas: vec![next.der()] };
    harness.tls.replace(material).unwrap();
    let path = "/api/v1/pods";
    let old = harness.ca.client("alice", &["system:masters"]);
    assert_eq!(harness.send_as(Some(old), get(path).body(Full::default()).unwrap()).await.status(), 401);
    let new = next.client("alice", &["system:masters"]);
    assert_eq!(harness.send_as(Some(new), get(path).body(Full::default()).unwrap()).await.status(), 200);
}

#[tokio::test]
async fn a_wrong_token_is_401() {
    let harness = Harness::start().await;
    for value in ["Bearer wrong", "bearer x.y.z"] {
        let request = get("/api/v1/pods").header("authorization", value).body(Full::default()).unwrap();
        let reply = harness.send_as(None, request).await;
        assert_eq!(reply.status(), 401);
        assert_eq!(text(reply).await, UNAUTHORIZED);
    }
}

#[tokio::test]
async fn without_credentials_one_is_anonymous() {
    let harness = Harness::start().await;
    let reply = harness.send_as(None, get("/metrics").body(Full::default()).unwrap()).await;
    assert_eq!(reply.status(), 403);
    let body = text(reply).await;
    assert!(
        body.contains(r#""message":"forbidden: User \"system:anonymous\" cannot get path \"/metrics\"""#),
        "{body}"
    );
    assert_eq!(harness.send_as(None, get("/healthz").body(Full::default()).unwrap()).await.status(), 200);
}

#[tokio::test]
async fn impersonation_needs_the_verb() {
    let harness = Harness::start().await;
    let request = |token: &str| {
        let request = get("/api/v1/pods").header("authorization", format!("Bearer {token}"));
        request.header("impersonate-user", "bob").header("impersonate-group", "dev").body(Full::default()).unwrap()
    };
    let reply = harness.send_as(None, request(VIEWER)).await;
    assert_eq!(reply.status(), 403);
    assert!(text(reply).await.contains("cannot impersonate resource"));
    assert_eq!(harness.send_as(None, request(crate::harness::ADMIN)).await.status(), 200);
    let (user, _) = harness.registry.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!((user.name.as_str(), user.groups), ("bob", vec!["dev".to_owned(), "system:authenticated".to_owned()]));
}
