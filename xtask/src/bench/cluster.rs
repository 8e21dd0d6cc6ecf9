//! A cluster to measure: the binary in a folder of its own.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use skiff_client::{
    client::Client,
    https::{Config, Https, Identity},
};

use super::wire::Target;

/// How long a start or an end may take at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the administrator's kubeconfig holds.
struct Kubeconfig {
    url: String,
    ca: String,
    certificate: String,
    key: String,
}

/// A `skiff dev`.
pub(super) struct Cluster {
    binary: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

/// How long a start took.
pub(super) struct Started {
    /// Until the API server answered, as skiff says it.
    pub(super) api_ms: f64,
    /// Until the node was Ready, seen from outside: from spawning the process to its word.
    pub(super) node_ms: f64,
}

impl Cluster {
    pub(super) fn new(binary: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { binary: binary.to_owned(), dir: tempfile::tempdir()?, port, process: None })
    }

    /// Starts it and waits for its word that the node is Ready.
    pub(super) fn start(&mut self) -> Result<Started> {
        let log = self.dir.path().join("log");
        let out = fs::File::create(&log)?;
        let began = Instant::now();
        let mut command = Command::new(&self.binary);
        command.args(["dev", &format!("--https-listen-port={}", self.port), "--data-dir"]).arg(self.data_dir());
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        self.process = Some(command.spawn().context("starting skiff")?);
        let said = wait_until(|| {
            let said = fs::read_to_string(&log).ok()?;
            said.contains("Ctrl-C stops").then_some(said)
        });
        let node_ms = milliseconds(began.elapsed());
        let said = said.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        let api = said.lines().find(|line| line.trim_start().starts_with("API server")).unwrap_or_default();
        let api_ms = api.split_whitespace().rev().nth(1).and_then(|word| word.parse().ok());
        Ok(Started { api_ms: api_ms.with_context(|| format!("no time in {api:?}"))?, node_ms })
    }

    /// Ends it with SIGTERM; gives how long that took, in milliseconds.
    pub(super) fn stop(&mut self) -> Result<f64> {
        let Some(mut process) = self.process.take() else { return Ok(0.0) };
        let began = Instant::now();
        let status = Command::new("kill").args(["-TERM", &process.id().to_string()]).status()?;
        ensure!(status.success(), "kill failed");
        wait_until(|| process.try_wait().ok().flatten()).context("skiff does not end")?;
        Ok(milliseconds(began.elapsed()))
    }

    /// The processes that run on its folder.
    pub(super) fn processes(&self) -> Result<Vec<u32>> {
        let folder = self.data_dir().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&folder) {
                found.push(pid);
            }
        }
        if found.is_empty() {
            bail!("no process runs on {folder}");
        }
        Ok(found)
    }

    /// Imports a file as an image.
    pub(super) fn import(&self, file: &Path) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["image", "import"]).arg(file).arg("--data-dir").arg(self.data_dir());
        ensure!(command.stdout(Stdio::null()).status()?.success(), "the import of {} failed", file.display());
        Ok(())
    }

    /// Removes what was compiled of all components.
    pub(super) fn forget_compiled(&self) -> Result<()> {
        for engine in fs::read_dir(self.data_dir().join("agent/wasm/compiled"))? {
            for compiled in fs::read_dir(engine?.path())? {
                let path = compiled?.path();
                if path.extension().is_some_and(|end| end == "cwasm") {
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }

    /// The Wasm runtime's process.
    pub(super) fn wasm_pid(&self) -> Result<u32> {
        let is_runtime = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"wasm-runtime")
        };
        self.processes()?.into_iter().find(is_runtime).context("no Wasm runtime runs")
    }

    /// A path for a file that lasts as long as the cluster.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The administrator's client.
    pub(super) fn client(&self) -> Result<Client> {
        let Kubeconfig { url, ca, certificate, key } = self.kubeconfig()?;
        let transport = Https::new(&Config {
            server_url: url,
            server_ca: ca,
            identity: Identity::Certificate { certificate, key },
            user_agent: "skiff-bench".to_owned(),
        })?;
        Ok(Client::new(Arc::clone(&transport) as Arc<dyn skiff_client::Transport>))
    }

    /// The API server as the load generator reaches it, as the administrator.
    pub(super) fn target(&self) -> Result<Target> {
        let Kubeconfig { ca, certificate, key, .. } = self.kubeconfig()?;
        Target::new(([127, 0, 0, 1], self.port).into(), &ca, Some((&certificate, &key)), None)
    }

    /// The same with a token.
    pub(super) fn target_with_token(&self, token: String) -> Result<Target> {
        Target::new(([127, 0, 0, 1], self.port).into(), &self.kubeconfig()?.ca, None, Some(token))
    }

    /// The process that was started: control plane and node agent in one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    fn kubeconfig(&self) -> Result<Kubeconfig> {
        let text = fs::read_to_string(self.data_dir().join("kubeconfig")).context("reading the kubeconfig")?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
            line.with_context(|| format!("no {name} in the kubeconfig"))
        };
        let pem = |name: &str| -> Result<String> {
            let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, field(name)?)?;
            Ok(String::from_utf8(decoded)?)
        };
        Ok(Kubeconfig {
            url: field("server")?.to_owned(),
            ca: pem("certificate-authority-data")?,
            certificate: pem("client-certificate-data")?,
            key: pem("client-key-data")?,
        })
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What cannot be ended here is the operating system's to end with this process.
        let _ended = self.stop();
    }
}

/// Looks at a condition until it gives a value or time is up.
fn wait_until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
