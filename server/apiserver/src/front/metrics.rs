//! `/metrics` in Prometheus' text form: how many requests, how long they took, what the process uses.
//!
//! A registry of its own: three families with labels known here do not justify a dependency. Labels come from the
//! table of kinds and from constants, never from what a client sent, so that clients cannot grow it.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::RwLock;
use skiff_api::{
    kinds::ResourceDef,
    request::{GroupVersionResource, Request, Verb},
};

/// The upper bounds of `apiserver_request_duration_seconds`, in seconds, as in Kubernetes.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// The subresources that have a label of their own.
const SUBRESOURCES: [&str; 15] = [
    "status",
    "scale",
    "log",
    "exec",
    "attach",
    "portforward",
    "proxy",
    "binding",
    "eviction",
    "token",
    "approval",
    "finalize",
    "ephemeralcontainers",
    "resize",
    "",
];

/// What a request counts as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// The resource; empty for paths.
    resource: GroupVersionResource,
    /// The subresource.
    subresource: &'static str,
    /// `resource`, `namespace`, `cluster`, or empty for paths.
    scope: &'static str,
    /// The verb as metrics name it: `POST`, `LIST`...
    verb: &'static str,
    /// Whether nothing is persisted.
    dry_run: bool,
}

impl Label {
    /// Of a request on a path.
    pub fn path(method: &http::Method) -> Self {
        let resource = GroupVersionResource { group: String::new(), version: String::new(), resource: String::new() };
        Self { resource, subresource: "", scope: "", verb: method_word(method), dry_run: false }
    }

    /// Of a request on a resource that the server knows.
    pub fn resource(request: &Request, def: Option<&ResourceDef>, connect: bool) -> Self {
        let mut resource = request.resource.clone();
        if def.is_none() {
            resource = GroupVersionResource { group: String::new(), version: String::new(), resource: String::new() };
        }
        let sub = request.subresource.as_deref().unwrap_or_default();
        let scope = match (&request.name, &request.namespace) {
            (Some(_), _) => "resource",
            (None, Some(_)) => "namespace",
            (None, None) => "cluster",
        };
        let verb = if connect { "CONNECT" } else { verb_word(request.verb) };
        let subresource = SUBRESOURCES.into_iter().find(|known| *known == sub).unwrap_or("other");
        Self { resource, subresource, scope, verb, dry_run: !request.options.dry_run.is_empty() }
    }

    fn write(&self, out: &mut String, more: std::fmt::Arguments<'_>) {
        let GroupVersionResource { group, version, resource } = &self.resource;
        let dry_run = if self.dry_run { "All" } else { "" };
        _ = write!(
            out,
            "{{component=\"apiserver\",dry_run=\"{dry_run}\",group=\"{group}\",resource=\"{resource}\",scope=\"{}\",\
             subresource=\"{}\",verb=\"{}\",version=\"{version}\"{more}}}",
            self.scope, self.subresource, self.verb
        );
    }
}

fn method_word(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn verb_word(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
    }
}

#[derive(Default)]
struct Series {
    /// Requests by HTTP code.
    codes: RwLock<HashMap<u16, Arc<AtomicU64>>>,
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    sum_micros: AtomicU64,
    running: AtomicI64,
}

