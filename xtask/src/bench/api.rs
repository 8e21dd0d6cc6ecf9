//! `cargo xtask bench api`: what the API server does over TLS on loopback, with the load generator on the same two
//! cores. More is better for rates, less for the rest.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cluster::{Cluster, milliseconds},
    fanout, gates, mebibytes,
    wire::Target,
};

/// How long each rate is measured, after a second of warming up.
const WINDOW: Duration = Duration::from_secs(8);
/// Connections of the writers and getters.
const CONNECTIONS: usize = 16;
/// Connections of the listers.
const LISTERS: usize = 4;
/// Objects of a list.
const LISTED: usize = 500;
/// Pods that are held in memory.
const PODS: usize = 10_000;
/// Where all of it is.
const NAMESPACE: &str = "bench";

/// A measured value beside what was promised.
pub(super) struct Line {
    pub(super) what: String,
    pub(super) measured: f64,
    /// What was promised, where anything was: at least this much where more is better, else at most.
    pub(super) target: Option<f64>,
    pub(super) unit: &'static str,
    pub(super) more_is_better: bool,
}

impl Line {
    fn rate(what: &str, measured: f64, target: f64) -> Self {
        Self { what: what.to_owned(), measured, target: Some(target), unit: "/s", more_is_better: true }
    }

    pub(super) fn told(what: &str, measured: f64, unit: &'static str) -> Self {
        Self { what: what.to_owned(), measured, target: None, unit, more_is_better: false }
    }

    fn print(&self) {
        let Self { what, measured, target, unit, more_is_better } = self;
        let verdict = match target {
            Some(target) if (*more_is_better && measured >= target) || (!more_is_better && measured <= target) => "ok",
            Some(_) => "falls short",
            None => "",
        };
        let target = target.map(|target| format!("{target:.0}")).unwrap_or_default();
        println!("{what:<58} {measured:>11.1} {target:>9} {unit:<6} {verdict}");
    }
}

/// Measures and prints.
pub(super) fn run(binary: &std::path::Path) -> Result<()> {
    if cfg!(debug_assertions) {
        println!("(the load generator is a debug build: run `cargo run --release -p xtask -- bench api`)");
    }
    // The server inherits the limit.
    fanout::raise_descriptors()?;
    let mut cluster = Cluster::new(binary)?;
    cluster.start()?;
    let target = cluster.target()?;
    let server = cluster.pid().context("no process")?;
    // One thread: the server is to have at least the other core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{:<58} {:>11} {:>9}", "", "measured", "target");
    runtime.block_on(measure(&cluster, &target, server))?;
    cluster.stop().map(|_| ())
}

