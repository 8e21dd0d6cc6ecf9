//! SPDY/3.1, as much of it as Kubernetes' clients speak: streams that the client opens, data both ways, pings. No
//! pushes, no priorities, no flow control (theirs has none either: a slow reader holds up the connection).

use std::io;

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::mpsc,
};

use super::{
    headers::{Unpacker, pack_none},
    mux::{CHUNK_BYTES, Command, Driven, Event, Headers, join},
};

/// Most bytes of a control frame.
const MAX_CONTROL_BYTES: u32 = 64 << 10;
/// Frames that answer the client's and wait to be written; a client that asks faster gets fewer answers.
const REPLIES: usize = 64;
/// The version, with the bit that sets control frames apart.
const CONTROL: u16 = 0x8003;
/// The flag of a stream's last frame.
const FIN: u8 = 1;
/// Where a frame's flags are.
const FLAGS_SHIFT: u32 = 24;
/// The bits of a frame's length.
const LENGTH_BITS: u32 = 0x00ff_ffff;

/// The kinds of control frames.
mod kind {
    pub(super) const SYN_STREAM: u16 = 1;
    pub(super) const SYN_REPLY: u16 = 2;
    pub(super) const RST_STREAM: u16 = 3;
    pub(super) const PING: u16 = 6;
    pub(super) const GOAWAY: u16 = 7;
}

/// What comes from the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A stream begins.
    Syn { id: u32, headers: Headers },
    /// Some bytes of a stream.
    Data { id: u32, bytes: Bytes },
    /// The end of the client's side of a stream.
    Fin { id: u32 },
    /// To be answered with the same number.
    Ping(u32),
    /// The client is done.
    GoAway,
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads a client's frames.
pub(super) struct Reader<R> {
    io: R,
    unpacker: Unpacker,
    /// The data frame that is being read: its stream, its bytes to come.
    data: (u32, u32),
    /// A stream that ends after that.
    fin: Option<u32>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io, unpacker: Unpacker::new(), data: (0, 0), fin: None }
    }

    /// The next frame; large data comes in pieces.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if self.data.1 > 0 {
                return self.chunk().await;
            }
            if let Some(id) = self.fin.take() {
                return Ok(Frame::Fin { id });
            }
            let (first, second) = (self.io.read_u32().await?, self.io.read_u32().await?);
            let (flags, length) = (second >> FLAGS_SHIFT, second & LENGTH_BITS);
            let ends = flags & u32::from(FIN) != 0;
            if first >> 31 == 0 {
                self.data = (first, length);
                self.fin = ends.then_some(first);
            } else if let Some(frame) = self.control(first, ends, length).await? {
                return Ok(frame);
            }
        }
    }

    async fn chunk(&mut self) -> io::Result<Frame> {
        let (id, left) = self.data;
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut bytes = vec![0; size];
        self.io.read_exact(&mut bytes).await?;
        self.data.1 = left.saturating_sub(u32::try_from(size).unwrap_or(left));
        Ok(Frame::Data { id, bytes: bytes.into() })
    }

    async fn control(&mut self, first: u32, ends: bool, length: u32) -> io::Result<Option<Frame>> {
        if first >> 16 != u32::from(CONTROL) {
            return Err(malformed("another version of SPDY"));
        }
        if length > MAX_CONTROL_BYTES {
            return Err(malformed("a control frame that is too large"));
        }
        let mut payload = vec![0; usize::try_from(length).unwrap_or(0)];
        self.io.read_exact(&mut payload).await?;
        let number = payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Ok(match u16::try_from(first & 0xffff).unwrap_or(0) {
            kind::SYN_STREAM => {
                /// Stream, associated stream, priority and slot come before the headers.
                const HEADERS_AT: usize = 10;
                let packed = payload.get(HEADERS_AT..).ok_or_else(|| malformed("a stream without headers"))?;
                self.fin = ends.then_some(number);
                Some(Frame::Syn { id: number, headers: self.unpacker.unpack(packed)? })
            }
            kind::RST_STREAM => Some(Frame::Fin { id: number }),
            kind::PING => Some(Frame::Ping(number)),
            kind::GOAWAY => Some(Frame::GoAway),
            _ => None,
        })
    }
}

/// A control frame without flags.
fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0);
    [&CONTROL.to_be_bytes()[..], &kind.to_be_bytes(), &length.to_be_bytes(), payload].concat()
}

/// The head of a data frame.
fn data_head(id: u32, flags: u8, length: usize) -> [u8; 8] {
    let length = u32::try_from(length).unwrap_or(0) | (u32::from(flags) << FLAGS_SHIFT);
    let mut head = [0; 8];
    let (first, second) = head.split_at_mut(4);
    first.copy_from_slice(&id.to_be_bytes());
    second.copy_from_slice(&length.to_be_bytes());
    head
}

/// An answer that a frame gets whatever the session does.
enum Reply {
    Accept(u32),
    Pong(u32),
}

/// Carries the conversation to its end.
pub(super) async fn drive(io: impl AsyncRead + AsyncWrite + Send, driven: Driven) {
    let (read, write) = tokio::io::split(io);
    let (replies, to_write) = mpsc::channel(REPLIES);
    let Driven { events, commands } = driven;
    let reading = async {
        if let Err(error) = take(BufReader::new(read), events, replies).await {
            tracing::debug!(%error, "a SPDY connection ended");
        }
    };
    let writing = async {
        if let Err(error) = give(write, commands, to_write).await {
            tracing::debug!(%error, "a SPDY connection ended");
        }
    };
    join(reading, writing).await;
}

