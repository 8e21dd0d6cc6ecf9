//! Backup and restore with the real binary and the real kubectl.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{collections::BTreeSet, fs, path::PathBuf};

use common::{Cluster, http_get, project, text};
use serde_json::Value;

/// What skiff prints; it must succeed.
fn skiff(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.skiff(args).output().expect("skiff runs");
    assert!(output.status.success(), "skiff {args:?} failed: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What skiff says where it must fail.
fn skiff_fails(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.skiff(args).output().expect("skiff runs");
    assert!(!output.status.success(), "skiff {args:?} succeeded: {}", text(&output));
    text(&output)
}

/// Saves a snapshot; gives its file and its header.
fn save(cluster: &Cluster, name: &str) -> (PathBuf, Value) {
    let said = skiff(cluster, &["snapshot", "save", "--name", name, "-o", "json"]);
    let saved: Value = serde_json::from_str(&said).expect("JSON");
    (saved["path"].as_str().expect("a path").into(), saved["header"].clone())
}

fn ready_replicas(cluster: &Cluster) -> i64 {
    cluster.get(&["deployment", "hello"])["status"]["readyReplicas"].as_i64().unwrap_or_default()
}

fn answers(cluster: &Cluster) -> bool {
    let service = cluster.get(&["service", "hello"]);
    let ip = service["spec"]["clusterIP"].as_str().expect("a ClusterIP").to_owned();
    http_get(&format!("http://{ip}:8080/")).is_ok_and(|body| body.starts_with("Hello from"))
}

fn newest_version(cluster: &Cluster) -> u64 {
    let list = cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/default/configmaps"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    list["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).expect("a version")
}

#[test]
fn a_restored_cluster_is_what_it_was_and_no_client_trusts_what_came_after() {
    let mut cluster = Cluster::start();
    cluster.import_hello();
    let manifest = project().join("examples/hello/hello.yaml");
    cluster.kubectl(&["apply", "-f", manifest.to_str().expect("a path")]);
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    cluster.wait("3 are ready", |cluster| ready_replicas(cluster) == 3);
    let uid = cluster.get(&["deployment", "hello"])["metadata"]["uid"].clone();
    let (path, header) = save(&cluster, "before-the-mistake");
    assert!(header["objects"].as_u64() > Some(50), "{header}");

    let listed = skiff(&cluster, &["snapshot", "list"]);
    let name = path.file_name().expect("a name").to_str().expect("a name");
    assert!(name.starts_with("before-the-mistake-test-node-") && listed.contains(name), "{name}: {listed}");
    let status = skiff(&cluster, &["snapshot", "status", name]);
    assert!(status.contains("verified with the server token") && status.contains("test-node"), "{status}");

    cluster.kubectl(&["delete", "configmap", "kept"]);
    cluster.kubectl(&["delete", "deployment,service", "hello"]);
    cluster.kubectl(&["create", "configmap", "later", "--from-literal=a=b"]);
    let version = newest_version(&cluster);
    let kubeconfig = fs::read(cluster.data_dir().join("kubeconfig")).expect("a kubeconfig");
    let refused = skiff_fails(&cluster, &["snapshot", "restore", name]);
    assert!(refused.contains("another skiff runs"), "{refused}");
    cluster.interrupt();

    let said = skiff(&cluster, &["snapshot", "restore", name]);
    assert!(said.contains("before-restore-"), "{said}");
    cluster.start_again();
    assert_eq!(fs::read(cluster.data_dir().join("kubeconfig")).expect("a kubeconfig"), kubeconfig);
    assert_eq!(cluster.get(&["configmap", "kept"])["data"]["a"], "b");
    let gone = cluster.kubectl_fails(&["get", "configmap", "later"]);
    assert!(gone.contains("NotFound"), "{gone}");
    assert_eq!(cluster.get(&["deployment", "hello"])["metadata"]["uid"], uid);
    cluster.wait("pods are back", |cluster| ready_replicas(cluster) == 3 && answers(cluster));

    assert!(newest_version(&cluster) > version, "resource versions go on");
    let configmaps = "/api/v1/namespaces/default/configmaps";
    let exact = format!("{configmaps}?resourceVersion={version}&resourceVersionMatch=Exact");
    let refused = cluster.kubectl_fails(&["get", "--raw", &exact]);
    assert!(refused.contains("too old") || refused.contains("Expired"), "{refused}");
    let watch = format!("{configmaps}?watch=true&resourceVersion={version}&timeoutSeconds=30");
    let output = cluster.kubectl_command("1.36", &["get", "--raw", &watch]).output().expect("kubectl runs");
    let told = text(&output);
    assert!(told.contains("too old") || told.contains("\"code\":410") || told.contains("Expired"), "{told}");
}

#[test]
fn a_snapshot_moves_a_cluster_to_another_machine() {
    let mut first = Cluster::start();
    first.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    first.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=a=do-not-show-this"]);
    let token = fs::read_to_string(first.data_dir().join("server/token")).expect("a token").trim().to_owned();
    first.interrupt();
    // Without a server: straight from the datastore.
    let (path, header) = save(&first, "on-demand");
    assert_eq!(header["datastore"], "sqlite");
    let bytes = fs::read(&path).expect("the snapshot");
    assert!(!bytes.windows(16).any(|window| window == b"do-not-show-this"), "a secret shows");

    let mut second = Cluster::prepare();
    let copy = second.write_file("moved.snapshot", &bytes);
    let copy = copy.to_str().expect("a path");
    let restore =
        |cluster: &Cluster, more: &[&str]| skiff_fails(cluster, &[&["snapshot", "restore", copy], more].concat());
    let said = restore(&second, &[]);
    assert!(said.contains("there is no server token") && said.contains("--token"), "{said}");
    let said = restore(&second, &["--token=wrong"]);
    assert!(said.contains("sealed with another token"), "{said}");
    second.write_file("moved.snapshot", &bytes[..bytes.len() - 20]);
    let said = restore(&second, &["--token", &token]);
    assert!(said.contains("truncated or altered") || said.contains("damaged"), "{said}");
    assert!(!second.data_dir().join("server").exists(), "what is refused touches nothing");

    second.write_file("moved.snapshot", &bytes);
    skiff(&second, &["snapshot", "restore", copy, "--token", &token]);
    second.start_again();
    assert_eq!(second.get(&["configmap", "kept"])["data"]["a"], "b");
    // The kubeconfig of the old machine works on the new one, at its address.
    let old = first.data_dir().join("kubeconfig");
    let server = format!("--server=https://127.0.0.1:{}", second.port());
    let old = format!("--kubeconfig={}", old.display());
    second.kubectl(&[&old, &server, "get", "secret", "hidden"]);
    let kept = fs::read_to_string(second.data_dir().join("server/token")).expect("a token");
    assert_eq!(kept.trim(), token);
}

/// The names of the snapshots that are there, the newest first, each whole.
fn listed(cluster: &Cluster) -> Vec<String> {
    let all: Vec<Value> = serde_json::from_str(&skiff(cluster, &["snapshot", "list", "-o", "json"])).expect("JSON");
    assert!(all.iter().all(|one| one["whole"] == true && one["header"]["name"] == "scheduled"), "{all:?}");
    let name = |one: &Value| PathBuf::from(one["path"].as_str().expect("a path"));
    all.iter().map(|one| name(one).file_name().expect("a name").to_str().expect("a name").to_owned()).collect()
}

#[test]
fn snapshots_are_made_on_schedule_and_the_oldest_removed() {
    let mut cluster = Cluster::prepare();
    cluster.set_flags(&["--snapshot-schedule-cron=@every 1s", "--snapshot-retention=2"]);
    cluster.start_again();
    let mut seen = BTreeSet::new();
    cluster.wait("three have been made, of which two are kept", |cluster| {
        let present = listed(cluster);
        // Between one that is new and the removal of the oldest there is one more.
        assert!(present.len() <= 3, "{present:?}");
        let kept = present.len();
        seen.extend(present);
        seen.len() >= 3 && kept == 2
    });
    cluster.wait("an administrator is told", |cluster| {
        let told = cluster.kubectl(&["get", "events", "-n", "kube-system", "--field-selector=reason=SnapshotSaved"]);
        told.contains("Saved ")
    });
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    // One may have begun before the write; the one after it holds it.
    seen.extend(listed(&cluster));
    let before = seen.len();
    cluster.wait("two more have been made", |cluster| {
        seen.extend(listed(cluster));
        seen.len() >= before + 2
    });
    // Whatever it is doing: what is in the folder is whole.
    cluster.kill();
    let newest = cluster.data_dir().join("server/snapshots").join(&listed(&cluster)[0]);
    let token = fs::read_to_string(cluster.data_dir().join("server/token")).expect("a token").trim().to_owned();
    let mut other = Cluster::prepare();
    let copy = other.write_file("scheduled.snapshot", &fs::read(newest).expect("the snapshot"));
    skiff(&other, &["snapshot", "restore", copy.to_str().expect("a path"), "--token", &token]);
    other.start_again();
    assert_eq!(other.get(&["configmap", "kept"])["data"]["a"], "b");
}
