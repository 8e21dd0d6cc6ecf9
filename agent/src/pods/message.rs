//! What a container said of its end: its termination message file, or the end of its log.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

/// The longest message, as the kubelet's.
const MAX_BYTES: usize = 4096;
/// How many lines of a log make a message at most (kubernetes/pkg/kubelet/kuberuntime).
const MAX_LOG_LINES: usize = 80;
/// How many bytes of a log make a message at most.
const MAX_LOG_BYTES: usize = 2048;
/// How much of a log's end is read: its lines have times and marks before what the container wrote.
const READ_BYTES: u64 = 32 * 1024;

/// The message of a container that ended. `fall_back`: the log counts where the file holds nothing.
pub(super) fn read(file: Option<&str>, log: &str, fall_back: bool) -> Option<String> {
    let of_file = file.and_then(of_file);
    of_file.or_else(|| if fall_back { of_log(log) } else { None })
}

fn of_file(path: &str) -> Option<String> {
    let mut data = vec![];
    File::open(path).ok()?.take(MAX_BYTES as u64).read_to_end(&mut data).ok()?;
    (!data.is_empty()).then(|| String::from_utf8_lossy(&data).into_owned())
}

fn of_log(path: &str) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(READ_BYTES))).ok()?;
    let mut data = vec![];
    file.take(READ_BYTES).read_to_end(&mut data).ok()?;
    Some(end_of_log(&String::from_utf8_lossy(&data))).filter(|text| !text.is_empty())
}

/// The last lines of a log in CRI's form: time, stream, `F` or `P`, text.
fn end_of_log(text: &str) -> String {
    let entries: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let last = entries.get(entries.len().saturating_sub(MAX_LOG_LINES)..).unwrap_or_default();
    let mut joined = last.iter().map(|line| format!("{line}\n")).collect::<String>();
    let mut cut = joined.len().saturating_sub(MAX_LOG_BYTES);
    while !joined.is_char_boundary(cut) {
        cut += 1;
    }
    joined.split_off(cut)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_file_counts_before_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(at("log"), "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr F two three\n")
            .unwrap();
        std::fs::write(at("message"), "").unwrap();
        assert_eq!(read(Some(&at("message")), &at("log"), false), None);
        assert_eq!(read(Some(&at("message")), &at("log"), true).unwrap(), "one\ntwo three\n");
        std::fs::write(at("message"), "x".repeat(5000)).unwrap();
        assert_eq!(read(Some(&at("message")), &at("log"), true).unwrap().len(), MAX_BYTES);
        assert_eq!(read(None, &at("none"), true), None);
    }

    #[test]
    fn only_the_end_of_a_log_counts() {
        let line = |at: usize| format!("t stdout F {at}\n");
        let many: String = (0..100).map(line).collect();
        let end = end_of_log(&many);
        assert!(end.starts_with("20\n") && end.ends_with("99\n"));
        let wide = format!("t stdout F {}\n", "\u{e4}".repeat(3000));
        assert!(end_of_log(&wide).len() <= MAX_LOG_BYTES);
    }
}
