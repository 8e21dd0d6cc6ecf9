//! `cargo xtask bench soak`: a cluster under mixed load for a long time, with watchers that stay and watchers that come
//! and go. What is looked for is memory that grows.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cluster::Cluster,
    fanout, median,
    memory::rss_mb,
    wire::{Connection, Target, find},
};

/// Connections that ask.
const WORKERS: u64 = 8;
/// How long a worker waits between two requests: with eight of them, 400 requests a second.
const PAUSE: Duration = Duration::from_millis(20);
/// Names that a worker uses of each kind, so that the number of objects is bounded.
const NAMES: u64 = 250;
/// Connections that watch.
const WATCHERS: usize = 200;
/// Every fourth of them lists and watches anew each half minute, as clients do that come and go.
const RESTLESS: usize = 4;
/// How often memory is read.
const SAMPLE: Duration = Duration::from_secs(10);
/// How often it is printed.
const PRINTED: usize = 6;
/// How much the memory of the last third may exceed that of the third before it, and still count as flat.
const FLAT_PERCENT: f64 = 3.0;

const NAMESPACE: &str = "soak";

/// What has happened so far.
#[derive(Default)]
struct Counts {
    requests: Cell<u64>,
    events: Cell<u64>,
    /// Answers that should not be: server errors, and refusals other than those that the load means to provoke.
    odd: Cell<u64>,
    broken: Cell<u64>,
}

fn count(counter: &Cell<u64>, more: usize) {
    counter.set(counter.get() + more as u64);
}

/// Runs the load for a time and prints memory as it goes.
pub(super) fn run(binary: &std::path::Path, minutes: u64) -> Result<()> {
    fanout::raise_descriptors()?;
    let mut cluster = Cluster::new(binary)?;
    cluster.start()?;
    let target = cluster.target()?;
    let server = cluster.pid().context("no process")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let window = Duration::from_secs(60 * minutes);
    let flat = tokio::task::LocalSet::new().block_on(&runtime, soak(&target, server, window))?;
    cluster.stop()?;
    ensure!(flat, "memory is not flat, or the load was not answered as it should be");
    Ok(())
}

async fn soak(target: &Target, server: u32, window: Duration) -> Result<bool> {
    let mut setup = target.connect().await?;
    let namespace = format!(r#"{{"metadata":{{"name":"{NAMESPACE}"}}}}"#);
    let (status, _) = setup.exchange(&target.request("POST", "/api/v1/namespaces", &namespace)).await?;
    ensure!(status == 201, "making the namespace: {status}");
    let counts = Rc::new(Counts::default());
    for number in 0..WATCHERS {
        tokio::task::spawn_local(watch_on(target.clone(), number, Rc::clone(&counts)));
    }
    for number in 0..WORKERS {
        tokio::task::spawn_local(work_on(target.clone(), number, Rc::clone(&counts)));
    }
    let began = Instant::now();
    let mut samples = Vec::new();
    println!("{:>8} {:>10} {:>12} {:>14} {:>6} {:>8}", "minute", "RSS MB", "requests", "events", "odd", "broken");
    // Events are kept for an hour, longer than the load lasts: they would count as growth.
    let forget = target.request("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}/events"), "");
    while began.elapsed() < window {
        tokio::time::sleep(SAMPLE).await;
        let (status, _) = setup.exchange(&forget).await?;
        ensure!(status == 200, "deleting events: {status}");
        samples.push(rss_mb(server)?);
        if samples.len() % PRINTED == 0 {
            print(&counts, samples.len() / PRINTED, &samples[samples.len() - PRINTED..]);
        }
    }
    Ok(verdict(&samples) && counts.odd.get() == 0 && counts.broken.get() == 0)
}

fn print(counts: &Counts, minute: usize, rss: &[f64]) {
    let Counts { requests, events, odd, broken } = counts;
    let rss = median(&mut rss.to_vec());
    let counts = [requests, events, odd, broken].map(Cell::get);
    println!("{minute:>8} {rss:>10.1} {:>12} {:>14} {:>6} {:>8}", counts[0], counts[1], counts[2], counts[3]);
}

/// Whether memory has stopped growing: the last third beside the third before it.
fn verdict(samples: &[f64]) -> bool {
    let third = samples.len() / 3;
    let (mut before, mut last) = (samples[third..2 * third].to_vec(), samples[samples.len() - third..].to_vec());
    let (before, last) = (median(&mut before), median(&mut last));
    let percent = (last / before - 1.0) * 100.0;
    let flat = percent <= FLAT_PERCENT;
    let word = if flat { "flat" } else { "growing" };
    println!("RSS of the second third {before:.1} MB, of the last {last:.1} MB: {percent:+.1}%, {word}");
    flat
}

/// One who asks, for as long as the load lasts.
async fn work_on(target: Target, worker: u64, counts: Rc<Counts>) {
    let mut turn = worker;
    loop {
        if let Err(why) = work(&target, worker, &mut turn, &counts).await {
            count(&counts.broken, 1);
            eprintln!("worker {worker}: {why:#}");
            tokio::time::sleep(SAMPLE).await;
        }
    }
}

