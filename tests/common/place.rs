//! A cluster's place on this machine: address ranges and a port that no other test uses, of whatever run.

use std::{fs, net::TcpListener, path::PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// How many clusters run on a machine at once.
const PLACES: u16 = 32;

/// The first port of the first place; below the ports that the kernel gives to outgoing connections.
const FIRST_PORT: u16 = 16_000;

/// How many ports a place has.
const PORTS: u16 = 256;

/// One of the machine's places, until it is dropped.
pub struct Place {
    index: u16,
    port: u16,
    _lock: Flock<fs::File>,
}

impl Place {
    /// Takes a place that is free.
    pub fn take() -> Self {
        let folder = std::env::temp_dir().join("skiff-test-places");
        fs::create_dir_all(&folder).expect("the folder of the places");
        (0..PLACES).find_map(|index| Self::try_take(folder.join(index.to_string()), index)).expect("a free place")
    }

    fn try_take(file: PathBuf, index: u16) -> Option<Self> {
        let file = fs::File::create(file).expect("a place's file");
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
        let first = FIRST_PORT + index * PORTS;
        let port = (first..first + PORTS).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())?;
        Some(Self { index, port, _lock: lock })
    }

    /// The API server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The flags that set a `skiff dev` apart from others.
    pub fn flags(&self) -> [String; 3] {
        let network = 64 + 2 * self.index;
        [
            format!("--cluster-cidr=127.{network}.0.0/16"),
            format!("--service-cidr=127.{}.0.0/16", network + 1),
            format!("--https-listen-port={}", self.port),
        ]
    }
}