async fn measure(cluster: &Cluster, target: &Target, server: u32) -> Result<()> {
    let mut setup = target.connect().await?;
    for namespace in [NAMESPACE, "bench-list", "bench-watch", "bench-pods"] {
        let body = format!(r#"{{"metadata":{{"name":"{namespace}"}}}}"#);
        let (status, _) = setup.exchange(&target.request("POST", "/api/v1/namespaces", &body)).await?;
        ensure!(status == 201, "making the namespace {namespace}: {status}");
    }
    let version = rate(target, CONNECTIONS, |_, target| target.request("GET", "/version", "")).await?;
    Line::told("GET /version, 16 connections (no object, no list)", version.rate, "/s").print();
    let (creates, cpu) = with_cpu(server, creates(target)).await?;
    Line::rate("create ConfigMap of 0.5 KB, 16 connections", creates.rate, 8_000.0).print();
    Line::told("  CPU of the server", cpu / creates.rate / WINDOW.as_secs_f64() * 1e6, "us/req").print();
    Line::told("  p99", creates.p99_ms, "ms").print();
    let (gets, cpu) = with_cpu(server, gets(target)).await?;
    Line::rate("GET, 16 connections", gets.rate, 30_000.0).print();
    Line::told("  CPU of the server", cpu / gets.rate / WINDOW.as_secs_f64() * 1e6, "us/req").print();
    Line::told("  p99", gets.p99_ms, "ms").print();
    fill_list(target).await?;
    let path = format!("/api/v1/namespaces/bench-list/configmaps?limit={LISTED}");
    let (lists, cpu) =
        with_cpu(server, rate(target, LISTERS, move |_, target| target.request("GET", &path, ""))).await?;
    Line::rate("LIST of 500 x 0.5 KB, 4 connections", lists.rate, 1_500.0).print();
    Line::told("  CPU of the server", cpu / lists.rate / WINDOW.as_secs_f64() * 1e6, "us/req").print();
    Line::told("  bytes of an answer", lists.bytes, "B").print();
    authentication(cluster, target).await?;
    for line in gates::measure(cluster, target).await? {
        line.print();
    }
    for line in fanout::measure(target, server).await? {
        line.print();
    }
    pods(target, server).await
}

/// What a load came to.
struct Load {
    rate: f64,
    p99_ms: f64,
    /// Bytes of the last answer's body.
    bytes: f64,
}

/// Runs a load, and tells how many seconds of CPU the server used in the measured window.
async fn with_cpu(server: u32, load: impl Future<Output = Result<Load>>) -> Result<(Load, f64)> {
    let before = cpu_seconds(server)?;
    let began = Instant::now();
    let load = load.await?;
    // The warming up is about as busy as the window.
    let share = WINDOW.as_secs_f64() / began.elapsed().as_secs_f64();
    Ok((load, (cpu_seconds(server)? - before) * share))
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
    Ok(fields.filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
}

/// The memory of a process.
pub(super) fn rss_mb(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(mebibytes(kib << 10))
}

/// A second of warming up, then requests for the window; `make` gives the n-th request.
async fn rate(
    target: &Target,
    connections: usize,
    make: impl Fn(u64, &Target) -> Vec<u8> + Clone + 'static,
) -> Result<Load> {
    let (counted, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let number = Arc::new(AtomicU64::new(0));
    let tasks = tokio::task::LocalSet::new();
    let mut running = Vec::new();
    for _ in 0..connections {
        let (target, make) = (target.clone(), make.clone());
        let (counted, stop, number) = (Arc::clone(&counted), Arc::clone(&stop), Arc::clone(&number));
        running.push(tasks.spawn_local(async move {
            let mut connection = target.connect().await?;
            let (mut took, mut bytes) = (Vec::new(), 0);
            while !stop.load(Relaxed) {
                let request = make(number.fetch_add(1, Relaxed), &target);
                let began = Instant::now();
                let (status, length) = connection.exchange(&request).await?;
                ensure!(status < 300, "a request was answered with {status}");
                bytes = length;
                if counted.load(Relaxed) {
                    took.push(began.elapsed());
                }
            }
            Ok((took, bytes))
        }));
    }
    tasks
        .run_until(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            counted.store(true, Relaxed);
            let began = Instant::now();
            tokio::time::sleep(WINDOW).await;
            let seconds = began.elapsed().as_secs_f64();
            stop.store(true, Relaxed);
            let (mut all, mut last) = (Vec::new(), 0);
            for task in running {
                let (took, bytes) = task.await??;
                all.extend(took);
                last = last.max(bytes);
            }
            Ok(load(all, seconds, last))
        })
        .await
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn load(mut took: Vec<Duration>, seconds: f64, bytes: usize) -> Load {
    took.sort_unstable();
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
    Load { rate: took.len() as f64 / seconds, p99_ms: milliseconds(p99), bytes: bytes as f64 }
}

fn config_map(name: &str) -> String {
    let value = "x".repeat(420);
    format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}"}},"data":{{"key":"{value}"}}}}"#)
}

async fn creates(target: &Target) -> Result<Load> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    rate(target, CONNECTIONS, move |n, target| target.request("POST", &path, &config_map(&format!("c{n}")))).await
}

async fn gets(target: &Target) -> Result<Load> {
    rate(target, CONNECTIONS, move |n, target| {
        let name = n % 1000;
        target.request("GET", &format!("/api/v1/namespaces/{NAMESPACE}/configmaps/c{name}"), "")
    })
    .await
}

async fn fill_list(target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    for n in 0..LISTED {
        let body = config_map(&format!("c{n:03}"));
        let request = target.request("POST", "/api/v1/namespaces/bench-list/configmaps", &body);
        let (status, _) = connection.exchange(&request).await?;
        ensure!(status == 201, "making the list: {status}");
    }
    Ok(())
}

/// What a request costs more with a ServiceAccount's token than with a certificate.
async fn authentication(cluster: &Cluster, target: &Target) -> Result<()> {
    let mut setup = target.connect().await?;
    let binding = r#"{"metadata":{"name":"bench"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole",
        "name":"cluster-admin"},"subjects":[{"kind":"ServiceAccount","name":"default","namespace":"bench"}]}"#;
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let (status, _) = setup.exchange(&target.request("POST", path, binding)).await?;
    ensure!(status == 201, "binding the account: {status}");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token");
    let (status, body) = setup.read(&target.request("POST", &path, "{}")).await?;
    if status >= 300 {
        println!("  (no token could be had: {status})");
        return Ok(());
    }
    let body: serde_json::Value = serde_json::from_slice(&body)?;
    let token = body["status"]["token"].as_str().context("no token")?.to_owned();
    let by_token = cluster.target_with_token(token)?;
    let one = |target: Target| async move { gets_on_one(&target).await };
    let (certificate_us, token_us) = (one(target.clone()).await?, one(by_token).await?);
    Line::told("one GET at a time, client certificate", certificate_us, "us").print();
    Line::told("one GET at a time, ServiceAccount token", token_us, "us").print();
    Ok(())
}

