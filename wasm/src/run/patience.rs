//! What a client may keep a pod waiting for. A request holds an instance, and a connection a descriptor, so neither
//! waits for ever: not for the next piece of a request, nor for a client that does not take its answer.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::engine::outgoing::exchange_error;

/// How long a client may take over the next piece of its request, or of the answer: as nginx's `client_body_timeout`
/// and `send_timeout`.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at whether a client takes its answer.
const LOOK: Duration = Duration::from_secs(5);

/// A time that runs while something is waited for.
#[derive(Default)]
struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// What came of a poll: where nothing did, whether that has been so for too long.
    fn over<T>(&mut self, polled: Poll<T>, cx: &mut Context<'_>) -> Poll<Result<T, Over>> {
        match polled {
            Poll::Ready(came) => {
                self.0 = None;
                Poll::Ready(Ok(came))
            }
            Poll::Pending => {
                let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
                ready!(sleep.as_mut().poll(cx));
                Poll::Ready(Err(Over))
            }
        }
    }
}

/// It took too long.
struct Over;

/// The body of a request.
pub(crate) struct Request {
    inner: Incoming,
    patience: Patience,
}

impl Request {
    pub(crate) fn new(inner: Incoming) -> Self {
        Self { inner, patience: Patience::default() }
    }
}

impl Body for Request {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let frame = ready!(self.patience.over(polled, cx));
        Poll::Ready(match frame {
            Ok(frame) => frame.map(|frame| frame.map_err(|error| exchange_error(&error))),
            Err(Over) => Some(Err(Error::ConnectionReadTimeout)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer, which says since when it waits for the client to take what there is.
pub(crate) struct Answer {
    inner: WasiBody,
    turn: Turn,
}

/// Since when it is the client's turn.
#[derive(Clone, Default)]
pub(crate) struct Turn(Arc<Mutex<Option<Instant>>>);

impl Turn {
    /// Waits until a client has not taken its answer for too long.
    pub(crate) async fn over(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.0.lock().is_some_and(|since| since.elapsed() > PATIENCE) {
                return;
            }
        }
    }
}

impl Answer {
    pub(crate) fn new(inner: WasiBody, turn: Turn) -> Self {
        Self { inner, turn }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        *self.turn.0.lock() = matches!(polled, Poll::Ready(Some(Ok(_)))).then(Instant::now);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection whose client must take what is written.
pub(crate) struct Connection<S> {
    inner: S,
    patience: Patience,
}

impl<S> Connection<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, patience: Patience::default() }
    }

    fn written<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let over = |Over| Err(io::ErrorKind::TimedOut.into());
        self.patience.over(polled, cx).map(|came| came.unwrap_or_else(over))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use http_body_util::{BodyExt, Full};
    use tokio::io::AsyncWriteExt;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut connection = Connection::new(ours);
        let began = Instant::now();
        let error = connection.write_all(&[7; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_turn_is_the_clients_while_there_is_something_to_take() {
        let turn = Turn::default();
        let body = Full::new(Bytes::from_static(b"text")).map_err(Error::from).boxed_unsync();
        let mut body = Answer::new(body, turn.clone());
        // Nothing to take as yet: the guest's turn, however long it takes.
        let early = tokio::time::timeout(PATIENCE * 3, turn.over()).await;
        assert!(early.is_err());
        body.frame().await.unwrap().unwrap();
        let began = Instant::now();
        turn.over().await;
        assert!(began.elapsed() > PATIENCE && began.elapsed() <= PATIENCE + LOOK * 2);
        // Taken to its end: nobody's turn.
        assert!(body.frame().await.is_none());
        assert!(tokio::time::timeout(PATIENCE * 3, turn.over()).await.is_err());
    }
}
