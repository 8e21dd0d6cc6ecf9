//! Where an instance's standard streams lead: to its container's log (and whoever is attached), or, for a command that
//! somebody runs in a container, to that caller.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Poll, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncRead;
use wasmtime_wasi::{
    WasiCtxBuilder,
    cli::{AsyncStdinStream, IsTerminal, StdinStream},
    p2::InputStream,
};

use super::output::{Closed, Output, Sink};
use crate::log::{GuestStream, LogFile, Stream};

/// Bytes that a guest may be ahead of who reads its output.
const PIPE_BYTES: usize = 64 << 10;

/// An instance's standard streams.
#[derive(Clone)]
pub(crate) struct Stdio {
    pub(crate) stdin: Option<Stdin>,
    pub(crate) output: Destination,
    /// Whether the guest is told that it has a terminal.
    pub(crate) terminal: bool,
}

/// Where the output goes.
#[derive(Clone)]
pub(crate) enum Destination {
    Log(Arc<LogFile>),
    Caller { stdout: Pipe, stderr: Pipe },
}

impl Stdio {
    /// Gives the streams to an instance.
    pub(crate) fn give(&self, wasi: &mut WasiCtxBuilder) {
        let terminal = self.terminal;
        if let Some(stdin) = &self.stdin {
            wasi.stdin(OfTerminal { inner: stdin.clone(), terminal });
        }
        match &self.output {
            Destination::Log(log) => {
                wasi.stdout(Output { sink: GuestStream::new(log.clone(), Stream::Stdout), terminal })
                    .stderr(Output { sink: GuestStream::new(log.clone(), Stream::Stderr), terminal });
            }
            Destination::Caller { stdout, stderr } => {
                wasi.stdout(Output { sink: stdout.clone(), terminal })
                    .stderr(Output { sink: stderr.clone(), terminal });
            }
        }
    }

    /// Writes a message of the runtime itself to the log. A caller learns of it otherwise.
    pub(crate) fn note(&self, text: &str) {
        if let Destination::Log(log) = &self.output {
            log.note(text);
        }
    }
}

/// An input that says whether it is a terminal's.
struct OfTerminal<T> {
    inner: T,
    terminal: bool,
}

impl<T> IsTerminal for OfTerminal<T> {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl<T: StdinStream> StdinStream for OfTerminal<T> {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        self.inner.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        self.inner.p2_stream()
    }
}

/// A standard input.
pub(crate) type Stdin = Arc<AsyncStdinStream>;

/// A standard input that reads from `source`.
pub(crate) fn stdin(source: impl AsyncRead + Send + Sync + 'static) -> Stdin {
    Arc::new(AsyncStdinStream::new(source))
}

/// A guest's output on its way to a caller. It holds a bounded number of bytes, and keeps them when the guest ends.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    held_bytes: usize,
    /// Nothing more is written.
    ended: bool,
    /// Nobody reads.
    broken: bool,
    writers: Vec<Waker>,
    reader: Option<Waker>,
}

impl State {
    fn room(&self) -> usize {
        PIPE_BYTES.saturating_sub(self.held_bytes)
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake_writers(&mut self) {
        self.writers.drain(..).for_each(Waker::wake);
    }
}

impl Pipe {
    /// What was written since; nothing once the output has ended.
    pub(crate) async fn read(&self) -> Option<Bytes> {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if let Some(chunk) = state.chunks.pop_front() {
                state.held_bytes -= chunk.len();
                state.wake_writers();
                return Poll::Ready(Some(chunk));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Says that nothing more is written.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.wake_reader();
    }

    /// Says that nobody reads any more; who writes gets an error.
    pub(crate) fn break_off(&self) {
        let mut state = self.0.lock();
        state.broken = true;
        state.chunks.clear();
        state.wake_writers();
    }
}

impl Sink for Pipe {
    fn push(&self, bytes: Bytes) -> Result<(), Closed> {
        let mut state = self.0.lock();
        if state.broken {
            return Err(Closed);
        }
        if !bytes.is_empty() {
            state.held_bytes += bytes.len();
            state.chunks.push_back(bytes);
            state.wake_reader();
        }
        Ok(())
    }

    fn room(&self) -> Result<usize, Closed> {
        let state = self.0.lock();
        if state.broken { Err(Closed) } else { Ok(state.room()) }
    }

    fn has_room(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let pipe = self.clone();
        std::future::poll_fn(move |cx| {
            let mut state = pipe.0.lock();
            if state.room() == 0 && !state.broken {
                state.writers.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::run::output::Writer;
    use std::io;
    use tokio::io::AsyncWriteExt;
    use wasmtime_wasi::p2::OutputStream;

    #[tokio::test]
    async fn what_is_written_is_read_in_order_and_kept_at_the_end() {
        let pipe = Pipe::default();
        let mut writer = Writer::new(pipe.clone());
        OutputStream::write(&mut writer, Bytes::from_static(b"one")).unwrap();
        writer.write_all(b"two").await.unwrap();
        pipe.end();
        assert_eq!(pipe.read().await.unwrap(), "one");
        assert_eq!(pipe.read().await.unwrap(), "two");
        assert_eq!(pipe.read().await, None);
    }

    #[tokio::test]
    async fn a_writer_waits_for_the_reader() {
        let pipe = Pipe::default();
        let mut writer = Writer::new(pipe.clone());
        let writing = tokio::spawn(async move { writer.write_all(&[7; PIPE_BYTES * 3]).await });
        let mut read = 0;
        while read < PIPE_BYTES * 3 {
            let chunk = pipe.read().await.unwrap();
            assert!(pipe.0.lock().held_bytes <= PIPE_BYTES);
            read += chunk.len();
        }
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_reads() {
        let pipe = Pipe::default();
        let mut writer = Writer::new(pipe.clone());
        let writing = tokio::spawn(async move { writer.write_all(&[7; PIPE_BYTES * 3]).await });
        tokio::task::yield_now().await;
        pipe.break_off();
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
