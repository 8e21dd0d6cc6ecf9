//! A thousand watchers of one kind, and a hundred changes a second: how late the last of them hears of one, and what
//! each costs in memory.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cluster::milliseconds,
    line::Line,
    memory::rss_mb,
    wire::{Target, find},
};

/// Watchers, each on a connection of its own.
const WATCHERS: usize = 1_000;
/// Changes a second.
const EVENTS_PER_SECOND: u32 = 100;
/// How long changes are made.
const WINDOW: Duration = Duration::from_secs(10);
/// What stands before the moment at which a change was made, in microseconds since the bench began.
const MARK: &[u8] = b"\"sent\":\"";
/// How long the last events may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

const PATH: &str = "/api/v1/namespaces/bench-watch/configmaps";

/// Measures the fan-out.
pub(super) async fn measure(target: &Target, server: u32) -> Result<Vec<Line>> {
    let began = Instant::now();
    let mut writer = target.connect().await?;
    let body = r#"{"metadata":{"name":"told"},"data":{"sent":"0"}}"#;
    let (status, _) = writer.exchange(&target.request("POST", PATH, body)).await?;
    ensure!(status == 201, "making the watched object: {status}");
    let (status, list) = writer.read(&target.request("GET", PATH, "")).await?;
    ensure!(status == 200, "listing: {status}");
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("no version")?.to_owned();

    let before = rss_mb(server)?;
    let delays = Rc::new(RefCell::new(Vec::<Duration>::new()));
    let tasks = tokio::task::LocalSet::new();
    let watch = target.request("GET", &format!("{PATH}?watch=1&resourceVersion={version}"), "");
    tasks
        .run_until(async {
            for _ in 0..WATCHERS {
                let mut connection = target.connect().await?;
                connection.begin_stream(&watch).await?;
                let delays = Rc::clone(&delays);
                tokio::task::spawn_local(async move { follow(connection, began, &delays).await });
            }
            let watching = rss_mb(server)?;
            let sent = change(target, &mut writer, began).await?;
            wait_for(&delays, sent * WATCHERS).await;
            let mut all = delays.borrow().clone();
            all.sort_unstable();
            Ok(lines(&all, sent, watching - before))
        })
        .await
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn lines(delays: &[Duration], sent: usize, watchers_mb: f64) -> Vec<Line> {
    let at = |percent: usize| milliseconds(delays.get(delays.len() * percent / 100).copied().unwrap_or_default());
    let delivered = delays.len() as f64 / (sent * WATCHERS) as f64 * 100.0;
    vec![
        Line::told("watch, 1,000 watchers, 100 events/s: delivered", delivered, "%"),
        Line::told("  median delay", at(50), "ms"),
        Line::told("  p99 delay", at(99), "ms"),
        Line::told("  memory of a watcher (its connection included)", watchers_mb * 1024.0 / WATCHERS as f64, "kB"),
    ]
}

/// Reads a watch and notes how late each event came.
async fn follow(
    mut connection: super::wire::Connection,
    began: Instant,
    delays: &RefCell<Vec<Duration>>,
) -> Result<()> {
    loop {
        let bytes = connection.next_bytes().await?;
        let now = began.elapsed();
        let mut rest = &bytes[..];
        while let Some(at) = find(rest, MARK) {
            rest = &rest[at + MARK.len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if let Some(sent) = std::str::from_utf8(&rest[..digits]).ok().and_then(|text| text.parse().ok()) {
                delays.borrow_mut().push(now.saturating_sub(Duration::from_micros(sent)));
            }
        }
    }
}

/// Changes the watched object again and again; how often.
async fn change(target: &Target, writer: &mut super::wire::Connection, began: Instant) -> Result<usize> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / EVENTS_PER_SECOND);
    let end = Instant::now() + WINDOW;
    let mut sent = 0;
    while Instant::now() < end {
        ticks.tick().await;
        let body = format!(r#"{{"metadata":{{"name":"told"}},"data":{{"sent":"{}"}}}}"#, began.elapsed().as_micros());
        let (status, _) = writer.exchange(&target.request("PUT", &format!("{PATH}/told"), &body)).await?;
        ensure!(status == 200, "changing the watched object: {status}");
        sent += 1;
    }
    Ok(sent)
}

async fn wait_for(delays: &RefCell<Vec<Duration>>, count: usize) {
    let end = Instant::now() + PATIENCE;
    while delays.borrow().len() < count && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every watcher is a descriptor.
pub(super) fn raise_descriptors() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")
}
