//! A container's log: the file that `kubectl logs` reads, in CRI's format
//! (`2026-01-02T15:04:05.999999999Z stdout F line`).
//!
//! Each instance has its own [`LineWriter`] a stream, so that lines of concurrent requests never mix; whole lines reach
//! the file by one write. A container that floods its log is held back ([`Budget`]).

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::run::output::{Closed, Sink};

/// Longest line written in one piece; a longer one is cut into partial lines (`P`), as containerd cuts it.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Pieces of output that somebody attached may fall behind; who falls behind more is let go.
const ATTACHED_BACKLOG: usize = 256;
/// Most that are attached to one container at once.
const MAX_ATTACHED: usize = 16;
/// Most bytes a guest may write at once.
const WRITE_PERMIT_BYTES: usize = 64 * 1024;
/// Bytes that a container may write to its log: 8 MiB a second, and 32 MiB at once.
const BYTES_PER_MILLISECOND: i64 = (8 << 20) / 1000;
const BURST_BYTES: i64 = 32 << 20;
/// Bytes that somebody who waits waits for, so as not to wake for each few.
const WAIT_FOR_BYTES: i64 = WRITE_PERMIT_BYTES as i64;

/// The log file of a container.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
    budget: Mutex<Budget>,
    /// Those who get what is written as it is written.
    attached: Mutex<Vec<mpsc::Sender<(Stream, Bytes)>>>,
}

impl LogFile {
    /// Opens `path` for appending, and makes it (and its folder) where missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(append(path)?),
            budget: Mutex::new(Budget::new(Instant::now())),
            attached: Mutex::default(),
        })
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

    /// Writes a message of the runtime itself, line by line, to the container's standard error. Nobody waits for room
    /// to say that a request failed: where there is none it is left out.
    pub(crate) fn note(self: &Arc<Self>, text: &str) {
        if self.budget.lock().room(Instant::now()) == 0 {
            return;
        }
        let mut writer = LineWriter::new(self.clone(), Stream::Stderr);
        writer.write(text.as_bytes());
    }

    fn write(&self, bytes: &[u8]) {
        self.budget.lock().spend(bytes.len());
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

impl Sink for GuestStream {
    fn push(&self, bytes: Bytes) -> Result<(), Closed> {
        self.0.lock().write(&bytes);
        Ok(())
    }

    fn room(&self) -> Result<usize, Closed> {
        let room = self.0.lock().log.budget.lock().room(Instant::now());
        Ok(usize::try_from(room).unwrap_or(usize::MAX).min(WRITE_PERMIT_BYTES))
    }

    fn has_room(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let log = self.0.lock().log.clone();
        async move {
            loop {
                let wait = log.budget.lock().wait(Instant::now());
                if wait.is_zero() {
                    return;
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// What a container may write to its log: so many bytes a second, and some at once. A guest that writes more waits, as
/// for a pipe that is read slowly; the disk is its neighbours' too.
#[derive(Debug)]
struct Budget {
    /// Bytes that may be written; less than none where a piece was larger than the rest.
    left: i64,
    /// Up to when `left` was reckoned.
    at: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: BURST_BYTES, at: now }
    }

    /// Counts what has come in since.
    fn reckon(&mut self, now: Instant) {
        const NS_PER_MS: i64 = 1_000_000;
        let since_ns = i64::try_from(now.saturating_duration_since(self.at).as_nanos()).unwrap_or(i64::MAX);
        let grown = since_ns.saturating_mul(BYTES_PER_MILLISECOND) / NS_PER_MS;
        self.left = self.left.saturating_add(grown);
        if self.left >= BURST_BYTES {
            *self = Self::new(now);
        } else {
            // What is less than a byte is not lost: only the time of whole ones is used up.
            self.at += Duration::from_nanos((grown * NS_PER_MS / BYTES_PER_MILLISECOND).unsigned_abs());
        }
    }

    /// Bytes that may be written now.
    fn room(&mut self, now: Instant) -> u64 {
        self.reckon(now);
        u64::try_from(self.left).unwrap_or(0)
    }

    /// How long until a piece may be written.
    fn wait(&mut self, now: Instant) -> Duration {
        self.reckon(now);
        if self.left > 0 {
            return Duration::ZERO;
        }
        let lacking = (WAIT_FOR_BYTES - self.left).div_euclid(BYTES_PER_MILLISECOND) + 1;
        Duration::from_millis(u64::try_from(lacking).unwrap_or(1))
    }

    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
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
    fn a_flood_is_held_to_its_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!(budget.room(start), 32 << 20);
        budget.spend(33 << 20);
        assert_eq!(budget.room(start), 0);
        let wait = budget.wait(start);
        assert!(wait > Duration::from_millis(120) && wait < Duration::from_millis(150), "{wait:?}");
        assert_eq!(budget.wait(start + wait), Duration::ZERO);
        assert!(budget.room(start + wait) >= WRITE_PERMIT_BYTES as u64);
        // A clock that steps in nanoseconds gains as much as one that steps in hours.
        let mut budget = Budget { left: 0, at: start };
        for ns in 0..1_000_000 {
            budget.reckon(start + Duration::from_nanos(ns));
        }
        assert!(budget.left > 8000, "{}", budget.left);
        budget.reckon(start + Duration::from_secs(3600));
        assert_eq!(budget.left, BURST_BYTES);
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
