//! `cargo xtask test`: installs what the tests need, and runs all of them.

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// The options of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo test`, e.g. a part of a test's name.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs everything.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = crate::project_root();
    let run = |program: &Path, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).current_dir(&root).status();
        let status = status.with_context(|| format!("running {}", program.display()))?;
        ensure!(status.success(), "{} {arguments:?} failed", program.display());
        Ok(())
    };
    let tools = crate::target_dir().join("tools");
    run(&root.join("tests/setup.sh"), &[tools.to_str().context("the build folder's path is not UTF-8")?])?;
    run(&env::current_exe()?, &["tidy"])?;
    let mut arguments = vec!["test", "--workspace", "--quiet"];
    arguments.extend(args.rest.iter().map(String::as_str));
    run(Path::new("cargo"), &arguments)
}
