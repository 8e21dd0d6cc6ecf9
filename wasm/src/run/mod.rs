//! Running a container's program: what each of its instances gets, and how it ends.

pub(crate) mod command;
pub(crate) mod http;
pub(crate) mod output;
mod patience;
pub(crate) mod stdio;

use std::{net::Ipv4Addr, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;
use wasmtime::Store;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, sockets::SocketAddrUse};

use crate::engine::{
    guest::{CoreGuest, Guest, MAX_RESOURCES_OF_COMMAND, MAX_RESOURCES_OF_REQUEST, OutOfMemory, Pod},
    places::PodPlaces,
    program::{Program, World},
    ticker::Ticker,
};
use stdio::Stdio;

/// Longest text about an end, which the kubelet shows in the pod's status (its own limit).
const MAX_MESSAGE_BYTES: usize = 4096;
/// Lines of a trap's backtrace that are kept.
const BACKTRACE_LINES: usize = 8;

/// Exit codes that Kubernetes users know from processes: 128 and the number of the signal that ended it.
mod code {
    /// A trap: as a process that calls `abort`.
    pub(super) const ABORTED: i32 = 134;
    /// Ended by force: a grace period ran out, or the memory limit.
    pub(super) const KILLED: i32 = 137;
    /// A command asked to stop.
    pub(super) const TERMINATED: i32 = 143;
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Exit {
    pub(crate) fn code(code: i32) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self { code, reason, message: String::new() }
    }

    /// Ended by force.
    pub(crate) fn killed(message: &str) -> Self {
        Self { message: message.to_owned(), ..Self::code(code::KILLED) }
    }

    /// A command was asked to stop. It cannot be told (WASI knows no signals), so a grace period would only be waited
    /// for; it ends at once, as a process without a handler for SIGTERM.
    pub(crate) fn terminated() -> Self {
        Self::code(code::TERMINATED)
    }

    pub(crate) fn out_of_memory(message: String) -> Self {
        Self { code: code::KILLED, reason: "OOMKilled", message }
    }

    /// The runtime itself failed while it ran the guest.
    pub(crate) fn panicked() -> Self {
        Self { message: "the runtime failed while it ran this container".into(), ..Self::code(code::ABORTED) }
    }

    /// What an error from the guest means.
    pub(crate) fn from_error(error: &wasmtime::Error) -> Self {
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Self::code(*code);
        }
        if let Some(error) = never_fits(error) {
            return Self::out_of_memory(error.to_string());
        }
        Self { message: trap_text(error), ..Self::code(code::ABORTED) }
    }
}

/// Whether an instance failed because it wanted more memory than its container may ever have.
pub(crate) fn never_fits(error: &wasmtime::Error) -> Option<&OutOfMemory> {
    error.downcast_ref::<OutOfMemory>().filter(|error| error.alone)
}

/// What went wrong, and where, in a few lines.
pub(crate) fn trap_text(error: &wasmtime::Error) -> String {
    let (cause, outermost) = (error.root_cause().to_string(), error.to_string());
    let mut text = cause.clone();
    if outermost != cause {
        for line in outermost.lines().take(BACKTRACE_LINES) {
            text.push('\n');
            text.push_str(line);
        }
    }
    let end = text.floor_char_boundary(MAX_MESSAGE_BYTES);
    text.truncate(end);
    text
}

/// How a container is told to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// In its own time: take no more work, finish what is begun.
    pub(crate) stop: CancellationToken,
    /// At once.
    pub(crate) kill: CancellationToken,
}

/// A folder that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preopen {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
    pub(crate) readonly: bool,
}

/// What every instance of a container gets.
pub(crate) struct Spec {
    pub(crate) program: Arc<Program>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) preopens: Vec<Preopen>,
    pub(crate) working_dir: String,
    pub(crate) pod: Pod,
    pub(crate) stdio: Stdio,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) places: PodPlaces,
}

impl Spec {
    /// A store for one more instance.
    pub(crate) fn store(&self) -> wasmtime::Result<Store<Guest>> {
        let max_resources = match &self.program.world {
            World::Http(_) => MAX_RESOURCES_OF_REQUEST,
            World::Command(_) | World::CommandP3(_) | World::Module(_) => MAX_RESOURCES_OF_COMMAND,
        };
        let guest = Guest::new(self.wasi()?.build(), self.pod.clone(), max_resources);
        Ok(guest.into_store(&self.program.engine))
    }

    /// The same for a core module.
    pub(crate) fn core_store(&self) -> wasmtime::Result<Store<CoreGuest>> {
        let guest = CoreGuest::new(self.wasi()?.build_p1(), self.pod.usage.clone());
        Ok(guest.into_store(&self.program.engine))
    }

    fn wasi(&self) -> wasmtime::Result<WasiCtxBuilder> {
        let mut wasi = WasiCtx::builder();
        wasi.args(&self.args).envs(&self.env).allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
        self.stdio.give(&mut wasi);
        if !self.working_dir.is_empty() {
            wasi.initial_cwd(&self.working_dir);
        }
        let own = self.pod.address;
        wasi.socket_addr_check(move |address, usage| Box::pin(std::future::ready(may_use(own, address, usage))));
        if self.program.uses_files {
            for dir in &self.preopens {
                let perms = if dir.readonly { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
                wasi.preopened_dir(&dir.host, &dir.guest, perms)?;
            }
        }
        Ok(wasi)
    }
}

/// Whether a pod of the address `own` may use a socket address so: it listens on its own address alone.
fn may_use(own: Ipv4Addr, address: SocketAddr, usage: SocketAddrUse) -> bool {
    // The node's own network: everything that a process of the node may.
    if own.is_unspecified() {
        return true;
    }
    match usage {
        SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
            // Before it connects or sends, the system binds a socket to any address and a free port.
            address.ip() == own || (address.ip().is_unspecified() && address.port() == 0)
        }
        SocketAddrUse::TcpListen => address.ip() == own,
        SocketAddrUse::TcpConnect | SocketAddrUse::TcpAccept | SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn listens_on_its_own_address_alone() {
        let own: Ipv4Addr = "10.64.0.5".parse().unwrap();
        let may = |address: &str, usage| may_use(own, address.parse().unwrap(), usage);
        assert!(may("10.64.0.5:80", SocketAddrUse::TcpBind));
        assert!(may("10.64.0.5:80", SocketAddrUse::TcpListen));
        assert!(may("0.0.0.0:0", SocketAddrUse::TcpBind));
        assert!(may("10.64.0.6:80", SocketAddrUse::TcpConnect));
        assert!(!may("10.64.0.6:80", SocketAddrUse::TcpBind));
        assert!(!may("0.0.0.0:80", SocketAddrUse::TcpBind));
        assert!(!may("0.0.0.0:80", SocketAddrUse::TcpListen));
        assert!(!may("[::]:80", SocketAddrUse::UdpBind));
    }
}
