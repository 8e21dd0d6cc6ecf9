//! Protobuf: bodies, answers, watches, errors.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use skiff_api::{kinds::GroupVersionKind, protobuf, status::ApiError};
use skiff_client::WatchEvent;

use crate::{
    fakes::{entry, pod},
    harness::{DEADLINE, Harness},
};

const PODS: &str = "/api/v1/namespaces/default/pods";
const ACCEPT: &str = "application/vnd.kubernetes.protobuf,application/json";

fn decode(body: &[u8]) -> Value {
    Value::Object(protobuf::decode(body, &GroupVersionKind::new("", "", "")).unwrap().0)
}

async fn get(harness: &Harness, path: &str, accept: &str) -> (u16, String, Bytes) {
    let reply = harness.send(Request::get(path).header("accept", accept)).await;
    let (status, media) = (reply.status().as_u16(), reply.headers()["content-type"].to_str().unwrap().to_owned());
    (status, media, reply.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn objects_lists_and_errors() {
    let harness = Harness::start().await;
    for n in 0..300 {
        harness.registry.put("pods", pod(&format!("web-{n}"), 7));
    }
    let (status, media, body) = get(&harness, &format!("{PODS}/web-0"), ACCEPT).await;
    assert_eq!((status, media.as_str(), decode(&body)), (200, protobuf::MEDIA_TYPE, pod("web-0", 7)));
    let (_, _, body) = get(&harness, PODS, ACCEPT).await;
    let list = decode(&body);
    assert_eq!((&list["kind"], &list["metadata"]), (&json!("PodList"), &json!({"resourceVersion": "42"})));
    assert_eq!(list["items"].as_array().unwrap().len(), 300);
    assert_eq!(list["items"][299]["metadata"], pod("web-299", 7)["metadata"]);
    let (status, media, body) = get(&harness, &format!("{PODS}/missing"), ACCEPT).await;
    assert_eq!((status, media.as_str()), (404, protobuf::MEDIA_TYPE));
    let error = decode(&body);
    assert_eq!((&error["kind"], &error["reason"], &error["code"]), (&json!("Status"), &json!("NotFound"), &json!(404)));
}

#[tokio::test]
async fn metadata_alone_but_no_tables() {
    let harness = Harness::start().await;
    harness.registry.put("pods", pod("a", 7));
    let accept = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = decode(&get(&harness, PODS, accept).await.2);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"], json!([{"metadata": pod("a", 7)["metadata"]}]));
    let accept = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    assert_eq!(get(&harness, PODS, accept).await.0, 406);
}

#[tokio::test]
async fn a_body_reaches_the_registry_as_json() {
    let harness = Harness::start().await;
    let body = protobuf::encode(pod("new", 1).to_string().as_bytes()).unwrap();
    let post = || Request::post(PODS).header("content-type", protobuf::MEDIA_TYPE).header("accept", ACCEPT);
    let reply = harness.send_body(post(), body.clone()).await;
    assert_eq!(reply.status(), 201);
    assert_eq!(decode(&reply.into_body().collect().await.unwrap().to_bytes()), pod("new", 1));
    for (damaged, status) in [(b"{}".to_vec(), 400), (body[..body.len() / 2].to_vec(), 400)] {
        assert_eq!(harness.send_body(post(), damaged).await.status(), status);
    }
    let patch = Request::patch(format!("{PODS}/new")).header("content-type", protobuf::MEDIA_TYPE);
    assert_eq!(harness.send_body(patch, body).await.status(), 415);
    let options = b"k8s\0\n\x13\n\x02v1\x12\rDeleteOptions\x12\x02\x08\x05".to_vec();
    let delete = Request::delete(format!("{PODS}/new")).header("content-type", protobuf::MEDIA_TYPE);
    assert_eq!(harness.send_body(delete, options).await.status(), 200);
    let asked = harness.registry.asked.lock().unwrap();
    let seen: Value = serde_json::from_slice(&asked.last().unwrap().1.body).unwrap();
    assert_eq!(seen, json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 5}));
}

#[tokio::test]
async fn a_watch_is_frames_behind_their_lengths() {
    let harness = Harness::start().await;
    let request =
        Request::get(format!("{PODS}?watch=true")).header("accept", "application/vnd.kubernetes.protobuf;stream=watch");
    let reply = harness.send(request).await;
    assert_eq!(reply.headers()["content-type"], protobuf::WATCH_MEDIA_TYPE);
    let events = [
        Ok(WatchEvent::Added(entry(&pod("a", 5)))),
        Ok(WatchEvent::Bookmark { resource_version: 8, initial_events_end: false }),
        Err(ApiError::expired("too old resource version: 1 (5)")),
    ];
    for event in events {
        harness.registry.watches.lock().unwrap()[0].send(event).unwrap();
    }
    let body = tokio::time::timeout(DEADLINE, reply.into_body().collect()).await.unwrap().unwrap().to_bytes();
    let mut rest = &body[..];
    let mut seen = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (frame, after) = after.split_at(usize::try_from(u32::from_be_bytes(*len)).unwrap());
        let word = std::str::from_utf8(&frame[2..2 + usize::from(frame[1])]).unwrap().to_owned();
        let magic = frame.windows(4).position(|window| window == b"k8s\0").unwrap();
        seen.push((word, decode(&frame[magic..])));
        rest = after;
    }
    assert_eq!(seen[0], ("ADDED".to_owned(), pod("a", 5)));
    let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "8"}});
    assert_eq!(seen[1], ("BOOKMARK".to_owned(), bookmark));
    assert_eq!((seen[2].0.as_str(), &seen[2].1["code"]), ("ERROR", &json!(410)));
    assert_eq!(seen.len(), 3);
}
