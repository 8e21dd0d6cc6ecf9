//! `/metrics/cadvisor`: what containers use, by the names that cAdvisor gives it, for OCI and Wasm containers alike.
//! Dashboards and alerts go by these names. What a runtime does not tell is left out.

use std::collections::BTreeMap;

use hyper::StatusCode;
use k8s_cri::v1::{ContainerStats, UInt64Value};
use k8s_openapi::api::core::v1::ContainerStatus;

use super::{
    answer::{self, Answer},
    info::{Metrics, container_stats, label, number},
};
use crate::{
    context::Context,
    pods::config::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID},
};

/// A series of containers: its name, its kind, how it is printed, where its value is.
struct Series {
    name: &'static str,
    kind: &'static str,
    in_seconds: bool,
    value: fn(&ContainerStats) -> Option<&UInt64Value>,
}

const fn series(name: &'static str, kind: &'static str, value: fn(&ContainerStats) -> Option<&UInt64Value>) -> Series {
    Series { name, kind, in_seconds: false, value }
}

const SERIES: [Series; 8] = [
    Series {
        in_seconds: true,
        ..series("container_cpu_usage_seconds_total", "counter", |stats| {
            stats.cpu.as_ref()?.usage_core_nano_seconds.as_ref()
        })
    },
    series("container_memory_usage_bytes", "gauge", |stats| stats.memory.as_ref()?.usage_bytes.as_ref()),
    series("container_memory_working_set_bytes", "gauge", |stats| stats.memory.as_ref()?.working_set_bytes.as_ref()),
    series("container_memory_rss", "gauge", |stats| stats.memory.as_ref()?.rss_bytes.as_ref()),
    series("container_memory_failures_total", "counter", |stats| stats.memory.as_ref()?.page_faults.as_ref()),
    series("container_fs_usage_bytes", "gauge", |stats| stats.writable_layer.as_ref()?.used_bytes.as_ref()),
    series("container_fs_inodes_used", "gauge", |stats| stats.writable_layer.as_ref()?.inodes_used.as_ref()),
    series("container_swap_usage_bytes", "gauge", |stats| stats.swap.as_ref()?.swap_usage_bytes.as_ref()),
];

/// The labels of a container's series; those of a pod as a whole have no container.
fn labels(stats: &ContainerStats, container: &str, image: &str) -> String {
    let (namespace, pod) = (label(stats, POD_NAMESPACE), label(stats, POD_NAME));
    let uid = label(stats, POD_UID);
    let id = stats.attributes.as_ref().map(|attributes| attributes.id.as_str()).unwrap_or_default();
    let (id, name) = match container {
        "" => (format!("/kubepods/pod{uid}"), ""),
        _ => (format!("/kubepods/pod{uid}/{id}"), id),
    };
    format!("{{container={container:?},id={id:?},image={image:?},name={name:?},namespace={namespace:?},pod={pod:?}}}")
}

/// A container as its pod's status has it.
fn status_of(ctx: &Context, stats: &ContainerStats) -> Option<ContainerStatus> {
    let pod = ctx.pods.get(&label(stats, POD_NAMESPACE), &label(stats, POD_NAME))?;
    let name = label(stats, CONTAINER_NAME);
    pod.status.as_ref()?.container_statuses.iter().flatten().find(|known| known.name == name).cloned()
}

/// When a container was started, in seconds since 1970.
fn started(status: &ContainerStatus) -> Option<i64> {
    Some(status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0.as_second())
}

/// Answers with all series.
pub(super) async fn metrics(ctx: &Context) -> Answer {
    let all = container_stats(ctx).await;
    let statuses: Vec<_> = all.iter().map(|stats| status_of(ctx, stats).unwrap_or_default()).collect();
    let images: Vec<String> = statuses.iter().map(|status| status.image.clone()).collect();
    let mut text = Metrics::default();
    text.line(
        "cadvisor_version_info",
        "gauge",
        &format!("{{cadvisorVersion={:?},dockerVersion=\"\",osVersion=\"\"}}", env!("CARGO_PKG_VERSION")),
        "1",
    );
    for series in &SERIES {
        write(&mut text, series, &all, &images);
    }
    for (stats, status) in all.iter().zip(&statuses) {
        if let Some(started) = started(status) {
            let labels = labels(stats, &label(stats, CONTAINER_NAME), &status.image);
            text.line("container_start_time_seconds", "gauge", &labels, &started.to_string());
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    text.line("machine_cpu_cores", "gauge", "", &cores.to_string());
    text.line("machine_memory_bytes", "gauge", "", &ctx.memory_bytes.to_string());
    answer::text(StatusCode::OK, text.text)
}

fn write(text: &mut Metrics, series: &Series, all: &[ContainerStats], images: &[String]) {
    let mut of_pods: BTreeMap<String, u64> = BTreeMap::new();
    for (stats, image) in all.iter().zip(images) {
        let Some(value) = (series.value)(stats).map(|value| number(Some(value))) else { continue };
        put(text, series, &labels(stats, &label(stats, CONTAINER_NAME), image), value);
        let sum = of_pods.entry(labels(stats, "", "")).or_default();
        *sum = sum.saturating_add(value);
    }
    // A pod as a whole is a series without a container's name.
    for (labels, sum) in &of_pods {
        put(text, series, labels, *sum);
    }
}

fn put(text: &mut Metrics, series: &Series, labels: &str, value: u64) {
    if series.in_seconds {
        text.seconds(series.name, labels, value);
    } else {
        text.line(series.name, series.kind, labels, &value.to_string());
    }
}
