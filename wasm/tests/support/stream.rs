//! A WebSocket client as plain as the tests need it: small messages on Kubernetes' channels.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::DEADLINE;

/// A channel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel(pub u8);

impl Channel {
    pub const STDIN: Self = Self(0);
    pub const STDOUT: Self = Self(1);
    pub const STDERR: Self = Self(2);
    pub const ERROR: Self = Self(3);
}

/// A message of the server.
#[derive(Debug)]
pub struct Message {
    pub channel: Channel,
    pub bytes: Vec<u8>,
}

impl Message {
    /// All that came on a channel.
    pub fn of(messages: &[Self], channel: Channel) -> String {
        let bytes = messages.iter().filter(|message| message.channel == channel).flat_map(|message| &message.bytes);
        String::from_utf8(bytes.copied().collect()).unwrap()
    }
}

#[derive(Debug)]
pub struct WebSocket(BufReader<TcpStream>);

impl WebSocket {
    pub async fn open(url: &str, protocol: &str) -> Self {
        Self::try_open(url, protocol).await.unwrap()
    }

    /// The head of the answer where it is not the agreement.
    pub async fn try_open(url: &str, protocol: &str) -> Result<Self, String> {
        let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut stream = BufReader::new(TcpStream::connect(authority).await.unwrap());
        let request = format!(
            "GET /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        if head.starts_with("HTTP/1.1 101") && head.contains(protocol) { Ok(Self(stream)) } else { Err(head) }
    }

    pub async fn send(&mut self, channel: Channel, bytes: &[u8]) {
        let mut frame = vec![0x82, 0x80 | u8::try_from(bytes.len() + 1).unwrap(), 0, 0, 0, 0, channel.0];
        frame.extend(bytes);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Ends a channel, as clients of version 5 do.
    pub async fn end(&mut self, channel: Channel) {
        self.send(Channel(255), &[channel.0]).await;
    }

    /// The next message; none once the server closes.
    pub async fn next(&mut self) -> Option<Message> {
        tokio::time::timeout(DEADLINE, self.read()).await.expect("a message in time")
    }

    async fn read(&mut self) -> Option<Message> {
        let opcode = self.0.read_u8().await.ok()? & 0x0f;
        let length = match self.0.read_u8().await.ok()? {
            126 => u64::from(self.0.read_u16().await.ok()?),
            127 => self.0.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut bytes).await.ok()?;
        if opcode == 8 {
            return None;
        }
        Some(Message { channel: Channel(bytes[0]), bytes: bytes[1..].to_vec() })
    }

    /// All messages until the server closes.
    pub async fn rest(mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            messages.push(message);
        }
        messages
    }
}
