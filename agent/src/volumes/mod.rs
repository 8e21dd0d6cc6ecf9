//! The volumes of a pod: folders on the node that its containers see.
//!
//! - [`payload`]: which files a volume holds; pure.
//! - [`atomic`]: puts files in place so that a reader sees all of the old or all of the new ones.
//! - [`setup`]: makes a pod's volumes, refreshes them, takes them away.
//! - [`claims`]: those that outlive the pod.
//! - [`sources`]: follows what they are made of.
//! - [`tokens`]: those of the pod's account, renewed while they are good.
//! - [`ownership`]: whose the files are.
//! - [`memory`]: those that are in memory.
//! - [`mounts`]: which of them a container gets, and where.

pub mod atomic;
pub mod claims;
pub mod memory;
pub mod mounts;
pub mod ownership;
pub mod payload;
pub mod setup;
pub mod sources;
mod tokens;

use std::path::PathBuf;

/// A volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A config map or secret is not there.
    #[error("{kind} {name:?} not found")]
    Missing {
        /// `configmap`, `secret` or `serviceaccount`
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key is not there.
    #[error("{kind} references non-existent config key: {key}")]
    Key {
        /// What refers to it.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A field cannot be read.
    #[error(transparent)]
    Field(#[from] crate::pods::fields::FieldRefError),
    /// A path that leaves its volume.
    #[error("{0:?} is no path within the volume")]
    Path(String),
    /// The host's path is not what it should be.
    #[error("hostPath type check failed: {} is not a {wanted}", path.display())]
    HostPath {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// A claim is not what the pod can use.
    #[error("{0}")]
    Claim(String),
    /// A kind of volume that this node does not have.
    #[error("no volume plugin matched")]
    Unsupported,
    /// The API server did not answer as hoped.
    #[error("cannot read {what} from the API server")]
    Api {
        /// What was asked for.
        what: String,
        /// Why it failed.
        #[source]
        source: skiff_api::status::ApiError,
    },
    /// The file system refused.
    #[error("cannot write {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl VolumeError {
    /// The message with its causes.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    }
}
