//! Commands that somebody runs in a container: with its environment, volumes, address and limits, but streams of their
//! own. And what else a session needs of a container: its output, its input, its pod's address.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Container, Runtime, container::Ready, find::Found};
use crate::{
    engine::program::{Program, World},
    error::Failure,
    log::Stream,
    run::{
        Exit, Signals, command,
        stdio::{Destination, Pipe, Stdio},
    },
};

/// Most bytes of a stream that [`Runtime::exec_sync`] answers with; what is more is left out.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What somebody attached gets.
pub(crate) struct Attached {
    pub(crate) output: mpsc::Receiver<(Stream, Bytes)>,
    /// Where the container takes input.
    pub(crate) stdin: Option<mpsc::Sender<Bytes>>,
    /// Whether its input ends with whoever gave it first.
    pub(crate) stdin_once: bool,
}

impl Runtime {
    /// Runs a command in a running container, to its end, or the container's, or until a signal.
    pub(crate) async fn exec(
        self: &Arc<Self>,
        id: &str,
        command: &[String],
        stdio: Stdio,
        signals: Signals,
    ) -> Result<Exit, Failure> {
        let container = self.running(id)?;
        let Some(ready) = container.ready() else { return Err(not_running(id)) };
        let _turn = container.execs.try_acquire().map_err(|_| {
            Failure::Failed(format!("container {id:?} runs as many commands already as it may at once"))
        })?;
        let program = self.command(&container, &ready, command).await?;
        let ready = Ready { program, image: ready.image };
        let mut spec = self.spec(&*self.sandbox(&container.sandbox)?, &container, ready, stdio)?;
        spec.args = command.to_vec();
        let signals = Signals { stop: signals.stop, kill: signals.kill.child_token() };
        let kill = signals.kill.clone();
        let mut running = AbortOnDropHandle::new(self.guests.spawn(command::run(Arc::new(spec), signals)));
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = container.ended() => {
                kill.cancel();
                running.await
            }
        };
        Ok(ended.unwrap_or_else(|_| Exit::panicked()))
    }

    /// Runs a command and gathers what it prints.
    pub(crate) async fn exec_sync(
        self: &Arc<Self>,
        id: &str,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<(Exit, Vec<u8>, Vec<u8>), Failure> {
        let (stdout, stderr) = (Pipe::default(), Pipe::default());
        let output = Destination::Caller { stdout: stdout.clone(), stderr: stderr.clone() };
        let stdio = Stdio { stdin: None, output, terminal: false };
        let signals = Signals::default();
        let running = async {
            let ended = self.exec(id, command, stdio, signals.clone()).await;
            stdout.end();
            stderr.end();
            ended
        };
        let all = async { tokio::join!(running, gather(&stdout), gather(&stderr)) };
        let (ended, out, err) = match timeout {
            None => all.await,
            Some(limit) => tokio::time::timeout(limit, all)
                .await
                .map_err(|_| Failure::Timeout(format!("failed to exec in container: timeout {limit:?} exceeded")))?,
        };
        Ok((ended?, out, err))
    }

    /// The program of a command.
    async fn command(&self, container: &Container, ready: &Ready, command: &[String]) -> Result<Arc<Program>, Failure> {
        let name = command.first().ok_or_else(|| Failure::Invalid("cmd cannot be empty".into()))?;
        let program = match super::find::find(name, &ready.image, &container.preopens())? {
            Found::Own => ready.program.clone(),
            Found::Tool => self.compiler.tools().await?,
            Found::File(bytes) => self.compiler.transient(bytes).await?,
        };
        match program.world {
            World::Http(_) => Err(Failure::Failed(format!("exec: {name:?}: it serves HTTP and is no command"))),
            World::Command(_) | World::CommandP3(_) | World::Module(_) => Ok(program),
        }
    }

    /// Listens to a container's output and opens its input.
    pub(crate) fn attach(&self, id: &str) -> Result<Attached, Failure> {
        let container = self.running(id)?;
        let log = container.log().ok_or_else(|| not_running(id))?;
        let output = log.attach().ok_or_else(|| Failure::Failed("too many are attached already".into()))?;
        Ok(Attached { output, stdin: container.stdin(), stdin_once: container.config.stdin_once })
    }

    /// Ends a container's input.
    pub(crate) fn end_stdin(&self, id: &str) {
        if let Ok(container) = self.container(id) {
            container.end_stdin();
        }
    }

    /// Ends a container as Ctrl-C at its terminal would.
    pub(crate) fn interrupt(&self, id: &str) {
        if let Ok(container) = self.container(id) {
            container.signals.stop.cancel();
        }
    }

    /// The address at which a pod's ports are reached from the node.
    pub(crate) fn reach(&self, sandbox: &str) -> Result<Ipv4Addr, Failure> {
        let address = self.listen_address(&*self.sandbox(sandbox)?)?;
        Ok(if address.is_unspecified() { Ipv4Addr::LOCALHOST } else { address })
    }

    /// A container that runs.
    pub(crate) fn running(&self, id: &str) -> Result<Arc<Container>, Failure> {
        let container = self.container(id)?;
        if container.is_running() { Ok(container) } else { Err(not_running(id)) }
    }
}

fn not_running(id: &str) -> Failure {
    Failure::Failed(format!("container {id:?} is not running"))
}

async fn gather(pipe: &Pipe) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = pipe.read().await {
        let room = MAX_ANSWER_BYTES.saturating_sub(all.len());
        all.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }
    all
}
