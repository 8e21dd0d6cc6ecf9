//! `cargo xtask tidy`: what no compiler checks. A ratchet: what was too long when the rule came may stay as long as
//! it is, listed in `xtask/tidy.txt`; nothing may join it, and the list may only shrink.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The most lines a function may have.
const FUNCTION_LINES: usize = 70;

/// The most lines a file may have.
const FILE_LINES: usize = 500;

/// The file of what may stay longer.
const RATCHET: &str = "xtask/tidy.txt";

/// The options of the task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Writes the list of what is too long anew; only ever to shorten it.
    #[arg(long)]
    update: bool,
}

/// Something too long: what it is called in the ratchet, and its lines.
type Long = BTreeMap<String, usize>;

/// Runs all checks; fails with every finding.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = crate::project_root();
    let mut long = Long::new();
    for file in rust_files(&root)? {
        let text = fs::read_to_string(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        measure(&file, &text, &mut long);
    }
    let ratchet = root.join(RATCHET);
    if args.update {
        let lines: String = long.iter().map(|(name, lines)| format!("{lines} {name}\n")).collect();
        fs::write(&ratchet, lines).context("writing the ratchet")?;
        return Ok(());
    }
    let allowed = read_ratchet(&fs::read_to_string(&ratchet).unwrap_or_default());
    let mut findings = compare(&long, &allowed);
    findings.extend(missing_tests(&root)?);
    ensure!(findings.is_empty(), "tidy found:\n  {}", findings.join("\n  "));
    println!("tidy: nothing to say");
    Ok(())
}

/// The Rust files that git knows or would add.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root)
        .output()
        .context("running git ls-files")?;
    ensure!(output.status.success(), "git ls-files failed");
    let names = String::from_utf8(output.stdout)?;
    Ok(names.lines().map(PathBuf::from).filter(|file| root.join(file).exists()).collect())
}

/// Notes the file and each of its functions that is too long. A function is from `fn` to the brace that closes it at
/// the same indentation, as rustfmt lays it out.
fn measure(file: &Path, text: &str, long: &mut Long) {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > FILE_LINES {
        long.insert(file.display().to_string(), lines.len());
    }
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let close = format!("{indent}}}");
        let Some(length) = lines[start..].iter().position(|line| *line == close) else { continue };
        if length + 1 > FUNCTION_LINES {
            long.insert(format!("{}::{name}", file.display()), length + 1);
        }
    }
}

/// The name of the function that a line begins, if it begins one with a body below.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start();
    for prefix in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        words = words.strip_prefix(prefix).unwrap_or(words);
    }
    let name = words.strip_prefix("fn ")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (!line.ends_with(';') && !line.ends_with('}')).then_some(&name[..end])
}

/// Reads `LINES NAME` lines.
fn read_ratchet(text: &str) -> Long {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(lines, name)| Some((name.to_owned(), lines.parse().ok()?)))
        .collect()
}

/// What is longer than it may be, and what the ratchet need no longer allow.
fn compare(long: &Long, allowed: &Long) -> Vec<String> {
    let grown = long.iter().filter_map(|(name, lines)| {
        let most = allowed.get(name).copied().unwrap_or(0);
        (*lines > most).then(|| format!("{name} has {lines} lines: split it by purpose"))
    });
    let shrunk = allowed.iter().filter_map(|(name, most)| {
        let lines = long.get(name).copied().unwrap_or(0);
        (lines < *most).then(|| format!("{name} is shorter than {RATCHET} allows: cargo xtask tidy --update"))
    });
    grown.chain(shrunk).collect()
}

/// The tests that ARCHITECTURE.md names (`test: NAME`) and that no file holds.
fn missing_tests(root: &Path) -> Result<Vec<String>> {
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let mut sources = String::new();
    for file in rust_files(root)? {
        sources.push_str(&fs::read_to_string(root.join(file))?);
    }
    let named = page.split("test: `").skip(1).filter_map(|rest| rest.split('`').next());
    Ok(named
        .filter(|name| !sources.contains(&format!("fn {}(", name.rsplit("::").next().unwrap_or(name))))
        .map(|name| format!("ARCHITECTURE.md names a test that is not there: {name}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_measured_to_its_closing_brace() {
        let body = "    let x = 1;\n".repeat(80);
        let text =
            format!("impl A {{\n    pub async fn long_one(a: u8) {{\n{body}    }}\n    fn short() {{\n    }}\n}}\n");
        let mut long = Long::new();
        measure(Path::new("a.rs"), &text, &mut long);
        assert_eq!(long, Long::from([("a.rs::long_one".to_owned(), 82)]));
    }

    #[test]
    fn the_ratchet_lets_nothing_grow_and_must_shrink() {
        let allowed = read_ratchet("90 a.rs::f\n600 b.rs\n");
        let long = Long::from([("a.rs::f".to_owned(), 91), ("c.rs".to_owned(), 501)]);
        assert_eq!(compare(&long, &allowed).len(), 3);
    }
}
