//! `containerLogs`: which file holds the log of a container, and reading it, to its end or for as long as the
//! container runs.

use std::{
    io::{self, SeekFrom},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader},
    net::unix::pipe,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    answer::Body,
    line::{LogOptions, Printer},
    route::{Place, Query},
};
use crate::context::Context;

/// The longest entry of a log file that is read in one piece.
const MAX_ENTRY_BYTES: u64 = 1024 * 1024;
/// How much is gathered before it is sent.
const CHUNK_BYTES: usize = 32 * 1024;
/// How many bytes of change events are taken at a time; more than the largest single one.
const EVENT_BYTES: usize = 4096;
/// How many chunks wait for a slow reader.
const CHUNKS: usize = 4;

/// The options of a query.
pub(super) fn options(query: &Query, now: Timestamp) -> Result<LogOptions, String> {
    let number = |name: &str| match query.get(name).filter(|text| !text.is_empty() && *text != "all") {
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("invalid {name}: {text:?}")),
        None => Ok(None),
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => now.checked_sub(SignedDuration::from_secs(seconds.try_into().unwrap_or(i64::MAX))).ok(),
        (None, Some(text)) => Some(text.parse().map_err(|_| format!("invalid sinceTime: {text:?}"))?),
        (None, None) => None,
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since,
        tail: number("tailLines")?,
        limit_bytes: number("limitBytes")?.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
    })
}

/// The status of a container of a pod.
fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == container)
}

/// Which try's log is asked for; the error is in the words of a kubelet.
fn attempt(pod: &Pod, place: &Place, previous: bool) -> Result<i32, String> {
    let (container, pod_name) = (&place.container, &place.pod);
    let Some(status) = status_of(pod, container) else {
        return Err(format!("container {container:?} in pod {pod_name:?} is not available"));
    };
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let last_is_newest = state.waiting.is_some();
    match (previous, &state.waiting) {
        (true, _) if last.is_none_or(|last| last.container_id.is_none()) => {
            Err(format!("previous terminated container {container:?} in pod {pod_name:?} not found"))
        }
        (true, _) if last_is_newest => Ok(status.restart_count),
        (true, _) => Ok(status.restart_count - 1),
        (false, Some(_)) if last.is_some() => Ok(status.restart_count),
        (false, Some(waiting)) => Err(format!(
            "container {container:?} in pod {pod_name:?} is waiting to start: {}",
            match waiting.reason.as_deref().unwrap_or_default() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            }
        )),
        (false, None) if state.running.is_some() || state.terminated.is_some() => Ok(status.restart_count),
        (false, None) => Err(format!("container {container:?} in pod {pod_name:?} is waiting to start - no logs yet")),
    }
}

/// The body of an answer with a container's log.
pub(super) async fn body(ctx: Arc<Context>, pod: Arc<Pod>, place: Place, options: LogOptions) -> Result<Body, String> {
    let attempt = attempt(&pod, &place, options.previous)?;
    let path = ctx.log_dir(&pod).join(&place.container).join(format!("{attempt}.log"));
    let file = File::open(&path)
        .await
        .map_err(|e| format!("failed to try resolving symlinks in path {:?}: {e}", path.display()))?;
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let follow = options.follow && !options.previous;
    let reader =
        Reader { printer: Printer::new(&options), path, sender, source: BufReader::new(file), pending: vec![] };
    tokio::spawn(async move {
        if let Err(e) = reader.run(options.tail, follow.then_some((ctx, place, attempt))).await {
            tracing::debug!(error = %e, "a log could not be read to its end");
        }
    });
    Ok(StreamBody::new(ReceiverStream::new(receiver)).boxed())
}

struct Reader {
    printer: Printer,
    path: PathBuf,
    sender: mpsc::Sender<io::Result<Frame<Bytes>>>,
    source: BufReader<File>,
    /// The beginning of an entry whose end is not written yet.
    pending: Vec<u8>,
}