impl Series {
    fn observe(&self, code: u16, took: Duration) {
        let counter = self.codes.read().get(&code).cloned();
        let counter = counter.unwrap_or_else(|| Arc::clone(self.codes.write().entry(code).or_default()));
        counter.fetch_add(1, Relaxed);
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// Text that another room adds to `/metrics`, in whole families.
pub type Source = Arc<dyn Fn(&mut String) + Send + Sync>;

/// The front's metrics.
#[derive(Default)]
pub struct Metrics {
    series: RwLock<HashMap<Label, Arc<Series>>>,
    sources: RwLock<Vec<Source>>,
}

/// Counts a long-running request for as long as it lives.
pub struct Running(Arc<Series>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// Adds families of another room.
    pub fn add_source(&self, source: Source) {
        self.sources.write().push(source);
    }

    fn series(&self, label: &Label) -> Arc<Series> {
        if let Some(series) = self.series.read().get(label) {
            return Arc::clone(series);
        }
        Arc::clone(self.series.write().entry(label.clone()).or_default())
    }

    /// Counts an answered request.
    pub fn observe(&self, label: &Label, code: u16, took: Duration) {
        self.series(label).observe(code, took);
    }

    /// Counts a request that goes on.
    pub fn running(&self, label: &Label) -> Running {
        let series = self.series(label);
        series.running.fetch_add(1, Relaxed);
        Running(series)
    }

    /// All of it as text.
    pub fn render(&self) -> String {
        let mut series: Vec<(Label, Arc<Series>)> =
            self.series.read().iter().map(|(label, series)| (label.clone(), Arc::clone(series))).collect();
        series.sort_by(|(a, _), (b, _)| (&a.resource, a.verb, a.scope).cmp(&(&b.resource, b.verb, b.scope)));
        let mut out = String::new();
        totals(&series, &mut out);
        durations(&series, &mut out);
        long_running(&series, &mut out);
        process(&mut out);
        for source in self.sources.read().iter() {
            source(&mut out);
        }
        out
    }
}

fn totals(series: &[(Label, Arc<Series>)], out: &mut String) {
    out.push_str("# HELP apiserver_request_total [STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.\n# TYPE apiserver_request_total counter\n");
    for (label, series) in series {
        let mut codes: Vec<(u16, u64)> =
            series.codes.read().iter().map(|(code, count)| (*code, count.load(Relaxed))).collect();
        codes.sort_unstable();
        for (code, count) in codes {
            out.push_str("apiserver_request_total");
            label.write(out, format_args!(",code=\"{code}\""));
            _ = writeln!(out, " {count}");
        }
    }
}

fn durations(series: &[(Label, Arc<Series>)], out: &mut String) {
    out.push_str("# HELP apiserver_request_duration_seconds [STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.\n# TYPE apiserver_request_duration_seconds histogram\n");
    for (label, series) in series {
        let count = series.count.load(Relaxed);
        if count == 0 {
            continue;
        }
        let mut sum = 0;
        for (bound, bucket) in BUCKETS.iter().zip(&series.buckets) {
            sum += bucket.load(Relaxed);
            out.push_str("apiserver_request_duration_seconds_bucket");
            label.write(out, format_args!(",le=\"{bound}\""));
            _ = writeln!(out, " {sum}");
        }
        out.push_str("apiserver_request_duration_seconds_bucket");
        label.write(out, format_args!(",le=\"+Inf\""));
        _ = writeln!(out, " {count}");
        out.push_str("apiserver_request_duration_seconds_sum");
        label.write(out, format_args!(""));
        _ = writeln!(out, " {}", Duration::from_micros(series.sum_micros.load(Relaxed)).as_secs_f64());
        out.push_str("apiserver_request_duration_seconds_count");
        label.write(out, format_args!(""));
        _ = writeln!(out, " {count}");
    }
}

fn long_running(series: &[(Label, Arc<Series>)], out: &mut String) {
    out.push_str("# HELP apiserver_longrunning_requests [STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.\n# TYPE apiserver_longrunning_requests gauge\n");
    for (label, series) in series {
        if matches!(label.verb, "WATCH" | "CONNECT") {
            out.push_str("apiserver_longrunning_requests");
            label.write(out, format_args!(""));
            _ = writeln!(out, " {}", series.running.load(Relaxed));
        }
    }
}

/// The clock ticks of `/proc/self/stat` in a second: 100 on every Linux of today (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// The size of the pages that `/proc/self/stat` counts in.
const PAGE_BYTES: u64 = 4096;

/// The process' own families, as far as `/proc` tells.
fn process(out: &mut String) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields are counted after the command's name, which may hold anything but is in parentheses.
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "seconds of CPU")]
    let cpu_seconds = (field(14) + field(15)) as f64 / TICKS_PER_SECOND;
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display| {
        _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", &cpu_seconds);
    family("process_open_fds", "gauge", "Number of open file descriptors.", &descriptors);
    family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", &(field(24) * PAGE_BYTES));
    family("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", &field(23));
    family("process_threads", "gauge", "Number of threads.", &field(20));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_timed() {
        let metrics = Metrics::default();
        let label = Label::path(&http::Method::GET);
        metrics.observe(&label, 200, Duration::from_millis(30));
        metrics.observe(&label, 200, Duration::from_millis(3));
        let _running = metrics.running(&label);
        let text = metrics.render();
        assert!(text.contains(r#"verb="GET",version="",code="200"} 2"#), "{text}");
        assert!(text.contains(r#"version="",le="0.005"} 1"#), "{text}");
        assert!(text.contains(r#"version="",le="0.05"} 2"#), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }
}
