//! The cgroups of pods, made before their containers and removed after them, in version 1 and 2 of the interface.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use k8s_cri::v1::LinuxContainerResources;

/// Where cgroups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// How deep cgroups of a container may lie below the pod's.
const MAX_DEPTH: usize = 8;
/// The controllers that pods are held by, where cgroups of version 2 have them.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// The machine's cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    mount: PathBuf,
    unified: bool,
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::at(Path::new(MOUNT))
    }
}

impl Cgroups {
    /// The cgroups mounted at a folder; version 2 where its controllers are all in one hierarchy.
    pub fn at(mount: &Path) -> Self {
        Self { mount: mount.to_owned(), unified: mount.join("cgroup.controllers").is_file() }
    }

    /// Makes the cgroups of a path, from the root to the pod's own, and sets what the last one may use. What the
    /// machine does not let be set is left: containers have their own limits.
    pub fn make(&self, path: &[String], limits: &LinuxContainerResources) -> io::Result<()> {
        let Some(own) = path.last() else { return Ok(()) };
        if self.unified {
            self.enable(&self.mount);
            for above in path {
                fs::create_dir_all(self.mount.join(above))?;
                self.enable(&self.mount.join(above));
            }
        } else {
            for controller in ["cpu", "memory"].iter().map(|name| self.mount.join(name)).filter(|path| path.is_dir()) {
                fs::create_dir_all(controller.join(own))?;
            }
        }
        for (file, value) in self.settings(own, limits) {
            if let Err(e) = fs::write(&file, value) {
                tracing::debug!(error = %e, file = %file.display(), "a limit of a pod is not set");
            }
        }
        Ok(())
    }

    /// Lets the cgroups below one use its controllers.
    fn enable(&self, cgroup: &Path) {
        for controller in CONTROLLERS {
            let _not_there = fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }

    fn settings(&self, own: &str, limits: &LinuxContainerResources) -> Vec<(PathBuf, String)> {
        let quota = (limits.cpu_quota > 0).then_some(limits.cpu_quota);
        let memory = (limits.memory_limit_in_bytes > 0).then_some(limits.memory_limit_in_bytes);
        let mut all = vec![];
        if self.unified {
            let at = |file: &str| self.mount.join(own).join(file);
            all.push((at("cpu.weight"), weight(limits.cpu_shares).to_string()));
            all.extend(quota.map(|quota| (at("cpu.max"), format!("{quota} {}", limits.cpu_period))));
            all.extend(memory.map(|bytes| (at("memory.max"), bytes.to_string())));
        } else {
            let at = |controller: &str, file: &str| self.mount.join(controller).join(own).join(file);
            all.push((at("cpu", "cpu.shares"), limits.cpu_shares.to_string()));
            all.extend(quota.map(|quota| (at("cpu", "cpu.cfs_quota_us"), quota.to_string())));
            all.extend(memory.map(|bytes| (at("memory", "memory.limit_in_bytes"), bytes.to_string())));
        }
        all
    }

    /// Removes the last cgroup of a path with what is below it, from every hierarchy. Fails while processes are in it.
    pub fn remove(&self, path: &[String]) -> io::Result<()> {
        let Some(own) = path.last() else { return Ok(()) };
        let hierarchies = fs::read_dir(&self.mount)?.flatten().map(|entry| entry.path());
        let roots: Vec<PathBuf> = if self.unified {
            vec![self.mount.clone()]
        } else {
            hierarchies.filter(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())).collect()
        };
        roots.iter().try_for_each(|root| remove(&root.join(own), MAX_DEPTH))
    }
}

fn remove(cgroup: &Path, depth: usize) -> io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries.flatten().filter(|entry| depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path(), depth - 1)?;
    }
    match fs::remove_dir(cgroup) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// CPU shares as the weight of version 2: 2..262144 onto 1..10000 (runc's `ConvertCPUSharesToCgroupV2Value`).
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn path() -> Vec<String> {
        ["kubepods", "kubepods/burstable", "kubepods/burstable/podu"].map(str::to_owned).to_vec()
    }

    fn limits() -> LinuxContainerResources {
        LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 1024,
            memory_limit_in_bytes: 100,
            ..LinuxContainerResources::default()
        }
    }

    #[test]
    fn both_versions_are_set_and_removed() {
        for (unified, file, value) in [
            (true, "kubepods/burstable/podu/cpu.max", "50000 100000"),
            (true, "kubepods/burstable/podu/cpu.weight", "39"),
            (false, "cpu/kubepods/burstable/podu/cpu.shares", "1024"),
            (false, "memory/kubepods/burstable/podu/memory.limit_in_bytes", "100"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for name in ["cpu", "memory"].iter().filter(|_| !unified) {
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            if unified {
                fs::write(dir.path().join("cgroup.controllers"), "cpu memory").unwrap();
            }
            let cgroups = Cgroups::at(dir.path());
            cgroups.make(&path(), &limits()).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join(file)).unwrap(), value);
        }
    }

    #[test]
    fn what_is_not_there_is_removed_already() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("cpu/kubepods/burstable/podu/deep/er")).unwrap();
        Cgroups::at(dir.path()).remove(&path()).unwrap();
        assert!(dir.path().join("cpu/kubepods/burstable").is_dir());
        assert!(!dir.path().join("cpu/kubepods/burstable/podu").exists());
        Cgroups::at(dir.path()).remove(&path()).unwrap();
    }
}
