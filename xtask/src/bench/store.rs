//! `cargo xtask bench store`: the store and the watch cache alone, without a server around them. The measuring is done
//! by `server/store/examples/store_bench.rs`, optimised; here its lines get their targets.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// What is wanted of a measured value.
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// The targets, by the name that the example gives. No write may stall for more than 50 ms; 8,000 creates/s and 1,500
/// lists/s are asked of the whole API server, so the store must leave it room.
const TARGETS: [(&str, Target); 11] = [
    ("creates, 1 writers", Target::AtLeast(1_500.0)),
    ("creates, 16 writers", Target::AtLeast(16_000.0)),
    ("creates, 64 writers", Target::AtLeast(30_000.0)),
    ("list of 500, first page", Target::AtLeast(15_000.0)),
    ("list of 500, middle page", Target::AtLeast(15_000.0)),
    ("resident memory, 100,000 objects", Target::AtMost(120.0)),
    ("files, 100,000 objects", Target::AtMost(100.0)),
    ("opened and loaded, 100,000 objects", Target::AtMost(1_000.0)),
    ("updates through checkpoints and compactions, p99", Target::AtMost(10.0)),
    ("updates through checkpoints and compactions, worst", Target::AtMost(50.0)),
    ("file after a million writes and deletes, over before", Target::AtMost(8.0)),
];

/// Runs the example and prints each of its lines beside its target.
pub(super) fn run() -> Result<()> {
    let mut command = Command::new("cargo");
    command.args([
        "run",
        "--release",
        "--quiet",
        "--package",
        "skiff-store",
        "--example",
        "store_bench",
        "--",
        "--churn",
    ]);
    let child = command.current_dir(crate::project_root()).stdout(Stdio::piped()).spawn();
    let mut child = child.context("running cargo")?;
    println!("{:<56} {:>12} {:>12}", "", "measured", "target");
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        println!("{}", beside_target(&line?)?);
    }
    ensure!(child.wait()?.success(), "the measuring failed");
    Ok(())
}

/// A line of the example's, `name TAB value TAB unit`, as a row of the table.
fn beside_target(line: &str) -> Result<String> {
    let mut parts = line.split('\t');
    let mut next = || parts.next().with_context(|| format!("not a measured value: {line}"));
    let (name, measured, unit) = (next()?, next()?.parse::<f64>()?, next()?);
    let (target, verdict) = match TARGETS.iter().find(|(of, _)| *of == name) {
        Some((_, Target::AtLeast(target))) => (format!("{target:.0}"), measured >= *target),
        Some((_, Target::AtMost(target))) => (format!("{target:.0}"), measured <= *target),
        None => return Ok(format!("{name:<56} {measured:>12.2} {:>12} {unit}", "")),
    };
    let verdict = if verdict { "ok" } else { "falls short" };
    Ok(format!("{name:<56} {measured:>12.2} {target:>12} {unit:<4} {verdict}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_line_stands_beside_its_target() {
        let row = beside_target("creates, 16 writers\t17000.00\t/s").unwrap();
        assert!(row.ends_with("17000.00        16000 /s   ok"), "{row}");
        let row = beside_target("files, 100,000 objects\t700.00\tMB").unwrap();
        assert!(row.ends_with("falls short"), "{row}");
        assert!(beside_target("warning: something").is_err());
    }
}
