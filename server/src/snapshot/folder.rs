//! The folder of snapshots: what is there, what names are given, and which of them may go.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    SnapshotError,
    file::{self, PART_SUFFIX},
    header::Header,
};

/// What a snapshot is called that somebody asked for.
pub const ON_DEMAND: &str = "on-demand";

/// What a snapshot is called that the schedule made.
pub const SCHEDULED: &str = "scheduled";

/// How the names of files end.
const SUFFIX: &str = ".snapshot";

/// How long a given name may be.
const MAX_NAME_BYTES: usize = 64;

/// How long a half-written file that nobody writes any more is left alone.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

/// A snapshot that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// What it says of itself, and whether it has the length that it should have; or why it cannot be read.
    pub header: Result<(Header, bool), String>,
}

impl Found {
    /// The name of the file.
    pub fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn whole(&self) -> Option<&Header> {
        self.header.as_ref().ok().filter(|(_, whole)| *whole).map(|(header, _)| header)
    }
}

fn fits(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

/// Refuses what cannot be part of a file's name.
pub fn check_name(name: &str) -> Result<(), SnapshotError> {
    if !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.starts_with('.') && name.chars().all(fits) {
        return Ok(());
    }
    Err(SnapshotError::Name { name: name.to_owned() })
}

/// The name of a new file: `NAME-NODE-SECONDS.snapshot`, as k3s has it, and a number where that is taken.
pub(super) fn new_path(folder: &Path, name: &str, node: &str, created: Timestamp) -> PathBuf {
    let node: String = node.chars().filter(|c| fits(*c)).take(MAX_NAME_BYTES).collect();
    let stem = format!("{name}-{node}-{}", created.as_second());
    let numbered = (2..).map(|number| format!("{stem}-{number}{SUFFIX}"));
    let names = std::iter::once(format!("{stem}{SUFFIX}")).chain(numbered);
    let mut paths = names.map(|name| folder.join(name));
    paths.find(|path| !path.exists()).unwrap_or_else(|| folder.join(stem))
}

/// What is in a folder, the newest first; a folder that is not there holds nothing.
pub fn list(folder: &Path) -> Result<Vec<Found>, SnapshotError> {
    let failed = |source| SnapshotError::File { action: "reading the folder", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || !name.ends_with(SUFFIX) {
            continue;
        }
        let header = file::glance(&path).map_err(|error| match error {
            SnapshotError::Header { source, .. } => source.to_string(),
            other => other.to_string(),
        });
        // One that is being removed is not there, and has no fault.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        found.push(Found { size_bytes: metadata.len(), path, header });
    }
    found.sort_by_cached_key(|found| {
        let created = found.header.as_ref().map_or(Timestamp::MIN, |(header, _)| header.created);
        (std::cmp::Reverse(created), found.path.clone())
    });
    Ok(found)
}

/// Which of these are beyond the newest `keep` of their name and node. What is damaged neither counts nor goes: it
/// must not displace what can be restored, and a person may want to see it.
pub(super) fn beyond<'a>(found: &'a [Found], name: Option<&str>, node: Option<&str>, keep: usize) -> Vec<&'a Found> {
    let mut kept: Vec<(&str, &str, usize)> = Vec::new();
    let mut beyond = Vec::new();
    for one in found {
        let Some(header) = one.whole() else { continue };
        if name.is_some_and(|name| name != header.name) || node.is_some_and(|node| node != header.node) {
            continue;
        }
        let group = (header.name.as_str(), header.node.as_str());
        let at = kept.iter().position(|(name, node, _)| (*name, *node) == group).unwrap_or_else(|| {
            kept.push((group.0, group.1, 0));
            kept.len() - 1
        });
        kept[at].2 += 1;
        if kept[at].2 > keep {
            beyond.push(one);
        }
    }
    beyond
}