/// Microseconds of a GET on one connection.
async fn gets_on_one(target: &Target) -> Result<f64> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/c1");
    let load = rate(target, 1, move |_, target| target.request("GET", &path, "")).await?;
    Ok(1e6 / load.rate)
}

/// What ten thousand pods cost in memory.
async fn pods(target: &Target, server: u32) -> Result<()> {
    let before = rss_mb(server)?;
    let number = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let tasks = (0..CONNECTIONS).map(|_| {
        let (target, number) = (target.clone(), Arc::clone(&number));
        async move {
            let mut connection = target.connect().await?;
            loop {
                let n = number.fetch_add(1, Relaxed);
                if n >= PODS as u64 {
                    return anyhow::Ok(());
                }
                let (status, _) = connection.exchange(&target.request("POST", POD_PATH, &pod(n))).await?;
                ensure!(status == 201, "making a pod: {status}");
            }
        }
    });
    futures::future::try_join_all(tasks).await?;
    #[allow(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let rate = PODS as f64 / began.elapsed().as_secs_f64();
    Line::told("create pods, 16 connections", rate, "/s").print();
    // What was freed on the way is given back.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = rss_mb(server)?;
    Line::told("RSS of the server with 10,000 pods", after, "MB").print();
    #[allow(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let each = (after - before) * 1024.0 / PODS as f64;
    Line::told("  of which each pod", each, "kB").print();
    Ok(())
}

const POD_PATH: &str = "/api/v1/namespaces/bench-pods/pods";

/// A pod that no scheduler takes.
fn pod(n: u64) -> String {
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"p{n}","labels":{{"app":"bench","n":"{n}"}}}},"spec":{{"schedulerName":"nobody","containers":[{{"name":"main","image":"registry.example.com/app:1.0","env":[{{"name":"A","value":"b"}}],"ports":[{{"containerPort":8080}}],"resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}}}}}}]}}}}"#
    )
}
