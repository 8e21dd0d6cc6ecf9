//! Looks every ten seconds at how much memory, disk and process ids are left, takes away images that nobody uses
//! where the disk fills up, and orders a pod to go where that is not enough. What to do is decided by `pressure` and
//! `images`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_cri::v1::{
    ContainerStats, ImageFsInfoRequest, ImageSpec, ListContainerStatsRequest, ListContainersRequest, ListImagesRequest,
    RemoveImageRequest,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::sys::statvfs::statvfs;
use skiff_client::EventType;
use tokio_util::sync::CancellationToken;

use super::{
    images::{History, Image},
    limits::{self, Kept},
    pressure::{self, Candidate, Pressure, Reading, Readings, Resource, Shortage},
    settings::Settings,
    usage::{self, Rate, Usage},
};
use crate::{
    PodNetwork,
    context::{Context, Order},
    pods::{
        config::{CONTAINER_NAME, POD_UID},
        model::Ended,
        statics::mirrored,
    },
    quantity,
    runtime::router::Runtime,
    volumes::setup,
};

/// How often is looked (the kubelet's).
const LOOK: Duration = Duration::from_secs(10);

/// How often images are looked at while there is room (the kubelet's).
const LOOK_AT_IMAGES: SignedDuration = SignedDuration::from_secs(300);

