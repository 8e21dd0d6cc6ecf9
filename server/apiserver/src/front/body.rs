//! Bodies: reading a request's within limits, and writing an answer's without copying what is already encoded.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt as _, stream::BoxStream};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use skiff_api::status::{ApiError, Reason};

use super::limits::{CHUNK_BYTES, MAX_BODY_BYTES};

/// The bytes of an answer that has no end known beforehand.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// The body of an answer.
pub enum Body {
    /// All of it.
    Full(Option<Bytes>),
    /// Items between a beginning and an end.
    Items(Items),
    /// Compressed on the way out.
    Gzip(Box<Gzip>),
    /// A watch, a log, a proxied answer.
    Stream(ByteStream),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// A body of these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }

    /// The length, where it is known.
    pub fn exact_len(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// The same, compressed while it is written.
    pub fn gzip(self) -> Self {
        Self::Gzip(Box::new(Gzip { inner: self, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let data = match self.get_mut() {
            Self::Full(bytes) => bytes.take().map(Ok),
            Self::Items(items) => items.next_chunk().map(Ok),
            Self::Gzip(gzip) => ready!(gzip.poll_chunk(cx)),
            Self::Stream(stream) => ready!(stream.poll_next_unpin(cx)),
        };
        Poll::Ready(data.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Items(items) => items.len_bytes == 0,
            Self::Gzip(_) | Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Items(items) => SizeHint::with_exact(items.len_bytes),
            Self::Gzip(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Encoded items, joined by commas or put end to end, between a head and a tail. Small ones are put together into chunks as they are
/// asked for, so that a list is in memory only once: in the cache.
pub struct Items {
    head: Bytes,
    items: VecDeque<Bytes>,
    tail: &'static [u8],
    /// What comes before the next item: nothing before the first, then what is between items.
    separator: &'static [u8],
    /// What is between items.
    between: &'static [u8],
    len_bytes: u64,
}

impl Items {
    /// The items between `head` and `tail`, joined by commas.
    pub fn new(head: impl Into<Bytes>, items: impl IntoIterator<Item = Bytes>, tail: &'static [u8]) -> Self {
        Self::joined(head.into(), items.into_iter().collect(), tail, b",")
    }

    /// The items between `head` and `tail` with nothing in between.
    pub fn end_to_end(head: Vec<u8>, items: Vec<Bytes>, tail: &'static [u8]) -> Self {
        Self::joined(head.into(), items.into(), tail, b"")
    }

    fn joined(head: Bytes, items: VecDeque<Bytes>, tail: &'static [u8], between: &'static [u8]) -> Self {
        let separators = items.len().saturating_sub(1) * between.len();
        let len = head.len() + tail.len() + separators + items.iter().map(Bytes::len).sum::<usize>();
        Self { head, items, tail, separator: b"", between, len_bytes: len as u64 }
    }

    /// All of it at once.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len_bytes).unwrap_or_default());
        bytes.extend_from_slice(&self.head);
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                bytes.extend_from_slice(self.between);
            }
            bytes.extend_from_slice(item);
        }
        bytes.extend_from_slice(self.tail);
        bytes.into()
    }

    /// The next piece to write; `None` at the end.
    fn next_chunk(&mut self) -> Option<Bytes> {
        if self.len_bytes == 0 {
            return None;
        }
        let left = usize::try_from(self.len_bytes).unwrap_or(usize::MAX);
        let mut chunk = Vec::with_capacity(left.min(CHUNK_BYTES));
        chunk.extend_from_slice(&std::mem::take(&mut self.head));
        while let Some(item) = self.items.front() {
            if !chunk.is_empty() && chunk.len() + item.len() + 1 > CHUNK_BYTES {
                break;
            }
            chunk.extend_from_slice(self.separator);
            chunk.extend_from_slice(item);
            self.separator = self.between;
            self.items.pop_front();
        }
        if self.items.is_empty() {
            chunk.extend_from_slice(std::mem::take(&mut self.tail));
        }
        self.len_bytes -= (chunk.len() as u64).min(self.len_bytes);
        Some(chunk.into())
    }
}

/// A body that is compressed chunk by chunk.
pub struct Gzip {
    inner: Body,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let Some(encoder) = self.encoder.as_mut() else { return Poll::Ready(None) };
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    if let Err(error) = encoder.write_all(&data) {
                        return Poll::Ready(Some(Err(error)));
                    }
                    let ready = std::mem::take(encoder.get_mut());
                    if !ready.is_empty() {
                        return Poll::Ready(Some(Ok(ready.into())));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let last = self.encoder.take().map(GzEncoder::finish);
                    return Poll::Ready(last.map(|end| end.map(Bytes::from)));
                }
            }
        }
    }
}

/// 413, worded as Kubernetes does.
pub fn too_large() -> ApiError {
    ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {MAX_BODY_BYTES}"))
}

/// Reads a request's body. A body of one piece is not copied.
pub async fn read<B>(mut body: B) -> Result<Bytes, ApiError>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Body, Items};
    use http_body_util::BodyExt as _;

    async fn collect(body: Body) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn items_are_joined_and_their_length_is_known() {
        for count in [0usize, 1, 2, 5000] {
            let items = (0..count).map(|n| format!("{{\"n\":{n}}}").into());
            let body = Body::Items(Items::new("{\"items\":[", items, b"]}"));
            let length = body.exact_len().unwrap();
            let bytes = collect(body).await;
            assert_eq!(bytes.len() as u64, length);
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["items"].as_array().unwrap().len(), count);
        }
    }

    #[tokio::test]
    async fn a_large_item_is_sent_whole() {
        let large = "7".repeat(300_000);
        let items = [large.clone(), "1".to_owned(), large.clone()].map(Into::into);
        let bytes = collect(Body::Items(Items::new("[", items, b"]"))).await;
        assert_eq!(String::from_utf8(bytes).unwrap(), format!("[{large},1,{large}]"));
    }

    #[tokio::test]
    async fn gzip_gives_back_the_same_bytes() {
        use std::io::Read as _;
        let items = (0..20_000).map(|n| format!("{n}").into());
        let plain = collect(Body::Items(Items::new("[", items, b"]"))).await;
        let items = (0..20_000).map(|n| format!("{n}").into());
        let packed = collect(Body::Items(Items::new("[", items, b"]")).gzip()).await;
        assert!(packed.len() < plain.len());
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain);
    }
}
