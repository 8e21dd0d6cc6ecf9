//! containerd's configuration as skiff wants it; pure.

use std::{fmt::Write, path::PathBuf};

/// The image of the program that holds a sandbox; made by skiff itself, never pulled.
pub const PAUSE_IMAGE: &str = "skiff.dev/pause:1";

/// How containerd keeps the layers of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotter {
    /// Layers over each other in the kernel.
    Overlayfs,
    /// Copies, where the file system cannot hold overlays.
    Native,
}

impl Snapshotter {
    /// Its name in containerd.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::Native => "native",
        }
    }
}

/// What the configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where images and containers are kept.
    pub root: PathBuf,
    /// Where is what ends with the machine's run.
    pub state: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// Where the CNI plugins are.
    pub cni_bin: PathBuf,
    /// Where the network's configuration is put.
    pub cni_conf: PathBuf,
    /// Where hosts of registries are described (`hosts.toml`).
    pub registries: PathBuf,
    /// How layers are kept.
    pub snapshotter: Snapshotter,
    /// Containers do not get a lower `oom_score_adj` than skiff's own: `CAP_SYS_RESOURCE` is missing.
    pub restrict_oom_score_adj: bool,
}

/// A text as TOML writes it.
fn quoted(text: impl std::fmt::Display) -> String {
    let mut out = String::from('"');
    for c in text.to_string().chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _infallible = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The file's text (version 2, which containerd 1.6 to 2.x read).
pub fn text(settings: &Settings) -> String {
    let path = |path: &PathBuf| quoted(path.display());
    format!(
        r#"# Written by skiff at each start; changes are lost.
version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]

[debug]
  level = "warn"

[grpc]
  address = {socket}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = {restrict}
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = {cni_bin}
  conf_dir = {cni_conf}

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = {registries}

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{snapshotter}"
  default_runtime_name = "runc"
  discard_unpacked_layers = false

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#,
        root = path(&settings.root),
        state = path(&settings.state),
        socket = path(&settings.socket),
        cni_bin = path(&settings.cni_bin),
        cni_conf = path(&settings.cni_conf),
        registries = path(&settings.registries),
        snapshotter = settings.snapshotter.as_str(),
        restrict = settings.restrict_oom_score_adj,
    )
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn texts_are_quoted_as_toml_wants() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(quoted("a\nb"), r#""a\u000Ab""#);
    }
}
