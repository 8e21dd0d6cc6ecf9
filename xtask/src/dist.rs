//! `cargo xtask dist`: the binaries that are installed: static, stripped, for x86-64 and arm64, with their checksums.
//!
//! x86-64 is built by the toolchain at hand, arm64 by Debian's cross toolchain ([`CROSS_SETUP`] installs it).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The options of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these architectures.
    #[arg(long, value_delimiter = ',', default_value = "amd64,arm64")]
    arch: Vec<String>,
    /// Where the binaries go.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One architecture, as distributions and as Rust call it.
struct Architecture {
    name: &'static str,
    triple: &'static str,
    /// Whether Debian's toolchain builds it, and with which C compiler.
    cross: Option<&'static str>,
    /// What the linker is told: where it can, to pack the relocations, which are 1.5 MB otherwise.
    link: &'static str,
}

const PACKED: &str = " -C link-arg=-Wl,-z,pack-relative-relocs";

const ARCHITECTURES: [Architecture; 2] = [
    Architecture { name: "amd64", triple: "x86_64-unknown-linux-gnu", cross: None, link: PACKED },
    Architecture { name: "arm64", triple: "aarch64-unknown-linux-gnu", cross: Some("aarch64-linux-gnu-gcc"), link: "" },
];

/// What brings a machine with Debian 12 the toolchain for arm64.
const CROSS_SETUP: &str = "dpkg --add-architecture arm64 && apt-get update && apt-get install -y \
                           --no-install-recommends rustc-web cargo-web libstd-rust-web-dev:arm64 \
                           gcc-aarch64-linux-gnu libc6-dev:arm64";

/// Builds what was asked for.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = crate::project_root();
    let target = crate::target_dir().join("dist");
    let out = args.out.clone().unwrap_or_else(|| target.join("out"));
    fs::create_dir_all(&out).context("making the folder of the binaries")?;
    for name in &args.arch {
        let architecture = ARCHITECTURES.iter().find(|known| known.name == name);
        let architecture = architecture.with_context(|| format!("no architecture is called {name}"))?;
        let binary = build(&root, &target, architecture).with_context(|| format!("building for {name}"))?;
        let file = out.join(format!("skiff-linux-{name}"));
        fs::copy(&binary, &file).context("copying the binary")?;
        println!("{} bytes {}", fs::metadata(&file)?.len(), file.display());
    }
    checksums(&out)
}

fn build(root: &Path, target: &Path, architecture: &Architecture) -> Result<PathBuf> {
    let Architecture { triple, cross, link, .. } = architecture;
    let mut command = Command::new(if cross.is_some() { "/usr/bin/cargo" } else { "cargo" });
    command.args(["build", "--release", "--locked", "--package", "skiff", "--target", triple]).current_dir(root);
    command.env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", format!("-C target-feature=+crt-static{link}"));
    if let Some(compiler) = cross {
        let std = Path::new("/usr/lib/rustlib").join(triple);
        ensure!(
            std.is_dir() && Path::new("/usr/bin").join(compiler).exists(),
            "the toolchain for {triple} is missing; as root:\n  {CROSS_SETUP}"
        );
        let upper = triple.to_uppercase().replace('-', "_");
        command.env("RUSTC", "/usr/bin/rustc").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        command.env(format!("CARGO_TARGET_{upper}_LINKER"), compiler);
        command.env(format!("CC_{}", triple.replace('-', "_")), compiler);
    }
    ensure!(command.status().context("running cargo")?.success(), "cargo failed");
    Ok(target.join(triple).join("release/skiff"))
}

/// `sha256sums` of all binaries, as `sha256sum --check` and the installer read it.
fn checksums(out: &Path) -> Result<()> {
    let mut names: Vec<String> = fs::read_dir(out)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("skiff-linux-"))
        .collect();
    names.sort();
    let output = Command::new("sha256sum").args(&names).current_dir(out).output().context("running sha256sum")?;
    ensure!(output.status.success(), "sha256sum failed");
    fs::write(out.join("sha256sums"), output.stdout).context("writing the checksums")
}
