//! What the runtime knows, on disk: one small file a sandbox and a container, so that a restarted runtime can say what
//! became of them.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_cri::v1::{ContainerConfig, PodSandboxConfig};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _};

use crate::disk;

/// The folder of files that containers see.
const FILES: &str = "files";
/// Most bytes of a record.
const MAX_RECORD_BYTES: u64 = 4 << 20;

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) created_at: i64,
    pub(crate) ready: bool,
    /// The pod's address while it has one.
    pub(crate) address: Option<std::net::Ipv4Addr>,
    pub(crate) handler: String,
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub(crate) config: PodSandboxConfig,
}

/// A container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) created_at: i64,
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub(crate) config: ContainerConfig,
    pub(crate) log_path: PathBuf,
    pub(crate) image: ImageNames,
    pub(crate) life: Life,
}

/// The image of a container, as it was when the container was made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ImageNames {
    /// The image's identifier.
    pub(crate) id: String,
    /// Its name, for people.
    pub(crate) name: String,
    /// Its name with the digest.
    pub(crate) reference: String,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) phase: Phase,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The phases of a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Created,
    Running,
    Exited,
}

impl Life {
    pub(crate) fn created() -> Self {
        Self {
            phase: Phase::Created,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
        }
    }

    /// What is left of a life that a former runtime did not end: nobody knows how it went, so it failed.
    pub(crate) fn after_restart(self, now: i64) -> Self {
        match self.phase {
            Phase::Exited => self,
            Phase::Created | Phase::Running => Self {
                phase: Phase::Exited,
                finished_at: now,
                exit_code: 255,
                reason: "Unknown".into(),
                message: "the Wasm runtime was restarted while this container was not finished".into(),
                ..self
            },
        }
    }
}

/// What the runtime was told about its node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) pod_cidr: String,
}

/// The folder of records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

/// A kind of record, as the folder that holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Sandbox,
    Container,
    Node,
}

impl Records {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let records = Self { dir: root.join("state") };
        for kind in [Kind::Sandbox, Kind::Container, Kind::Node] {
            disk::private_dir(&records.folder(kind))?;
        }
        // Whatever had files there has ended with the runtime that made them.
        disk::remove_dir(&records.dir.join(FILES))?;
        Ok(records)
    }

    /// Writes a record. That it fails must not stop a pod: it is said, and a restarted runtime knows less.
    pub(crate) fn save(&self, kind: Kind, id: &str, record: &impl Serialize) {
        let saved = serde_json::to_vec(record)
            .map_err(io::Error::other)
            .and_then(|json| disk::replace(&self.path(kind, id), &json));
        if let Err(error) = saved {
            tracing::error!(?kind, id, %error, "cannot record what became of this");
        }
    }

    pub(crate) fn remove(&self, kind: Kind, id: &str) {
        if let Err(error) = disk::remove(&self.path(kind, id)) {
            tracing::error!(?kind, id, %error, "cannot remove this record");
        }
    }

    /// Where files are put that a container sees.
    pub(crate) fn files(&self, id: &str) -> PathBuf {
        self.dir.join(FILES).join(id)
    }

    pub(crate) fn remove_files(&self, id: &str) {
        if let Err(error) = disk::remove_dir(&self.files(id)) {
            tracing::error!(id, %error, "cannot remove the files of this container");
        }
    }

    /// All records of a kind; one that cannot be read is left out and said.
    pub(crate) fn load<T: DeserializeOwned>(&self, kind: Kind) -> io::Result<Vec<T>> {
        let mut records = Vec::new();
        for file in std::fs::read_dir(self.folder(kind))?.flatten() {
            let path = file.path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let read = disk::read_bounded(&path, MAX_RECORD_BYTES);
            match read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other)) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(path = %path.display(), %error, "skipping a damaged record"),
            }
        }
        Ok(records)
    }

    fn folder(&self, kind: Kind) -> PathBuf {
        self.dir.join(match kind {
            Kind::Sandbox => "sandboxes",
            Kind::Container => "containers",
            Kind::Node => "node",
        })
    }

    fn path(&self, kind: Kind, id: &str) -> PathBuf {
        self.folder(kind).join(format!("{id}.json"))
    }
}

/// Messages are kept in their protobuf form: a newer runtime with more fields still reads them.
fn to_text<M: Message, S: Serializer>(message: &M, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(message.encode_to_vec()))
}

fn from_text<'de, M: Message + Default, D: Deserializer<'de>>(deserializer: D) -> Result<M, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
    M::decode(bytes.as_slice()).map_err(D::Error::custom)
}
