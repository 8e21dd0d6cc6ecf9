//! What this machine has for OCI containers: the distribution's programs, and what the kernel and the file system allow.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::config::Snapshotter;

/// Where programs are looked for after `PATH`: daemons often have a short one.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Where distributions put CNI plugins.
const CNI_FOLDERS: [&str; 4] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/lib64/cni"];
/// The CNI plugins that the pod network is made of.
const CNI_PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];
/// The bit of `CAP_SYS_RESOURCE` (linux/capability.h).
const CAP_SYS_RESOURCE: u32 = 24;

/// Why a node cannot run OCI containers; each says what mends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Only root can.
    #[error("skiff does not run as root")]
    Root,
    /// A program is not installed.
    #[error("{0} is not installed (on Debian: apt install containerd runc containernetworking-plugins)")]
    Program(&'static str),
    /// skiff's pause program is not made for this machine.
    #[error("there is no pause program for this kind of machine")]
    Machine,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// `containerd`
    pub containerd: PathBuf,
    /// `ctr`
    pub ctr: PathBuf,
    /// The folder of the CNI plugins.
    pub cni: PathBuf,
}

/// The folders that programs are looked for in, as a `PATH`.
pub fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    std::iter::once(own.as_str()).filter(|own| !own.is_empty()).chain(FOLDERS).collect::<Vec<_>>().join(":")
}

/// A program's path.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = search_path();
    path.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Looks for all that OCI containers need.
pub fn find() -> Result<Programs, Missing> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Missing::Root);
    }
    if super::pause::program(crate::node::architecture()).is_none() {
        return Err(Missing::Machine);
    }
    let need = |name: &'static str| program(name).ok_or(Missing::Program(name));
    let containerd = need("containerd")?;
    need("runc")?;
    let ctr = need("ctr")?;
    let complete = |folder: &str| CNI_PLUGINS.iter().all(|plugin| Path::new(folder).join(plugin).is_file());
    let cni =
        CNI_FOLDERS.iter().find(|folder| complete(folder)).ok_or(Missing::Program("containernetworking-plugins"))?;
    Ok(Programs { containerd, ctr, cni: PathBuf::from(cni) })
}

/// Whether this process may lower `oom_score_adj` below its own.
pub fn may_lower_oom_score() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << CAP_SYS_RESOURCE) != 0
}

/// Whether a folder's file system can hold the upper layer of an overlay: tried, since no table of file systems is
/// complete.
pub fn snapshotter(folder: &Path) -> Snapshotter {
    let trial = folder.join("overlay-trial");
    let _left = fs::remove_dir_all(&trial);
    let usable = try_overlay(&trial).is_ok();
    let _left = fs::remove_dir_all(&trial);
    if usable { Snapshotter::Overlayfs } else { Snapshotter::Native }
}

fn try_overlay(trial: &Path) -> std::io::Result<()> {
    for name in ["lower1", "lower2", "upper", "work", "merged"] {
        fs::create_dir_all(trial.join(name))?;
    }
    let at = |name: &str| trial.join(name).display().to_string();
    let options = format!("lowerdir={}:{},upperdir={},workdir={}", at("lower1"), at("lower2"), at("upper"), at("work"));
    let merged = at("merged");
    run("mount", &["-t", "overlay", "overlay", "-o", &options, &merged])?;
    run("umount", &["--lazy", &merged])
}

fn run(program: &str, args: &[&str]) -> std::io::Result<()> {
    let status = Command::new(program).args(args).env("PATH", search_path()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("{program} ended with {status}"))) }
}
