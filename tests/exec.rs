//! `kubectl exec`, `cp`, `attach` and `port-forward` with Wasm pods, over WebSocket and over SPDY; probes and hooks that
//! run commands.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Output, Stdio},
};

use common::{Cluster, PATIENCE, http_get, project, text, wait_for};

/// What makes kubectl speak SPDY, as older ones do.
const SPDY: [(&str, &str); 2] =
    [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")];
/// The protocols, as the environment that makes kubectl speak each.
const PROTOCOLS: [&[(&str, &str)]; 2] = [&[], &SPDY];

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  runtimeClassName: wasm
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: main
    image: hello:latest
    imagePullPolicy: Never
    ports: [{containerPort: 8080}]
    env: [{name: POD_NAME, value: web}, {name: GREETING, value: Ahoy}]
    volumeMounts: [{name: data, mountPath: /data}]
    readinessProbe: {exec: {command: [test, -f, /data/ready]}, periodSeconds: 1}
    lifecycle: {postStart: {exec: {command: [mkdir, /data/started]}}}
";

const CAT: &str = "apiVersion: v1
kind: Pod
metadata: {name: cat}
spec:
  runtimeClassName: wasm
  restartPolicy: Never
  containers:
  - {name: main, image: 'tools:latest', imagePullPolicy: Never, command: [cat], stdin: true, stdinOnce: true}
";

struct Kubectl<'a> {
    cluster: &'a Cluster,
    env: &'a [(&'a str, &'a str)],
}

impl Kubectl<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cluster.kubectl_command("1.36", args);
        command.envs(self.env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What came of a command that is given some input.
    fn given(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.command(args).spawn().expect("kubectl runs");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("input");
        child.wait_with_output().expect("its end")
    }

    fn run(&self, args: &[&str]) -> Output {
        self.given(args, "")
    }
}

/// A kubectl that is ended when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn commands_files_and_ports_of_a_pod() {
    let cluster = Cluster::start();
    cluster.import_hello();
    cluster.apply(POD);
    for (turn, env) in PROTOCOLS.iter().enumerate() {
        let kubectl = Kubectl { cluster: &cluster, env };
        if turn == 0 {
            ready_by_its_probe(&kubectl);
        }
        commands(&kubectl);
        files(&kubectl, turn);
        ports(&kubectl);
    }
}

/// The probe's command finds its file only once somebody has made it.
fn ready_by_its_probe(kubectl: &Kubectl<'_>) {
    let running = ["wait", "--for=jsonpath={.status.phase}=Running", "pod", "web", "--timeout=60s"];
    kubectl.cluster.kubectl(&running);
    let ready = || kubectl.cluster.get(&["pod", "web"])["status"]["containerStatuses"][0]["ready"].clone();
    let hook_ran = || kubectl.run(&["exec", "web", "--", "test", "-d", "/data/started"]).status.success();
    assert!(wait_for(PATIENCE, hook_ran), "the hook makes a folder");
    assert_eq!(ready(), false);
    let copied = kubectl.given(&["exec", "-i", "web", "--", "tar", "xf", "-", "-C", "/data"], "");
    assert!(copied.status.success(), "{}", text(&copied));
    let file = kubectl.cluster.write_file("ready", b"yes\n");
    let copied = kubectl.run(&["cp", file.to_str().expect("a path"), "web:/data/ready"]);
    assert!(copied.status.success(), "{}", text(&copied));
    kubectl.cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "web", "--timeout=60s"]);
}

fn commands(kubectl: &Kubectl<'_>) {
    let exec = |args: &[&str]| kubectl.run(&[&["exec", "web", "--"], args].concat());
    assert_eq!(stdout(&exec(&["ls", "/data"])), "ready\nstarted\n");
    assert_eq!(stdout(&exec(&["printenv", "GREETING"])), "Ahoy\n");
    let failed = exec(&["cat", "/data/none"]);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
    assert!(text(&failed).contains("cat: /data/none: "), "{}", text(&failed));
    let failed = exec(&["sh"]);
    assert!(!failed.status.success() && text(&failed).contains("executable file not found"), "{}", text(&failed));
    let large = "0123456789abcdef\n".repeat(20_000);
    let echoed = kubectl.given(&["exec", "-i", "web", "--", "cat"], &large);
    assert!(stdout(&echoed) == large, "{} of {} bytes came back", echoed.stdout.len(), large.len());
    let fetched = exec(&["wget", "-qO-", &format!("http://{}:8080/inside", address(kubectl))]);
    assert!(stdout(&fetched).contains("you asked for /inside"), "{}", text(&fetched));
}

