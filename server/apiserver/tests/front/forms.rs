//! Answers in the form asked for.

use http::Request;
use serde_json::{Value, json};

use crate::{
    fakes::pod,
    harness::{Harness, as_admin, text},
};

const PODS: &str = "/api/v1/namespaces/default/pods";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn with_pods(count: usize) -> Harness {
    let harness = Harness::start().await;
    for n in 0..count {
        harness.registry.put("pods", pod(&format!("web-{n}"), 7));
    }
    harness
}

fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn an_object_goes_out_as_its_bytes_with_the_headers_of_every_answer() {
    let harness = with_pods(1).await;
    let reply = harness.send(Request::get(format!("{PODS}/web-0"))).await;
    let headers = reply.headers().clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-cache, private");
    assert_eq!(headers["audit-id"].len(), 36);
    assert_eq!(text(reply).await, pod("web-0", 7).to_string());
    let reply = harness.send(Request::get(format!("{PODS}/web-0")).header("audit-id", "mine")).await;
    assert_eq!(reply.headers()["audit-id"], "mine");
}

#[tokio::test]
async fn a_list_frames_its_entries() {
    let harness = with_pods(3).await;
    let (status, body) = harness.get(PODS, "*/*").await;
    let items: Vec<String> = (0..3).map(|n| pod(&format!("web-{n}"), 7).to_string()).collect();
    let expected = format!(
        r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"42"}},"items":[{}]}}"#,
        items.join(",")
    );
    assert_eq!((status, body.trim_end()), (200, expected.as_str()));
    let page = parse(&harness.get(&format!("{PODS}?limit=1"), "*/*").await.1);
    assert_eq!(page["metadata"], json!({"resourceVersion": "42", "continue": "next\"page", "remainingItemCount": 2}));
}

#[tokio::test]
async fn an_empty_list_has_items() {
    let harness = with_pods(0).await;
    assert_eq!(parse(&harness.get(PODS, "*/*").await.1)["items"], json!([]));
}

#[tokio::test]
async fn a_large_list_is_compressed_for_those_who_ask() {
    use http_body_util::BodyExt as _;
    use std::io::Read as _;
    let harness = with_pods(2000).await;
    let reply = harness.send(Request::get(PODS).header("accept-encoding", "gzip")).await;
    assert_eq!(reply.headers()["content-encoding"], "gzip");
    let packed = reply.into_body().collect().await.unwrap().to_bytes();
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut plain).unwrap();
    assert_eq!(plain, harness.get(PODS, "*/*").await.1);
    assert_eq!(parse(&plain)["items"].as_array().unwrap().len(), 2000);
}

#[tokio::test]
async fn tables_for_people() {
    let harness = with_pods(2).await;
    let table = parse(&harness.get(PODS, TABLE).await.1);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["metadata"]["resourceVersion"], "42");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"].as_array().unwrap().len(), 2);
    assert_eq!(table["rows"][1]["cells"][0], "web-1");
    let object = &table["rows"][1]["object"];
    assert_eq!((&object["kind"], &object["metadata"]["uid"]), (&json!("PartialObjectMetadata"), &json!("uid-web-1")));
    assert_eq!(object.get("spec"), None);
    let one = parse(&harness.get(&format!("{PODS}/web-0?includeObject=Object"), TABLE).await.1);
    assert_eq!(one["rows"][0]["object"]["spec"]["nodeName"], "n1");
    let none = parse(&harness.get(&format!("{PODS}?includeObject=None"), TABLE).await.1);
    assert_eq!(none["rows"][0]["object"], Value::Null);
}

