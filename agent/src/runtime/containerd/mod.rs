//! containerd, for OCI containers: the distribution's packages, run as a child with skiff's own configuration, folders
//! and socket, so that it meets no other containerd of the machine.
//!
//! - [`host`]: what the machine has. - [`config`]: containerd's configuration; pure.
//! - [`pause`], [`archive`]: the image of the program that holds a sandbox, made here, so that a node needs no registry.
//! - [`images`]: puts archives into containerd.
//!
//! containerd is not ended by a killed skiff, and the next skiff takes it over; containers run on under their shims
//! even when containerd ends.

pub mod archive;
pub mod config;
pub mod host;
pub mod images;
pub mod pause;

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::process::{ProcessConfig, ProcessError, RuntimeProcess};
use config::{Settings, Snapshotter};
use images::{ImportError, Importer};

/// The folder of run-time state of all skiffs of a machine.
const RUN: &str = "/run/skiff";
/// The data folder whose run-time state has no name of its own.
const DEFAULT_DATA_DIR: &str = "/var/lib/skiff";

/// Why containerd does not run.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// A folder or file cannot be made.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not start.
    #[error("containerd does not start; its log is {}", log.display())]
    Start {
        /// Its log.
        log: PathBuf,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// The pause image cannot be imported.
    #[error("cannot import the pause image")]
    Pause(#[from] ImportError),
}

/// Where a skiff's containerd has its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The agent's folder.
    agent: PathBuf,
    /// The folder of run-time state.
    run: PathBuf,
    /// A name that sets interfaces of this skiff apart from another's; empty for the default one.
    suffix: String,
}

impl Places {
    /// The places of the skiff with this data folder (its top one).
    pub fn of(data_dir: &Path) -> Self {
        let name = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
        let name = name.iter().take(4).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let suffix = if data_dir == Path::new(DEFAULT_DATA_DIR) { String::new() } else { name };
        let run = if suffix.is_empty() { PathBuf::from(RUN) } else { Path::new(RUN).join(&suffix) };
        Self { agent: data_dir.join("agent"), run, suffix }
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// Where the pod network's configuration is put.
    pub fn cni_conf(&self) -> PathBuf {
        self.run.join("cni/conf")
    }

    /// Where the addresses that are given out are noted; gone with the machine's run, as the pods are.
    pub fn cni_leases(&self) -> PathBuf {
        self.run.join("cni/leases")
    }

    /// The bridge that pods are on.
    pub fn bridge(&self) -> String {
        format!("skiff{}", if self.suffix.is_empty() { "0" } else { &self.suffix })
    }

    /// Archives that are imported at each start.
    pub fn archives(&self) -> PathBuf {
        self.agent.join("images")
    }

    /// How this skiff's containerd keeps layers: chosen once by trial, since a change would lose all images.
    pub fn snapshotter(&self) -> Snapshotter {
        let note = self.root().join("snapshotter");
        let noted = fs::read_to_string(&note).unwrap_or_default();
        let known = [Snapshotter::Overlayfs, Snapshotter::Native].into_iter().find(|one| one.as_str() == noted);
        known.unwrap_or_else(|| {
            let found = host::snapshotter(&self.root());
            if let Err(e) = fs::write(&note, found.as_str()) {
                tracing::warn!(error = %e, "the choice of a snapshotter cannot be noted");
            }
            found
        })
    }

    fn root(&self) -> PathBuf {
        self.agent.join("containerd")
    }

    fn log(&self) -> PathBuf {
        self.agent.join("containerd.log")
    }
}

/// A running containerd. Cancel its token, then [`Containerd::stopped`].
#[derive(Debug)]
pub struct Containerd {
    process: RuntimeProcess,
    importer: Importer,
}

impl Containerd {
    /// Starts containerd, or takes over the one that an earlier skiff left, and waits until its CRI answers and the
    /// pause image is there.
    pub async fn start(
        programs: &host::Programs,
        places: &Places,
        cancel: CancellationToken,
    ) -> Result<Self, ContainerdError> {
        for folder in [places.root(), places.run.clone(), places.cni_conf(), places.cni_leases(), places.archives()] {
            fs::create_dir_all(&folder).map_err(|source| ContainerdError::Write { path: folder, source })?;
        }
        let settings = settings(programs, places);
        let file = places.root().join("config.toml");
        let text = config::text(&settings);
        let renew = fs::read_to_string(&file).is_ok_and(|old| old != text);
        fs::write(&file, text).map_err(|source| ContainerdError::Write { path: file.clone(), source })?;
        let process = ProcessConfig {
            program: programs.containerd.clone(),
            args: vec!["--config".into(), file.into()],
            env: vec![("PATH".into(), host::search_path().into())],
            log: Some(places.log()),
            socket: places.socket(),
            pid_file: Some(places.run.join("containerd.pid")),
            renew,
        };
        let started = RuntimeProcess::start(process, cancel).await;
        let process = started.map_err(|source| ContainerdError::Start { log: places.log(), source })?;
        let importer = Importer::new(programs.ctr.clone(), places.socket(), settings.snapshotter);
        importer.pause_image(&places.run).await?;
        Ok(Self { process, importer })
    }

    /// What puts archives into it.
    pub fn importer(&self) -> &Importer {
        &self.importer
    }

    /// Waits until it has ended after its token was cancelled.
    pub async fn stopped(self) {
        self.process.stopped().await;
    }
}

/// The settings for this machine.
fn settings(programs: &host::Programs, places: &Places) -> Settings {
    Settings {
        state: places.run.join("containerd"),
        socket: places.socket(),
        cni_bin: programs.cni.clone(),
        cni_conf: places.cni_conf(),
        registries: places.agent.join("registries"),
        snapshotter: places.snapshotter(),
        restrict_oom_score_adj: !host::may_lower_oom_score(),
        root: places.root(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_data_folder_has_its_own_places() {
        let default = Places::of(Path::new("/var/lib/skiff"));
        assert_eq!((default.socket(), default.bridge()), ("/run/skiff/containerd.sock".into(), "skiff0".to_owned()));
        let other = Places::of(Path::new("/tmp/a"));
        assert_ne!((other.socket(), other.bridge()), (default.socket(), default.bridge()));
        // Linux takes 15 characters (IFNAMSIZ less one).
        assert!(other.bridge().len() <= 15);
    }
}