/// Nobody reads any more.
fn closed<T>(_: mpsc::error::SendError<T>) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Reader {
    async fn run(mut self, tail: Option<u64>, follow: Option<(Arc<Context>, Place, i32)>) -> io::Result<()> {
        if let Some(lines) = tail {
            let at = tail_offset(self.source.get_mut(), lines).await?;
            self.source.seek(SeekFrom::Start(at)).await?;
        }
        let Some((ctx, place, attempt)) = follow else { return self.read().await };
        let watch = watch(self.path.parent().unwrap_or(Path::new("/")))?;
        let mut events = [0; EVENT_BYTES];
        let mut changes = ctx.pods.subscribe();
        loop {
            // Asked before the file is read, so that what was written before the end is not missed.
            let running = runs(&ctx, &place, attempt);
            self.read().await?;
            if self.printer.is_done() {
                return Ok(());
            }
            if !running {
                return Ok(());
            }
            if self.reopen().await? {
                continue;
            }
            tokio::select! {
                ready = watch.readable() => {
                    ready?;
                    let _drained = watch.try_read(&mut events);
                }
                change = changes.next() => if change.is_none() { return Ok(()) },
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    /// Sends everything up to the file's present end.
    async fn read(&mut self) -> io::Result<()> {
        let mut out = vec![];
        loop {
            let limit = MAX_ENTRY_BYTES.saturating_sub(self.pending.len() as u64);
            let read = (&mut self.source).take(limit).read_until(b'\n', &mut self.pending).await?;
            let whole = self.pending.ends_with(b"\n") || self.pending.len() as u64 >= MAX_ENTRY_BYTES;
            if whole {
                self.printer.print(&self.pending, &mut out);
                self.pending.clear();
            }
            let at_end = read == 0 && !whole;
            if out.len() >= CHUNK_BYTES || at_end || self.printer.is_done() {
                if !out.is_empty() {
                    let chunk = Bytes::from(std::mem::take(&mut out));
                    self.sender.send(Ok(Frame::data(chunk))).await.map_err(closed)?;
                }
                if at_end || self.printer.is_done() {
                    return Ok(());
                }
            }
        }
    }

    /// Goes on with the new file after a rotation; true if there is one.
    async fn reopen(&mut self) -> io::Result<bool> {
        let Ok(newest) = tokio::fs::metadata(&self.path).await else { return Ok(false) };
        let own = self.source.get_ref().metadata().await?;
        if newest.ino() == own.ino() {
            return Ok(false);
        }
        self.source = BufReader::new(File::open(&self.path).await?);
        self.pending.clear();
        Ok(true)
    }
}

/// Whether the try of a container whose log is read still runs.
fn runs(ctx: &Context, place: &Place, attempt: i32) -> bool {
    let pod = ctx.pods.get(&place.namespace, &place.pod);
    let status = pod.as_ref().and_then(|pod| status_of(pod, &place.container));
    status.is_some_and(|status| {
        status.restart_count == attempt && status.state.as_ref().is_some_and(|state| state.running.is_some())
    })
}

/// Where the last lines begin, found from the file's end.
async fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut at = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(at);
    }
    let mut found = 0;
    let mut block = vec![0; CHUNK_BYTES];
    // The newline that ends the last line does not count.
    let mut last = true;
    while at > 0 {
        let size = at.min(CHUNK_BYTES as u64);
        at -= size;
        file.seek(SeekFrom::Start(at)).await?;
        let part = &mut block[..usize::try_from(size).unwrap_or(CHUNK_BYTES)];
        file.read_exact(part).await?;
        for (index, byte) in part.iter().enumerate().rev() {
            if *byte == b'\n' && !std::mem::replace(&mut last, false) {
                found += 1;
                if found == lines {
                    return Ok(at + index as u64 + 1);
                }
            }
            last = false;
        }
    }
    Ok(0)
}

/// Tells of changes in a folder: readable whenever there was one. An inotify descriptor is read as a pipe is, which
/// is all that is needed to wait for it; what the events say does not matter.
fn watch(folder: &Path) -> io::Result<pipe::Receiver> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(folder, flags)?;
    pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn the_last_lines_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "a\nbb\nccc\n").unwrap();
        for (lines, wanted) in [(0, 9), (1, 5), (2, 2), (3, 0), (9, 0)] {
            let mut file = File::open(&path).await.unwrap();
            assert_eq!(tail_offset(&mut file, lines).await.unwrap(), wanted, "{lines}");
        }
    }

    #[test]
    fn refusals_are_worded_as_the_kubelets() {
        let place = Place { namespace: "n".into(), pod: "p".into(), container: "c".into() };
        let pod = |status: serde_json::Value| -> Pod {
            let status = json!({"containerStatuses": [status]});
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
        };
        let base = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 2});
        let with = |extra: serde_json::Value| {
            let mut all = base.clone();
            all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            pod(all)
        };
        let waiting = with(json!({"state": {"waiting": {"reason": "ContainerCreating"}}}));
        assert_eq!(
            attempt(&waiting, &place, false).unwrap_err(),
            r#"container "c" in pod "p" is waiting to start: ContainerCreating"#
        );
        assert_eq!(
            attempt(&waiting, &place, true).unwrap_err(),
            r#"previous terminated container "c" in pod "p" not found"#
        );
        let ended = json!({"terminated": {"exitCode": 1, "containerID": "x://1"}});
        let crashing = with(json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}));
        assert_eq!((attempt(&crashing, &place, false), attempt(&crashing, &place, true)), (Ok(2), Ok(2)));
        let running = with(json!({"state": {"running": {}}, "lastState": ended}));
        assert_eq!((attempt(&running, &place, false), attempt(&running, &place, true)), (Ok(2), Ok(1)));
    }
}
