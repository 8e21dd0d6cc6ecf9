//! What a child did to its files, as `strace` saw it, in order.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
};

/// The system calls by which files change or reach the disk, and by which the child says what was acknowledged.
const CALLS: &str = "openat,pwrite64,write,ftruncate,fsync,fdatasync,unlink,rename,fallocate";

/// One thing that a child did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A file was made.
    Create { file: PathBuf },
    /// Bytes were put into a file.
    Write { file: PathBuf, offset: usize, data: Vec<u8> },
    /// A file was cut or lengthened.
    Truncate { file: PathBuf, len: usize },
    /// A file was taken away.
    Unlink { file: PathBuf },
    /// A file, or a folder with its names, was brought to disk.
    Sync { file: PathBuf },
    /// Something was said on standard output.
    Say { text: String },
}

/// One thing that a child did, and between which lines of the trace it happened.
#[derive(Clone, Debug)]
pub struct Step {
    pub act: Act,
    pub began: usize,
    pub ended: usize,
}

/// Runs a command under `strace` and returns what it did, to the files of a folder and on standard output.
pub fn record(command: &Command, folder: &Path) -> Vec<Step> {
    let traces = tempfile::tempdir().unwrap();
    let trace = traces.path().join("trace");
    let mut strace = Command::new("strace");
    // -y says which file a descriptor stands for.
    strace.args(["-f", "-qq", "-y", "--seccomp-bpf", "-s", "1000000", "-e", "signal=none"]);
    strace.args(["-e", &format!("trace={CALLS}"), "-o"]).arg(&trace);
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    strace.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = strace.output().expect("strace is there: tests/setup.sh installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parse(&std::fs::read_to_string(&trace).unwrap(), folder)
}

/// Reads a trace. A call that others came between is told by two lines: how it began, and how it ended.
fn parse(trace: &str, folder: &Path) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open: HashMap<&str, (usize, &str)> = HashMap::new();
    for (line, text) in trace.lines().enumerate() {
        let Some((thread, call)) = text.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            open.insert(thread, (line, begun));
            continue;
        }
        let (began, begun) = match call.starts_with("<... ") {
            true => open.remove(thread).unwrap_or_else(|| panic!("{text} was never begun")),
            false => (line, call),
        };
        // A call that failed did nothing.
        let Some((_, result)) = call.rsplit_once(" = ") else { continue };
        if result.starts_with('-') || result.starts_with('?') {
            continue;
        }
        steps.extend(act(begun, folder).map(|act| Step { act, began, ended: line }));
    }
    steps.sort_by_key(|step| step.began);
    steps
}

/// What a call did, if it concerns the folder or standard output.
fn act(call: &str, folder: &Path) -> Option<Act> {
    let (name, arguments) = call.split_once('(')?;
    if name == "openat" || name == "unlink" {
        let quoted = arguments.find('"')?;
        let (path, _) = unquote(&arguments[quoted..]);
        let file = PathBuf::from(String::from_utf8(path).ok()?);
        let made = name == "unlink" || arguments.contains("O_CREAT");
        let ours = made && file.starts_with(folder);
        let act = if name == "unlink" { Act::Unlink { file } } else { Act::Create { file } };
        return ours.then_some(act);
    }
    // The descriptor, with the path that it stands for in angle brackets.
    let (number, rest) = arguments.split_once('<')?;
    let (path, rest) = rest.split_once('>')?;
    let file = PathBuf::from(path.trim_end_matches(" (deleted)"));
    let rest = rest.trim_start_matches(", ");
    if name == "write" {
        let text = || String::from_utf8_lossy(&unquote(rest).0).into_owned();
        assert!(!file.starts_with(folder), "a write without an offset: {call:.200}");
        return (number == "1").then(|| Act::Say { text: text() });
    }
    if !file.starts_with(folder) {
        return None;
    }
    match name {
        "fsync" | "fdatasync" => Some(Act::Sync { file }),
        "ftruncate" => Some(Act::Truncate { file, len: number_at(rest) }),
        "pwrite64" => {
            let (data, rest) = unquote(rest);
            let offset = number_at(rest.rsplit_once(", ")?.1);
            Some(Act::Write { file, offset, data })
        }
        _ => panic!("what {name} does is not replayed: {call:.200}"),
    }
}

fn number_at(text: &str) -> usize {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number in {text:.100}"))
}

/// The bytes of a string as `strace` prints it, and what comes after it.
fn unquote(text: &str) -> (Vec<u8>, &str) {
    let bytes = text.as_bytes();
    assert_eq!(bytes[0], b'"', "no string: {text:.100}");
    let mut out = Vec::new();
    let mut at = 1;
    while bytes[at] != b'"' {
        if bytes[at] != b'\\' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        at += 1;
        let octal = bytes[at..].iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
        if octal > 0 {
            let value = bytes[at..at + octal].iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            out.push(u8::try_from(value).unwrap());
            at += octal;
            continue;
        }
        out.push(match bytes[at] {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 0x0b,
            b'f' => 0x0c,
            other => other,
        });
        at += 1;
    }
    let rest = &text[at + 1..];
    assert!(!rest.starts_with("..."), "strace has cut a string");
    (out, rest)
}

#[test]
fn a_trace_is_read() {
    let trace = "7 openat(AT_FDCWD</>, \"/d/a\", O_RDWR|O_CREAT, 0600) = 3</d/a>\n\
                 7 pwrite64(3</d/a>, \"\\0\\18\\\"\\n\\377\", 6, 512) = 6\n\
                 7 fdatasync(3</d/a> <unfinished ...>\n\
                 8 write(1</dev/null>, \"ack\\n\", 4) = 4\n\
                 7 <... fdatasync resumed>) = 0\n\
                 8 pwrite64(4</elsewhere>, \"x\", 1, 0) = 1\n\
                 8 ftruncate(3</d/a>, 7) = 0\n\
                 8 unlink(\"/d/b\") = -1 ENOENT (No such file or directory)\n";
    let steps = parse(trace, Path::new("/d"));
    let file = PathBuf::from("/d/a");
    let acts: Vec<_> = steps.iter().map(|step| (step.began, step.ended, step.act.clone())).collect();
    let expected = [
        (0, 0, Act::Create { file: file.clone() }),
        (1, 1, Act::Write { file: file.clone(), offset: 512, data: vec![0, 1, b'8', b'"', b'\n', 0xff] }),
        (2, 4, Act::Sync { file: file.clone() }),
        (3, 3, Act::Say { text: "ack\n".to_owned() }),
        (6, 6, Act::Truncate { file, len: 7 }),
    ];
    assert_eq!(acts, expected);
}
