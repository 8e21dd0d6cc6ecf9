//! Lists and watch frames from the wire: objects are cut out of the text, only their heads are read.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use skiff_api::{
    status::ApiError,
    wire::{Entry, Head},
};

use crate::{List, WatchEvent};

/// How large one event of a watch may be: an object is at most a few MB.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// The annotation of the bookmark that ends the initial events of a streaming list (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[derive(Deserialize)]
struct Headed {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct ListBody<'a> {
    #[serde(default)]
    metadata: Metadata,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// A list from its JSON.
pub(super) fn list(body: &Bytes) -> Result<List, ApiError> {
    let list: ListBody<'_> = serde_json::from_slice(body).map_err(|e| garbled("list", &e))?;
    let items = list.items.unwrap_or_default();
    let entries = items.iter().map(|item| entry(body, item)).collect::<Result<_, _>>()?;
    let token = list.metadata.continue_token;
    Ok(List {
        resource_version: revision(&list.metadata.resource_version),
        entries,
        continue_token: (!token.is_empty()).then_some(token),
    })
}

/// The entry of an object that lies somewhere in a text.
fn entry(text: &Bytes, object: &RawValue) -> Result<Arc<Entry>, ApiError> {
    let headed: Headed = serde_json::from_str(object.get()).map_err(|e| garbled("object", &e))?;
    let metadata = headed.metadata;
    let head = Head {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        labels: metadata.labels.unwrap_or_default().into_iter().collect(),
        fields: Vec::new(),
    };
    let json = text.slice_ref(object.get().as_bytes());
    Ok(Arc::new(Entry { resource_version: revision(&metadata.resource_version), head, json }))
}

fn revision(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

fn garbled(what: &str, error: &serde_json::Error) -> ApiError {
    ApiError::internal(format!("cannot read the server's {what}: {error}"))
}

/// Cuts a watch's body into events, whatever the borders of its chunks.
#[derive(Default)]
pub(super) struct Frames {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line's end.
    scanned: usize,
}

impl Frames {
    /// More of the body.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next event, if all of it has come.
    pub(super) fn next_event(&mut self) -> Result<Option<WatchEvent>, ApiError> {
        while let Some(line) = self.next_line()? {
            if !line.iter().all(u8::is_ascii_whitespace) {
                return event(&line).map(Some);
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, ApiError> {
        let end = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|at| at + self.scanned) else {
            self.scanned = self.buffer.len();
            if self.scanned > MAX_FRAME_BYTES {
                return Err(ApiError::internal(format!("a watch event is larger than {MAX_FRAME_BYTES} bytes")));
            }
            return Ok(None);
        };
        self.scanned = 0;
        // A copy, so that an object that is kept long does not keep its neighbours in memory.
        let line = Bytes::copy_from_slice(&self.buffer[..end]);
        self.buffer.advance(end + 1);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(line))
    }
}

fn event(line: &Bytes) -> Result<WatchEvent, ApiError> {
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(|e| garbled("watch event", &e))?;
    match frame.kind {
        "ADDED" => entry(line, frame.object).map(WatchEvent::Added),
        "MODIFIED" => entry(line, frame.object).map(WatchEvent::Modified),
        "DELETED" => entry(line, frame.object).map(WatchEvent::Deleted),
        "BOOKMARK" => bookmark(frame.object),
        "ERROR" => Err(error_of(frame.object)),
        other => Err(ApiError::internal(format!("the server sent a watch event of the unknown type {other:?}"))),
    }
}

fn bookmark(object: &RawValue) -> Result<WatchEvent, ApiError> {
    let headed: Headed = serde_json::from_str(object.get()).map_err(|e| garbled("bookmark", &e))?;
    let annotations = headed.metadata.annotations.unwrap_or_default();
    Ok(WatchEvent::Bookmark {
        resource_version: revision(&headed.metadata.resource_version),
        initial_events_end: annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true"),
    })
}

fn error_of(status: &RawValue) -> ApiError {
    #[derive(Deserialize)]
    struct Code {
        #[serde(default)]
        code: u16,
    }
    let code = serde_json::from_str::<Code>(status.get()).map_or(500, |status| status.code);
    ApiError::from_status(code, status.get().as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const STREAM: &str = concat!(
        r#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a","namespace":"x","resourceVersion":"5"}}}"#,
        "\n",
        r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
        "\n",
        r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#,
        "\n"
    );

    fn told(frames: &mut Frames, said: &mut Vec<String>) {
        loop {
            match frames.next_event() {
                Ok(None) => return,
                Ok(Some(WatchEvent::Added(e))) => said.push(format!("+{}@{}", e.head.name, e.resource_version)),
                Ok(Some(WatchEvent::Bookmark { resource_version, initial_events_end })) => {
                    said.push(format!("bookmark {resource_version} {initial_events_end}"));
                }
                Ok(Some(other)) => said.push(format!("{other:?}")),
                Err(e) => said.push(format!("{} {}", e.code, e.message)),
            }
        }
    }

    #[test]
    fn events_are_whole_whatever_the_chunks() {
        for size in [1, 2, 3, 7, 50, 10_000] {
            let (mut frames, mut said) = (Frames::default(), Vec::new());
            for chunk in STREAM.as_bytes().chunks(size) {
                frames.push(chunk);
                told(&mut frames, &mut said);
            }
            assert_eq!(said, ["+a@5", "bookmark 7 true", "410 too old"], "chunks of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut frames = Frames::default();
        frames.push(&vec![b'x'; MAX_FRAME_BYTES + 1]);
        assert!(frames.next_event().is_err());
    }

    #[test]
    fn a_list_is_cut_into_its_objects() {
        let body = Bytes::from_static(
            br#"{"kind":"PodList","metadata":{"resourceVersion":"9","continue":"t"},"items":[{"metadata":{"name":"a","labels":{"k":"v"}},"spec":{}}]}"#,
        );
        let list = list(&body).unwrap();
        assert_eq!((list.resource_version, list.continue_token.as_deref()), (9, Some("t")));
        assert_eq!(&list.entries[0].json[..], br#"{"metadata":{"name":"a","labels":{"k":"v"}},"spec":{}}"#);
        assert_eq!(list.entries[0].head.labels, [("k".to_owned(), "v".to_owned())]);
        assert!(super::list(&Bytes::from_static(br#"{"items":null}"#)).unwrap().entries.is_empty());
    }
}
