//! A guest's output stream, over whatever takes the bytes: it holds a guest back while there is no room, the same in
//! all of WASI's forms.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

/// Nobody takes bytes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// What takes a guest's output.
pub(crate) trait Sink: Clone + Send + Sync + Unpin + 'static {
    /// Takes bytes, also more than there is room for.
    fn push(&self, bytes: Bytes) -> Result<(), Closed>;

    /// How many bytes it takes now.
    fn room(&self) -> Result<usize, Closed>;

    /// Waits until there is room, or it is closed.
    fn has_room(&self) -> impl Future<Output = ()> + Send + Sync + 'static;
}

/// An output stream as a guest is given it.
#[derive(Clone)]
pub(crate) struct Output<S> {
    pub(crate) sink: S,
    /// Whether the guest is told that it is a terminal.
    pub(crate) terminal: bool,
}

impl<S> IsTerminal for Output<S> {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl<S: Sink> StdoutStream for Output<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Writer::new(self.sink.clone()))
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Writer::new(self.sink.clone()))
    }
}

/// One end of a stream.
pub(crate) struct Writer<S> {
    sink: S,
    /// What is waited for while there is no room.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl<S: Sink> Writer<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self { sink, waiting: None }
    }
}

impl From<Closed> for StreamError {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

#[async_trait::async_trait]
impl<S: Sink> Pollable for Writer<S> {
    async fn ready(&mut self) {
        self.sink.has_room().await;
    }
}

impl<S: Sink> OutputStream for Writer<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        Ok(self.sink.push(bytes)?)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.sink.room()?)
    }
}

impl<S: Sink> AsyncWrite for Writer<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        loop {
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            let room = self.sink.room().map_err(broken)?;
            if room > 0 {
                let part = bytes.get(..room.min(bytes.len())).unwrap_or_default();
                let pushed = self.sink.push(Bytes::copy_from_slice(part));
                return Poll::Ready(pushed.map(|()| part.len()).map_err(broken));
            }
            self.waiting = Some(Box::pin(self.sink.has_room()));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
