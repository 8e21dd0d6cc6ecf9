//! A real etcd of one member, on an address of its own.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a member may take to answer on a slow, busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often its log is looked at.
pub const LOOK: Duration = Duration::from_millis(10);

/// The files of a member that talks TLS and asks clients for a certificate.
pub struct TlsFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A member. Ended when dropped.
pub struct Member {
    child: Option<Child>,
    arguments: Vec<String>,
    log: PathBuf,
    pub url: String,
    /// As long as it is held nobody else takes the member's address.
    _claim: TcpListener,
}

/// One member of its own, with its folder.
pub struct Etcd {
    pub member: Member,
    _folder: tempfile::TempDir,
}

/// An address of this host that no other test has: all of 127.0.0.0/8 is loopback, and outgoing connections never
/// take a port there. skiff's own tests stay below 127.128.0.0.
pub fn own_address() -> (String, TcpListener) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id().to_be_bytes();
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.{}.{}.{}", 128 + (process[2] & 0x7f), process[3], n.clamp(1, 254));
        // Whoever listens on this port of it owns it.
        if let Ok(claim) = TcpListener::bind((address.as_str(), 2378)) {
            return (address, claim);
        }
    }
}

impl Member {
    pub fn new(
        name: &str,
        folder: &Path,
        scheme: &str,
        (address, claim): (String, TcpListener),
        more: &[String],
    ) -> Self {
        let url = format!("{scheme}://{address}:2379");
        let peer = format!("http://{address}:2380");
        let mut arguments = vec![
            format!("--name={name}"),
            format!("--data-dir={}", folder.join(name).display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            "--enable-grpc-gateway=false".to_owned(),
        ];
        arguments.extend_from_slice(more);
        Self { child: None, arguments, log: folder.join(format!("{name}.log")), url, _claim: claim }
    }

    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new("etcd");
        command.args(&self.arguments).env_clear().stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().expect("etcd starts: tests/setup.sh installs it"));
    }

    /// Starts it on what it has, and waits until it serves.
    pub fn start(&mut self) {
        let before = self.served();
        self.spawn();
        self.wait(before);
    }

    fn served(&self) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().matches("client requests on ").count()
    }

    pub fn wait(&mut self, before: usize) {
        let end = Instant::now() + PATIENCE;
        while self.served() <= before {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(ended.is_none(), "etcd has ended:\n{}", log());
            assert!(Instant::now() < end, "etcd does not serve:\n{}", log());
            thread::sleep(LOOK);
        }
    }

    /// Whether it has been started and not been killed.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        }
    }

    /// Stops it as if the machine hung.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Etcd {
    /// One that loses everything with the machine: no test of it takes the machine away.
    pub fn start() -> Self {
        Self::start_with("http", |_| Vec::new())
    }

    /// One that talks TLS alone, to clients with a certificate. The files are made for its address.
    pub fn start_tls(files: impl FnOnce(&str) -> TlsFiles) -> Self {
        Self::start_with("https", |address| Self::tls_flags(&files(address)))
    }

    fn tls_flags(tls: &TlsFiles) -> Vec<String> {
        vec![
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", tls.ca.display()),
            format!("--cert-file={}", tls.cert.display()),
            format!("--key-file={}", tls.key.display()),
        ]
    }

    fn start_with(scheme: &str, more: impl FnOnce(&str) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (address, claim) = own_address();
        let alone = ["--unsafe-no-fsync", "--heartbeat-interval=20", "--election-timeout=200"].map(str::to_owned);
        let peer = format!("--initial-cluster=one=http://{address}:2380");
        let more = [&alone[..], &[peer], &more(&address)].concat();
        let mut member = Member::new("one", folder.path(), scheme, (address, claim), &more);
        member.start();
        Self { member, _folder: folder }
    }

    pub fn url(&self) -> String {
        self.member.url.clone()
    }
}
