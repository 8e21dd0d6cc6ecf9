//! Follows the folder of static pods. A file that cannot be used is told of, and what it last said stays in force.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use skiff_client::{EventRecorder, EventType};
use tokio::{net::unix::pipe, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{Statics, parse};

/// Bytes of the largest file that is read (the kubelet's limit).
const MAX_BYTES: u64 = 10 * 1024 * 1024;
/// How many files are looked at.
const MAX_FILES: usize = 1000;
/// How often is looked though nothing is heard (the kubelet's `fileCheckFrequency`).
const LOOK: Duration = Duration::from_secs(20);
/// How long a folder is left alone after a change: a file is seldom written by one call.
const SETTLE: Duration = Duration::from_millis(50);
/// Bytes of events that are taken at once; what they say does not matter.
const EVENT_BYTES: usize = 4096;

/// The folder as it was last seen.
pub struct Folder {
    path: PathBuf,
    node: String,
    /// By file: what was last told of it, if that was bad, and the pod that is in force.
    files: BTreeMap<PathBuf, File>,
}

#[derive(Default)]
struct File {
    complaint: Option<String>,
    pod: Option<Arc<Pod>>,
}

impl Folder {
    /// A folder that was not read yet.
    pub fn new(path: &Path, node: &str) -> Self {
        Self { path: path.to_owned(), node: node.to_owned(), files: BTreeMap::new() }
    }

    /// Reads the folder; what is new to complain of.
    pub fn read(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        let found = match files(&self.path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            // A folder that cannot be read says nothing about what is to run.
            Err(e) => return vec![format!("cannot read {}: {e}", self.path.display())],
        };
        self.files.retain(|path, _| found.contains(path));
        for path in found {
            let file = self.files.entry(path.clone()).or_default();
            match load(&path, &self.node) {
                Ok(pod) => *file = File { complaint: None, pod: Some(Arc::new(pod)) },
                Err(why) => {
                    let why = format!("{}: {why}", path.display());
                    if file.complaint.as_ref() != Some(&why) {
                        complaints.push(why.clone());
                        file.complaint = Some(why);
                    }
                }
            }
        }
        complaints
    }

    /// The pods that are to run, by their UIDs. Of several files with the same pod the first counts.
    pub fn pods(&self) -> Statics {
        let mut names = std::collections::BTreeSet::new();
        let pods = self.files.values().filter_map(|file| file.pod.clone());
        let name = |pod: &Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        let pods = pods.filter(|pod| names.insert(name(pod)));
        pods.map(|pod| (pod.metadata.uid.clone().unwrap_or_default(), pod)).collect()
    }
}

/// Regular files whose names do not begin with a dot, in order.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)?.take(MAX_FILES) {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn load(path: &Path, node: &str) -> Result<Pod, String> {
    let size = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("it has {size} bytes, more than {MAX_BYTES}"));
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    parse::pod(&bytes, &path.display().to_string(), node)
}

/// Follows a folder until cancelled, and tells `statics` of every change.
pub async fn follow(
    mut folder: Folder,
    statics: watch::Sender<Statics>,
    recorder: EventRecorder,
    cancel: CancellationToken,
) {
    let node = Node {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(folder.node.clone()),
            uid: Some(folder.node.clone()),
            ..Default::default()
        },
        ..Node::default()
    };
    let mut changes = heard(&folder.path);
    let mut taken = [0; EVENT_BYTES];
    let mut first = true;
    loop {
        for why in folder.read() {
            tracing::error!(%why, "a static pod's file cannot be used");
            recorder.event(
                &node,
                EventType::Warning,
                "FailedStaticPod",
                format!("Cannot use the static pod's file {why}"),
            );
        }
        let pods = folder.pods();
        // The first look is told of even where it found nothing: it is waited for.
        let first = std::mem::take(&mut first);
        statics.send_if_modified(|known| {
            let changed = known.keys().ne(pods.keys());
            *known = pods;
            first || changed
        });
        let something = async {
            match &changes {
                Ok(changes) => changes.readable().await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = something => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::time::sleep(SETTLE).await;
        match &changes {
            Ok(changes) => while changes.try_read(&mut taken).is_ok_and(|bytes| bytes > 0) {},
            Err(_) => changes = heard(&folder.path),
        }
    }
}

/// Readable whenever something in the folder has changed.
fn heard(folder: &Path) -> io::Result<pipe::Receiver> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(folder, flags)?;
    pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn text(image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
        )
    }

    #[test]
    fn a_file_that_turns_bad_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.yaml");
        let mut folder = Folder::new(dir.path(), "n");
        assert!(folder.read().is_empty() && folder.pods().is_empty());
        fs::write(&file, text("a")).unwrap();
        fs::write(dir.path().join(".web.yaml.swp"), "{").unwrap();
        assert!(folder.read().is_empty());
        let first: Vec<_> = folder.pods().into_keys().collect();
        assert_eq!(first.len(), 1);
        fs::write(&file, "kind: [").unwrap();
        assert_eq!(folder.read().len(), 1);
        assert!(folder.read().is_empty(), "it is told once");
        assert!(folder.pods().keys().eq(&first), "the pod runs on");
        fs::write(&file, text("b")).unwrap();
        assert!(folder.read().is_empty());
        let second: Vec<_> = folder.pods().into_keys().collect();
        assert!(second.len() == 1 && second != first);
        fs::copy(&file, dir.path().join("also.yaml")).unwrap();
        folder.read();
        assert_eq!(folder.pods().len(), 1, "one pod of a name");
        fs::remove_file(&file).unwrap();
        fs::remove_file(dir.path().join("also.yaml")).unwrap();
        folder.read();
        assert!(folder.pods().is_empty());
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(folder.read().is_empty(), "no folder, no pods");
    }
}