fn address(kubectl: &Kubectl<'_>) -> String {
    kubectl.cluster.get(&["pod", "web"])["status"]["podIP"].as_str().expect("an address").to_owned()
}

/// A folder goes into the pod and comes back as it was.
fn files(kubectl: &Kubectl<'_>, turn: usize) {
    let from = tempfile::tempdir().expect("a folder");
    fs::create_dir(from.path().join("sub")).expect("a folder");
    let binary: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(from.path().join("sub/binary"), &binary).expect("a file");
    fs::write(from.path().join("text"), "content\n").expect("a file");
    let there = format!("web:/data/started/{turn}");
    let copied = kubectl.run(&["cp", from.path().to_str().expect("a path"), &there]);
    assert!(copied.status.success(), "{}", text(&copied));
    let back = tempfile::tempdir().expect("a folder");
    let copied = kubectl.run(&["cp", &there, back.path().to_str().expect("a path")]);
    assert!(copied.status.success(), "{}", text(&copied));
    assert!(fs::read(back.path().join("sub/binary")).expect("the file") == binary);
    assert_eq!(fs::read_to_string(back.path().join("text")).expect("the file"), "content\n");
}

fn ports(kubectl: &Kubectl<'_>) {
    let mut forwarding = Ended(kubectl.command(&["port-forward", "pod/web", ":8080"]).spawn().expect("kubectl runs"));
    // Kept open: kubectl ends when nobody reads what it prints.
    let mut lines = BufReader::new(forwarding.0.stdout.take().expect("its output")).lines();
    let said = lines.next().expect("a line").expect("text");
    let port = said.split([':', ' ']).nth(3).expect("a port");
    for path in ["one", "two"] {
        let answer = http_get(&format!("http://127.0.0.1:{port}/{path}")).expect("an answer");
        assert_eq!(answer, format!("Ahoy from web, you asked for /{path}\n"), "{said}");
    }
}

#[test]
fn attached_and_at_a_terminal() {
    let cluster = Cluster::start();
    let tools = cluster.write_file("tools.wasm", &fs::read(project().join("wasm/tools/tools.wasm")).expect("tools"));
    cluster.import(&tools, "tools:latest");
    for env in PROTOCOLS {
        let kubectl = Kubectl { cluster: &cluster, env };
        cluster.apply(CAT);
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "cat", "--timeout=60s"]);
        at_a_terminal(&kubectl);
        let attached = kubectl.given(&["attach", "-i", "cat"], "hello there\n");
        assert!(stdout(&attached).contains("hello there\n"), "{}", text(&attached));
        let done = ["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod", "cat", "--timeout=60s"];
        cluster.kubectl(&done);
        assert_eq!(cluster.kubectl(&["logs", "cat"]), "hello there\n");
        cluster.kubectl(&["delete", "pod", "cat"]);
    }
}

/// `script` gives kubectl a terminal.
fn at_a_terminal(kubectl: &Kubectl<'_>) {
    let exec = kubectl.command(&["exec", "-it", "cat", "--", "cat"]);
    let words: Vec<String> = std::iter::once(exec.get_program())
        .chain(exec.get_args())
        .map(|word| word.to_str().expect("a word").to_owned())
        .collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    script.envs(exec.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut script = script.spawn().expect("script runs");
    let mut output = BufReader::new(script.stdout.take().expect("its output"));
    let input = script.stdin.as_mut().expect("its input");
    input.write_all(b"typed\r").expect("input");
    let mut seen = String::new();
    // The echo, and what cat says.
    while seen.matches("typed").count() < 2 {
        assert!(output.read_line(&mut seen).expect("output") > 0, "{seen}");
    }
    input.write_all(b"\x03").expect("Ctrl-C");
    assert_eq!(script.wait().expect("its end").code(), Some(130), "{seen}");
}
