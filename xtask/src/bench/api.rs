//! `cargo xtask bench api`: what the API server does over TLS on loopback, with the load generator on the same two
//! cores. More is better for rates, less for the rest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cluster::Cluster,
    fanout, gates,
    line::Line,
    load::{self, Caller, Load, WINDOW, with_cpu},
    memory::rss_mb,
    wire::{Connection, Target},
};

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
    Line::print_head();
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
    Line::at_least(8_000.0, "create ConfigMap of 0.5 KB, 16 connections", creates.rate, "/s").print();
    Line::told("  CPU of the server", cpu / creates.rate / WINDOW.as_secs_f64() * 1e6, "us/req").print();
    Line::told("  p99", creates.p99_ms, "ms").print();
    let (gets, cpu) = with_cpu(server, gets(target)).await?;
    Line::at_least(30_000.0, "GET, 16 connections", gets.rate, "/s").print();
    Line::told("  CPU of the server", cpu / gets.rate / WINDOW.as_secs_f64() * 1e6, "us/req").print();
    Line::told("  p99", gets.p99_ms, "ms").print();
    fill_list(target).await?;
    let path = format!("/api/v1/namespaces/bench-list/configmaps?limit={LISTED}");
    let (lists, cpu) =
        with_cpu(server, rate(target, LISTERS, move |_, target| target.request("GET", &path, ""))).await?;
    Line::at_least(1_500.0, "LIST of 500 x 0.5 KB, 4 connections", lists.rate, "/s").print();
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

/// A connection on which `make`'s requests are made.
struct Requests<M> {
    connection: Connection,
    target: Target,
    make: M,
}

impl<M: Fn(u64, &Target) -> Vec<u8> + 'static> Caller for Requests<M> {
    async fn call(&mut self, n: u64) -> Result<usize> {
        let (status, length) = self.connection.exchange(&(self.make)(n, &self.target)).await?;
        ensure!(status < 300, "a request was answered with {status}");
        Ok(length)
    }
}

/// The load of so many connections; `make` gives the n-th request.
async fn rate(
    target: &Target,
    connections: usize,
    make: impl Fn(u64, &Target) -> Vec<u8> + Clone + 'static,
) -> Result<Load> {
    let mut callers = Vec::new();
    for _ in 0..connections {
        let connection = target.connect().await?;
        callers.push(Requests { connection, target: target.clone(), make: make.clone() });
    }
    load::rate(callers).await
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
