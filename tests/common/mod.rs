//! A cluster of the real binary, run as an ordinary user, and the real kubectl in front of it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

mod place;

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::Value;

pub use place::Place;

/// How long a condition may take to come true on a slow, busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The ordinary user that the clusters run as: Debian's `nobody`.
const ORDINARY_USER: &str = "65534";

/// The ages of kubectl that clusters are driven with.
pub const KUBECTLS: [&str; 3] = ["1.32", "1.36", "1.37"];

/// A `skiff dev` of its own: folder, port, address ranges. What it started is ended when it is dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    place: Place,
    more: Vec<String>,
    process: Option<Child>,
}

impl Cluster {
    /// Starts a cluster and waits until it says that it is up.
    pub fn start() -> Self {
        let mut cluster = Self::prepare();
        cluster.start_again();
        cluster
    }

    /// A cluster that does not run yet.
    pub fn prepare() -> Self {
        let dir = tempfile::Builder::new().prefix("skiff-test-").tempdir().expect("a folder");
        // The ordinary user owns the folder; root may do all.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
        Self { dir, place: Place::take(), more: Vec::new(), process: None }
    }

    /// What skiff is started with from now on, beside what sets it apart from others.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.more = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// The cluster's folder.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The `skiff` binary as the cluster's user.
    pub fn skiff(&self, args: &[&str]) -> Command {
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            let user = [
                format!("--reuid={ORDINARY_USER}"),
                format!("--regid={ORDINARY_USER}"),
                "--clear-groups".into(),
                "--inh-caps=-all".into(),
            ];
            command.args(user).arg(self.binary());
            command
        } else {
            Command::new(self.binary())
        };
        command.args(args).arg("--data-dir").arg(self.data_dir()).env("HOME", self.dir.path());
        command
    }

    /// Runs a binary of the test's own instead of the one that was built.
    pub fn use_binary(&self, binary: &Path) {
        fs::copy(binary, self.dir.path().join("skiff")).expect("a copy of skiff");
    }

    /// A copy of the binary where the ordinary user may read it: the build's folder may be root's alone.
    fn binary(&self) -> PathBuf {
        let copy = self.dir.path().join("skiff");
        if !copy.exists() {
            fs::hard_link(env!("CARGO_BIN_EXE_skiff"), &copy)
                .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_skiff"), &copy).map(drop))
                .expect("a copy of skiff");
        }
        copy
    }

    /// Starts the cluster on its folder, and waits until it says that it is up.
    pub fn start_again(&mut self) {
        let log = self.dir.path().join("log");
        let file = || fs::File::options().create(true).append(true).open(&log).expect("the log");
        let mut command = self.skiff(&["-v", "dev", "--node-name=test-node"]);
        command.args(self.place.flags()).args(&self.more);
        command.stdin(Stdio::null()).stdout(file()).stderr(file()).process_group(0);
        let said_before = self.log().matches("is up").count();
        self.process = Some(command.spawn().expect("skiff starts"));
        self.wait("skiff says that it is up", |cluster| {
            let process = cluster.process.as_mut().expect("a process");
            if let Some(status) = process.try_wait().expect("its state") {
                panic!("skiff ended with {status}:\n{}", cluster.log());
            }
            cluster.log().matches("is up").count() > said_before
        });
    }

    /// All that skiff printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The API server's port.
    pub fn port(&self) -> u16 {
        self.place.port()
    }

    /// The process id of skiff.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().map_or(0, |process| i32::try_from(process.id()).expect("a pid"))
    }

    /// All processes that run on the cluster's folder.
    pub fn processes(&self) -> Vec<i32> {
        let folder = self.data_dir();
        let folder = folder.to_str().expect("a path");
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                line.contains(folder) && line.contains("skiff")
            })
            .collect()
    }

    /// The process of the Wasm runtime.
    pub fn runtime_pid(&self) -> i32 {
        self.found_runtime_pid().expect("a runtime process")
    }

    /// The process of the Wasm runtime, if there is one: until it has become itself, a new one looks like its parent.
    pub fn found_runtime_pid(&self) -> Option<i32> {
        let is_runtime = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("wasm-runtime")
        };
        self.processes().into_iter().find(is_runtime)
    }

    /// Sends a signal to one of the cluster's processes.
    pub fn signal(&self, pid: i32, signal: Signal) {
        kill(Pid::from_raw(pid), signal).expect("a signal");
    }

    /// Kills skiff as a crash would, and waits until it is gone. Its Wasm runtime is left to end by itself.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a kill");
            process.wait().expect("its end");
        }
    }

    /// Ctrl-C: skiff ends by itself, everything within the grace that it gives itself (2 s; `cargo xtask bench`
    /// measures it).
    pub fn interrupt(&mut self) {
        let mut process = self.process.take().expect("a process");
        let group = Pid::from_raw(i32::try_from(process.id()).expect("a pid"));
        killpg(group, Signal::SIGINT).expect("Ctrl-C");
        let ended = wait_for(PATIENCE, || process.try_wait().expect("its state").is_some());
        assert!(ended, "skiff does not end at Ctrl-C:\n{}", self.log());
        let status = process.wait().expect("its state");
        assert!(status.success(), "skiff ended with {status}:\n{}", self.log());
    }

    /// kubectl with arguments.
    pub fn kubectl_command(&self, version: &str, args: &[&str]) -> Command {
        let mut command = Command::new(tools().join(format!("kubectl-{version}")));
        command.args(args).env("KUBECONFIG", self.data_dir().join("kubeconfig")).env("HOME", self.dir.path());
        command
    }

    /// What kubectl 1.36 prints; it must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.kubectl_of("1.36", args)
    }

    /// What a kubectl of an age prints; it must succeed.
    pub fn kubectl_of(&self, version: &str, args: &[&str]) -> String {
        let output = self.kubectl_command(version, args).output().expect("kubectl runs");
        assert!(output.status.success(), "kubectl {args:?} failed: {}\n{}", text(&output), self.tail());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What kubectl says where it must fail.
    pub fn kubectl_fails(&self, args: &[&str]) -> String {
        let output = self.kubectl_command("1.36", args).output().expect("kubectl runs");
        assert!(!output.status.success(), "kubectl {args:?} succeeded: {}", text(&output));
        text(&output)
    }

    /// An object or list as JSON.
    pub fn get(&self, args: &[&str]) -> Value {
        let args = [&["get", "-o", "json"], args].concat();
        serde_json::from_str(&self.kubectl(&args)).expect("JSON")
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
        fs::write(file.path(), manifest).expect("a manifest");
        self.kubectl(&["apply", "-f", file.path().to_str().expect("a path")]);
    }

    /// Imports a file as an image.
    pub fn import(&self, file: &Path, name: &str) {
        let file = file.to_str().expect("a path");
        let output = self.skiff(&["image", "import", file, "--name", name]).output().expect("skiff runs");
        assert!(output.status.success(), "the import of {file} failed: {}", text(&output));
    }

    /// Imports bytes as the image `NAME:latest`.
    pub fn import_bytes(&self, name: &str, bytes: &[u8]) {
        let file = self.write_file(&format!("{name}.wasm"), bytes);
        self.import(&file, &format!("{name}:latest"));
    }

    /// Imports the component of `examples/hello`.
    pub fn import_hello(&self) {
        // The build's folder may be root's alone.
        let copy = self.dir.path().join("hello.wasm");
        fs::copy(project().join("examples/hello/hello.wasm"), &copy).expect("a copy");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).expect("permissions");
        self.import(&copy, "hello:latest");
    }

    /// Writes a file that the cluster's user may read.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("permissions");
        path
    }

    /// Waits until a condition holds; fails with the log's end where it does not.
    pub fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let held = wait_for(PATIENCE, || condition(self));
        assert!(held, "waited in vain until {what}\n{}", self.tail());
    }

    /// The end of the log, and what the cluster holds: for failures.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let mut tail = lines[lines.len().saturating_sub(40)..].join("\n");
        for args in [&["get", "all,nodes", "-A", "-o", "wide"][..], &["get", "events", "-A"]] {
            if let Ok(output) = self.kubectl_command("1.36", &[args, &["--request-timeout=5s"]].concat()).output() {
                let _ = write!(tail, "\n--- kubectl {args:?}\n{}", text(&output));
            }
        }
        tail
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = killpg(Pid::from_raw(i32::try_from(process.id()).unwrap_or_default()), Signal::SIGTERM);
            if !wait_for(Duration::from_secs(5), || process.try_wait().ok().flatten().is_some()) {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

/// A command component whose `run` is this core function body.
pub fn command_component(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $m (func (export "run") (result i32) {body}))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $instance (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $instance)))"#
    );
    wat::parse_str(text).expect("a component")
}

/// The project's top folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `tests/setup.sh` put kubectl.
pub fn tools() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_skiff"));
    let target = binary.ancestors().nth(2).expect("the build's folder");
    let tools = target.join("tools");
    assert!(tools.is_dir(), "{} is not there: run tests with `cargo xtask test`", tools.display());
    tools
}

/// Both streams of a process.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Looks at a condition until it holds or time is up.
pub fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(LOOK);
    }
}

/// The body that a URL answers with, or what went wrong; each call is a connection of its own.
pub fn http_get(url: &str) -> Result<String, String> {
    let output = Command::new("curl").args(["-sS", "--max-time", "5", url]).output().expect("curl runs");
    if output.status.success() { Ok(text(&output)) } else { Err(text(&output)) }
}

/// Reads what a process has printed until now, without waiting for its end.
pub fn read_some(child: &mut Child) -> String {
    let mut bytes = vec![0; 65536];
    let read = child.stdout.as_mut().expect("its output").read(&mut bytes).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}
