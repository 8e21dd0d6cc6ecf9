//! `emptyDir` in memory: a file system of its own, by the distribution's `mount`.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, process::Command};

use crate::runtime::containerd::host;

/// Whether a file system is mounted on a folder: it is on another device than the folder above.
pub fn is_mounted(folder: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    let above = folder.parent().and_then(device);
    above.is_some() && device(folder).is_some_and(|own| Some(own) != above)
}

/// Mounts memory on a folder, at most `size_bytes` of it where that is given.
pub fn mount(folder: &Path, size_bytes: Option<u64>) -> io::Result<()> {
    let size = size_bytes.map_or(String::new(), |size| format!(",size={size}"));
    let options = format!("mode=0777,nosuid,nodev{size}");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder))
}

/// Unmounts what is mounted on the folders in a folder.
pub fn unmount_all(folder: &Path) -> io::Result<()> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| is_mounted(path)) {
        run(Command::new("umount").arg(path))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.env("PATH", host::search_path()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn folders_and_mounts_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(!is_mounted(&dir.path().join("a")) && !is_mounted(&dir.path().join("none")));
        assert!(is_mounted(Path::new("/proc")));
        unmount_all(dir.path()).unwrap();
        unmount_all(&dir.path().join("none")).unwrap();
    }
}
