//! `cargo xtask examples`: builds each component of `examples/` from source, the tools of `wasm/tools`, and the guest
//! of the runtime's tests.
//!
//! Debian's `rustc-web`, `cargo-web` and `rust-web-src` build Rust's std for `wasm32-wasip1` from source, `zig cc`
//! brings libc and links, and the preview 1 adapter makes a component of the module. This program stands in for
//! the linker, since rustc passes arguments that zig's does not know.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};

/// Set in rustc's environment: this program is then called as the linker.
const AS_LINKER: &str = "XTASK_AS_LINKER";

/// What rustc passes and zig's linker does not take. The last three would make a library without libc's start-up.
const DROPPED_ARGUMENTS: [&str; 6] =
    ["--target", "--stack-first", "--no-demangle", "--no-export-dynamic", "--no-entry", "-nodefaultlibs"];

/// The packages that a build needs, as Debian and PyPI name them.
const REMEDY: &str =
    "install what builds guests: apt-get install rustc-web cargo-web rust-web-src; pip install ziglang";

/// The options of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these examples; all without.
    names: Vec<String>,
    /// Where the components go, as NAME.wasm; without, beside their source.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Whether this process was called by rustc to link.
pub(crate) fn is_linker() -> bool {
    env::var_os(AS_LINKER).is_some()
}

/// Links as rustc asks, with what zig does not know left out.
pub(crate) fn link() -> Result<()> {
    let dropped = |argument: &String| {
        argument == "-shared"
            || DROPPED_ARGUMENTS.iter().any(|name| argument.trim_start_matches("-Wl,").starts_with(name))
    };
    let arguments = env::args().skip(1).filter(|argument| !dropped(argument));
    let mut command = Command::new("python3");
    command.args(["-m", "ziglang", "cc", "-target", "wasm32-wasi"]).args(arguments);
    let status = command.status().context("running zig's linker")?;
    ensure!(status.success(), "zig's linker failed");
    Ok(())
}

/// Builds the examples that were asked for.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(Path::new("/usr/bin/cargo").exists(), "there is no /usr/bin/cargo; {REMEDY}");
    let root = crate::project_root();
    let examples = fs::read_dir(root.join("examples")).context("reading examples/")?;
    let mut folders = examples.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    folders.extend(["wasm/tools", "wasm/tests/guest"].map(|folder| root.join(folder)));
    for folder in folders {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let wanted = args.names.is_empty() || args.names.contains(&name);
        if wanted && folder.join("Cargo.toml").exists() {
            let out = args.out.as_ref().unwrap_or(&folder).join(format!("{name}.wasm"));
            build(&folder, &name, &out).with_context(|| format!("building {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Builds one example: module, then component.
fn build(folder: &Path, name: &str, out: &Path) -> Result<()> {
    let is_command = folder.join("src/main.rs").exists();
    let target = crate::target_dir();
    let target = target.join("guests");
    let mut flags = format!(
        "-C linker={} -C linker-flavor=gcc -C link-self-contained=no",
        env::current_exe()?.to_str().context("the path of xtask is not UTF-8")?
    );
    if !is_command {
        flags.push_str(" -C link-arg=-mexec-model=reactor");
    }
    let status = Command::new("/usr/bin/cargo")
        .args(["build", "--quiet", "--release", "--locked", "-Zbuild-std=std,panic_abort", "--target", "wasm32-wasip1"])
        .current_dir(folder)
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", &target)
        .env(AS_LINKER, "1")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .status()
        .context("running /usr/bin/cargo")?;
    if !status.success() {
        bail!("cargo failed; {REMEDY}");
    }
    let module = fs::read(target.join(format!("wasm32-wasip1/release/{name}.wasm"))).context("reading the module")?;
    let component = componentize(&module, is_command)?;
    fs::write(out, &component).with_context(|| format!("writing {}", out.display()))?;
    println!("{name}: {} bytes -> {}", component.len(), out.display());
    Ok(())
}

/// Makes a component of a preview 1 module that carries its world.
fn componentize(module: &[u8], is_command: bool) -> Result<Vec<u8>> {
    let adapter =
        if is_command { WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER } else { WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER };
    wit_component::ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
        .and_then(|encoder| encoder.validate(true).encode())
        .context("making a component of the module")
}
