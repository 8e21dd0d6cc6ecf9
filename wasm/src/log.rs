//! A container's log: the file that `kubectl logs` reads, in CRI's format
//! (`2026-01-02T15:04:05.999999999Z stdout F line`).
//!
//! Each instance has its own [`LineWriter`] a stream, so that lines of concurrent requests never mix; whole lines reach
//! the file by one write.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{io::AsyncWrite, sync::mpsc};
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// Longest line written in one piece; a longer one is cut into partial lines (`P`), as containerd cuts it.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Pieces of output that somebody attached may fall behind; who falls behind more is let go.
const ATTACHED_BACKLOG: usize = 256;
/// Most that are attached to one container at once.
const MAX_ATTACHED: usize = 16;
/// Most bytes a guest may write at once.
const WRITE_PERMIT_BYTES: usize = 64 * 1024;

/// The log file of a container.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
    /// Those who get what is written as it is written.
    attached: Mutex<Vec<mpsc::Sender<(Stream, Bytes)>>>,
}

impl LogFile {
    /// Opens `path` for appending, and makes it (and its folder) where missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        Ok(Self { path: path.to_owned(), file: Mutex::new(append(path)?), attached: Mutex::default() })
    }

    /// What is written from now on, until the container ends; `None` when too many listen already.
    pub(crate) fn attach(&self) -> Option<mpsc::Receiver<(Stream, Bytes)>> {
        let mut attached = self.attached.lock();
        attached.retain(|listener| !listener.is_closed());
        if attached.len() == MAX_ATTACHED {
            return None;
        }
        let (sender, receiver) = mpsc::channel(ATTACHED_BACKLOG);
        attached.push(sender);
        Some(receiver)
    }

    /// Lets those go who are attached: the container has ended.
    pub(crate) fn detach_all(&self) {
        self.attached.lock().clear();
    }

    fn tell(&self, stream: Stream, bytes: &[u8]) {
        let mut attached = self.attached.lock();
        if !attached.is_empty() {
            let bytes = Bytes::copy_from_slice(bytes);
            attached.retain(|listener| listener.try_send((stream, bytes.clone())).is_ok());
        }
    }

    /// Opens the path anew, after somebody moved the file away.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        let file = append(&self.path)?;
        *self.file.lock() = file;
        Ok(())
    }

    /// Writes a message of the runtime itself, line by line, to the container's standard error.
    pub(crate) fn note(self: &Arc<Self>, text: &str) {
        let mut writer = LineWriter::new(self.clone(), Stream::Stderr);
        writer.write(text.as_bytes());
    }

    fn write(&self, bytes: &[u8]) {
        // A full disk must not end the guest; the log has a gap, and the runtime's own log says so.
        if let Err(error) = self.file.lock().write_all(bytes) {
            tracing::warn!(path = %self.path.display(), %error, "cannot write a container's log");
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// Which of the guest's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts what an instance writes into lines. What is left without a line's end is written when it is dropped.
pub(crate) struct LineWriter {
    log: Arc<LogFile>,
    stream: Stream,
    rest: Vec<u8>,
}

impl LineWriter {
    pub(crate) fn new(log: Arc<LogFile>, stream: Stream) -> Self {
        Self { log, stream, rest: Vec::new() }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.log.tell(self.stream, bytes);
        self.rest.extend_from_slice(bytes);
        if self.rest.len() < MAX_LINE_BYTES && !bytes.contains(&b'\n') {
            return;
        }
        let time = timestamp();
        let (mut out, mut rest) = (Vec::with_capacity(self.rest.len() + 64), self.rest.as_slice());
        while let Some((line, tag, after)) = next_line(rest) {
            frame(&mut out, &time, self.stream, tag, line);
            rest = after;
        }
        self.rest = rest.to_vec();
        self.log.write(&out);
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            let mut out = Vec::with_capacity(self.rest.len() + 64);
            frame(&mut out, &timestamp(), self.stream, 'F', &self.rest);
            self.log.write(&out);
        }
    }
}

/// The next line of `bytes` with its tag and what follows it; `None` when more bytes must come first.
fn next_line(bytes: &[u8]) -> Option<(&[u8], char, &[u8])> {
    let head = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    match head.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some((bytes.get(..end)?, 'F', bytes.get(end + 1..)?)),
        // A line of exactly the bound whose end is the next byte is whole.
        None if bytes.get(MAX_LINE_BYTES) == Some(&b'\n') => Some((head, 'F', bytes.get(MAX_LINE_BYTES + 1..)?)),
        None if bytes.len() > MAX_LINE_BYTES => Some((head, 'P', bytes.get(MAX_LINE_BYTES..)?)),
        None => None,
    }
}

fn frame(out: &mut Vec<u8>, time: &str, stream: Stream, tag: char, line: &[u8]) {
    out.extend_from_slice(format!("{time} {} {tag} ", stream.name()).as_bytes());
    out.extend_from_slice(line);
    out.push(b'\n');
}

fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// The standard output or error of an instance.
#[derive(Clone)]
pub(crate) struct GuestStream(Arc<Mutex<LineWriter>>);

impl GuestStream {
    pub(crate) fn new(log: Arc<LogFile>, stream: Stream) -> Self {
        Self(Arc::new(Mutex::new(LineWriter::new(log, stream))))
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.lock().write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_PERMIT_BYTES)
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    /// What the file holds after the pieces are written, each line without its time.
    fn written(pieces: &[&[u8]]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/0.log");
        let mut writer = LineWriter::new(Arc::new(LogFile::open(&path).unwrap()), Stream::Stdout);
        for piece in pieces {
            writer.write(piece);
        }
        drop(writer);
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines() {
        assert_eq!(written(&[b"a\nb\n"]), ["stdout F a", "stdout F b"]);
        assert_eq!(written(&[b"a", b"b", b"c\n"]), ["stdout F abc"]);
        assert_eq!(written(&[b"a\n\nend"]), ["stdout F a", "stdout F ", "stdout F end"]);
        assert!(written(&[b""]).is_empty());
    }

    #[test]
    fn long_lines_are_cut() {
        let full = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(written(&[full.as_bytes(), b"\n"]), [format!("stdout F {full}")]);
        assert_eq!(written(&[full.as_bytes(), b"y\n"]), [format!("stdout P {full}"), "stdout F y".to_owned()]);
    }

    #[test]
    fn times_are_of_fixed_width() {
        let time = timestamp();
        assert_eq!(time.len(), "2026-01-02T15:04:05.999999999Z".len(), "{time}");
        assert!(time.ends_with('Z'));
    }

    #[test]
    fn reopens_after_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let log = Arc::new(LogFile::open(&path).unwrap());
        log.note("before\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        log.reopen().unwrap();
        log.note("after");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(" stderr F after\n") && !text.contains("before"), "{text}");
    }
}
