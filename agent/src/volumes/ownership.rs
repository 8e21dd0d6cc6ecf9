//! `fsGroup`: gives a volume's files to a group, as the kubelet does (kubernetes/pkg/volume/volume_linux.go).

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::Path,
};

/// What the group may do with files.
const READ_WRITE: u32 = 0o660;
/// What it may do with files of volumes that are read-only.
const READ: u32 = 0o440;
/// What is added for folders: they can be entered, and what is made in them is the group's too.
const FOLDER: u32 = 0o110 | 0o2000;
/// The deepest folder that is gone into.
const MAX_DEPTH: usize = 128;

/// Whether a folder looks as it would after [`give`]: then `OnRootMismatch` leaves the volume alone.
fn is_given(folder: &Path, group: u32, mask: u32) -> io::Result<bool> {
    let found = fs::metadata(folder)?;
    let wanted = mask | FOLDER;
    Ok(found.gid() == group && found.mode() & wanted == wanted)
}

/// Gives all files below a folder to a group. Links are given, not followed.
pub fn give(folder: &Path, group: u32, read_only: bool, only_on_mismatch: bool) -> io::Result<()> {
    let mask = if read_only { READ } else { READ_WRITE };
    if only_on_mismatch && is_given(folder, group, mask)? {
        return Ok(());
    }
    walk(folder, group, mask, MAX_DEPTH)
}

fn walk(path: &Path, group: u32, mask: u32, depth: usize) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if found.is_symlink() {
        return Ok(());
    }
    if found.is_dir() {
        if depth == 0 {
            return Err(io::Error::other(format!("folders are nested deeper than {MAX_DEPTH}")));
        }
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), group, mask, depth - 1)?;
        }
    }
    // After the owner: to change that takes the bits for set-group-ID away.
    let more = if found.is_dir() { mask | FOLDER } else { mask };
    fs::set_permissions(path, fs::Permissions::from_mode((found.mode() & 0o7777) | more))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn files_and_folders_become_the_groups() {
        let dir = tempfile::tempdir().unwrap();
        // Any user may give files to a group of its own.
        let group = nix::unistd::getegid().as_raw();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "x").unwrap();
        fs::set_permissions(dir.path().join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("l")).unwrap();
        give(dir.path(), group, false, true).unwrap();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("d/f"), mode("d") & 0o2770), (0o660, 0o2770));
        // The root is right now: nothing below is touched again.
        fs::set_permissions(dir.path().join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        give(dir.path(), group, false, true).unwrap();
        assert_eq!(mode("d/f"), 0o600);
        give(dir.path(), group, true, false).unwrap();
        assert_eq!(mode("d/f"), 0o640);
    }
}
