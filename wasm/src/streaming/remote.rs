//! Exec and attach: a command's streams, or a container's, at a client.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    mux::{Command, Event, Headers, Mux, header},
    status::Form,
    terminal::{Terminal, shown},
    tickets::Wanted,
};
use crate::{
    error::Failure,
    log::Stream,
    run::{
        Exit, Signals,
        stdio::{self, Destination, Pipe, Stdio},
    },
    runtime::Runtime,
};

/// How long a client may take to open the streams that it asked for.
const OPENING: Duration = Duration::from_secs(30);
/// Most streams of a session.
const MAX_STREAMS: usize = 8;
/// Bytes of input that a guest may leave unread.
const STDIN_BYTES: usize = 64 << 10;
/// The exit code of a command that Ctrl-C ended: 128 and SIGINT's number.
const INTERRUPTED: i32 = 130;

/// A session's streams, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    error: Option<u32>,
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    resize: Option<u32>,
}

impl Ends {
    fn take(&mut self, id: u32, headers: &Headers) {
        let end = match header(headers, "streamtype") {
            Some("error") => &mut self.error,
            Some("stdin") => &mut self.stdin,
            Some("stdout") => &mut self.stdout,
            Some("stderr") => &mut self.stderr,
            Some("resize") => &mut self.resize,
            _ => return,
        };
        *end = Some(id);
    }

    /// Whether everything wanted is there.
    fn suffice(&self, wanted: Wanted) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !wanted.stdin)
            && (self.stdout.is_some() || !wanted.stdout)
            && (self.stderr.is_some() || !wanted.stderr)
    }
}

/// Waits until the client has opened its streams.
async fn open(mux: &mut Mux, wanted: Wanted) -> Option<Ends> {
    let opening = async {
        let mut ends = Ends::default();
        for _ in 0..MAX_STREAMS {
            if ends.suffice(wanted) {
                return Some(ends);
            }
            if let Event::Open { id, headers } = mux.events.recv().await? {
                ends.take(id, &headers);
            }
        }
        None
    };
    tokio::time::timeout(OPENING, opening).await.ok().flatten()
}

/// Runs a command for a client.
pub(super) async fn exec(
    runtime: &Arc<Runtime>,
    container: &str,
    command: &[String],
    wanted: Wanted,
    form: Form,
    mut mux: Mux,
) {
    let Some(ends) = open(&mut mux, wanted).await else { return };
    let (stdout, stderr) = (Pipe::default(), if wanted.terminal { None } else { Some(Pipe::default()) });
    let (input, guest_input) = tokio::io::duplex(STDIN_BYTES);
    let stdio = Stdio {
        stdin: wanted.stdin.then(|| stdio::stdin(guest_input)),
        output: Destination::Caller {
            stdout: stdout.clone(),
            stderr: stderr.clone().unwrap_or_else(|| stdout.clone()),
        },
        terminal: wanted.terminal,
    };
    let signals = Signals::default();
    let running = async {
        let ended = runtime.exec(container, command, stdio, signals.clone()).await;
        stdout.end();
        stderr.iter().for_each(Pipe::end);
        ended
    };
    let commands = &mux.commands;
    let shows = |pipe: Pipe, to| show(pipe, to, wanted.terminal, commands.clone());
    let out = shows(stdout.clone(), ends.stdout);
    let err = async {
        if let Some(pipe) = stderr.clone() {
            shows(pipe, ends.stderr).await;
        }
    };
    let all = async { tokio::join!(running, out, err).0 };
    let interrupted = CancellationToken::new();
    let mut typing = Typing::new(&ends, wanted, commands.clone(), interrupted.clone());
    tokio::select! {
        ended = all => finish(&mux.commands, ends, &told(form, ended)).await,
        () = interrupted.cancelled() => {
            signals.kill.cancel();
            finish(&mux.commands, ends, &form.exit(&Exit::code(INTERRUPTED))).await;
        }
        // The client is gone.
        () = typing.feed(&mut mux.events, Some(Sink::Pipe(input))) => {}
    }
    signals.kill.cancel();
    stdout.break_off();
    stderr.iter().for_each(Pipe::break_off);
}

fn told(form: Form, ended: Result<Exit, Failure>) -> String {
    match ended {
        Ok(exit) => form.exit(&exit),
        Err(failure) => form.failure(&failure),
    }
}

/// Sends what a pipe brings to a stream, or nowhere.
async fn show(pipe: Pipe, to: Option<u32>, terminal: bool, commands: mpsc::Sender<Command>) {
    while let Some(bytes) = pipe.read().await {
        let Some(id) = to else { continue };
        let bytes = if terminal { shown(&bytes).into() } else { bytes };
        if commands.send(Command::Data { id, bytes }).await.is_err() {
            return pipe.break_off();
        }
    }
}

/// Says how it ended, and ends all streams.
async fn finish(commands: &mpsc::Sender<Command>, ends: Ends, status: &str) {
    // A client that is gone needs no telling.
    if let Some(id) = ends.error
        && !status.is_empty()
    {
        let _ = commands.send(Command::Data { id, bytes: Bytes::copy_from_slice(status.as_bytes()) }).await;
    }
    for id in [ends.stdout, ends.stderr, ends.error].into_iter().flatten() {
        let _ = commands.send(Command::End { id }).await;
    }
}

/// Where a client's input goes.
enum Sink {
    Pipe(DuplexStream),
    /// A container's input, and what is to be done at its end.
    Container(mpsc::Sender<Bytes>, Box<dyn FnOnce() + Send>),
}

