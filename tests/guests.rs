//! The committed components are what their source builds to, judged by what they do.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{fs, process::Command};

use common::{Cluster, http_get, project, text};

const LARGEST_BYTES: u64 = 200_000;

#[test]
fn hello_built_anew_behaves_as_the_committed_one() {
    let committed = project().join("examples/hello/hello.wasm");
    assert!(fs::metadata(&committed).expect("the component").len() < LARGEST_BYTES);
    let out = tempfile::tempdir().expect("a folder");
    let mut build = Command::new(env!("CARGO"));
    build.args(["run", "--quiet", "--package", "xtask", "--", "examples", "hello", "--out"]).arg(out.path());
    let output = build.current_dir(project()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", text(&output));

    let mut cluster = Cluster::start();
    let built = cluster.write_file("built.wasm", &fs::read(out.path().join("hello.wasm")).expect("what was built"));
    cluster.import(&built, "built:latest");
    cluster.import_hello();
    for image in ["hello", "built"] {
        cluster.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {image}}}
spec:
  runtimeClassName: wasm
  containers:
  - name: main
    image: {image}:latest
    imagePullPolicy: Never
    ports: [{{containerPort: 8080}}]
    env: [{{name: POD_NAME, value: one}}, {{name: GREETING, value: Ahoy}}]
"
        ));
    }
    let mut answers = Vec::new();
    for pod in ["hello", "built"] {
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod", pod, "--timeout=60s"]);
        let ip = cluster.get(&["pod", pod])["status"]["podIP"].as_str().expect("an address").to_owned();
        let answer = |path: &str| http_get(&format!("http://{ip}:8080{path}")).expect("an answer");
        let (root, path) = (answer("/"), answer("/a/b?c=d"));
        let mut log = String::new();
        cluster.wait("the log shows both requests", |cluster| {
            log = cluster.kubectl(&["logs", pod]);
            log.lines().count() >= 2
        });
        answers.push([root, path, log]);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][1], "Ahoy from one, you asked for /a/b?c=d\n");
}
