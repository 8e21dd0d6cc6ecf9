//! WebSocket (RFC 6455), a server's side: frames in, frames out, no extensions. Messages are handed on piece by piece,
//! so that a large one needs no more memory than a small one.

use std::io;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::mux::CHUNK_BYTES;

/// What the handshake mixes into the client's key (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Most bytes of a control frame.
const MAX_CONTROL_BYTES: u64 = 125;

/// The kinds of frames.
mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// The answer to a client's `Sec-WebSocket-Key`.
pub(super) fn accept_key(key: &str) -> String {
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

/// What comes from the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A part of a message.
    Data {
        /// Whether a message begins here.
        starts: bool,
        /// At most [`CHUNK_BYTES`].
        bytes: Bytes,
    },
    /// To be answered with the same bytes.
    Ping(Bytes),
    /// The client is done.
    Close,
}

/// What a client must not send.
fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A frame's head.
struct Head {
    last: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
}

/// Reads a client's frames.
pub(super) struct Reader<R> {
    io: R,
    /// The data frame that is being read.
    left: u64,
    mask: [u8; 4],
    /// Whether a message goes on after that frame.
    continues: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io, left: 0, mask: [0; 4], continues: false }
    }

    /// The next piece.
    pub(super) async fn next(&mut self) -> io::Result<Piece> {
        if self.left > 0 {
            return Ok(Piece::Data { starts: false, bytes: self.chunk().await? });
        }
        let head = self.head().await?;
        match head.opcode {
            opcode::CONTINUATION | opcode::TEXT | opcode::BINARY => {
                let starts = head.opcode != opcode::CONTINUATION;
                if starts == self.continues {
                    return Err(malformed("a message within a message"));
                }
                (self.left, self.mask, self.continues) = (head.length, head.mask, !head.last);
                Ok(Piece::Data { starts, bytes: self.chunk().await? })
            }
            opcode::CLOSE | opcode::PING | opcode::PONG if head.length <= MAX_CONTROL_BYTES && head.last => {
                self.control(&head).await
            }
            _ => Err(malformed("a frame of no known kind")),
        }
    }

    async fn control(&mut self, head: &Head) -> io::Result<Piece> {
        let mut bytes = vec![0; usize::try_from(head.length).unwrap_or(0)];
        self.io.read_exact(&mut bytes).await?;
        unmask(&mut bytes, head.mask);
        match head.opcode {
            opcode::CLOSE => Ok(Piece::Close),
            opcode::PING => Ok(Piece::Ping(bytes.into())),
            // Nobody asked.
            _ => Ok(Piece::Data { starts: false, bytes: Bytes::new() }),
        }
    }

    async fn head(&mut self) -> io::Result<Head> {
        let mut first = [0; 2];
        self.io.read_exact(&mut first).await?;
        let [flags, length] = first;
        if flags & 0x70 != 0 {
            return Err(malformed("an extension that was not agreed on"));
        }
        if length & 0x80 == 0 {
            return Err(malformed("a client's frame without a mask"));
        }
        let length = match length & 0x7f {
            126 => u64::from(self.io.read_u16().await?),
            127 => self.io.read_u64().await?,
            short => u64::from(short),
        };
        let mut mask = [0; 4];
        self.io.read_exact(&mut mask).await?;
        Ok(Head { last: flags & 0x80 != 0, opcode: flags & 0x0f, length, mask })
    }

    /// Some bytes of the present frame.
    async fn chunk(&mut self) -> io::Result<Bytes> {
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut bytes = vec![0; size];
        self.io.read_exact(&mut bytes).await?;
        unmask(&mut bytes, self.mask);
        self.left -= size as u64;
        self.mask.rotate_left(size % 4);
        Ok(bytes.into())
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// A frame's head, as a server sends it.
fn head(opcode: u8, length: usize) -> Vec<u8> {
    let mut head = vec![0x80 | opcode];
    match length {
        0..126 => head.push(u8::try_from(length).unwrap_or(0)),
        126..0x1_0000 => {
            head.push(126);
            head.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head
}

/// Writes one message: `prefix` and then `bytes`.
pub(super) async fn write(io: &mut (impl AsyncWrite + Unpin), prefix: &[u8], bytes: &[u8]) -> io::Result<()> {
    let mut start = head(opcode::BINARY, prefix.len() + bytes.len());
    start.extend(prefix);
    io.write_all(&start).await?;
    io.write_all(bytes).await?;
    io.flush().await
}

/// Answers a ping.
pub(super) async fn pong(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    io.write_all(&[&head(opcode::PONG, bytes.len()), bytes].concat()).await?;
    io.flush().await
}

/// Ends the conversation in good order.
pub(super) async fn close(io: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    /// "Normal closure".
    const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();
    io.write_all(&[head(opcode::CLOSE, NORMAL.len()).as_slice(), &NORMAL].concat()).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = head(first & 0x0f, payload.len());
        bytes[0] = first;
        bytes[1] |= 0x80;
        let mask = [1, 2, 3, 250];
        bytes.extend(mask);
        let at = bytes.len();
        bytes.extend(payload);
        unmask(&mut bytes[at..], mask);
        bytes
    }

    async fn read(bytes: &[u8]) -> (Vec<Piece>, Option<io::ErrorKind>) {
        let (mut reader, mut pieces) = (Reader::new(bytes), Vec::new());
        loop {
            match reader.next().await {
                Ok(piece) => pieces.push(piece),
                Err(error) => return (pieces, Some(error.kind())),
            }
        }
    }

    fn data(starts: bool, bytes: &[u8]) -> Piece {
        Piece::Data { starts, bytes: Bytes::copy_from_slice(bytes) }
    }

    #[test]
    fn the_handshakes_example() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn messages_pieces_and_control_frames() {
        let bytes = [
            frame(0x82, b"whole"),
            frame(0x02, b"be"),
            frame(0x89, b"ping"),
            frame(0x00, b"gi"),
            frame(0x80, b"ns"),
            frame(0x82, b""),
            frame(0x88, b"\x03\xe8"),
        ];
        let (pieces, _) = read(&bytes.concat()).await;
        let wanted = [
            data(true, b"whole"),
            data(true, b"be"),
            Piece::Ping(Bytes::from_static(b"ping")),
            data(false, b"gi"),
            data(false, b"ns"),
            data(true, b""),
            Piece::Close,
        ];
        assert_eq!(pieces, wanted);
    }

    #[tokio::test]
    async fn a_large_frame_comes_in_pieces() {
        let large: Vec<u8> = (0..CHUNK_BYTES * 2 + 5).map(|n| (n % 251) as u8).collect();
        let (pieces, _) = read(&frame(0x82, &large)).await;
        assert_eq!(pieces.len(), 3);
        let all: Vec<u8> = pieces
            .into_iter()
            .flat_map(|piece| match piece {
                Piece::Data { bytes, .. } => bytes,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(all, large);
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let huge_ping = frame(0x89, &[0; 126]);
        let unmasked = [0x82, 1, 0].to_vec();
        for bad in [huge_ping, unmasked, frame(0x83, b""), frame(0xc2, b""), frame(0x80, b"no beginning")] {
            assert_eq!(read(&bad).await, (Vec::new(), Some(io::ErrorKind::InvalidData)), "{bad:?}");
        }
        assert_eq!(read(&frame(0x82, b"cut short")[..8]).await.1, Some(io::ErrorKind::UnexpectedEof));
    }
}
