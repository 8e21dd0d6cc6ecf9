//! Which component a command's name means: the image's own, a file in one of the container's volumes, or one of the
//! tools that skiff brings.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{error::Failure, images::Entry, run::Preopen};

/// The tools, all in one component that goes by its first argument.
pub(crate) const TOOLS: [&str; 20] = [
    "cat", "date", "echo", "env", "false", "head", "hostname", "ls", "mkdir", "nc", "nslookup", "printenv", "pwd",
    "rm", "sleep", "tar", "test", "true", "wc", "wget",
];
/// Most bytes of a component in a volume.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The image's own component.
    Own,
    /// One of skiff's tools.
    Tool,
    /// A component in a volume.
    File(Vec<u8>),
}

/// Finds what `name` means in a container of this image that sees these folders.
pub(crate) fn find(name: &str, image: &Entry, folders: &[Preopen]) -> Result<Found, Failure> {
    let base = name.rsplit('/').next().unwrap_or_default();
    if let Some((folder, rest)) = folder_of(name, folders) {
        match read(folder, rest) {
            Ok(bytes) if bytes.starts_with(&crate::images::WASM_MAGIC) => return Ok(Found::File(bytes)),
            Ok(_) => return Err(Failure::Failed(format!("exec: {name:?}: exec format error: it is not WebAssembly"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::io(format!("exec {name:?}"))(error)),
        }
    }
    if is_own(name, image) {
        return Ok(Found::Own);
    }
    if TOOLS.contains(&base) {
        return Ok(Found::Tool);
    }
    Err(Failure::Failed(format!(
        "exec: {name:?}: executable file not found: there is no shell in a component's container, but {}, the \
         image's own command, and .wasm files in volumes, by their path",
        TOOLS.join(", ")
    )))
}

/// Whether a name means the image's own component: its entry point or its file, with or without the ending.
fn is_own(name: &str, image: &Entry) -> bool {
    let own = [Some(&image.program), image.run.entrypoint.first()];
    own.into_iter().flatten().any(|own| {
        let file = own.rsplit('/').next().unwrap_or_default();
        name == own || name == file || Some(name) == file.strip_suffix(".wasm")
    })
}

/// The folder that a path leads into, the innermost, and the rest of the path.
fn folder_of<'a>(path: &'a str, folders: &'a [Preopen]) -> Option<(&'a Preopen, &'a Path)> {
    let path = Path::new(path);
    let within = folders.iter().filter_map(|folder| Some((folder, path.strip_prefix(&folder.guest).ok()?)));
    within.max_by_key(|(folder, _)| folder.guest.len())
}

/// Reads a file of a volume. No link leads out of it.
fn read(folder: &Preopen, rest: &Path) -> io::Result<Vec<u8>> {
    let dir = File::open(&folder.host)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(&dir, rest, flags, Mode::empty(), beneath)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::images::RunConfig;

    fn image() -> Entry {
        let run = RunConfig { entrypoint: vec!["/bin/app.wasm".into()], ..RunConfig::default() };
        Entry::that_runs("hello.wasm", run)
    }

    #[test]
    fn names() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside.wasm"));
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::write(volume.join("sub/tool.wasm"), b"\0asm1").unwrap();
        std::fs::write(volume.join("script"), b"#!/bin/sh").unwrap();
        std::fs::write(&outside, b"\0asm2").unwrap();
        std::os::unix::fs::symlink("sub/tool.wasm", volume.join("link")).unwrap();
        std::os::unix::fs::symlink("../outside.wasm", volume.join("escape")).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("absolute")).unwrap();
        let folders = [Preopen { host: volume, guest: "/data".into(), readonly: true }];
        let found = |name: &str| find(name, &image(), &folders).map_err(|error| crate::error::chain(&error));
        for name in ["hello", "hello.wasm", "app", "/bin/app.wasm"] {
            assert_eq!(found(name), Ok(Found::Own), "{name}");
        }
        for name in ["ls", "/bin/cat"] {
            assert_eq!(found(name), Ok(Found::Tool), "{name}");
        }
        for name in ["/data/sub/tool.wasm", "/data/link"] {
            assert_eq!(found(name), Ok(Found::File(b"\0asm1".to_vec())), "{name}");
        }
        for (name, why) in [
            ("sh", "executable file not found"),
            ("/data/none", "executable file not found"),
            ("/data/script", "exec format error"),
            ("/data/sub", "not a file"),
            ("/data/escape", "cannot exec"),
            ("/data/absolute", "cannot exec"),
            ("/data/../outside.wasm", "cannot exec"),
            ("/outside.wasm", "executable file not found"),
        ] {
            assert!(found(name).unwrap_err().contains(why), "{name}: {:?}", found(name));
        }
    }
}
