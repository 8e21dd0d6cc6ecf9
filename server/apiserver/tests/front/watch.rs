//! Watches: frames, forms, ends.

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use skiff_api::status::ApiError;
use skiff_client::WatchEvent;

use crate::{
    fakes::{entry, pod},
    harness::{DEADLINE, Harness, as_admin},
};

const WATCH: &str = "/api/v1/namespaces/default/pods?watch=true";

/// Reads frames.
struct Frames {
    reply: Response<Incoming>,
    buffer: Vec<u8>,
}

impl Frames {
    async fn begin(harness: &Harness, path: &str, accept: &str) -> Self {
        let reply = harness.send(Request::get(path).header("accept", accept)).await;
        assert_eq!(reply.status(), 200);
        Self { reply, buffer: Vec::new() }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(DEADLINE, self.reply.body_mut().frame()).await.expect("a frame in time");
            match frame {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => panic!("a watch ends well: {error}"),
                None => return None,
            }
        }
    }
}

fn send(harness: &Harness, event: Result<WatchEvent, ApiError>) {
    harness.registry.watches.lock().unwrap()[0].send(event).unwrap();
}

#[tokio::test]
async fn events_become_frames() {
    let harness = Harness::start().await;
    let mut frames = Frames::begin(&harness, WATCH, "application/json;stream=watch").await;
    assert_eq!(frames.reply.headers()["content-type"], "application/json");
    assert_eq!(frames.reply.headers()["transfer-encoding"], "chunked");
    send(&harness, Ok(WatchEvent::Added(entry(&pod("a", 5)))));
    send(&harness, Ok(WatchEvent::Modified(entry(&pod("a", 6)))));
    send(&harness, Ok(WatchEvent::Deleted(entry(&pod("a", 7)))));
    send(&harness, Ok(WatchEvent::Bookmark { resource_version: 8, initial_events_end: true }));
    for (kind, revision) in [("ADDED", 5), ("MODIFIED", 6), ("DELETED", 7)] {
        assert_eq!(frames.next().await.unwrap(), json!({"type": kind, "object": pod("a", revision)}));
    }
    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata":
        {"resourceVersion": "8", "annotations": {"k8s.io/initial-events-end": "true"}}}});
    assert_eq!(frames.next().await.unwrap(), bookmark);
    send(&harness, Err(ApiError::expired("too old resource version: 1 (5)")));
    let error = frames.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["reason"], &error["object"]["code"]),
        (&json!("ERROR"), &json!("Expired"), &json!(410))
    );
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn a_table_has_its_columns_once() {
    let harness = Harness::start().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut frames = Frames::begin(&harness, WATCH, accept).await;
    send(&harness, Ok(WatchEvent::Added(entry(&pod("a", 5)))));
    send(&harness, Ok(WatchEvent::Added(entry(&pod("b", 6)))));
    let (first, second) = (frames.next().await.unwrap(), frames.next().await.unwrap());
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    assert_eq!(second["object"]["rows"][0]["object"]["metadata"]["resourceVersion"], "6");
}

#[tokio::test]
async fn metadata_alone() {
    let harness = Harness::start().await;
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut frames = Frames::begin(&harness, WATCH, accept).await;
    send(&harness, Ok(WatchEvent::Added(entry(&pod("a", 5)))));
    let frame = frames.next().await.unwrap();
    assert_eq!(frame["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(frame["object"].get("spec"), None);
}

#[tokio::test]
async fn a_watch_has_no_yaml() {
    let harness = Harness::start().await;
    assert_eq!(harness.get(WATCH, "application/yaml").await.0, 406);
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let harness = Harness::start().await;
    let mut frames = Frames::begin(&harness, &format!("{WATCH}&timeoutSeconds=1"), "*/*").await;
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn the_watch_ends_with_its_client() {
    let harness = Harness::start().await;
    for over_http2 in [false, true] {
        let request = || as_admin(Request::get(format!("https://localhost{WATCH}"))).body(Default::default()).unwrap();
        let reply =
            if over_http2 { harness.send_http2(request()).await } else { harness.send(Request::get(WATCH)).await };
        let sender = harness.registry.watches.lock().unwrap().pop().unwrap();
        assert!(!sender.is_closed());
        drop::<Response<Incoming>>(reply);
        tokio::time::timeout(DEADLINE, sender.closed()).await.expect("the registry's stream is dropped");
    }
}

#[tokio::test]
async fn many_events_at_once_arrive_in_order() {
    let harness = Harness::start().await;
    let mut frames = Frames::begin(&harness, WATCH, "*/*").await;
    for revision in 1..=3000 {
        send(&harness, Ok(WatchEvent::Added(entry(&pod("a", revision)))));
    }
    for revision in 1..=3000 {
        assert_eq!(frames.next().await.unwrap()["object"]["metadata"]["resourceVersion"], revision.to_string());
    }
}
