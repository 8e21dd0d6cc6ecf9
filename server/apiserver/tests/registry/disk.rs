//! A full disk, as clients are told of it. Needs root, for it mounts a file system of its own.

use std::{path::Path, process::Command, sync::Arc};

use serde_json::json;
use skiff_api::request::ContentType;
use skiff_apiserver::bootstrap;
use skiff_store::{SqliteStore, Store};

use crate::cluster::Cluster;

/// A file system in memory, taken off when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(disk.path()).output();
        let mount = mount.unwrap();
        assert!(mount.status.success(), "mounting needs root: {}", String::from_utf8_lossy(&mount.stderr));
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _done = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_as_507_and_reads_go_on() {
    let disk = SmallDisk::new();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    let store = Arc::new(SqliteStore::open(&disk.path().join("state.db")).unwrap());
    let cluster = Cluster::over(store.clone()).await;
    bootstrap::run(&cluster.registry).await.unwrap();
    let create = async |name: String| {
        let body = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(50_000)}});
        cluster.send("POST /api/v1/namespaces/default/configmaps", ContentType::Json, body).await
    };
    let mut done = 0;
    let refusal = loop {
        let (code, answer) = create(format!("c{done}")).await;
        if code != 201 {
            break answer;
        }
        done += 1;
        assert!(done < 1_000, "the disk is never full");
    };
    assert_eq!((&refusal["code"], &refusal["reason"]), (&json!(507), &json!("InternalError")));
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains("no space left for the datastore"), "{message}");
    let (code, list) = cluster
        .send(
            "GET /api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%21%3Dkube-root-ca.crt",
            ContentType::Json,
            "",
        )
        .await;
    assert_eq!((code, list["names"].as_array().unwrap().len()), (200, done));

    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(create("after".to_owned()).await.0, 201);
    store.close().await.unwrap();
}
