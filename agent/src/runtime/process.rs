//! Supervises a runtime that runs as a child process: starts it, waits until its CRI socket answers, starts it again
//! when it dies, and ends it.
//!
//! The child's standard input stays open for as long as this process lives, so that a runtime that ends with it
//! leaves nothing running even when this process is killed. A child with a pid file is kept instead: when this process
//! is killed, the next one takes the child over.

mod running;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_cri::v1::VersionRequest;
use skiff_client::backoff;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Cri, grpc::CriSocket};
use running::{Running, adopt, spawn};

/// How long the first start may take until the socket answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The first and the longest time between two looks at a socket that does not answer yet.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// The first and the longest wait before the child is started again.
const RESTART: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A child that lived this long is started again with no more than the first wait.
const STEADY: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables set over this process's own.
    pub env: Vec<(OsString, OsString)>,
    /// Where it logs; to this process's own streams without.
    pub log: Option<PathBuf>,
    /// The CRI socket that it will listen on.
    pub socket: PathBuf,
    /// Where its process id is noted, if it is to outlive a killed parent and be taken over by the next.
    pub pid_file: Option<PathBuf>,
    /// Whether one that still runs is to be ended and started anew, because its configuration changed.
    pub renew: bool,
}

/// Why the runtime is not there.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program cannot be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended before its socket answered.
    #[error("the runtime ended before it answered on {}: {status}", socket.display())]
    Ended {
        /// The socket.
        socket: PathBuf,
        /// How it ended.
        status: String,
    },
    /// Its socket did not answer.
    #[error("the runtime did not answer on {} within {}s", socket.display(), START_TIMEOUT.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
    },
}

/// A supervised runtime. Cancel its token, then [`RuntimeProcess::stopped`].
#[derive(Debug)]
pub struct RuntimeProcess {
    supervisor: JoinHandle<()>,
}

impl RuntimeProcess {
    /// Starts the runtime and waits until it answers. It is kept running until `cancel`.
    pub async fn start(config: ProcessConfig, cancel: CancellationToken) -> Result<Self, ProcessError> {
        let mut child = match adopt(&config) {
            Some(kept) if !config.renew => kept,
            Some(mut old) => {
                old.end().await;
                spawn(&config)?
            }
            None => spawn(&config)?,
        };
        tokio::select! {
            answered = timeout(START_TIMEOUT, answers(&config.socket)) => {
                if answered.is_err() {
                    child.end().await;
                    return Err(ProcessError::Silent { socket: config.socket });
                }
            }
            status = child.wait() => return Err(ProcessError::Ended { socket: config.socket, status }),
            () = cancel.cancelled() => child.end().await,
        }
        Ok(Self { supervisor: tokio::spawn(supervise(config, child, cancel)) })
    }

    /// Waits until the runtime has ended after its token was cancelled.
    pub async fn stopped(self) {
        if let Err(e) = self.supervisor.await {
            tracing::error!(error = %e, "the runtime's supervisor failed");
        }
    }
}

/// Waits until a CRI socket answers `Version`.
pub async fn answers(socket: &Path) {
    let mut delay = LOOK.0;
    loop {
        if socket.exists() && CriSocket::new(socket).version(VersionRequest::default()).await.is_ok() {
            return;
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LOOK.1);
    }
}

async fn supervise(config: ProcessConfig, mut child: Running, cancel: CancellationToken) {
    let mut delay = backoff::Backoff::new(RESTART.0, RESTART.1);
    loop {
        let started = Instant::now();
        tokio::select! {
            () = cancel.cancelled() => return child.end().await,
            status = child.wait() => tracing::error!(%status, "the runtime ended; it is started again"),
        }
        if started.elapsed() >= STEADY {
            delay.reset();
        }
        child = loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(delay.next(backoff::random())) => {}
            }
            match spawn(&config) {
                Ok(child) => break child,
                Err(e) => tracing::error!(error = %e, "the runtime cannot be started"),
            }
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn config(dir: &Path, program: &str, args: &[&str]) -> ProcessConfig {
        ProcessConfig {
            program: program.into(),
            args: args.iter().map(OsString::from).collect(),
            env: vec![],
            log: None,
            socket: dir.join("cri.sock"),
            pid_file: None,
            renew: false,
        }
    }

    #[tokio::test]
    async fn a_runtime_that_ends_at_once_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let started = RuntimeProcess::start(config(dir.path(), "/bin/false", &[]), CancellationToken::new()).await;
        assert!(matches!(started, Err(ProcessError::Ended { .. })));
    }

    #[tokio::test]
    async fn a_child_that_ignores_the_signal_is_killed_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; while :; do sleep 0.1; done";
        let mut child = spawn(&config(dir.path(), "/bin/sh", &["-c", script])).unwrap();
        child.end().await;
        timeout(Duration::from_secs(30), child.wait()).await.unwrap();
    }

    #[tokio::test]
    async fn a_kept_child_is_taken_over_and_a_stranger_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), "/bin/sleep", &["1000"]);
        config.pid_file = Some(dir.path().join("pid"));
        assert!(adopt(&config).is_none());
        let mut child = spawn(&config).unwrap();
        // The kernel shows a new program's arguments some moments after it has begun.
        let adopted = async {
            loop {
                match adopt(&config) {
                    Some(adopted) => break adopted,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let mut adopted = timeout(Duration::from_secs(30), adopted).await.unwrap();
        config.args = vec!["1001".into()];
        assert!(adopt(&config).is_none(), "another command line is another program");
        adopted.end().await;
        assert!(timeout(Duration::from_secs(30), child.wait()).await.is_ok());
        config.args = vec!["1000".into()];
        assert!(adopt(&config).is_none(), "it has ended");
    }
}