/// Guards the node until cancelled.
pub(crate) async fn run(ctx: Arc<Context>, settings: Settings, cancel: CancellationToken) {
    let images_at = Timestamp::UNIX_EPOCH;
    let mut guard = Guard {
        pressure: Pressure::new(&settings.thresholds, settings.transition),
        max_pod_grace_seconds: settings.max_pod_grace_seconds,
        histories: BTreeMap::new(),
        images_at,
        image_folder: None,
        rate: Rate::default(),
        ctx,
    };
    loop {
        guard.look(Timestamp::now()).await;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

struct Guard {
    ctx: Arc<Context>,
    pressure: Pressure,
    max_pod_grace_seconds: i64,
    histories: BTreeMap<String, History>,
    images_at: Timestamp,
    /// Where the OCI runtime keeps its images, once it has told.
    image_folder: Option<PathBuf>,
    rate: Rate,
}

/// What is left of everything; `images` is where images are, if that is known.
fn readings(folder: &Path, images: Option<&Path>) -> Readings {
    let mut readings = Readings::new();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| usage::kib(&meminfo, name);
    let memory = Reading { available: kib("MemAvailable:") * 1024, capacity: kib("MemTotal:") * 1024 };
    readings.insert(Resource::Memory, memory);
    let disks =
        [(Some(folder), Resource::Disk, Resource::Inodes), (images, Resource::ImageDisk, Resource::ImageInodes)];
    for (folder, space, files) in disks {
        let Some(Ok(disk)) = folder.map(statvfs) else { continue };
        let bytes = |blocks: u64| blocks * disk.fragment_size();
        readings.insert(space, Reading { available: bytes(disk.blocks_available()), capacity: bytes(disk.blocks()) });
        readings.insert(files, Reading { available: disk.files_available(), capacity: disk.files() });
    }
    let number = |text: String| text.trim().parse::<u64>().ok();
    let limit = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(number).unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tasks = load.split_whitespace().nth(3).and_then(|part| part.split('/').nth(1)?.parse().ok()).unwrap_or(0);
    readings.insert(Resource::Pids, Reading { available: limit.saturating_sub(tasks), capacity: limit });
    readings
}

impl Guard {
    async fn look(&mut self, now: Timestamp) {
        self.ctx.node_cores_nano.store(self.rate.update(Usage::cpu_nanoseconds_now(), now), Ordering::Relaxed);
        self.find_images().await;
        let readings = readings(&self.ctx.data_dir, self.image_folder.as_deref());
        let (new, urgent) = self.pressure.update(&readings, now);
        self.ctx.conditions.send_if_modified(|conditions| std::mem::replace(conditions, new) != new);
        let disk = readings.get(&Resource::ImageDisk).or(readings.get(&Resource::Disk)).copied();
        let freed = self.free_images(disk.unwrap_or(Reading { available: 0, capacity: 0 }), now).await;
        match urgent {
            Some(short) if short.resource.is_disk() && freed => {}
            Some(short) => self.evict(short).await,
            None => self.evict_outgrown().await,
        }
    }

    /// Asks the OCI runtime where its images are, until it has told.
    async fn find_images(&mut self) {
        if self.image_folder.is_some() {
            return;
        }
        for runtime in self.ctx.runtimes.all().iter().filter(|runtime| runtime.network != PodNetwork::AnyIp) {
            if let Ok(answer) = runtime.cri.image_fs_info(ImageFsInfoRequest {}).await {
                let place = answer.image_filesystems.into_iter().next().and_then(|one| one.fs_id);
                self.image_folder = place.map(|id| PathBuf::from(id.mountpoint)).filter(|path| path.is_absolute());
            }
        }
    }

    /// Evicts the pods that keep more on the disk than they may.
    async fn evict_outgrown(&self) {
        let pods = self.live();
        let limited: Vec<_> = pods.into_iter().filter(|pod| limits::has_any(pod)).collect();
        if limited.is_empty() {
            return;
        }
        let stats = self.stats().await;
        for pod in limited {
            let ctx = Arc::clone(&self.ctx);
            let layers = layers(&pod, &stats);
            let looked = Arc::clone(&pod);
            let kept = tokio::task::spawn_blocking(move || kept(&ctx, &looked, layers)).await.unwrap_or_default();
            if let Some(message) = limits::outgrown(&pod, &kept) {
                self.order(&pod, message, 0);
            }
        }
    }

    /// The pods that may be evicted.
    fn live(&self) -> Vec<Arc<Pod>> {
        let live = |pod: &Arc<Pod>| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let ended = matches!(phase, Some("Succeeded" | "Failed"));
            // Static pods are their operator's, and critical.
            !ended && pod.metadata.deletion_timestamp.is_none() && mirrored(pod).is_none()
        };
        let mut pods = self.ctx.pods.list();
        pods.retain(live);
        pods
    }

    /// Tells a pod to go.
    fn order(&self, pod: &Pod, message: String, grace_seconds: i64) {
        self.ctx.event(pod, None, EventType::Warning, "Evicted", message.clone());
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let ended = Ended { reason: "Evicted".to_owned(), message, grace_seconds: Some(grace_seconds) };
        let _nobody = self.ctx.orders.send(Order { uid, ended });
    }

    /// Takes away images that nobody uses where the disk is nearly full; whether any went. Components are small and
    /// mostly imported: they stay.
    async fn free_images(&mut self, disk: Reading, now: Timestamp) -> bool {
        let due = now.duration_since(self.images_at) >= LOOK_AT_IMAGES;
        if !due && !History::is_full(disk.available, disk.capacity) {
            return false;
        }
        self.images_at = now;
        let mut freed = false;
        let runtimes = self.ctx.runtimes.all().to_vec();
        for runtime in runtimes.into_iter().filter(|runtime| runtime.network != PodNetwork::AnyIp) {
            let Some((images, in_use)) = images(&runtime).await else { continue };
            let history = self.histories.entry(runtime.name.clone()).or_default();
            history.update(&images, &in_use, now);
            for id in history.collect(&images, &in_use, disk.available, disk.capacity, now) {
                let image = Some(ImageSpec { image: id.clone(), ..ImageSpec::default() });
                match runtime.cri.remove_image(RemoveImageRequest { image }).await {
                    Ok(_) => freed = true,
                    Err(e) => tracing::warn!(error = %e, id, "an unused image cannot be removed"),
                }
            }
        }
        freed
    }

    /// Orders the pod to go that is first in order.
    async fn evict(&self, short: Shortage) {
        let Shortage { resource, reading, threshold, is_soft } = short;
        let stats = self.stats().await;
        let pods = self.live();
        let candidates: Vec<_> = pods.iter().map(|pod| candidate(pod, resource, &stats)).collect();
        let Some(first) = pressure::first(&candidates) else {
            tracing::error!(resource = resource.as_str(), "the node runs short and no pod can be evicted");
            return;
        };
        let message = pressure::message(resource, reading, threshold, first);
        if let Some(pod) = pods.iter().find(|pod| pod.metadata.uid.as_ref() == Some(&first.uid)) {
            // Where there was time, the pod has some too, but never more than it asks for.
            let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(0);
            let grace = if is_soft { self.max_pod_grace_seconds.clamp(0, own.max(0)) } else { 0 };
            self.order(pod, message, grace);
        }
    }

    /// What containers use, by pod UID and container name.
    async fn stats(&self) -> BTreeMap<(String, String), ContainerStats> {
        let mut all = BTreeMap::new();
        for runtime in self.ctx.runtimes.all() {
            let listed = runtime.cri.list_container_stats(ListContainerStatsRequest { filter: None }).await;
            for stats in listed.map(|answer| answer.stats).unwrap_or_default() {
                let label = |name: &str| stats.attributes.as_ref().and_then(|about| about.labels.get(name)).cloned();
                if let (Some(uid), Some(name)) = (label(POD_UID), label(CONTAINER_NAME)) {
                    all.insert((uid, name), stats);
                }
            }
        }
        all
    }
}

/// The images of a runtime, and which of them its containers use.
async fn images(runtime: &Runtime) -> Option<(Vec<Image>, BTreeSet<String>)> {
    let listed = runtime.cri.list_images(ListImagesRequest { filter: None }).await.ok()?.images;
    let containers = runtime.cri.list_containers(ListContainersRequest { filter: None }).await.ok()?.containers;
    let mut in_use: BTreeSet<String> = containers.into_iter().map(|container| container.image_ref).collect();
    for image in &listed {
        if image.repo_digests.iter().chain(&image.repo_tags).any(|name| in_use.contains(name)) {
            in_use.insert(image.id.clone());
        }
    }
    let stays = |image: &k8s_cri::v1::Image| image.pinned || image.repo_digests.is_empty();
    let of = |image: k8s_cri::v1::Image| Image { pinned: stays(&image), size_bytes: image.size, id: image.id };
    Some((listed.into_iter().map(of).collect(), in_use))
}

fn candidate(pod: &Pod, resource: Resource, stats: &BTreeMap<(String, String), ContainerStats>) -> Candidate {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Candidate { uid, ..Candidate::default() } };
    let containers = spec.containers.iter().map(|container| {
        let stats = stats.get(&(uid.clone(), container.name.clone()));
        let usage = stats.map_or(0, |stats| used(stats, resource));
        (container.name.clone(), usage, request(container, resource))
    });
    let containers: Vec<_> = containers.collect();
    let sum = |of: fn(&(String, u64, u64)) -> u64| containers.iter().map(of).fold(0, u64::saturating_add);
    Candidate {
        priority: spec.priority.unwrap_or(0),
        usage: sum(|container| container.1),
        request: sum(|container| container.2),
        largest: containers.iter().max_by_key(|container| container.1).cloned().unwrap_or_default(),
        uid,
    }
}

