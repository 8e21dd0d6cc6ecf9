//! What a container sees of its node: the folders that are mounted, and single files.
//!
//! WASI gives a guest folders alone, so a file is put into a folder that stands for its parent: where it is read-only
//! as a copy, made when the container starts (Kubernetes updates no file that is mounted by itself), else as a link, so
//! that what is written reaches the file itself.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use k8s_cri::v1::{ContainerConfig, Mount};

use crate::{disk, run::Preopen};

/// Most files that a container has mounted by themselves, and most bytes of one that is copied.
const MAX_FILES: usize = 256;
const MAX_COPIED_BYTES: u64 = 16 << 20;

/// The folders that a guest sees; `staging` is where files are put. What is no folder and no file (a device, a socket)
/// means nothing to a guest.
pub(super) fn preopens(config: &ContainerConfig, staging: &Path) -> io::Result<Vec<Preopen>> {
    let folders = config.mounts.iter().filter(|mount| Path::new(&mount.host_path).is_dir());
    let mut preopens: Vec<Preopen> = folders.map(preopen).collect();
    let files = config.mounts.iter().filter(|mount| Path::new(&mount.host_path).is_file());
    let mut parents: BTreeMap<&Path, Vec<&Mount>> = BTreeMap::new();
    for file in files.take(MAX_FILES) {
        let at = Path::new(&file.container_path);
        let Some(parent) = at.parent() else { continue };
        if preopens.iter().any(|folder| Path::new(&folder.guest) == parent) {
            tracing::warn!(path = file.container_path, "a file in a mounted folder cannot be mounted over it");
            continue;
        }
        parents.entry(parent).or_default().push(file);
    }
    for (number, (parent, files)) in parents.into_iter().enumerate() {
        let host = staging.join(number.to_string());
        disk::private_dir(&host)?;
        for file in &files {
            stage(file, &host)?;
        }
        let readonly = files.iter().all(|file| file.readonly);
        preopens.push(Preopen { host, guest: parent.to_string_lossy().into_owned(), readonly });
    }
    Ok(preopens)
}

fn preopen(mount: &Mount) -> Preopen {
    Preopen { host: mount.host_path.clone().into(), guest: mount.container_path.clone(), readonly: mount.readonly }
}

/// Puts a file into the folder that stands for its parent.
fn stage(file: &Mount, folder: &Path) -> io::Result<()> {
    let Some(name) = Path::new(&file.container_path).file_name() else { return Ok(()) };
    // The path may be a link, as those of a ConfigMap's files are: what it leads to is meant.
    let (from, to): (PathBuf, PathBuf) = (fs::canonicalize(&file.host_path)?, folder.join(name));
    disk::remove(&to)?;
    if !file.readonly {
        match fs::hard_link(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                tracing::warn!(path = file.container_path, "what is written to this file does not reach the volume");
            }
            linked => return linked,
        }
    }
    fs::write(to, disk::read_bounded(&from, MAX_COPIED_BYTES)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn folders_and_single_files() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, staging) = (dir.path().join("volume"), dir.path().join("staging"));
        fs::create_dir_all(volume.join("..data")).unwrap();
        fs::write(volume.join("..data/app.conf"), "first").unwrap();
        std::os::unix::fs::symlink("..data/app.conf", volume.join("app.conf")).unwrap();
        fs::write(dir.path().join("message"), "").unwrap();
        let mount = |host: &Path, at: &str, readonly| Mount {
            host_path: host.to_str().unwrap().into(),
            container_path: at.into(),
            readonly,
            ..Mount::default()
        };
        let mounts = vec![
            mount(&volume, "/data", true),
            mount(&volume.join("app.conf"), "/etc/app/app.conf", true),
            mount(&volume.join("app.conf"), "/data/other.conf", true),
            mount(&dir.path().join("message"), "/dev/termination-log", false),
            mount(Path::new("/dev/null"), "/dev/null", false),
        ];
        let config = ContainerConfig { mounts, ..ContainerConfig::default() };
        let seen = preopens(&config, &staging).unwrap();
        let of = |guest: &str| seen.iter().find(|folder| folder.guest == guest).unwrap().clone();
        assert_eq!(seen.len(), 3);
        assert!(of("/data").readonly && of("/etc/app").readonly && !of("/dev").readonly);
        assert_eq!(fs::read_to_string(of("/etc/app").host.join("app.conf")).unwrap(), "first");
        fs::write(of("/dev").host.join("termination-log"), "told").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("message")).unwrap(), "told");
        // Started again: the same once more.
        assert_eq!(preopens(&config, &staging).unwrap(), seen);
    }
}
