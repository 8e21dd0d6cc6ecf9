//! Every flag is also a key of a configuration file: `/etc/skiff/config.yaml`, or what `--config` names.
//!
//! The file's keys are put in front of the command line's own flags, which therefore win. A key is a flag's long
//! name; a list repeats the flag; `true` gives the flag alone.

use std::{ffi::OsString, fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail};
use serde_yaml_ng::Value;

/// Where the file is when `--config` does not say.
const DEFAULT_PATH: &str = "/etc/skiff/config.yaml";

/// The subcommands that read the file, and which of its keys they take: all where none are named. A command beside a
/// server takes what says where the server has its things.
static READERS: [(&str, &[&str]); 4] =
    [("server", &[]), ("agent", &[]), ("token", &["data-dir"]), ("snapshot", &["data-dir", "snapshot-dir"])];

/// The command line with the file's flags put in behind the subcommand.
pub(crate) fn arguments(mut line: Vec<OsString>) -> Result<Vec<OsString>> {
    let explicit = take_config_flag(&mut line)?;
    let reader = |word: &OsString| READERS.iter().find(|(name, _)| word == name);
    let Some((at, (_, taken))) = line.iter().enumerate().find_map(|(at, word)| Some((at, reader(word)?))) else {
        return Ok(line);
    };
    let path = explicit.as_deref().unwrap_or_else(|| Path::new(DEFAULT_PATH));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && explicit.is_none() => return Ok(line),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let flags = flags_of(&text, taken).with_context(|| format!("in {}", path.display()))?;
    line.splice(at + 1..at + 1, flags.into_iter().map(OsString::from));
    Ok(line)
}

/// Takes `--config FILE` or `--config=FILE` out of the line.
fn take_config_flag(line: &mut Vec<OsString>) -> Result<Option<Box<Path>>> {
    let Some(at) = line.iter().position(|word| word == "--config" || word.as_encoded_bytes().starts_with(b"--config="))
    else {
        return Ok(None);
    };
    let word = line.remove(at);
    if let Some((_, path)) = word.to_str().and_then(|word| word.split_once('=')) {
        return Ok(Some(Path::new(path).into()));
    }
    if at >= line.len() {
        bail!("--config needs a file");
    }
    Ok(Some(Path::new(&line.remove(at)).into()))
}

/// The flags that a configuration file stands for.
fn flags_of(text: &str, taken: &[&str]) -> Result<Vec<String>> {
    let file: Value = serde_yaml_ng::from_str(text).context("it is not YAML")?;
    let mapping = match file {
        Value::Null => return Ok(Vec::new()),
        Value::Mapping(mapping) => mapping,
        _ => bail!("it must be a mapping of flags to values"),
    };
    let mut flags = Vec::new();
    for (key, value) in &mapping {
        let Some(key) = key.as_str() else { bail!("the key {key:?} is no flag's name") };
        if !taken.is_empty() && !taken.contains(&key) {
            continue;
        }
        let values = match value {
            Value::Sequence(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            match value {
                Value::Bool(true) => flags.push(format!("--{key}")),
                Value::Bool(false) | Value::Null => {}
                Value::String(text) => flags.push(format!("--{key}={text}")),
                Value::Number(number) => flags.push(format!("--{key}={number}")),
                _ => bail!("the value of {key} must be a text, a number, true, false, or a list of these"),
            }
        }
    }
    Ok(flags)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn keys_become_flags() {
        let text = "https-listen-port: 7443\ntls-san: [a, b]\ndisable-agent: true\nverbose: false\nnode-name: n1\n";
        let flags = ["--https-listen-port=7443", "--tls-san=a", "--tls-san=b", "--disable-agent", "--node-name=n1"];
        assert_eq!(flags_of(text, &[]).unwrap(), flags);
        assert_eq!(flags_of(text, &["node-name"]).unwrap(), ["--node-name=n1"]);
        assert!(flags_of("", &[]).unwrap().is_empty());
        assert!(flags_of("- a", &[]).is_err());
        assert!(flags_of("a: {b: c}", &[]).is_err());
    }

    #[test]
    fn the_files_flags_come_before_the_lines_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        fs::write(&file, "node-name: from-file\n").unwrap();
        let line = ["skiff", "--config", file.to_str().unwrap(), "server", "--node-name=own"];
        let line = arguments(line.iter().map(OsString::from).collect()).unwrap();
        assert_eq!(line, ["skiff", "server", "--node-name=from-file", "--node-name=own"]);
    }
}
