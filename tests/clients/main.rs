//! Stock clients other than kubectl in front of the real binary: the Python client, kube (Rust) with reflectors and a
//! controller, and one that speaks protobuf alone.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

use std::{fs, process::Command};

use common::{Cluster, project, text, tools};

/// A pod that reads its input, with tools in it, and one that serves.
const PODS: &str = "apiVersion: v1
kind: Pod
metadata: {name: cat}
spec:
  runtimeClassName: wasm
  containers:
  - name: main
    image: tools:latest
    imagePullPolicy: Never
    command: [cat]
    stdin: true
    env: [{name: GREETING, value: Ahoy}]
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  runtimeClassName: wasm
  containers:
  - {name: main, image: 'hello:latest', imagePullPolicy: Never, ports: [{containerPort: 8080}]}
";

/// Runs a program, which says that it has walked.
fn walks(cluster: &Cluster, program: &mut Command) {
    let output = program.output().expect("the client runs");
    assert!(output.status.success() && text(&output).contains("walked"), "{}\n{}", text(&output), cluster.tail());
}

#[test]
fn the_python_client() {
    let cluster = Cluster::start();
    cluster.import_hello();
    let component = fs::read(project().join("wasm/tools/tools.wasm")).expect("the component of tools");
    cluster.import_bytes("tools", &component);
    cluster.apply(PODS);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/cat", "pod/web", "--timeout=60s"]);
    let mut python = Command::new("python3");
    python.arg(project().join("tests/clients/walk.py")).arg(cluster.data_dir().join("kubeconfig"));
    python.env("PYTHONPATH", tools().join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    walks(&cluster, &mut python);
}

#[test]
fn clients_in_rust() {
    let target = tools().with_file_name("clients");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(project().join("tests/clients/rust/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{}", text(&built));
    let cluster = Cluster::start();
    for client in ["kube", "protobuf"] {
        let mut program = Command::new(target.join("debug/clients"));
        walks(&cluster, program.arg(cluster.data_dir().join("kubeconfig")).arg(client));
    }
}
