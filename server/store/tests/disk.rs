//! A disk that is full, and one that the kernel has made read-only after an error: writes are refused with what is
//! wrong, reads go on, nothing that was acknowledged is lost. Needs root, for it mounts file systems of its own.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use skiff_api::kinds::Durability;
use skiff_store::{
    Expect, RangeOptions, Revision, SqliteStore, Store, StoreError, Write, WriteOutcome, sqlite::SqliteOptions,
};

/// A file system that is taken off when dropped.
struct Mount {
    folder: tempfile::TempDir,
    device: PathBuf,
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} (these tests need root): {said}");
}

impl Mount {
    /// A file system in memory of a few MiB.
    fn in_memory() -> Self {
        let mount = Self { folder: tempfile::tempdir().unwrap(), device: "tmpfs".into() };
        run(
            "mount",
            &["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), "size=6m".as_ref(), "tmpfs".as_ref(), mount.path()],
        );
        mount
    }

    /// A file system on a device of its own, which is a file.
    fn on_device(device: PathBuf) -> Self {
        std::fs::File::create(&device).unwrap().set_len(16 << 20).unwrap();
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &device]);
        let mount = Self { folder: tempfile::tempdir().unwrap(), device };
        mount.mount();
        mount
    }

    fn mount(&self) {
        run("mount", &["-o".as_ref(), "loop".as_ref(), &self.device, self.path()]);
    }

    /// What the kernel does when it finds an error of the disk: from now on nothing can be written.
    fn abort(&self) {
        run("mount", &["-o".as_ref(), "remount,abort".as_ref(), self.path()]);
    }

    fn unmount(&self) {
        run("umount", &[self.path()]);
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> SqliteStore {
        let options = SqliteOptions { heartbeat_delay: Duration::from_millis(50), ..SqliteOptions::default() };
        SqliteStore::open_with(&self.path().join("state.db"), options).unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _done = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

async fn create(
    store: &SqliteStore,
    key: String,
    bytes: usize,
    durability: Durability,
) -> Result<Revision, StoreError> {
    let value = Some(Bytes::from("x".repeat(bytes)));
    match store.write(Write { key, expect: Expect::Absent, value, durability }).await? {
        WriteOutcome::Done(revision) => Ok(revision),
        mismatch => panic!("{mismatch:?}"),
    }
}

/// Creates until it is refused; returns how many were acknowledged, and the refusal.
async fn fill(store: &SqliteStore, name: &str, bytes: usize) -> (usize, StoreError) {
    for done in 0..10_000 {
        if let Err(error) = create(store, format!("/g/r/{name}-{done}"), bytes, Durability::Synced).await {
            return (done, error);
        }
    }
    panic!("the disk is never full");
}

/// Fills a disk up to its last page.
fn take_the_rest(junk: &Path) {
    let mut junk = std::fs::File::create(junk).unwrap();
    while std::io::Write::write(&mut junk, &[1; 4_096]).is_ok() {}
}

async fn count(store: &SqliteStore) -> usize {
    store.range("/g/r/", RangeOptions::default()).await.unwrap().items.len()
}

/// Watches from the beginning; returns how many events come until a revision.
async fn events(store: &SqliteStore, until: Revision) -> usize {
    let mut watch = store.watch(0).await.unwrap();
    let mut seen = 0;
    loop {
        let batch = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
        let batch = batch.expect("no event came").expect("the watch ended").unwrap();
        seen += batch.len();
        if batch.last().is_some_and(|last| last.revision >= until) {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers() {
    let mount = Mount::in_memory();
    let ballast = mount.path().join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let store = Arc::new(mount.open());
    let (done, refusal) = fill(&store, "large", 10_000).await;
    assert!(done > 10, "{done}");
    assert_eq!(refusal, StoreError::NoSpace);
    assert!(refusal.to_string().contains("no space left for the datastore"));
    // The log has pages that the refused write left behind, and room for a page where there is none for a write.
    take_the_rest(&mount.path().join("junk"));
    let mut done = done;
    for round in 0.. {
        let (more, refusal) = fill(&store, &format!("small-{round}"), 10).await;
        assert_eq!(refusal, StoreError::NoSpace);
        done += more;
        if store.health().await == Err(StoreError::NoSpace) {
            break;
        }
        assert!(round < 100, "a disk that takes nothing is said to be well");
    }

    // Reads go on, of every kind.
    assert_eq!(count(&store).await, done);
    assert_eq!(store.get("/g/r/large-0").await.unwrap().unwrap().value.len(), 10_000);
    let newest = store.revision().await.unwrap();
    assert_eq!(newest, u64::try_from(done).unwrap(), "what is refused takes no revision");
    assert_eq!(events(&store, newest).await, done);
    // So do heartbeats, in memory; a write that is refused takes none of them along.
    let beat = create(&store, "/g/leases/a".to_owned(), 10, Durability::Heartbeat).await.unwrap();
    assert_eq!(create(&store, "/g/r/no".to_owned(), 10_000, Durability::Synced).await, Err(StoreError::NoSpace));
    assert_eq!(store.get("/g/leases/a").await.unwrap().unwrap().mod_revision, beat);

    // Somebody makes room.
    std::fs::remove_file(&ballast).unwrap();
    let after = create(&store, "/g/r/after".to_owned(), 10_000, Durability::Synced).await.unwrap();
    assert_eq!(after, beat + 1);
    assert_eq!(store.health().await, Ok(()));
    store.close().await.unwrap();
    let store = mount.open();
    assert_eq!((count(&store).await, store.revision().await.unwrap()), (done + 1, after));
    assert!(store.get("/g/leases/a").await.unwrap().is_some());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_read_only_refuses_writes_and_loses_nothing() {
    let images = tempfile::tempdir().unwrap();
    let mount = Mount::on_device(images.path().join("disk"));
    let store = mount.open();
    for i in 0..50 {
        create(&store, format!("/g/r/{i:05}"), 500, Durability::Synced).await.unwrap();
    }
    mount.abort();
    let refusal = create(&store, "/g/r/no".to_owned(), 500, Durability::Synced).await.unwrap_err();
    let path = mount.path().join("state.db").display().to_string();
    assert_eq!(refusal, StoreError::ReadOnly(path.clone()));
    let told = refusal.to_string();
    assert!(told.contains(&path) && told.contains("read-only") && told.contains("restart skiff"), "{told}");
    assert!(store.health().await.is_err());
    assert_eq!(count(&store).await, 50);
    assert_eq!(events(&store, 50).await, 50);
    let _refused = store.close().await;
    drop(store);

    // The disk is mended.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !Command::new("umount").arg(mount.path()).output().unwrap().status.success() {
        assert!(Instant::now() < deadline, "the file system is still in use");
        std::thread::sleep(Duration::from_millis(20));
    }
    mount.mount();
    let store = mount.open();
    assert_eq!(count(&store).await, 50);
    assert!(create(&store, "/g/r/after".to_owned(), 500, Durability::Synced).await.unwrap() > 50);
    store.close().await.unwrap();
    drop(store);
    mount.unmount();
}

#[tokio::test]
async fn a_read_only_disk_is_told_at_the_start() {
    let mount = Mount::in_memory();
    mount.open().close().await.unwrap();
    run("mount", &["-o".as_ref(), "remount,ro".as_ref(), mount.path()]);
    let refusal = SqliteStore::open(&mount.path().join("state.db")).err().unwrap().to_string();
    assert!(refusal.contains("read-only"), "{refusal}");
}