#[tokio::test]
async fn metadata_alone() {
    let harness = with_pods(2).await;
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = parse(&harness.get(PODS, accept).await.1);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let expected = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": pod("web-0", 7)["metadata"]});
    assert_eq!(list["items"][0], expected);
    let one = parse(
        &harness.get(&format!("{PODS}/web-0"), "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.1,
    );
    assert_eq!(one, expected);
}

#[tokio::test]
async fn yaml_and_indented_json() {
    let harness = with_pods(1).await;
    let (_, yaml) = harness.get(&format!("{PODS}/web-0"), "application/yaml").await;
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-0\n"), "{yaml}");
    let (status, yaml) = harness.get(&format!("{PODS}/missing"), "application/yaml").await;
    assert_eq!(status, 404);
    assert!(yaml.contains("reason: NotFound\n"), "{yaml}");
    let (_, pretty) = harness.get(&format!("{PODS}/web-0?pretty=true"), "application/json").await;
    assert!(pretty.starts_with("{\n  \"kind\": \"Pod\",\n"), "{pretty}");
}

#[tokio::test]
async fn a_form_that_there_is_not_is_406() {
    let harness = with_pods(1).await;
    let (status, body) = harness.get(PODS, "text/html").await;
    assert_eq!(status, 406);
    assert_eq!(parse(&body)["reason"], "NotAcceptable");
}

#[tokio::test]
async fn a_create_is_answered_with_201_and_warnings() {
    let harness = with_pods(0).await;
    let body = pod("new", 1).to_string();
    let reply = harness.send_body(Request::post(PODS).header("content-type", "application/json"), body.clone()).await;
    assert_eq!(reply.status(), 201);
    assert_eq!(reply.headers()["warning"], r#"299 - "the \"fake\" field is deprecated""#);
    assert_eq!(text(reply).await, body);
}

#[tokio::test]
async fn a_head_has_no_body() {
    let harness = with_pods(1).await;
    let length = pod("web-0", 7).to_string().len().to_string();
    let path = format!("https://localhost{PODS}/web-0");
    let over_http1 = harness.send(Request::head(format!("{PODS}/web-0"))).await;
    let over_http2 = harness
        .send_http2(as_admin(Request::head(path).header("host", "localhost")).body(Default::default()).unwrap())
        .await;
    for reply in [over_http1, over_http2] {
        assert_eq!(
            (reply.status().as_u16(), reply.headers()["content-length"].to_str().unwrap()),
            (200, length.as_str())
        );
        assert_eq!(text(reply).await, "");
    }
}

#[tokio::test]
async fn http2_answers_the_same() {
    let harness = with_pods(600).await;
    let request = as_admin(Request::get(format!("https://localhost{PODS}"))).body(Default::default()).unwrap();
    let reply = harness.send_http2(request).await;
    assert_eq!(text(reply).await, harness.get(PODS, "*/*").await.1);
}

#[tokio::test]
async fn discovery_is_plain_aggregated_and_unchanged() {
    let harness = with_pods(0).await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let reply = harness.send(Request::get("/api").header("accept", accept)).await;
    assert_eq!(reply.headers()["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_eq!(reply.headers()["etag"], "\"ABC123\"");
    assert_eq!(text(reply).await, r#"{"kind":"APIGroupDiscoveryList"}"#);
    let again = harness.send(Request::get("/api").header("accept", accept).header("if-none-match", "\"ABC123\"")).await;
    assert_eq!((again.status().as_u16(), text(again).await.as_str()), (304, ""));
    assert_eq!(parse(&harness.get("/api", "application/json").await.1)["kind"], "APIVersions");
}

#[tokio::test]
async fn openapi_by_its_hash_may_be_kept_for_good() {
    let harness = with_pods(0).await;
    let reply = harness.send(Request::get("/openapi/v3/api/v1?hash=abc123")).await;
    assert_eq!(
        (reply.status().as_u16(), &reply.headers()["cache-control"]),
        (200, &"public, immutable".parse().unwrap())
    );
    let reply = harness.send(Request::get("/openapi/v3/api/v1?hash=OLD")).await;
    assert_eq!(
        (reply.status().as_u16(), &reply.headers()["location"]),
        (301, &"/openapi/v3/api/v1?hash=ABC123".parse().unwrap())
    );
}

#[tokio::test]
async fn the_other_paths() {
    let harness = with_pods(0).await;
    let version = parse(&harness.get("/version", "application/json").await.1);
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    let paths = parse(&harness.get("/", "*/*").await.1);
    let paths: Vec<&str> = paths["paths"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for path in ["/apis/apps/v1", "/livez/ping", "/metrics", "/readyz/shutdown"] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    assert_eq!(harness.get("/readyz", "*/*").await, (200, "ok".to_owned()));
    let (status, body) = harness.get("/nonsense", "*/*").await;
    assert_eq!((status, &parse(&body)["reason"]), (404, &json!("NotFound")));
    harness.get(PODS, "*/*").await;
    let (_, metrics) = harness.get("/metrics", "*/*").await;
    assert!(
        metrics.contains(r#"resource="pods",scope="namespace",subresource="",verb="LIST",version="v1",code="200"} 1"#),
        "{metrics}"
    );
}