impl Sink {
    /// Hands bytes over; `false` when nobody takes them any more.
    async fn give(&mut self, bytes: Vec<u8>) -> bool {
        match self {
            _ if bytes.is_empty() => true,
            Self::Pipe(pipe) => pipe.write_all(&bytes).await.is_ok(),
            Self::Container(queue, _) => queue.send(bytes.into()).await.is_ok(),
        }
    }

    fn end(self) {
        match self {
            Self::Pipe(pipe) => drop(pipe),
            Self::Container(_, then) => then(),
        }
    }
}

/// A client's input on its way to a guest.
struct Typing {
    stdin: Option<u32>,
    /// Where the echo goes, at a terminal.
    screen: Option<u32>,
    terminal: Option<Terminal>,
    commands: mpsc::Sender<Command>,
    interrupted: CancellationToken,
}

impl Typing {
    fn new(ends: &Ends, wanted: Wanted, commands: mpsc::Sender<Command>, interrupted: CancellationToken) -> Self {
        let terminal = wanted.terminal.then(Terminal::default);
        let screen = ends.stdout.filter(|_| wanted.terminal);
        Self { stdin: ends.stdin.filter(|_| wanted.stdin), screen, terminal, commands, interrupted }
    }

    /// Feeds the guest until the client is gone. The end of the input is the end of `sink`.
    async fn feed(&mut self, events: &mut mpsc::Receiver<Event>, mut sink: Option<Sink>) {
        while let Some(event) = events.recv().await {
            let keeps = match event {
                Event::Data { id, bytes } if Some(id) == self.stdin => match &mut sink {
                    Some(open) => self.typed(&bytes, open).await,
                    None => true,
                },
                Event::End { id } => Some(id) != self.stdin,
                Event::Data { .. } | Event::Open { .. } => true,
            };
            if !keeps && let Some(sink) = sink.take() {
                sink.end();
            }
        }
    }

    /// Takes some input; `false` at its end.
    async fn typed(&mut self, bytes: &[u8], sink: &mut Sink) -> bool {
        let Some(terminal) = &mut self.terminal else { return sink.give(bytes.to_vec()).await };
        let typed = terminal.typed(bytes);
        if let Some(id) = self.screen.filter(|_| !typed.echo.is_empty()) {
            let _ = self.commands.send(Command::Data { id, bytes: typed.echo.into() }).await;
        }
        if typed.interrupts {
            self.interrupted.cancel();
        }
        sink.give(typed.input).await && !typed.ends
    }
}

/// Shows a client what a container prints, and gives the container what the client types.
pub(super) async fn attach(runtime: &Arc<Runtime>, container: &str, wanted: Wanted, form: Form, mut mux: Mux) {
    let Some(ends) = open(&mut mux, wanted).await else { return };
    let attached = match runtime.attach(container) {
        Ok(attached) => attached,
        Err(failure) => return finish(&mux.commands, ends, &form.failure(&failure)).await,
    };
    let interrupted = CancellationToken::new();
    let mut typing = Typing::new(&ends, wanted, mux.commands.clone(), interrupted.clone());
    let once = attached.stdin_once;
    let end = (runtime.clone(), container.to_owned());
    let end = Box::new(move || {
        if once {
            end.0.end_stdin(&end.1)
        }
    });
    let sink = attached.stdin.filter(|_| wanted.stdin).map(|queue| Sink::Container(queue, end));
    let input = typing.feed(&mut mux.events, sink);
    tokio::select! {
        () = follow(attached.output, ends, wanted, mux.commands.clone()) => {
            finish(&mux.commands, ends, &form.success()).await;
        }
        () = interrupted.cancelled() => {
            // What a terminal's Ctrl-C does to the process that has it.
            runtime.interrupt(container);
            finish(&mux.commands, ends, &form.success()).await;
        }
        () = input => {}
    }
    if once && wanted.stdin {
        runtime.end_stdin(container);
    }
}

async fn follow(
    mut output: mpsc::Receiver<(Stream, Bytes)>,
    ends: Ends,
    wanted: Wanted,
    commands: mpsc::Sender<Command>,
) {
    while let Some((stream, bytes)) = output.recv().await {
        let to = match stream {
            Stream::Stderr if !wanted.terminal => ends.stderr,
            Stream::Stdout | Stream::Stderr => ends.stdout,
        };
        let Some(id) = to else { continue };
        let bytes = if wanted.terminal { shown(&bytes).into() } else { bytes };
        if commands.send(Command::Data { id, bytes }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn streams_may_be_opened_in_any_order() {
        let (mut mux, driven) = super::super::mux::pair();
        for (id, kind) in [(1, "stdout"), (3, "error"), (5, "stdin")] {
            let headers = vec![("streamtype".to_owned(), kind.to_owned())];
            driven.events.send(Event::Open { id, headers }).await.unwrap();
        }
        let wanted = Wanted { stdin: true, stdout: true, ..Wanted::default() };
        let ends = open(&mut mux, wanted).await.unwrap();
        assert_eq!((ends.stdin, ends.stdout, ends.error, ends.stderr), (Some(5), Some(1), Some(3), None));
    }

    #[tokio::test]
    async fn a_client_that_opens_nothing_useful_is_let_go() {
        let (mut mux, driven) = super::super::mux::pair();
        tokio::spawn(async move {
            for id in 0..100 {
                let _ = driven.events.send(Event::Open { id, headers: vec![] }).await;
            }
        });
        assert_eq!(open(&mut mux, Wanted::default()).await, None);
    }
}
