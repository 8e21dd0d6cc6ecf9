//! Kubernetes' channels over WebSocket: each message's first byte is the number of its stream. Streams exist from the
//! beginning; what they are follows from what was asked for.
//!
//! In version 5 a client ends a stream by a message on channel 255 with the stream's number.

use std::io;

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::mpsc,
};

use super::{
    mux::{Command, Driven, Event, Headers, join},
    websocket::{self, Piece, Reader},
};

/// The channel that carries the ends of others.
const CLOSE: u8 = 255;
/// Pings that wait to be answered; a client that sends more meanwhile gets fewer answers.
const PONGS: usize = 4;

/// A conversation's streams by their channels, and what each is told at the beginning.
pub(super) struct Plan {
    pub(super) streams: Vec<Headers>,
    pub(super) greetings: Vec<(u8, Bytes)>,
}

/// Carries the conversation to its end.
pub(super) async fn drive(io: impl AsyncRead + AsyncWrite + Send, plan: Plan, driven: Driven) {
    let (read, write) = tokio::io::split(io);
    let (pongs, to_answer) = mpsc::channel(PONGS);
    let Driven { events, commands } = driven;
    let Plan { streams, greetings } = plan;
    let reading = async {
        if let Err(error) = take(BufReader::new(read), streams, events, pongs).await {
            tracing::debug!(%error, "a WebSocket ended");
        }
    };
    let writing = async {
        if let Err(error) = give(write, greetings, commands, to_answer).await {
            tracing::debug!(%error, "a WebSocket ended");
        }
    };
    join(reading, writing).await;
}

async fn take(
    io: impl AsyncRead + Unpin,
    streams: Vec<Headers>,
    events: mpsc::Sender<Event>,
    pongs: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut reader = Reader::new(io);
    for (id, headers) in (0..).zip(streams) {
        let _ = events.send(Event::Open { id, headers }).await;
    }
    let mut channel = 0;
    loop {
        match reader.next().await? {
            Piece::Close => return Ok(()),
            Piece::Ping(bytes) => {
                let _ = pongs.try_send(bytes);
            }
            Piece::Data { starts, mut bytes } => {
                if starts && bytes.has_remaining() {
                    channel = bytes.get_u8();
                }
                if let Some(event) = event(channel, bytes) {
                    // The session is over: the rest is read and thrown away.
                    let _ = events.send(event).await;
                }
            }
        }
    }
}

fn event(channel: u8, bytes: Bytes) -> Option<Event> {
    match (channel, bytes.first()) {
        (_, None) => None,
        (CLOSE, Some(ended)) => Some(Event::End { id: u32::from(*ended) }),
        (channel, Some(_)) => Some(Event::Data { id: u32::from(channel), bytes }),
    }
}

async fn give(
    mut io: impl AsyncWrite + Unpin,
    greetings: Vec<(u8, Bytes)>,
    mut commands: mpsc::Receiver<Command>,
    mut pongs: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    for (channel, bytes) in greetings {
        websocket::write(&mut io, &[channel], &bytes).await?;
    }
    loop {
        tokio::select! {
            Some(bytes) = pongs.recv() => websocket::pong(&mut io, &bytes).await?,
            command = commands.recv() => match command {
                Some(Command::Data { id, bytes }) => {
                    websocket::write(&mut io, &[u8::try_from(id).unwrap_or(CLOSE)], &bytes).await?;
                }
                // A server's streams end with the connection.
                Some(Command::End { .. }) => {}
                None => break,
            },
        }
    }
    websocket::close(&mut io).await?;
    io.shutdown().await
}

/// Carries bytes in binary messages between a client and `inner`: another protocol within a WebSocket.
pub(super) async fn tunnel(io: impl AsyncRead + AsyncWrite + Send, inner: tokio::io::DuplexStream) {
    let (read, mut write) = tokio::io::split(io);
    let (mut from_inner, mut to_inner) = tokio::io::split(inner);
    let (pongs, mut to_answer) = mpsc::channel::<Bytes>(PONGS);
    let reading = async {
        let mut reader = Reader::new(BufReader::new(read));
        while let Ok(piece) = reader.next().await {
            match piece {
                Piece::Close => break,
                Piece::Ping(bytes) => drop(pongs.try_send(bytes)),
                // What came after the inner end is thrown away.
                Piece::Data { bytes, .. } => drop(to_inner.write_all(&bytes).await),
            }
        }
        let _ = to_inner.shutdown().await;
    };
    let writing = async {
        let mut chunk = vec![0; super::mux::CHUNK_BYTES];
        loop {
            let sent = tokio::select! {
                Some(bytes) = to_answer.recv() => websocket::pong(&mut write, &bytes).await,
                read = tokio::io::AsyncReadExt::read(&mut from_inner, &mut chunk) => match read {
                    Ok(size @ 1..) => {
                        websocket::write(&mut write, &[], chunk.get(..size).unwrap_or_default()).await
                    }
                    _ => break,
                },
            };
            if sent.is_err() {
                return;
            }
        }
        let _ = websocket::close(&mut write).await;
        let _ = write.shutdown().await;
    };
    join(reading, writing).await;
}