/// Removes all but the newest `keep` of each name (or of the one given) and node (or of the one given); gives what
/// has been removed.
pub fn prune(folder: &Path, name: Option<&str>, node: Option<&str>, keep: usize) -> Result<Vec<Found>, SnapshotError> {
    let found = list(folder)?;
    let mut removed = Vec::new();
    for one in beyond(&found, name, node, keep) {
        remove(&one.path)?;
        removed.push(one.clone());
    }
    Ok(removed)
}

/// Removes a snapshot.
pub fn remove(path: &Path) -> Result<(), SnapshotError> {
    fs::remove_file(path).map_err(|source| SnapshotError::File { action: "removing", path: path.to_owned(), source })
}

/// Removes what a crash has left half written.
pub(super) fn clean(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED_AFTER));
        if name.starts_with('.') && name.ends_with(&format!("{SUFFIX}{PART_SUFFIX}")) && old {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The path of a snapshot that an operator names: a path, or the name of a file in the folder, with or without its
/// ending.
pub fn find(folder: &Path, named: &str) -> PathBuf {
    let as_given = PathBuf::from(named);
    if as_given.components().count() > 1 || as_given.exists() {
        return as_given;
    }
    let in_folder = folder.join(named);
    let with_suffix = folder.join(format!("{named}{SUFFIX}"));
    if !in_folder.exists() && with_suffix.exists() { with_suffix } else { in_folder }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::header::tests::header, *};

    fn found(name: &str, node: &str, seconds: i64, whole: bool) -> Found {
        let created = Timestamp::from_second(seconds).unwrap();
        let header = Header { name: name.to_owned(), node: node.to_owned(), created, ..header() };
        Found { path: new_path(Path::new("/none"), name, node, created), size_bytes: 1, header: Ok((header, whole)) }
    }

    fn names(found: &[&Found]) -> Vec<String> {
        found.iter().map(|found| found.file_name()).collect()
    }

    #[test]
    fn the_oldest_of_a_name_and_node_go_and_damaged_ones_do_not_count() {
        let all = [
            found("scheduled", "a", 90, false),
            found("scheduled", "a", 80, true),
            found("on-demand", "a", 75, true),
            found("scheduled", "b", 70, true),
            found("scheduled", "a", 60, true),
            Found { path: "/none/x.snapshot".into(), size_bytes: 0, header: Err("damaged".to_owned()) },
            found("scheduled", "a", 50, true),
            found("scheduled", "a", 40, false),
            found("on-demand", "a", 30, true),
        ];
        assert_eq!(names(&beyond(&all, Some("scheduled"), Some("a"), 2)), ["scheduled-a-50.snapshot"]);
        let of_all = ["scheduled-a-60.snapshot", "scheduled-a-50.snapshot", "on-demand-a-30.snapshot"];
        assert_eq!(names(&beyond(&all, None, None, 1)), of_all);
        assert_eq!(names(&beyond(&all, Some("on-demand"), None, 5)), Vec::<String>::new());
    }

    #[test]
    fn a_name_is_never_given_twice() {
        let folder = tempfile::tempdir().unwrap();
        let created = Timestamp::from_second(1_700_000_000).unwrap();
        for expected in ["x-..n-1700000000.snapshot", "x-..n-1700000000-2.snapshot", "x-..n-1700000000-3.snapshot"] {
            let path = new_path(folder.path(), "x", "../n", created);
            assert_eq!(path.file_name().unwrap(), expected);
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn names_stay_within_the_folder() {
        for name in ["", "a/b", "../a", ".hidden", "a b", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("before-upgrade_1.2").is_ok());
    }

    #[test]
    fn an_operator_may_name_a_file_in_several_ways() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x-n-1.snapshot");
        fs::write(&path, "").unwrap();
        assert_eq!(find(folder.path(), "x-n-1.snapshot"), path);
        assert_eq!(find(folder.path(), "x-n-1"), path);
        assert_eq!(find(Path::new("/none"), path.to_str().unwrap()), path);
        assert_eq!(find(Path::new("/none"), "y"), Path::new("/none/y"));
    }
}
