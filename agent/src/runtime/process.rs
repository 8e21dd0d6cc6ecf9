//! Supervises a runtime that runs as a child process: starts it, waits until its CRI socket answers, starts it again
//! when it dies, and ends it.
//!
//! The child's standard input stays open for as long as this process lives, so that a runtime that ends with it
//! leaves nothing running even when this process is killed.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use k8s_cri::v1::VersionRequest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use skiff_client::backoff;
use tokio::{
    process::{Child, ChildStdin, Command},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Cri, grpc::CriSocket};

/// How long the child gets to end after SIGTERM.
const TERMINATION_GRACE: Duration = Duration::from_millis(1500);
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
    /// The CRI socket that it will listen on.
    pub socket: PathBuf,
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
        let mut child = spawn(&config)?;
        tokio::select! {
            answered = timeout(START_TIMEOUT, answers(&config.socket)) => {
                if answered.is_err() {
                    end(&mut child.process).await;
                    return Err(ProcessError::Silent { socket: config.socket });
                }
            }
            status = child.process.wait() => {
                let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
                return Err(ProcessError::Ended { socket: config.socket, status });
            }
            () = cancel.cancelled() => end(&mut child.process).await,
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

/// A started child, its standard input held apart: to wait for a child closes what input is still part of it.
struct Running {
    process: Child,
    _stdin: Option<ChildStdin>,
}

fn spawn(config: &ProcessConfig) -> Result<Running, ProcessError> {
    // A socket file that an earlier process left behind would look like an answer that never comes.
    if let Err(e) = std::fs::remove_file(&config.socket) {
        if e.kind() != std::io::ErrorKind::NotFound {
            tracing::warn!(error = %e, socket = %config.socket.display(), "cannot remove the old socket");
        }
    }
    let spawned = Command::new(&config.program)
        .args(&config.args)
        .stdin(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut process = spawned.map_err(|source| ProcessError::Spawn { program: config.program.clone(), source })?;
    let stdin = process.stdin.take();
    Ok(Running { process, _stdin: stdin })
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
            () = cancel.cancelled() => return end(&mut child.process).await,
            status = child.process.wait() => {
                let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
                tracing::error!(%status, "the runtime ended; it is started again");
            }
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

/// SIGTERM, and SIGKILL to the child's process group if that was not enough.
async fn end(child: &mut Child) {
    let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    let _gone = kill(Pid::from_raw(id), Signal::SIGTERM);
    if timeout(TERMINATION_GRACE, child.wait()).await.is_err() {
        let _gone = kill(Pid::from_raw(-id), Signal::SIGKILL);
        let _reaped = child.wait().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_runtime_that_ends_at_once_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let config = ProcessConfig { program: "/bin/false".into(), args: vec![], socket: dir.path().join("cri.sock") };
        let started = RuntimeProcess::start(config, CancellationToken::new()).await;
        assert!(matches!(started, Err(ProcessError::Ended { .. })));
    }

    #[tokio::test]
    async fn a_child_that_ignores_the_signal_is_killed_in_time() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "trap '' TERM; while :; do sleep 0.1; done"])
            .process_group(0)
            .spawn()
            .unwrap();
        let before = Instant::now();
        end(&mut child).await;
        assert!(before.elapsed() < Duration::from_secs(2));
        assert!(child.try_wait().unwrap().is_some());
    }
}