/// What the containers of a pod have written to their own layers, by name.
fn layers(pod: &Pod, stats: &BTreeMap<(String, String), ContainerStats>) -> BTreeMap<String, u64> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let of = |name: &String| stats.get(&(uid.clone(), name.clone())).map_or(0, |stats| used(stats, Resource::Disk));
    containers.map(|container| (container.name.clone(), of(&container.name))).collect()
}

/// What a pod keeps on the disk: its emptyDirs, and of each container the layer and the logs.
fn kept(ctx: &Context, pod: &Pod, layers: BTreeMap<String, u64>) -> Kept {
    let folder = ctx.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let on_disk = volumes.filter(|volume| volume.empty_dir.is_some());
    let of_volume = |name: &String| (name.clone(), limits::taken(&setup::empty_dir_path(&folder, name)));
    let logs = ctx.log_dir(pod);
    let of_container = |(name, layer): (String, u64)| {
        let logs = limits::taken(&logs.join(&name));
        (name, layer.saturating_add(logs))
    };
    Kept {
        volumes: on_disk.map(|volume| of_volume(&volume.name)).collect(),
        containers: layers.into_iter().map(of_container).collect(),
    }
}

fn used(stats: &ContainerStats, resource: Resource) -> u64 {
    let value = match resource {
        Resource::Memory => stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref()),
        Resource::Disk | Resource::ImageDisk => {
            stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes.as_ref())
        }
        Resource::Inodes | Resource::ImageInodes => {
            stats.writable_layer.as_ref().and_then(|layer| layer.inodes_used.as_ref())
        }
        Resource::Pids => None,
    };
    value.map_or(0, |value| value.value)
}

fn request(container: &Container, resource: Resource) -> u64 {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let value = requests.and_then(|requests| requests.get(resource.as_str()));
    value.and_then(|text| quantity::units(&text.0)).and_then(|units| units.try_into().ok()).unwrap_or(0)
}
