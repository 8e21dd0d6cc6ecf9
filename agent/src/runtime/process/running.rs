//! A runtime's process: a child of this one, or one that an earlier parent left and that is taken over.

use std::{fs, path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::{
    net::unix::pipe,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use super::{ProcessConfig, ProcessError};

/// How long the process gets to end after SIGTERM.
const TERMINATION_GRACE: Duration = Duration::from_millis(1500);
/// A log larger than this is set aside when the process is started.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// A process that runs.
pub(super) enum Running {
    /// A child; its standard input is held apart, because to wait for a child closes what input is still part of it.
    Child {
        /// The child.
        process: Child,
        /// Closes when this process ends.
        _stdin: Option<ChildStdin>,
    },
    /// One that was taken over, by its pidfd, which is readable once it has ended. A pidfd is waited for as a pipe is.
    Adopted(pipe::Receiver),
}

impl Running {
    /// Waits for its end; how it ended.
    pub(super) async fn wait(&mut self) -> String {
        match self {
            Self::Child { process, .. } => {
                process.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string())
            }
            Self::Adopted(pidfd) => match pidfd.readable().await {
                Ok(_) => "not a child of this process, it is not known how".to_owned(),
                Err(e) => e.to_string(),
            },
        }
    }

    /// SIGTERM, and SIGKILL if that was not enough.
    pub(super) async fn end(&mut self) {
        self.signal(false);
        if timeout(TERMINATION_GRACE, self.wait()).await.is_err() {
            self.signal(true);
            self.wait().await;
        }
    }

    /// SIGTERM to the process, or SIGKILL: of a child to all of its group.
    fn signal(&self, hard: bool) {
        match self {
            Self::Child { process, .. } => {
                let Some(id) = process.id().and_then(|id| i32::try_from(id).ok()) else { return };
                let (target, signal) = if hard { (-id, Signal::SIGKILL) } else { (id, Signal::SIGTERM) };
                let _gone = kill(Pid::from_raw(target), signal);
            }
            Self::Adopted(pidfd) => {
                let signal = if hard { rustix::process::Signal::KILL } else { rustix::process::Signal::TERM };
                let _gone = pidfd_send_signal(pidfd, signal);
            }
        }
    }
}

/// Starts the program.
pub(super) fn spawn(config: &ProcessConfig) -> Result<Running, ProcessError> {
    // A socket file that an earlier process left behind would look like an answer that never comes.
    if let Err(e) = fs::remove_file(&config.socket)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(error = %e, socket = %config.socket.display(), "cannot remove the old socket");
    }
    let failed = |source| ProcessError::Spawn { program: config.program.clone(), source };
    let mut command = Command::new(&config.program);
    command.args(&config.args).envs(config.env.iter().cloned()).process_group(0);
    match &config.pid_file {
        Some(_) => command.stdin(Stdio::null()),
        None => command.stdin(Stdio::piped()).kill_on_drop(true),
    };
    if let Some(log) = &config.log {
        let log = open_log(log).map_err(failed)?;
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
    }
    let mut process = command.spawn().map_err(failed)?;
    if let (Some(file), Some(id)) = (&config.pid_file, process.id())
        && let Err(e) = fs::write(file, id.to_string())
    {
        tracing::warn!(error = %e, "the runtime's process id cannot be noted: it cannot be taken over later");
    }
    let stdin = process.stdin.take();
    Ok(Running::Child { process, _stdin: stdin })
}

fn open_log(path: &Path) -> std::io::Result<fs::File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    fs::File::options().create(true).append(true).open(path)
}

/// The process that an earlier parent left, if it still runs the same program with the same arguments.
pub(super) fn adopt(config: &ProcessConfig) -> Option<Running> {
    let text = fs::read_to_string(config.pid_file.as_ref()?).ok()?;
    let id: i32 = text.trim().parse().ok().filter(|id| *id > 0)?;
    // Opened first: what is read afterwards is of this very process.
    let pidfd = pidfd_open(rustix::process::Pid::from_raw(id)?, PidfdFlags::NONBLOCK).ok()?;
    let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let mut words = line.strip_suffix(b"\0")?.split(|byte| *byte == 0);
    let _program = words.next()?;
    let wanted = config.args.iter().map(|arg| arg.as_encoded_bytes());
    let image = fs::read_link(format!("/proc/{id}/exe")).ok()?;
    // A program that was replaced on disk reads as deleted here, and is started anew.
    let same = words.eq(wanted) && fs::canonicalize(&config.program).is_ok_and(|program| program == image);
    same.then(|| pipe::Receiver::from_owned_fd_unchecked(pidfd).ok().map(Running::Adopted)).flatten()
}
