//! kill -9 at any time, then a start: nothing acknowledged is lost, pods come back, nothing stale is in the way.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use common::{Cluster, http_get, project, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

const ROUNDS: u64 = 4;

fn ready_replicas(cluster: &Cluster) -> i64 {
    cluster.get(&["deployment", "hello"])["status"]["readyReplicas"].as_i64().unwrap_or_default()
}

fn answers(cluster: &Cluster) -> bool {
    let service = cluster.get(&["service", "hello"]);
    let ip = service["spec"]["clusterIP"].as_str().expect("a ClusterIP").to_owned();
    http_get(&format!("http://{ip}:8080/")).is_ok_and(|body| body.starts_with("Hello from"))
}

fn deploy_hello(cluster: &mut Cluster) {
    cluster.import_hello();
    let manifest = project().join("examples/hello/hello.yaml");
    cluster.kubectl(&["apply", "-f", manifest.to_str().expect("a path")]);
    cluster.wait("3 are ready", |c| ready_replicas(c) == 3);
    cluster.wait("the Service answers", |c| answers(c));
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_pods_come_back() {
    let mut cluster = Cluster::start();
    deploy_hello(&mut cluster);
    let mut last_version = 0;
    for round in 0..ROUNDS {
        let acknowledged = write_until_killed(&mut cluster, round);
        cluster.start_again();
        let url = format!("/api/v1/namespaces/default/configmaps?labelSelector=round%3Dr{round}");
        let list: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", &url])).expect("JSON");
        let there: Vec<&str> =
            list["items"].as_array().expect("items").iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
        for name in &acknowledged {
            assert!(there.contains(&name.as_str()), "{name} was acknowledged and is lost; there are {there:?}");
        }
        let version: u64 =
            list["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).expect("a version");
        assert!(version > last_version, "resource versions went back from {last_version} to {version}");
        last_version = version;
        cluster.wait("pods are back", |c| ready_replicas(c) == 3 && answers(c));
    }
    cluster.wait("one server and one runtime are left", |c| c.processes().len() == 2);
}

/// Creates ConfigMaps until the server is killed, at a moment that differs a round; gives those that were acknowledged.
fn write_until_killed(cluster: &mut Cluster, round: u64) -> Vec<String> {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        for writer in 0..2 {
            let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
            let cluster = &*cluster;
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("r{round}-{writer}-{number}");
                    let manifest = format!(
                        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"round":"r{round}"}}}},"data":{{"a":"b"}}}}"#
                    );
                    let file = cluster.write_file(&format!("{name}.json"), manifest.as_bytes());
                    let file = file.to_str().expect("a path").to_owned();
                    let done = cluster.kubectl_command("1.36", &["create", "--validate=false", "-f", &file]).output();
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    if done.expect("kubectl runs").status.success() {
                        acknowledged.lock().expect("the list").push(name);
                    }
                }
            });
        }
        let enough = || acknowledged.lock().expect("the list").len() as u64 >= 2 + 3 * round;
        assert!(wait_for(common::PATIENCE, enough), "writes are acknowledged");
        cluster.signal(cluster.pid(), Signal::SIGKILL);
        stop.store(true, Ordering::SeqCst);
    });
    cluster.kill();
    Arc::try_unwrap(acknowledged).expect("no writer left").into_inner().expect("the list")
}

#[test]
fn the_runtime_is_killed_and_pods_come_back() {
    let mut cluster = Cluster::start();
    deploy_hello(&mut cluster);
    let killed = cluster.runtime_pid();
    cluster.signal(killed, Signal::SIGKILL);
    cluster.wait("another runtime is there", |c| c.processes().len() == 2 && c.runtime_pid() != killed);
    cluster.wait("every pod's end and restart is told", |c| {
        let pods = c.get(&["pods", "-l", "app=hello"]);
        let containers: Vec<&Value> =
            pods["items"].as_array().expect("items").iter().map(|p| &p["status"]["containerStatuses"][0]).collect();
        let told = |c: &&Value| c["restartCount"].as_i64() >= Some(1) && c["lastState"]["terminated"].is_object();
        containers.len() == 3 && containers.iter().all(told)
    });
    cluster.wait("pods are back", |c| ready_replicas(c) == 3 && answers(c));
}

#[test]
fn a_second_skiff_on_the_same_folder_is_refused() {
    let cluster = Cluster::start();
    let output = cluster.skiff(&["dev", "--https-listen-port=0"]).output().expect("skiff runs");
    assert!(!output.status.success());
    let said = common::text(&output);
    assert!(said.contains("another skiff runs on") && said.contains("--data-dir"), "{said}");
}

#[test]
fn a_clean_end_and_a_start_find_everything_again() {
    let mut cluster = Cluster::start();
    deploy_hello(&mut cluster);
    let uid = cluster.get(&["deployment", "hello"])["metadata"]["uid"].clone();
    let ca = std::fs::read(cluster.data_dir().join("kubeconfig")).expect("a kubeconfig");
    cluster.interrupt();
    cluster.start_again();
    assert_eq!(cluster.get(&["deployment", "hello"])["metadata"]["uid"], uid);
    assert_eq!(std::fs::read(cluster.data_dir().join("kubeconfig")).expect("a kubeconfig"), ca);
    cluster.wait("pods are back", |c| ready_replicas(c) == 3 && answers(c));
}
