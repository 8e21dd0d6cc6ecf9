//! A watch as a stream of frames, `{"type":"ADDED","object":{...}}` and a line feed, made of entries' bytes without
//! parsing them; or as frames of protobuf, each behind its length.

use std::{
    io,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use skiff_api::{protobuf, status::ApiError};
use skiff_client::{WatchEvent, WatchStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    answer::{Context, metadata, partial},
    limits::{CHUNK_BYTES, MIN_WATCH},
    negotiate::{Encoding, Shape},
    table::Tabulator,
};

/// What marks the bookmark that ends the initial events of a streaming list (KEP-3157).
const INITIAL_EVENTS_END: &str = r#","annotations":{"k8s.io/initial-events-end":"true"}"#;

/// How much longer than its time a watch may take. Events end by themselves when the time is over, with a bookmark
/// where one was asked for; this ends those that do not.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long a watch lasts: as long as it asks to, or half an hour to an hour, spread so that watches that began
/// together do not end together.
pub fn duration(timeout_seconds: Option<u64>, random: u64) -> Duration {
    match timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => MIN_WATCH + Duration::from_secs(random % MIN_WATCH.as_secs()),
    }
}

/// Turns events into frames.
pub struct Framer {
    context: Context,
    /// Columns go with the first frame of a table only.
    columns_sent: bool,
}

impl Framer {
    /// For a watch that asked for this form.
    pub fn new(context: Context) -> Self {
        Self { context, columns_sent: false }
    }

    /// Appends an event's frame.
    pub fn event(&mut self, event: &WatchEvent, out: &mut Vec<u8>) -> Result<(), ApiError> {
        match event {
            WatchEvent::Added(entry) => self.object("ADDED", &entry.json, entry.resource_version, out),
            WatchEvent::Modified(entry) => self.object("MODIFIED", &entry.json, entry.resource_version, out),
            WatchEvent::Deleted(entry) => self.object("DELETED", &entry.json, entry.resource_version, out),
            WatchEvent::Bookmark { resource_version, initial_events_end } => {
                let mark = if *initial_events_end { INITIAL_EVENTS_END } else { "" };
                let (kind, version) = (self.context.kind(), &self.context.api_version);
                let object = format!(
                    r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"resourceVersion":"{resource_version}"{mark}}}}}"#
                );
                self.object("BOOKMARK", &object.into(), *resource_version, out)
            }
        }
    }

    fn object(&mut self, kind: &str, json: &Bytes, revision: u64, out: &mut Vec<u8>) -> Result<(), ApiError> {
        match self.context.form.shape {
            Shape::Whole => self.frame(kind, json, out)?,
            Shape::Partial { .. } => self.frame(kind, &partial(json, self.context.meta_version())?, out)?,
            Shape::Table { .. } => {
                let tabulator = Tabulator::new(&self.context)?;
                let mut table =
                    tabulator.head(&metadata(&revision.to_string(), None, None), !self.columns_sent).into_bytes();
                self.columns_sent = true;
                table.extend_from_slice(&tabulator.row(json)?);
                table.extend_from_slice(b"]}");
                self.frame(kind, &table, out)?;
            }
        }
        Ok(())
    }

    /// Appends the frame that tells of a failure.
    pub fn error(&self, error: &ApiError, out: &mut Vec<u8>) {
        let status = error.to_status().to_string();
        if let Err(error) = self.frame("ERROR", status.as_bytes(), out) {
            tracing::error!(%error, "a watch's failure could not be told");
        }
    }

    fn frame(&self, kind: &str, object: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.context.form.encoding == Encoding::Protobuf {
            return protobuf::watch_frame(kind, object, out).map_err(ApiError::internal);
        }
        frame(kind, object, out);
        Ok(())
    }
}

/// The media type of a watch's answer.
pub fn media_type(encoding: Encoding) -> &'static str {
    if encoding == Encoding::Protobuf { protobuf::WATCH_MEDIA_TYPE } else { Encoding::Json.media_type() }
}

fn frame(kind: &str, object: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

/// The frames of a watch until it fails, its time is over, or the server ends. Events that are there at once go
/// into one chunk.
pub struct Frames {
    events: WatchStream,
    framer: Framer,
    deadline: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl Frames {
    /// The frames of `events`.
    pub fn new(events: WatchStream, context: Context, lasts: Duration, shutdown: CancellationToken) -> Self {
        let deadline = Box::pin(sleep_until(Instant::now() + lasts));
        let shutdown = Box::pin(shutdown.cancelled_owned());
        Self { events, framer: Framer::new(context), deadline, shutdown, over: false }
    }

    /// Appends the frame of what the watch said; whether there may be more.
    fn append(&mut self, item: Option<Result<WatchEvent, ApiError>>, out: &mut Vec<u8>) -> bool {
        let Some(item) = item else { return false };
        let before = out.len();
        match item.and_then(|event| self.framer.event(&event, out)) {
            Ok(()) => true,
            Err(error) => {
                out.truncate(before);
                self.framer.error(&error, out);
                false
            }
        }
    }
}

impl Stream for Frames {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.over || this.shutdown.as_mut().poll(cx).is_ready() || this.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let mut out = Vec::new();
        while !this.over && out.len() < CHUNK_BYTES {
            match this.events.poll_next_unpin(cx) {
                Poll::Ready(item) => this.over = !this.append(item, &mut out),
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready((!out.is_empty()).then(|| Ok(out.into())))
    }
}
