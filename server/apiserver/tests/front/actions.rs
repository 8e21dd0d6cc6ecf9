//! What an administrator asks of the server itself.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use skiff_api::status::ApiError;
use skiff_apiserver::front::actions::Action;

use crate::harness::{Harness, VIEWER, text};

struct Echo;

#[async_trait]
impl Action for Echo {
    async fn run(&self, query: &str) -> Result<Value, ApiError> {
        match query {
            "fail" => Err(ApiError { code: 507, ..ApiError::internal("no space") }),
            query => Ok(json!({"query": query})),
        }
    }
}

#[tokio::test]
async fn only_administrators_run_actions() {
    let harness = Harness::start().await;
    harness.server.actions().add("/skiff/v1/echo", Arc::new(Echo));
    let done = harness.send(Request::post("/skiff/v1/echo?name=x")).await;
    assert_eq!(done.status(), 200);
    assert_eq!(text(done).await, r#"{"query":"name=x"}"#);
    let failed = harness.send(Request::post("/skiff/v1/echo?fail")).await;
    assert_eq!(failed.status(), 507);

    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let refused = harness.send(Request::builder().method(&method).uri("/skiff/v1/echo")).await;
        assert_eq!(refused.status(), 405, "{method}");
    }
    let as_viewer = format!("Bearer {VIEWER}");
    let request = || Request::post("/skiff/v1/echo").header("host", "localhost");
    for request in [request().header("authorization", as_viewer), request()] {
        let refused = harness.send_as(None, request.body(Full::new(Bytes::new())).unwrap()).await;
        assert_eq!(refused.status(), 403);
        let said = text(refused).await;
        assert!(said.contains("only system:masters may"), "{said}");
    }
    let of_another_group = harness.ca.client("someone", &["cluster-admins"]);
    let request = request().body(Full::new(Bytes::new())).unwrap();
    assert_eq!(harness.send_as(Some(of_another_group), request).await.status(), 403);
    let of_masters = harness.ca.client("someone", &["system:masters"]);
    let request = Request::post("/skiff/v1/echo").header("host", "localhost").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(harness.send_as(Some(of_masters), request).await.status(), 200);
    assert_eq!(harness.send(Request::post("/skiff/v1/other")).await.status(), 405, "no action is on it");
}
