//! `/healthz`, `/livez` and `/readyz`: named checks, in the words of Kubernetes.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::future::BoxFuture;
use parking_lot::RwLock;

use super::respond::{Reply, text};

/// Fails with the reason for the log; clients are told that there is one.
pub type CheckFn = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Which of the endpoints a check counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckScope {
    /// All three.
    All,
    /// `/readyz` alone.
    Ready,
}

struct Check {
    name: String,
    scope: CheckScope,
    run: CheckFn,
}

/// The checks, in the order in which they were registered.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Arc<Check>>>,
}

/// A check that fails until it is told that what it stands for is done.
#[derive(Clone, Debug, Default)]
pub struct HealthFlag(Arc<AtomicBool>);

impl HealthFlag {
    /// Lets the check succeed from now on.
    pub fn done(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it does.
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The three endpoints.
const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

impl Health {
    /// With the checks that a server has by being there.
    pub fn new() -> Self {
        let health = Self::default();
        for name in ["ping", "log"] {
            health.add(name, CheckScope::All, Arc::new(|| Box::pin(async { Ok(()) })));
        }
        health
    }

    /// Registers a check.
    pub fn add(&self, name: &str, scope: CheckScope, run: CheckFn) {
        self.checks.write().push(Arc::new(Check { name: name.to_owned(), scope, run }));
    }

    /// Registers a check that fails until its flag is told to be done, e.g. `poststarthook/rbac/bootstrap-roles`.
    pub fn add_flag(&self, name: &str, scope: CheckScope) -> HealthFlag {
        let flag = HealthFlag::default();
        let seen = flag.clone();
        let run: CheckFn = Arc::new(move || {
            let done = seen.is_done();
            Box::pin(async move { if done { Ok(()) } else { Err("not finished".to_owned()) } })
        });
        self.add(name, scope, run);
        flag
    }

    /// All paths that are answered.
    pub fn paths(&self) -> Vec<String> {
        let checks = self.checks.read();
        let mut paths = Vec::new();
        for endpoint in ENDPOINTS {
            paths.push(format!("/{endpoint}"));
            let of = checks.iter().filter(|check| check.counts_for(endpoint));
            paths.extend(of.map(|check| format!("/{endpoint}/{}", check.name)));
        }
        paths
    }

    /// Answers a path; `None` where it is none of health's.
    pub async fn answer(&self, path: &str, query: Option<&str>) -> Option<Reply> {
        let path = path.trim_start_matches('/');
        let (endpoint, name) = path.split_once('/').unwrap_or((path, ""));
        ENDPOINTS.contains(&endpoint).then_some(())?;
        let checks: Vec<_> = self.checks.read().iter().filter(|check| check.counts_for(endpoint)).cloned().collect();
        if name.is_empty() {
            return Some(all(endpoint, &checks, query.unwrap_or_default()).await);
        }
        let check = checks.iter().find(|check| check.name == name)?;
        Some(match (check.run)().await {
            Ok(()) => text(200, "ok"),
            Err(reason) => {
                tracing::debug!(check = name, reason, "a health check failed");
                text(500, format!("internal server error: {reason}\n"))
            }
        })
    }
}

impl Check {
    fn counts_for(&self, endpoint: &str) -> bool {
        self.scope == CheckScope::All || endpoint == "readyz"
    }
}

/// Runs all checks of an endpoint that are not excluded.
async fn all(endpoint: &str, checks: &[Arc<Check>], query: &str) -> Reply {
    let pairs = || query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let decode = |value: &str| percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
    let mut excluded: Vec<String> = pairs().filter(|(name, _)| *name == "exclude").map(|(_, v)| decode(v)).collect();
    let (mut output, mut failed) = (String::new(), Vec::new());
    for check in checks {
        let name = &check.name;
        if let Some(at) = excluded.iter().position(|e| e == name) {
            excluded.remove(at);
            _ = writeln!(output, "[+]{name} excluded: ok");
            continue;
        }
        match (check.run)().await {
            Ok(()) => _ = writeln!(output, "[+]{name} ok"),
            Err(reason) => {
                tracing::debug!(check = name, reason, "a health check failed");
                _ = writeln!(output, "[-]{name} failed: reason withheld");
                failed.push(name.as_str());
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        _ = writeln!(output, "warn: some health checks cannot be excluded: no matches for {}", names.join(", "));
    }
    if !failed.is_empty() {
        return text(500, format!("{output}{endpoint} check failed\n"));
    }
    if pairs().any(|(name, _)| name == "verbose") {
        return text(200, format!("{output}{endpoint} check passed\n"));
    }
    text(200, "ok")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use http_body_util::BodyExt as _;

    async fn get(health: &Health, path: &str, query: Option<&str>) -> Option<(u16, String)> {
        let reply = health.answer(path, query).await?;
        let status = reply.status().as_u16();
        let bytes = reply.into_body().collect().await.unwrap().to_bytes();
        Some((status, String::from_utf8(bytes.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn checks_count_and_are_named() {
        let health = Health::new();
        let hook = health.add_flag("poststarthook/rbac/bootstrap-roles", CheckScope::All);
        let sync = health.add_flag("informer-sync", CheckScope::Ready);
        hook.done();
        assert_eq!(get(&health, "/livez", None).await, Some((200, "ok".to_owned())));
        assert_eq!(get(&health, "/livez/ping", None).await, Some((200, "ok".to_owned())));
        assert_eq!(get(&health, "/livez/nonsense", None).await, None);
        assert_eq!(get(&health, "/livez/informer-sync", None).await, None);
        let failed = "[+]ping ok\n[+]log ok\n[+]poststarthook/rbac/bootstrap-roles ok\n[-]informer-sync failed: reason withheld\nreadyz check failed\n";
        assert_eq!(get(&health, "/readyz", None).await, Some((500, failed.to_owned())));
        let excluded = get(&health, "/readyz", Some("verbose&exclude=informer-sync&exclude=x")).await.unwrap();
        assert_eq!(excluded.0, 200);
        assert!(excluded.1.contains(
            "[+]informer-sync excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\n"
        ));
        sync.done();
        let verbose = get(&health, "/readyz", Some("verbose=true")).await.unwrap();
        assert!(verbose.1.ends_with("readyz check passed\n"));
    }
}
