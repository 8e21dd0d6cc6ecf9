//! A machine of its own: namespaces (network, mounts, processes) that the test made, so that it meets nothing of the
//! machine that the test runs on, and all that it started ends with it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use crate::common::{PATIENCE, text, wait_for};

/// The first process of the machine, which reaps what is left to it.
const INIT: &str = "ip link set lo up; mount -t tmpfs tmpfs /run; mkdir -p /var/lib/cni; \
    mount -t tmpfs tmpfs /var/lib/cni; echo 'nameserver 127.0.0.1' > /run/resolv.conf; \
    mount --bind /run/resolv.conf /etc/resolv.conf; touch \"$1\"; sleep infinity & wait";

/// A machine. It ends, with all that runs on it, when it is dropped.
pub struct Machine {
    dir: tempfile::TempDir,
    unshare: Child,
    init: u32,
}

impl Machine {
    /// Makes a machine.
    pub fn start(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix(&format!("skiff-{name}-")).tempdir().expect("a folder");
        let ready = dir.path().join("ready");
        let unshare = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT, "init"])
            .arg(&ready)
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare runs");
        let parent = unshare.id();
        let mut machine = Self { dir, unshare, init: 0 };
        assert!(wait_for(PATIENCE, || ready.exists()), "no namespaces: the tests need root");
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("its children");
        machine.init = children.trim().parse().expect("one child");
        machine
    }

    /// A folder for what the test writes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in that folder.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a path").to_owned()
    }

    /// A program on the machine.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--net", "--pid", "--"]);
        command.arg(program.as_ref()).env("KUBECONFIG", self.dir.path().join("kubeconfig")).stdin(Stdio::null());
        command.env("HOME", self.dir.path());
        command
    }

    /// A program's end.
    pub fn output(&self, program: impl AsRef<Path>, args: &[&str]) -> Output {
        self.command(program).args(args).output().expect("the program runs")
    }

    /// Runs a script; it must succeed.
    pub fn script(&self, script: &str) -> String {
        let output = self.output("sh", &["-ec", script]);
        assert!(output.status.success(), "{script}: {}", text(&output));
        text(&output)
    }

    /// Connects it with another machine by a cable: the names of the interface on either.
    pub fn connect(&self, own: &str, other: &Self, theirs: &str) {
        let init = other.init.to_string();
        let mut command = Command::new("nsenter");
        // In the processes' names of the test, in which it knows the other machine.
        command.args(["--target", &self.init.to_string(), "--net", "--", "ip", "link", "add", own, "type", "veth"]);
        let output = command.args(["peer", "name", theirs, "netns", &init]).output().expect("ip runs");
        assert!(output.status.success(), "{}", text(&output));
    }

    /// The processes of the machine whose command line has a text, by their ids outside.
    pub fn processes(&self, part: &str) -> Vec<u32> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.init);
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let has = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            namespace(*pid) == own && String::from_utf8_lossy(&line).replace('\0', " ").contains(part)
        };
        pids.filter(has).collect()
    }

    /// Kills the processes whose command line has a text; there must be some.
    pub fn kill(&self, part: &str) {
        let pids = self.processes(part);
        assert!(!pids.is_empty(), "{part} does not run");
        for pid in pids {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
            let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Ends everything: with the first process of their namespace all others end.
    pub fn end(&mut self) {
        let _ended = self.unshare.kill();
        let _reaped = self.unshare.wait();
    }

    /// Waits until no process has a text in its command line.
    pub fn wait_gone(&self, part: &str) {
        assert!(wait_for(PATIENCE, || self.processes(part).is_empty()), "{part} does not end");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}
