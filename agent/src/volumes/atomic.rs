//! Puts a set of files in place at once: each set has a folder of its own, `..data` points to the newest by a symbolic
//! link that is swapped by a rename, and what is visible at the top points through `..data`. The layout is the
//! kubelet's, because programs watch `..data`.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
};

use super::payload::Payload;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the files of a folder those of the payload. `stamp` names the new set and differs from call to call.
pub fn write(folder: &Path, payload: &Payload, stamp: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let old = fs::read_link(folder.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| holds(&folder.join(old), payload)) {
        return Ok(());
    }
    let set = format!("..{stamp}");
    for (path, file) in payload {
        let target = folder.join(&set).join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut handle = options.write(true).create(true).truncate(true).mode(0o600).open(&target)?;
        io::Write::write_all(&mut handle, &file.data)?;
        // The mode is set apart from the creation, because the process's umask takes bits from the latter.
        handle.set_permissions(fs::Permissions::from_mode(file.mode))?;
    }
    fs::create_dir_all(folder.join(&set))?;
    let _stale = fs::remove_file(folder.join(NEW_DATA));
    symlink(&set, folder.join(NEW_DATA))?;
    fs::rename(folder.join(NEW_DATA), folder.join(DATA))?;
    link_tops(folder, payload)?;
    match old {
        Some(old) if old.as_os_str() != set.as_str() => fs::remove_dir_all(folder.join(old)),
        _ => Ok(()),
    }
}

/// Whether a set of files was put into a folder before.
pub fn is_there(folder: &Path) -> bool {
    folder.join(DATA).is_dir()
}

/// Whether a set holds just these files.
fn holds(set: &Path, payload: &Payload) -> bool {
    let same =
        |(path, file): (&String, &super::payload::File)| fs::read(set.join(path)).is_ok_and(|data| data == file.data);
    payload.iter().all(same) && count(set) == payload.len()
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

/// Links every first part of a path through `..data`, and takes away links to what is gone.
fn link_tops(folder: &Path, payload: &Payload) -> io::Result<()> {
    let tops: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let link = folder.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(top), link)?;
        }
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::volumes::payload::File;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { data: text.as_bytes().to_vec(), mode: 0o644 };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn a_new_set_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1"), ("d/x", "2")]), "one").unwrap();
        assert_eq!(fs::read(dir.path().join("d/x")).unwrap(), b"2");
        write(dir.path(), &payload(&[("a", "3"), ("b", "4")]), "two").unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"3");
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"4");
        assert!(fs::symlink_metadata(dir.path().join("d")).is_err());
        assert!(!dir.path().join("..one").exists());
    }

    #[test]
    fn the_same_files_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")]), "one").unwrap();
        write(dir.path(), &payload(&[("a", "1")]), "two").unwrap();
        assert_eq!(fs::read_link(dir.path().join("..data")).unwrap(), Path::new("..one"));
    }
}