async fn work(target: &Target, worker: u64, turn: &mut u64, counts: &Counts) -> Result<()> {
    let mut connection = target.connect().await?;
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A walk over all names and verbs without an order that would repeat soon.
        *turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (request, expected) = request(target, worker, *turn >> 33);
        let (status, body) = connection.read(&request).await?;
        count(&counts.requests, 1);
        if !expected.contains(&status) {
            count(&counts.odd, 1);
            let (asked, said) = (String::from_utf8_lossy(&request), String::from_utf8_lossy(&body));
            eprintln!("{status}: {} {said:.200}", asked.lines().next().unwrap_or_default());
        }
    }
}

/// A request, and how it may be answered.
fn request(target: &Target, worker: u64, random: u64) -> (Vec<u8>, &'static [u16]) {
    let (verb, name) = (random % 16, format!("w{worker}-{}", random / 64 % NAMES));
    let (folder, body) = object(&name, random / 16 % 4, random);
    let path = format!("{folder}/{name}");
    let patch = |kind: &str, body: &str| target.request_as(kind, "PATCH", &path, body);
    match verb {
        0..4 => (target.request("POST", folder, &body), &[201, 409]),
        4 => (target.request("PUT", &path, &body), &[200, 201, 404, 409, 422]),
        5 | 6 => {
            let body = format!(r#"{{"metadata":{{"labels":{{"turn":"{random}"}}}}}}"#);
            (patch("application/merge-patch+json", &body), &[200, 404])
        }
        7 => {
            let body = format!(r#"{{"metadata":{{"annotations":{{"turn":"{random}"}}}}}}"#);
            (patch("application/strategic-merge-patch+json", &body), &[200, 404])
        }
        8 => {
            let applied = format!("{path}?fieldManager=m{}&force=true", random % 3);
            (target.request_as("application/apply-patch+yaml", "PATCH", &applied, &body), &[200, 201, 422])
        }
        9 => (target.request("POST", folder, r#"{"metadata":{"name":"Not A Name"}}"#), &[422]),
        10 => (target.request("GET", &format!("{folder}?limit=50&labelSelector=app%3Dsoak"), ""), &[200]),
        11 | 12 => (target.request("GET", &path, ""), &[200, 404]),
        _ => (target.request("DELETE", &path, ""), &[200, 202, 404, 409]),
    }
}

/// An object of one of several kinds: where it is, and what it says.
fn object(name: &str, kind: u64, random: u64) -> (&'static str, String) {
    let metadata = format!(r#""metadata":{{"name":"{name}","labels":{{"app":"soak"}}}}"#);
    let pod = r#""spec":{"schedulerName":"nobody","terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":"i"}]}"#;
    match kind {
        0 => {
            let value = "x".repeat(400);
            let data = format!(r#""data":{{"key":"{value}","turn":"{random}"}}"#);
            let object = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap",{metadata},{data}}}"#);
            ("/api/v1/namespaces/soak/configmaps", object)
        }
        1 => {
            let object =
                format!(r#"{{"apiVersion":"v1","kind":"Secret",{metadata},"stringData":{{"turn":"{random}"}}}}"#);
            ("/api/v1/namespaces/soak/secrets", object)
        }
        2 => ("/api/v1/namespaces/soak/pods", format!(r#"{{"apiVersion":"v1","kind":"Pod",{metadata},{pod}}}"#)),
        _ => {
            let labels = format!(r#"{{"name":"{name}"}}"#);
            let template = format!(r#"{{"metadata":{{"labels":{labels}}},{pod}}}"#);
            let spec = format!(
                r#"{{"replicas":{},"selector":{{"matchLabels":{labels}}},"template":{template}}}"#,
                random / 128 % 3
            );
            let object = format!(r#"{{"apiVersion":"apps/v1","kind":"Deployment",{metadata},"spec":{spec}}}"#);
            ("/apis/apps/v1/namespaces/soak/deployments", object)
        }
    }
}

/// One who watches, for as long as the load lasts.
async fn watch_on(target: Target, number: usize, counts: Rc<Counts>) {
    loop {
        if let Err(why) = watch(&target, number, &counts).await {
            count(&counts.broken, 1);
            eprintln!("watcher {number}: {why:#}");
            tokio::time::sleep(SAMPLE).await;
        }
    }
}

async fn watch(target: &Target, number: usize, counts: &Counts) -> Result<()> {
    let folder = ["configmaps", "secrets", "pods"][number % 3];
    let path = format!("/api/v1/namespaces/{NAMESPACE}/{folder}");
    let seconds = if number % RESTLESS == 0 { 30 } else { 100_000 };
    let mut connection = target.connect().await?;
    let (status, list) = connection.read(&target.request("GET", &format!("{path}?resourceVersion=0"), "")).await?;
    ensure!(status == 200, "a list: {status}");
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("no version")?;
    let watch = format!("{path}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
    connection.begin_stream(&target.request("GET", &watch, "")).await?;
    follow(&mut connection, counts).await
}

/// Reads a watch to its end.
async fn follow(connection: &mut Connection, counts: &Counts) -> Result<()> {
    loop {
        let bytes = connection.next_bytes().await?;
        ensure!(find(&bytes, b"\"type\":\"ERROR\"").is_none(), "{}", String::from_utf8_lossy(&bytes));
        count(&counts.events, bytes.windows(8).filter(|window| window == b"{\"type\":").count());
        if bytes.ends_with(b"0\r\n\r\n") {
            return Ok(());
        }
    }
}
