//! Snapshots: everything that a cluster knows at one moment, in one file, sealed with the server token.
//!
//! A snapshot is logical: objects and files, not pages of a database. So it is the same whatever the datastore is, and
//! moves a cluster from one to the other. With it are the certificates and keys without which the objects would be
//! a cluster that nobody can talk to.
//!
//! - [`save`]: from a datastore, at one revision, while it is written to.
//! - [`restore`]: into a folder where no server runs (and into an etcd that no server uses), all or nothing.
//! - [`folder`]: names, the list, what may go.
//! - [`service`]: in a running server: on demand and on a schedule.
//!
//! # Revisions after a restore
//!
//! A client may have seen revisions that came after the snapshot. None of them may ever mean something else, so a
//! restored datastore begins [`REVISIONS_SKIPPED`] after the snapshot's revision (or after the newest of the datastore
//! that it replaces, where that is greater and readable), and refuses watches and lists from before (410): clients
//! list again.

mod file;
pub mod folder;
mod header;
mod records;
pub mod restore;
mod save;
pub mod service;

use std::{
    io,
    path::{Path, PathBuf},
};

use skiff_store::{Revision, StoreError};

use crate::{seal::SealError, token::TokenError};
pub use header::{Header, HeaderError};
pub use save::{Request, Saved, Source, save};

/// How far revisions jump at a restore: more writes than come between two snapshots of any sense.
pub const REVISIONS_SKIPPED: Revision = 1_000_000;

/// The folder of certificates and keys, below the server's.
const KEYS_FOLDER: &str = "tls";

/// Where snapshots are kept by default, below the server's folder.
pub const FOLDER: &str = "snapshots";

/// Why a snapshot could not be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file or folder.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The header.
    #[error("{path}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: HeaderError,
    },
    /// It does not open.
    #[error("{path}")]
    Seal {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealError,
    },
    /// It is not what was saved.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The datastore.
    #[error("{action} the datastore")]
    Store {
        /// What was tried.
        action: &'static str,
        /// What went wrong.
        #[source]
        source: StoreError,
    },
    /// The server token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The name does not fit into a file's name.
    #[error("{name:?} is no name for a snapshot: up to 64 letters, digits, '-', '_' and '.', not first")]
    Name {
        /// The name.
        name: String,
    },
    /// The schedule.
    #[error("--snapshot-schedule-cron {given:?}: {problem}")]
    Schedule {
        /// What was given.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another one is being made.
    #[error("another snapshot is being made: try again when it is done")]
    Busy,
    /// A part of the work was given up because the process ends.
    #[error("the snapshot was given up because the server ends")]
    GivenUp,
}

impl SnapshotError {
    /// Whether there is no room for it.
    pub fn is_full(&self) -> bool {
        match self {
            Self::File { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Store { source, .. } => *source == StoreError::NoSpace,
            _ => false,
        }
    }
}

/// Reads a header and verifies nothing.
pub fn glance(path: &Path) -> Result<Header, SnapshotError> {
    Ok(file::glance(path)?.0)
}

/// Reads a header without the token, and whether all bytes are as they were saved. Shows damage, not forgery.
pub fn status(path: &Path) -> Result<Header, SnapshotError> {
    file::check_sum(path)
}

/// Reads all of a snapshot with the token's secret: whatever was cut off, put on or altered is found.
pub fn verify(path: &Path, secret: &str) -> Result<Header, SnapshotError> {
    file::verify(path, secret)
}

/// An error with its causes, in one line.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
