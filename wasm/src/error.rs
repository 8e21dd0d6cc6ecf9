//! What can go wrong: at the runtime's start ([`RuntimeError`]) and in a CRI call ([`Failure`]).

use std::{error::Error, io, path::PathBuf};

use tonic::{Code, Status};

use crate::{compile::CompileError, images::ImageError};

/// Why the runtime cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Another runtime uses the same folder.
    #[error("another Wasm runtime is using {root}: stop it, or give this one a folder of its own")]
    InUse {
        /// The folder.
        root: PathBuf,
    },
    /// A file, folder or socket cannot be used.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The engine cannot be set up on this machine.
    #[error("cannot set up the Wasm engine")]
    Engine(#[source] wasmtime::Error),
    /// The compiled components cannot be kept.
    #[error("cannot use the folder of compiled components")]
    Compile(#[source] CompileError),
    /// The images cannot be kept.
    #[error("cannot use the folder of images")]
    Images(#[source] ImageError),
    /// The socket cannot be served.
    #[error("cannot serve the CRI socket")]
    Serve(#[source] tonic::transport::Error),
}

/// Why a CRI call fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It does not exist.
    #[error("an error occurred when try to find {what} \"{id}\": not found")]
    NotFound { what: &'static str, id: String },
    /// It exists already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The request does not fit the present state.
    #[error("{0}")]
    Precondition(String),
    /// The runtime does not do that.
    #[error("{0}")]
    Unimplemented(String),
    /// It took longer than it was given.
    #[error("{0}")]
    Timeout(String),
    /// It was tried, and did not work.
    #[error("{0}")]
    Failed(String),
    /// A file, folder or socket cannot be used.
    #[error("cannot {doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A component cannot be used.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl Failure {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn container(id: &str) -> Self {
        Self::NotFound { what: "container", id: id.to_owned() }
    }

    pub(crate) fn sandbox(id: &str) -> Self {
        Self::NotFound { what: "sandbox", id: id.to_owned() }
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Precondition(_) => Code::FailedPrecondition,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Timeout(_) => Code::DeadlineExceeded,
            Self::Image(error) if error.is_not_found() => Code::NotFound,
            Self::Failed(_) | Self::Io { .. } | Self::Image(_) | Self::Compile(_) => Code::Unknown,
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code(), chain(&failure))
    }
}

/// An error and its sources as one line: `a: b: c`.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some foreign errors repeat their source.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
