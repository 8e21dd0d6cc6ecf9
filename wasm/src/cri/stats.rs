//! What containers and sandboxes use, as CRI tells it.

use k8s_cri::v1::{
    ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage, LinuxPodSandboxStats,
    MemoryUsage, PodSandboxAttributes, PodSandboxStats, ProcessUsage, UInt64Value,
};

use crate::{
    disk,
    runtime::{Container, Runtime, Sandbox},
};
use std::sync::atomic::Ordering;

/// Shortest interval that a CPU rate is told over.
const MIN_INTERVAL_NS: i64 = 1_000_000_000;

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

pub(crate) fn container(runtime: &Runtime, container: &Container) -> ContainerStats {
    let now = disk::now_ns();
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: container.id.clone(),
            metadata: container.config.metadata.clone(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        }),
        cpu: Some(cpu(container, now)),
        memory: Some(memory(container, now)),
        writable_layer: Some(FilesystemUsage {
            timestamp: now,
            fs_id: Some(FilesystemIdentifier { mountpoint: runtime.images.dir().to_string_lossy().into_owned() }),
            used_bytes: value(0),
            inodes_used: value(0),
        }),
        swap: None,
    }
}

fn cpu(container: &Container, now: i64) -> CpuUsage {
    let used = container.usage.cpu_ns.load(Ordering::Relaxed);
    let mut sample = container.cpu_sample.lock();
    let interval = now.saturating_sub(sample.at_ns);
    if interval >= MIN_INTERVAL_NS {
        let since = u128::from(used.saturating_sub(sample.cpu_ns)) * 1_000_000_000;
        // The first sample has no interval: the rate since the epoch would be 0, which it is, as yet.
        let rate = since / u128::from(interval.unsigned_abs());
        sample.nano_cores = u64::try_from(rate).unwrap_or(u64::MAX);
        sample.cpu_ns = used;
        sample.at_ns = now;
    }
    CpuUsage { timestamp: now, usage_core_nano_seconds: value(used), usage_nano_cores: value(sample.nano_cores) }
}

fn memory(container: &Container, now: i64) -> MemoryUsage {
    let (used, limit) = (container.usage.memory(), container.usage.memory_limit());
    MemoryUsage {
        timestamp: now,
        working_set_bytes: value(used),
        available_bytes: if limit == 0 { None } else { value(limit.saturating_sub(used)) },
        usage_bytes: value(used),
        rss_bytes: value(used),
        page_faults: value(0),
        major_page_faults: value(0),
    }
}

/// A sandbox uses what its containers use.
pub(crate) fn sandbox(runtime: &Runtime, sandbox: &Sandbox) -> PodSandboxStats {
    let now = disk::now_ns();
    let running = runtime.containers_of(&sandbox.id).into_iter().filter(|one| one.is_running());
    let containers: Vec<ContainerStats> = running.map(|one| container(runtime, &one)).collect();
    let sum = |of: fn(&ContainerStats) -> Option<u64>| value(containers.iter().filter_map(of).sum());
    let cpu = CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: sum(|one| Some(one.cpu.as_ref()?.usage_core_nano_seconds.as_ref()?.value)),
        usage_nano_cores: sum(|one| Some(one.cpu.as_ref()?.usage_nano_cores.as_ref()?.value)),
    };
    let used = sum(|one| Some(one.memory.as_ref()?.working_set_bytes.as_ref()?.value));
    let memory = MemoryUsage {
        timestamp: now,
        working_set_bytes: used,
        usage_bytes: used,
        rss_bytes: used,
        ..MemoryUsage::default()
    };
    let linux = LinuxPodSandboxStats {
        cpu: Some(cpu),
        memory: Some(memory),
        network: None,
        process: Some(ProcessUsage { timestamp: now, process_count: value(0) }),
        containers,
    };
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: sandbox.config.metadata.clone(),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    }
}