async fn take(io: impl AsyncRead + Unpin, events: mpsc::Sender<Event>, replies: mpsc::Sender<Reply>) -> io::Result<()> {
    let mut reader = Reader::new(io);
    loop {
        let event = match reader.next().await? {
            Frame::Syn { id, headers } => {
                let _ = replies.send(Reply::Accept(id)).await;
                Event::Open { id, headers }
            }
            Frame::Data { id, bytes } => Event::Data { id, bytes },
            Frame::Fin { id } => Event::End { id },
            Frame::Ping(number) => {
                let _ = replies.try_send(Reply::Pong(number));
                continue;
            }
            Frame::GoAway => return Ok(()),
        };
        // The session is over: the rest is read and thrown away.
        let _ = events.send(event).await;
    }
}

async fn give(
    mut io: impl AsyncWrite + Unpin,
    mut commands: mpsc::Receiver<Command>,
    mut replies: mpsc::Receiver<Reply>,
) -> io::Result<()> {
    let mut begun = false;
    loop {
        tokio::select! {
            biased;
            Some(reply) = replies.recv() => io.write_all(&answer(&reply, &mut begun)).await?,
            command = commands.recv() => match command {
                Some(Command::Data { id, bytes }) => {
                    io.write_all(&data_head(id, 0, bytes.len())).await?;
                    io.write_all(&bytes).await?;
                }
                Some(Command::End { id }) => io.write_all(&data_head(id, FIN, 0)).await?,
                None => break,
            },
        }
        io.flush().await?;
    }
    // No stream of ours, no error.
    io.write_all(&control(kind::GOAWAY, &[0; 8])).await?;
    io.flush().await?;
    io.shutdown().await
}

fn answer(reply: &Reply, begun: &mut bool) -> Vec<u8> {
    match reply {
        Reply::Pong(number) => control(kind::PING, &number.to_be_bytes()),
        Reply::Accept(id) => {
            let first = !std::mem::replace(begun, true);
            control(kind::SYN_REPLY, &[&id.to_be_bytes()[..], &pack_none(first)].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::streaming::headers::tests::packed;

    fn with_flags(mut frame: Vec<u8>, flags: u8) -> Vec<u8> {
        frame[4] = flags;
        frame
    }

    fn syn(id: u32, block: &[u8]) -> Vec<u8> {
        control(kind::SYN_STREAM, &[&id.to_be_bytes()[..], &[0; 6], block].concat())
    }

    async fn read(bytes: &[u8]) -> (Vec<Frame>, io::ErrorKind) {
        let (mut reader, mut frames) = (Reader::new(bytes), Vec::new());
        loop {
            match reader.next().await {
                Ok(frame) => frames.push(frame),
                Err(error) => return (frames, error.kind()),
            }
        }
    }

    #[tokio::test]
    async fn frames_of_all_kinds() {
        let mut packer = packed();
        let bytes = [
            syn(1, &packer(&[("streamtype", "error")])),
            with_flags(syn(3, &packer(&[("streamtype", "stdin"), ("x", "")])), FIN),
            control(4, &[0; 12]),
            [&data_head(5, FIN, 3)[..], b"abc"].concat(),
            data_head(7, FIN, 0).to_vec(),
            control(kind::PING, &9_u32.to_be_bytes()),
            control(kind::RST_STREAM, &[0, 0, 0, 11, 0, 0, 0, 5]),
            control(kind::GOAWAY, &[0; 8]),
        ];
        let (frames, end) = read(&bytes.concat()).await;
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let wanted = [
            Frame::Syn { id: 1, headers: vec![header("streamtype", "error")] },
            Frame::Syn { id: 3, headers: vec![header("streamtype", "stdin"), header("x", "")] },
            Frame::Fin { id: 3 },
            Frame::Data { id: 5, bytes: Bytes::from_static(b"abc") },
            Frame::Fin { id: 5 },
            Frame::Fin { id: 7 },
            Frame::Ping(9),
            Frame::Fin { id: 11 },
            Frame::GoAway,
        ];
        assert_eq!(frames, wanted);
        assert_eq!(end, io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let other_version = [0x80, 2, 0, 1, 0, 0, 0, 0];
        let too_large = [0x80, 3, 0, 4, 0, 0xff, 0xff, 0xff];
        let no_headers = control(kind::SYN_STREAM, &[0; 4]);
        let not_packed = syn(1, &[0x78, 0x01, 0xff, 0xff, 0xff]);
        for bad in [&other_version[..], &too_large, &no_headers, &not_packed] {
            assert_eq!(read(bad).await, (Vec::new(), io::ErrorKind::InvalidData), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_conversation() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (mut mux, driven) = super::super::mux::pair();
        let driving = tokio::spawn(drive(server, driven));
        client.write_all(&syn(1, &packed()(&[("streamtype", "data")]))).await.unwrap();
        client.write_all(&[&data_head(1, FIN, 2)[..], b"hi"].concat()).await.unwrap();
        assert!(matches!(mux.events.recv().await, Some(Event::Open { id: 1, .. })));
        assert_eq!(mux.events.recv().await, Some(Event::Data { id: 1, bytes: Bytes::from_static(b"hi") }));
        assert_eq!(mux.events.recv().await, Some(Event::End { id: 1 }));
        mux.commands.send(Command::Data { id: 1, bytes: Bytes::from_static(b"ho") }).await.unwrap();
        mux.commands.send(Command::End { id: 1 }).await.unwrap();
        drop(mux);
        let wanted = [
            control(kind::SYN_REPLY, &[&1_u32.to_be_bytes()[..], &pack_none(true)].concat()),
            [&data_head(1, 0, 2)[..], b"ho"].concat(),
            data_head(1, FIN, 0).to_vec(),
            control(kind::GOAWAY, &[0; 8]),
        ];
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, wanted.concat());
        drop(client);
        driving.await.unwrap();
    }
}
