//! A host of its own: `skiff server` as root on a machine that the test made.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
};

use serde_json::Value;
use skiff_agent::{
    node::architecture,
    runtime::containerd::archive::{Content, File, Image},
};

use crate::{
    common::{PATIENCE, text, tools, wait_for},
    machine::Machine,
};

/// The name of the image that the tests run.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";

/// A machine with a skiff server.
pub struct Host {
    machine: Machine,
    skiff: Option<Child>,
}

impl Host {
    /// Makes the host, starts skiff, and imports busybox once it is up.
    pub fn start() -> Self {
        let mut host = Self { machine: Machine::start("oci"), skiff: None };
        host.start_skiff();
        let archive = host.dir().join("busybox.tar");
        fs::write(&archive, busybox()).expect("an archive");
        let imported = host.skiff(&["image", "import", archive.to_str().expect("a path")]);
        assert!(imported.contains(BUSYBOX), "{imported}\n{}", host.tail());
        host
    }

    /// A folder for what the test writes.
    pub fn dir(&self) -> &Path {
        self.machine.dir()
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// A program on the host.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.machine.command(program)
    }

    /// What a program prints; it must succeed.
    pub fn run(&self, program: impl AsRef<Path>, args: &[&str]) -> String {
        let output = self.output(program, args);
        assert!(output.status.success(), "{args:?} failed: {}\n{}", text(&output), self.tail());
        text(&output)
    }

    /// A program's end.
    pub fn output(&self, program: impl AsRef<Path>, args: &[&str]) -> Output {
        self.machine.output(program, args)
    }

    /// A short-lived skiff command on the host's data folder.
    pub fn skiff(&self, args: &[&str]) -> String {
        let data = self.data_dir();
        self.run(env!("CARGO_BIN_EXE_skiff"), &[args, &["--data-dir", data.to_str().expect("a path")]].concat())
    }

    /// What kubectl prints; it must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.run(tools().join("kubectl-1.36"), args)
    }

    /// kubectl's end.
    pub fn kubectl_output(&self, args: &[&str]) -> Output {
        self.output(tools().join("kubectl-1.36"), args)
    }

    /// An object or list.
    pub fn get(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], args].concat())).expect("JSON")
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) {
        let file = self.dir().join("manifest.yaml");
        fs::write(&file, manifest).expect("a manifest");
        self.kubectl(&["apply", "-f", file.to_str().expect("a path")]);
    }

    /// Waits until a condition holds; fails with what the cluster says where it does not.
    pub fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        assert!(wait_for(PATIENCE, &mut condition), "waited in vain until {what}\n{}", self.tail());
    }

    /// Waits until a pod is Ready.
    pub fn ready(&self, pod: &str) {
        self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
    }

    /// A part of a pod's status.
    pub fn status(&self, pod: &str, pointer: &str) -> Value {
        self.get(&["pod", pod])["status"].pointer(pointer).cloned().unwrap_or_default()
    }

    /// Starts skiff on the host's data folder and waits until its node is Ready.
    pub fn start_skiff(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir().join("log")).expect("a log");
        let path = |name: &str| self.dir().join(name).to_str().expect("a path").to_owned();
        let (data, kubeconfig) = (path("data"), path("kubeconfig"));
        let mut command = self.command(env!("CARGO_BIN_EXE_skiff"));
        command.args(["-v", "server", "--data-dir", &data, "--write-kubeconfig", &kubeconfig]);
        command.args(["--node-name", "n1", "--node-ip", "127.0.0.1"]).process_group(0);
        self.skiff = Some(command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("skiff starts"));
        self.wait("the node is Ready", || {
            let output = self.kubectl_output(&["wait", "--for=condition=Ready", "node/n1", "--timeout=1s"]);
            output.status.success()
        });
    }

    /// The processes of the host whose command line has a text, by their ids outside.
    pub fn processes(&self, part: &str) -> Vec<u32> {
        self.machine.processes(part)
    }

    /// Kills the processes whose command line has a text; there must be some.
    pub fn kill(&self, part: &str) {
        self.machine.kill(part);
    }

    /// Kills skiff as a crash would. Its Wasm runtime ends by itself, its containerd does not.
    pub fn kill_skiff(&mut self) {
        self.kill("-v server --data-dir");
        if let Some(mut process) = self.skiff.take() {
            process.wait().expect("its end");
        }
        self.machine.wait_gone("wasm-runtime");
    }

    /// All that skiff printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// What is known, for failures.
    pub fn tail(&self) -> String {
        let mut all = self.log();
        all.push_str(&fs::read_to_string(self.data_dir().join("agent/containerd.log")).unwrap_or_default());
        for args in [&["get", "pods,nodes", "-o", "wide", "--request-timeout=5s"][..], &["get", "events"]] {
            all.push_str(&text(&self.kubectl_output(args)));
        }
        all
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.machine.end();
        if let Some(process) = &mut self.skiff {
            let _reaped = process.wait();
        }
    }
}

/// An image of the distribution's static busybox.
fn busybox() -> Vec<u8> {
    let program = fs::read("/bin/busybox").expect("busybox-static is installed (tests/setup.sh)");
    let listed = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    let folder = |path: &str, mode| File { path: path.to_owned(), mode, content: Content::Folder };
    let mut files = vec![folder("bin", 0o755), folder("etc", 0o755), folder("tmp", 0o1777), folder("www", 0o755)];
    files.push(File { path: "bin/busybox".into(), mode: 0o755, content: Content::Bytes(program) });
    let applets = String::from_utf8(listed).expect("text");
    files.extend(applets.lines().filter(|name| *name != "busybox").map(|name| File {
        path: format!("bin/{name}"),
        mode: 0o777,
        content: Content::Link("busybox".into()),
    }));
    let config = serde_json::json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]});
    let image = Image { name: BUSYBOX.into(), architecture: architecture().into(), config, files };
    image.archive().expect("an archive")
}
