//! The project's own chores: `cargo xtask NAME`.

mod bench;
mod dist;
mod examples;
#[cfg(feature = "kinds")]
mod kinds;
#[cfg(feature = "kinds")]
mod prose;
#[cfg(feature = "kinds")]
mod protobuf;
mod test;
#[cfg(feature = "kinds")]
mod text;
mod tidy;

use clap::{Parser, Subcommand};

/// What there is to do.
#[derive(Parser)]
#[command(about = "The project's own chores")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// One file a task.
#[derive(Subcommand)]
enum Task {
    /// Measures what skiff promises, on a release build.
    Bench(bench::Args),
    /// Builds the binaries that are installed.
    Dist(dist::Args),
    /// Builds the components of examples/ from source.
    Examples(examples::Args),
    /// Writes api/data/ from the recorded facts on Kubernetes.
    #[cfg(feature = "kinds")]
    Kinds(kinds::Args),
    /// Installs what the tests need, and runs all of them.
    Test(test::Args),
    /// Checks what no compiler checks: lengths of functions and files, stray words, docs that name tests.
    Tidy(tidy::Args),
}

fn main() -> anyhow::Result<()> {
    if examples::is_linker() {
        return examples::link();
    }
    match Cli::parse().task {
        Task::Bench(args) => bench::run(&args),
        Task::Dist(args) => dist::run(&args),
        Task::Examples(args) => examples::run(&args),
        #[cfg(feature = "kinds")]
        Task::Kinds(args) => kinds::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Tidy(args) => tidy::run(&args),
    }
}

/// The project's top folder.
fn project_root() -> std::path::PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo builds.
fn target_dir() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| project_root().join("target"), std::path::PathBuf::from)
}
