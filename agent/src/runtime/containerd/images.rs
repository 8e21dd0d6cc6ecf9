//! Puts image archives into containerd, by its own `ctr`.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use k8s_cri::v1::{ImageSpec, ImageStatusRequest};
use tokio::process::Command;

use super::{
    Places,
    archive::{Content, File, Image},
    config::{PAUSE_IMAGE, Snapshotter},
    host, pause,
};
use crate::runtime::{Cri, grpc::CriSocket};

/// The containerd namespace that CRI uses.
const NAMESPACE: &str = "k8s.io";
/// How long an import may take: a large image on a slow disk.
const IMPORT: Duration = Duration::from_secs(600);
/// How long containerd's CRI may take to see an imported image, which it learns of by an event.
const SEEN: Duration = Duration::from_secs(20);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(10);

/// An archive cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// `ctr` cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("containerd took more than {}s to import {what}", IMPORT.as_secs())]
    Slow {
        /// What was imported.
        what: String,
    },
    /// containerd refused.
    #[error("containerd does not take {what}: {said}")]
    Refused {
        /// What was imported.
        what: String,
        /// What `ctr` printed.
        said: String,
    },
    /// The archive cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The way into one containerd.
#[derive(Clone, Debug)]
pub struct Importer {
    ctr: PathBuf,
    socket: PathBuf,
    snapshotter: Snapshotter,
}

impl Importer {
    /// The way into the containerd at a socket.
    pub fn new(ctr: PathBuf, socket: PathBuf, snapshotter: Snapshotter) -> Self {
        Self { ctr, socket, snapshotter }
    }

    /// The way into a skiff's own containerd, if it runs.
    pub fn running(places: &Places) -> Option<Self> {
        std::os::unix::net::UnixStream::connect(places.socket()).ok()?;
        let ctr = host::program("ctr")?;
        Some(Self::new(ctr, places.socket(), places.snapshotter()))
    }

    /// Imports an OCI or Docker archive under the names that it holds; the names.
    pub async fn import(&self, file: &Path) -> Result<Vec<String>, ImportError> {
        let what = file.display().to_string();
        let mut command = Command::new(&self.ctr);
        command.arg("--address").arg(&self.socket).args(["--namespace", NAMESPACE, "images", "import"]);
        command.args(["--snapshotter", self.snapshotter.as_str()]).arg(file).kill_on_drop(true);
        let ran = tokio::time::timeout(IMPORT, command.output()).await;
        let ran = ran.map_err(|_| ImportError::Slow { what: what.clone() })?;
        let output = ran.map_err(|source| ImportError::Run { program: self.ctr.clone(), source })?;
        if !output.status.success() {
            return Err(ImportError::Refused { what, said: said(&output) });
        }
        let names = names(&said(&output));
        for name in &names {
            self.seen(name).await;
        }
        Ok(names)
    }

    /// Imports the pause image, unless it is there.
    pub(super) async fn pause_image(&self, scratch: &Path) -> Result<(), ImportError> {
        if self.is_there(PAUSE_IMAGE).await {
            return Ok(());
        }
        let architecture = crate::node::architecture();
        let program = pause::program(architecture).unwrap_or_default();
        let image = Image {
            name: PAUSE_IMAGE.to_owned(),
            architecture: architecture.to_owned(),
            config: serde_json::json!({"Entrypoint": ["/pause"]}),
            files: vec![File { path: "pause".to_owned(), mode: 0o755, content: Content::Bytes(program) }],
        };
        let path = scratch.join("pause.tar");
        let written = image.archive().and_then(|archive| std::fs::write(&path, archive));
        written.map_err(|source| ImportError::Write { path: path.clone(), source })?;
        let imported = self.import(&path).await;
        let _left = std::fs::remove_file(&path);
        imported.map(drop)
    }

    /// Waits until CRI sees an image; where it does not in time, the pods that want it will say so.
    async fn seen(&self, name: &str) {
        let looked = tokio::time::timeout(SEEN, async {
            while !self.is_there(name).await {
                tokio::time::sleep(LOOK).await;
            }
        });
        if looked.await.is_err() {
            tracing::warn!(name, "containerd does not list an image that was imported");
        }
    }

    async fn is_there(&self, name: &str) -> bool {
        let image = Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
        let asked = CriSocket::new(&self.socket).image_status(ImageStatusRequest { image, verbose: false }).await;
        asked.is_ok_and(|answer| answer.image.is_some())
    }
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

/// The names in lines such as `unpacking docker.io/library/a:1 (sha256:...)...done`.
fn names(said: &str) -> Vec<String> {
    let name = |line: &str| line.strip_prefix("unpacking ")?.split_whitespace().next().map(str::to_owned);
    said.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_read_from_what_ctr_prints() {
        let said = "unpacking skiff.dev/pause:1 (sha256:12)...done\nelapsed: 0.1 s";
        assert_eq!(names(said), ["skiff.dev/pause:1"]);
    }
}
