#!/bin/sh
# Installs skiff:   curl -sfL URL/install.sh | SKIFF_INSTALL_URL=URL sh -s - server
# Joins a cluster:  curl -sfL URL/install.sh | SKIFF_INSTALL_URL=URL SKIFF_URL=https://SERVER:6443 SKIFF_TOKEN=TOKEN sh
#
#   SKIFF_INSTALL_URL   the folder that holds skiff-linux-ARCH and sha256sums: https://... or a local path
#   SKIFF_URL           a server of the cluster to join: without arguments, or with flags alone, an agent is installed
#   SKIFF_TOKEN         what it joins with: see `skiff token create` on a server
#   SKIFF_BIN_DIR       where the binary goes (default /usr/local/bin)
#   SKIFF_SYSTEMD_DIR   where the service goes (default /etc/systemd/system)
#
# Arguments (server ..., agent ...) are the service's; without any and without SKIFF_URL only the binary is installed.
# Run again, it upgrades.
set -eu

die() { echo "install.sh: $*" >&2; exit 1; }

# The whole of it is a function, so that a download that breaks off runs nothing.
main() {
  url=${SKIFF_INSTALL_URL:-}
  [ -n "$url" ] || die "SKIFF_INSTALL_URL must name the folder of the binaries"
  if [ -n "${SKIFF_URL:-}" ]; then
    case ${1:-} in
      '' | -*) set -- agent "$@" ;;
    esac
  fi
  bin_dir=${SKIFF_BIN_DIR:-/usr/local/bin}
  case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) die "there is no skiff for $(uname -m): x86_64 and aarch64 are supported" ;;
  esac
  name=skiff-linux-$arch
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT

  fetch "$name"
  fetch sha256sums
  (cd "$work" && grep " $name\$" sha256sums | sha256sum -c - >/dev/null) || die "$name is not what sha256sums says: nothing was installed"

  chmod 755 "$work/$name"
  "$work/$name" --version >/dev/null || die "$name does not run on this machine"
  mkdir -p "$bin_dir"
  # Beside the old one, then over it: a running skiff keeps its file.
  cp "$work/$name" "$bin_dir/.skiff.new" && mv "$bin_dir/.skiff.new" "$bin_dir/skiff"
  echo "installed $("$bin_dir/skiff" --version) as $bin_dir/skiff"
  [ $# -eq 0 ] || service "$@"
}

fetch() {
  case $url in
    https://*) curl -sfL --proto '=https' --tlsv1.2 -o "$work/$1" "$url/$1" || die "cannot fetch $url/$1" ;;
    /*) cp "$url/$1" "$work/$1" || die "cannot read $url/$1" ;;
    *) die "SKIFF_INSTALL_URL must begin with https:// or /" ;;
  esac
}

service() {
  [ "$(id -u)" -eq 0 ] || die "the service needs root; the binary is installed"
  command -v systemctl >/dev/null || die "there is no systemd: start '$bin_dir/skiff $*' by the means of this machine"
  unit=skiff
  [ "$1" != agent ] || unit=skiff-agent
  systemd_dir=${SKIFF_SYSTEMD_DIR:-/etc/systemd/system}
  # Beside the unit, for root alone: the command line is for all to see.
  (
    umask 077
    for name in SKIFF_URL SKIFF_TOKEN; do
      eval "value=\${$name:-}"
      [ -z "$value" ] || echo "$name=$value"
    done >"$systemd_dir/$unit.service.env"
  )
  cat >"$systemd_dir/$unit.service" <<UNIT
[Unit]
Description=skiff: Kubernetes for small machines
After=network.target

[Service]
EnvironmentFile=$systemd_dir/$unit.service.env
ExecStart=$bin_dir/skiff $*
Restart=always
RestartSec=2
KillMode=mixed
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy=multi-user.target
UNIT
  systemctl daemon-reload
  systemctl enable "$unit.service"
  systemctl restart "$unit.service"
}

main "$@"
