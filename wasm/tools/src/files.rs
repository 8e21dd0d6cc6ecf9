//! Files and folders of the container's volumes.

use std::{
    fs::{self, File, Metadata},
    io::{self, BufRead, BufReader, Read, Write},
};

use crate::{MISUSED, Outcome, print};

/// What goes wrong with a file.
fn with<'a>(path: &'a str) -> impl Fn(io::Error) -> String + 'a {
    move |error| format!("{path}: {error}")
}

/// The options (letters after a dash) and the other arguments.
fn split(args: &[String]) -> (String, Vec<&str>) {
    let is_option = |arg: &&String| arg.len() > 1 && arg.starts_with('-');
    let options = args.iter().filter(is_option).map(|arg| &arg[1..]).collect();
    (options, args.iter().filter(|arg| !is_option(arg)).map(String::as_str).collect())
}

fn open(path: &str) -> Result<Box<dyn Read>, String> {
    if path == "-" {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(path).map_err(with(path))?))
}

pub(crate) fn cat(args: &[String]) -> Outcome {
    let stdin = ["-"];
    let (_, paths) = split(args);
    let mut out = io::stdout();
    for path in if paths.is_empty() { &stdin[..] } else { &paths } {
        io::copy(&mut open(path)?, &mut out).map_err(with(path))?;
    }
    out.flush().map_err(|error| error.to_string())?;
    Ok(0)
}

pub(crate) fn head(args: &[String]) -> Outcome {
    let mut lines = 10;
    let mut paths = vec![];
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.strip_prefix("-n") {
            Some("") => lines = args.next().and_then(|n| n.parse().ok()).ok_or("how many lines?")?,
            Some(n) => lines = n.parse().map_err(|_| "how many lines?")?,
            None => paths.push(arg.as_str()),
        }
    }
    for line in BufReader::new(open(paths.first().unwrap_or(&"-"))?).lines().take(lines) {
        print(&line.map_err(|error| error.to_string())?)?;
    }
    Ok(0)
}

pub(crate) fn wc(args: &[String]) -> Outcome {
    let (options, paths) = split(args);
    for path in if paths.is_empty() { vec!["-"] } else { paths } {
        let mut bytes = vec![];
        open(path)?.read_to_end(&mut bytes).map_err(with(path))?;
        let counts = [
            ('l', bytes.iter().filter(|byte| **byte == b'\n').count()),
            ('w', String::from_utf8_lossy(&bytes).split_whitespace().count()),
            ('c', bytes.len()),
        ];
        let wanted = counts.iter().filter(|(option, _)| options.is_empty() || options.contains(*option));
        let counts: Vec<String> = wanted.map(|(_, count)| count.to_string()).collect();
        print(format!("{} {}", counts.join(" "), if path == "-" { "" } else { path }).trim_end())?;
    }
    Ok(0)
}

pub(crate) fn ls(args: &[String]) -> Outcome {
    let (options, paths) = split(args);
    let long = options.contains('l');
    for path in if paths.is_empty() { vec!["."] } else { paths } {
        if !fs::metadata(path).map_err(with(path))?.is_dir() || options.contains('d') {
            entry(path, path, long)?;
            continue;
        }
        let entries = fs::read_dir(path).map_err(with(path))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<String>>>().map_err(with(path))?;
        names.retain(|name| options.contains('a') || !name.starts_with('.'));
        names.sort();
        for name in names {
            entry(&format!("{path}/{name}"), &name, long)?;
        }
    }
    Ok(0)
}

fn entry(path: &str, name: &str, long: bool) -> Outcome {
    if !long {
        return print(name);
    }
    let metadata = fs::symlink_metadata(path).map_err(with(path))?;
    let target = fs::read_link(path).map(|target| format!(" -> {}", target.display())).unwrap_or_default();
    print(&format!("{} {:>10} {name}{target}", kind(&metadata), metadata.len()))
}

fn kind(metadata: &Metadata) -> char {
    match metadata.file_type() {
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        _ => '-',
    }
}

pub(crate) fn mkdir(args: &[String]) -> Outcome {
    let (options, paths) = split(args);
    for path in paths {
        if options.contains('p') { fs::create_dir_all(path) } else { fs::create_dir(path) }.map_err(with(path))?;
    }
    Ok(0)
}

pub(crate) fn rm(args: &[String]) -> Outcome {
    let (options, paths) = split(args);
    let (recursive, force) = (options.contains(['r', 'R']), options.contains('f'));
    for path in paths {
        let removed = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() && recursive => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if !(force && error.kind() == io::ErrorKind::NotFound) => return Err(with(path)(error)),
            _ => {}
        }
    }
    Ok(0)
}

/// `test -d PATH` and the like; 1 where it does not hold.
pub(crate) fn test(args: &[String]) -> Outcome {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let holds = match args.as_slice() {
        ["-d", path] => fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()),
        ["-f", path] => fs::metadata(path).is_ok_and(|metadata| metadata.is_file()),
        ["-e", path] => fs::metadata(path).is_ok(),
        ["-s", path] => fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0),
        ["-z", text] => text.is_empty(),
        ["-n", text] | [text] => !text.is_empty(),
        [a, "=" | "==", b] => a == b,
        [a, "!=", b] => a != b,
        _ => return Ok(MISUSED),
    };
    Ok(u8::from(!holds))
}
