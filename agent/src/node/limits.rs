//! Which pods have outgrown what they may keep on the node's disk: emptyDir volumes with a size limit, and limits of
//! ephemeral storage; pure. The words are the kubelet's (kubernetes/pkg/kubelet/eviction/eviction_manager.go).

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use skiff_api::quantity::Quantity;

/// The resource.
const STORAGE: &str = "ephemeral-storage";
/// How deep folders are gone into.
const MAX_DEPTH: usize = 128;
/// How many files of a volume are counted: of more than that a limit says little.
const MAX_FILES: usize = 1_000_000;

/// What a pod keeps on the disk, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// By volume: what its emptyDirs hold.
    pub(super) volumes: BTreeMap<String, u64>,
    /// By container: its writable layer and its logs.
    pub(super) containers: BTreeMap<String, u64>,
}

fn limit(resources: Option<&ResourceRequirements>) -> Option<Quantity> {
    resources?.limits.as_ref()?.get(STORAGE)?.0.parse().ok()
}

fn bytes(quantity: Quantity) -> u64 {
    u64::try_from(quantity.value()).unwrap_or(0)
}

fn size_limits(pod: &Pod) -> impl Iterator<Item = (&str, Quantity)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let text = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        let limit: Quantity = text.0.parse().ok()?;
        (!limit.is_zero()).then_some((volume.name.as_str(), limit))
    })
}

fn limits_of_containers(pod: &Pod) -> impl Iterator<Item = (&Container, Quantity)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.filter_map(|container| Some((container, limit(container.resources.as_ref())?)))
}

/// Whether a pod has any limit that could be outgrown.
pub(super) fn has_any(pod: &Pod) -> bool {
    size_limits(pod).next().is_some() || limits_of_containers(pod).next().is_some()
}

/// Why a pod is evicted, if it keeps more than it may.
pub(super) fn outgrown(pod: &Pod, kept: &Kept) -> Option<String> {
    let volume = |name: &str| kept.volumes.get(name).copied().unwrap_or(0);
    if let Some((name, limit)) = size_limits(pod).find(|(name, limit)| volume(name) > bytes(*limit)) {
        return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "));
    }
    // Only where every container is limited is the pod.
    let of_pod = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| limit(container.resources.as_ref()));
    let total = of_pod.collect::<Option<Vec<_>>>().filter(|limits| !limits.is_empty());
    let total = total.map(|limits| limits.into_iter().fold(Quantity::ZERO, Quantity::plus));
    let used =
        kept.volumes.values().chain(kept.containers.values()).fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    if let Some(total) = total.filter(|total| used > bytes(*total)) {
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. "));
    }
    let container = |container: &Container| kept.containers.get(&container.name).copied().unwrap_or(0);
    let over = limits_of_containers(pod).find(|(one, limit)| container(one) > bytes(*limit));
    over.map(|(one, limit)| format!("Container {} exceeded its local ephemeral storage limit \"{limit}\". ", one.name))
}

/// The bytes that a folder takes on the disk; what cannot be read counts as nothing.
pub(super) fn taken(folder: &Path) -> u64 {
    let mut left = MAX_FILES;
    walk(folder, MAX_DEPTH, &mut left)
}

fn walk(folder: &Path, depth: usize, left: &mut usize) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum: u64 = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(rest) = left.checked_sub(1) else { return sum };
        *left = rest;
        let Ok(found) = entry.metadata() else { continue };
        // Blocks of 512 bytes, whatever the file system's own are: a file with holes takes what it has.
        sum = sum.saturating_add(found.blocks().saturating_mul(512));
        if found.is_dir() && depth > 0 {
            sum = sum.saturating_add(walk(&entry.path(), depth - 1, left));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn pod(size: &str, limits: [Option<&str>; 2]) -> Pod {
        let container = |name: &str, limit: Option<&str>| match limit {
            Some(limit) => json!({"name": name, "resources": {"limits": {"ephemeral-storage": limit}}}),
            None => json!({"name": name}),
        };
        let volumes = json!([{"name": "cache", "emptyDir": {"sizeLimit": size}}, {"name": "free", "emptyDir": {}}]);
        serde_json::from_value(json!({"spec": {"volumes": volumes,
            "containers": [container("a", limits[0]), container("b", limits[1])]}}))
        .unwrap()
    }

    fn kept(cache: u64, free: u64, a: u64) -> Kept {
        Kept {
            volumes: [("cache".to_owned(), cache), ("free".to_owned(), free)].into(),
            containers: [("a".to_owned(), a)].into(),
        }
    }

    #[test]
    fn who_keeps_more_than_is_allowed() {
        let mib = 1 << 20;
        let one = pod("1Mi", [Some("4Mi"), None]);
        assert!(has_any(&one) && !has_any(&pod("0", [None, None])));
        assert_eq!(outgrown(&one, &kept(mib, 100 * mib, 0)), None, "nothing limits the other volume");
        let over = outgrown(&one, &kept(mib + 1, 0, 0)).unwrap();
        assert_eq!(over, "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ");
        let over = outgrown(&one, &kept(0, 0, 4 * mib + 1)).unwrap();
        assert_eq!(over, "Container a exceeded its local ephemeral storage limit \"4Mi\". ");
        let both = pod("0", [Some("4Mi"), Some("2Mi")]);
        assert_eq!(outgrown(&both, &kept(0, 2 * mib, 4 * mib)), None);
        let over = outgrown(&both, &kept(0, 3 * mib, 4 * mib)).unwrap();
        assert_eq!(over, "Pod ephemeral local storage usage exceeds the total limit of containers 6Mi. ");
    }

    #[test]
    fn what_a_folder_takes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("l")).unwrap();
        let taken = taken(dir.path());
        assert!((100_000..200_000).contains(&taken), "{taken}: links are not followed");
        assert_eq!(super::taken(&dir.path().join("none")), 0);
    }
}
