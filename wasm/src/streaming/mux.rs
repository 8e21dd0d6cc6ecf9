//! Streams of a session over one connection, whatever protocol carries them. A driver a connection turns frames into
//! [`Event`]s and [`Command`]s into frames; a session works on the two queues alone.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Most bytes of a piece of data.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// Pieces that wait for a session, or for the client.
const QUEUE: usize = 16;
/// How long what was said last may take to reach the client.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// What the client said of a stream when it opened it; names in lower case.
pub(super) type Headers = Vec<(String, String)>;

/// From the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A stream begins.
    Open { id: u32, headers: Headers },
    /// Some bytes of it.
    Data { id: u32, bytes: Bytes },
    /// The client sends no more on it.
    End { id: u32 },
}

/// To the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Some bytes of a stream.
    Data { id: u32, bytes: Bytes },
    /// Nothing more comes on it.
    End { id: u32 },
}

/// A session's side: no more events means that the client is gone; dropping the commands ends the conversation.
pub(super) struct Mux {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) commands: mpsc::Sender<Command>,
}

/// A driver's side.
pub(super) struct Driven {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) commands: mpsc::Receiver<Command>,
}

/// Both sides.
pub(super) fn pair() -> (Mux, Driven) {
    let (to_session, events) = mpsc::channel(QUEUE);
    let (commands, from_session) = mpsc::channel(QUEUE);
    (Mux { events, commands }, Driven { events: to_session, commands: from_session })
}

/// The value of a header.
pub(super) fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Runs the two directions of a connection: either's end ends the other, after what was said last had time to arrive.
pub(super) async fn join(reading: impl Future<Output = ()>, writing: impl Future<Output = ()>) {
    let (mut reading, mut writing) = (std::pin::pin!(reading), std::pin::pin!(writing));
    tokio::select! {
        () = &mut reading => writing.await,
        () = &mut writing => {
            // Closing with bytes unread would take back what was just sent.
            let _ = tokio::time::timeout(LINGER, reading).await;
        }
    }
}
