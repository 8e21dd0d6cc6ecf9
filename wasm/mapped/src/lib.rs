//! Where compiled components are kept: a folder of machine code that only skiff wrote, mapped into memory to run.
//!
//! Mapping a file as machine code is as dangerous as running it, so this is the only crate of the workspace that may
//! contain `unsafe`, and it is small. The [`Vault`] seals what it is given with a key that only this user can read and
//! maps nothing else: a forged or damaged file is refused and the caller compiles again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, Module, component::Component};

/// Length of the key and of a seal.
const KEY_BYTES: usize = 32;
/// HMAC's block for SHA-256 (RFC 2104).
const BLOCK_BYTES: usize = 64;
/// What is sealed, so that a seal made for another purpose with the same key never fits.
const PURPOSE: &[u8] = b"skiff compiled component 1\0";

/// Why something cannot be stored or mapped.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A file or folder could not be read or written.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else could have written it.
    #[error("{path} can be written by others than the user that runs skiff: remove it, skiff makes it anew")]
    Writable {
        /// The file or folder.
        path: PathBuf,
    },
    /// It is not what was sealed.
    #[error("{path} is not what skiff compiled")]
    Seal {
        /// The file.
        path: PathBuf,
    },
    /// It is what was sealed, but this engine cannot use it.
    #[error("cannot map {path}")]
    Map {
        /// The file.
        path: PathBuf,
        /// What the engine says.
        #[source]
        source: wasmtime::Error,
    },
}

/// A folder of compiled components.
#[derive(Debug)]
pub struct Vault {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
}

impl Vault {
    /// Opens or makes the folder `dir` and its key.
    ///
    /// # Errors
    /// When the folder belongs to somebody else, or others can write it, or it cannot be made.
    pub fn open(dir: &Path) -> Result<Self, VaultError> {
        if !dir.exists() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(io_error("make the folder", dir))?;
        }
        let meta = fs::metadata(dir).map_err(io_error("look at", dir))?;
        only_ours(&meta, dir)?;
        Ok(Self { dir: dir.to_owned(), key: read_or_make_key(dir)? })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps `code`, which the caller has just compiled, under `name` (a file name without a slash).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, name: &str, code: &[u8]) -> Result<(), VaultError> {
        let mut mac = Mac::new(&self.key, name);
        mac.update(code);
        self.write(name, code)?;
        self.write(&seal_name(name), &mac.finish())
    }

    /// Maps what was stored under `name`; `None` when nothing was.
    ///
    /// # Errors
    /// When others could have written it, its seal does not fit, or the engine refuses it. The caller compiles again.
    pub fn load(&self, engine: &Engine, name: &str) -> Result<Option<Component>, VaultError> {
        let path = self.approved(name)?;
        path.map(|path| map_component(engine, &path)).transpose()
    }

    /// Maps a core module that was stored under `name`; `None` when nothing was.
    ///
    /// # Errors
    /// As [`Vault::load`].
    pub fn load_module(&self, engine: &Engine, name: &str) -> Result<Option<Module>, VaultError> {
        let path = self.approved(name)?;
        path.map(|path| map_module(engine, &path)).transpose()
    }

    /// Forgets what was stored under `name`. Components that are mapped stay mapped.
    pub fn remove(&self, name: &str) {
        for name in [name, &seal_name(name)] {
            // Nothing depends on its being gone: an orphan is refused or never asked for.
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    /// The names stored.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, VaultError> {
        let entries = fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| name != "key" && !name.ends_with(".seal")).collect())
    }

    /// The path of what was stored under `name`, once its owner, mode and seal are found right.
    fn approved(&self, name: &str) -> Result<Option<PathBuf>, VaultError> {
        let path = self.dir.join(name);
        if !path.exists() {
            return Ok(None);
        }
        self.check(name, &path)?;
        Ok(Some(path))
    }

    /// Whether the file is ours alone and carries our seal.
    fn check(&self, name: &str, path: &Path) -> Result<(), VaultError> {
        let mut file = File::open(path).map_err(io_error("open", path))?;
        let meta = file.metadata().map_err(io_error("look at", path))?;
        only_ours(&meta, path)?;
        let mut mac = Mac::new(&self.key, name);
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut chunk).map_err(io_error("read", path))?;
            if read == 0 {
                break;
            }
            mac.update(chunk.get(..read).unwrap_or_default());
        }
        let sealed = fs::read(self.dir.join(seal_name(name))).unwrap_or_default();
        if same(&sealed, &mac.finish()) { Ok(()) } else { Err(VaultError::Seal { path: path.to_owned() }) }
    }

    /// Writes a whole file under `name` or none: a file that is mapped is replaced, never changed.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), VaultError> {
        let path = self.dir.join(name);
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.dir)?;
            file.write_all(bytes)?;
            file.persist(&path).map_err(|failed| failed.error)?;
            Ok(())
        };
        write().map_err(io_error("write", &path))
    }
}

// SAFETY of both functions below: the engine asks that the file hold what `Engine::precompile_component` or
// `Engine::precompile_module` made, and that nobody change it while it is mapped.
// - Origin: its HMAC was just checked with a key that lies in a folder of mode 0700 owned by this user; `Vault::store`
//   is the only function that makes such a seal, and it is given only what the compiler has just returned. An engine of
//   another version or with other settings, or a component where a module should be, is refused by wasmtime itself,
//   which compares them in the file.
// - Unchanged: the file and its folder are owned by this user and writable by nobody else, so only this user's
//   processes (which could also trace this process) reach it, and skiff's own write by rename: the mapped inode never
//   changes.

/// Maps a component that [`Vault::check`] has just approved.
#[allow(unsafe_code, reason = "the engine can map compiled code only through an unsafe function")]
fn map_component(engine: &Engine, path: &Path) -> Result<Component, VaultError> {
    // SAFETY: see above.
    unsafe { Component::deserialize_file(engine, path) }
        .map_err(|source| VaultError::Map { path: path.to_owned(), source })
}

/// Maps a core module that [`Vault::check`] has just approved.
#[allow(unsafe_code, reason = "the engine can map compiled code only through an unsafe function")]
fn map_module(engine: &Engine, path: &Path) -> Result<Module, VaultError> {
    // SAFETY: see above.
    unsafe { Module::deserialize_file(engine, path) }
        .map_err(|source| VaultError::Map { path: path.to_owned(), source })
}

/// Refuses what others than the effective user own or can write.
fn only_ours(meta: &fs::Metadata, path: &Path) -> Result<(), VaultError> {
    let ours = meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(VaultError::Writable { path: path.to_owned() }) }
}

fn read_or_make_key(dir: &Path) -> Result<[u8; KEY_BYTES], VaultError> {
    let path = dir.join("key");
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let key: [u8; KEY_BYTES] = rand::random();
            file.write_all(&key).map_err(io_error("write", &path))?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(&path),
        Err(source) => Err(VaultError::Io { doing: "make", path, source }),
    }
}

/// Reads the key; one cut short by a crash (or being written just now) is replaced, which only costs compiling again.
fn read_key(path: &Path) -> Result<[u8; KEY_BYTES], VaultError> {
    let meta = fs::metadata(path).map_err(io_error("look at", path))?;
    only_ours(&meta, path)?;
    let bytes = fs::read(path).map_err(io_error("read", path))?;
    if let Ok(key) = bytes.try_into() {
        return Ok(key);
    }
    let key: [u8; KEY_BYTES] = rand::random();
    fs::write(path, key).map_err(io_error("write", path))?;
    Ok(key)
}

fn seal_name(name: &str) -> String {
    format!("{name}.seal")
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> VaultError + 'a {
    move |source| VaultError::Io { doing, path: path.to_owned(), source }
}

/// Compares without a hint, by the time it takes, at where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// HMAC-SHA-256 (RFC 2104) with a key shorter than a block.
struct Mac {
    inner: Sha256,
    outer: Sha256,
}

impl Mac {
    fn new(key: &[u8; KEY_BYTES], name: &str) -> Self {
        let mut block = [0; BLOCK_BYTES];
        for (to, from) in block.iter_mut().zip(key) {
            *to = *from;
        }
        let mut inner = Sha256::new();
        inner.update(block.map(|byte| byte ^ 0x36));
        inner.update(PURPOSE);
        inner.update((name.len() as u64).to_be_bytes());
        inner.update(name.as_bytes());
        let mut outer = Sha256::new();
        outer.update(block.map(|byte| byte ^ 0x5c));
        Self { inner, outer }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    fn finish(mut self) -> [u8; KEY_BYTES] {
        self.outer.update(self.inner.finalize());
        self.outer.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    fn compiled(engine: &Engine) -> Vec<u8> {
        engine
            .precompile_component(b"(component)".as_slice())
            .or_else(|_| {
                // Without the text format: the smallest binary component, magic and version only.
                engine.precompile_component(b"\0asm\x0d\0\x01\0")
            })
            .unwrap()
    }

    #[test]
    fn maps_only_what_it_stored() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&dir.path().join("v")).unwrap();
        let engine = Engine::default();
        let code = compiled(&engine);
        assert!(vault.load(&engine, "a").unwrap().is_none());
        vault.store("a", &code).unwrap();
        assert!(vault.load(&engine, "a").unwrap().is_some());
        assert_eq!(vault.names().unwrap(), ["a"]);

        let path = dir.path().join("v");
        // A forger who can place files but has no key: another file's bytes and seal under a new name, changed bytes,
        // and no seal at all.
        fs::copy(path.join("a"), path.join("b")).unwrap();
        fs::copy(path.join("a.seal"), path.join("b.seal")).unwrap();
        assert!(matches!(vault.load(&engine, "b"), Err(VaultError::Seal { .. })));
        let mut changed = code.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(path.join("a"), &changed).unwrap();
        assert!(matches!(vault.load(&engine, "a"), Err(VaultError::Seal { .. })));
        fs::write(path.join("c"), &code).unwrap();
        assert!(matches!(vault.load(&engine, "c"), Err(VaultError::Seal { .. })));
    }

    #[test]
    fn refuses_what_others_can_write() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        let vault = Vault::open(&path).unwrap();
        let engine = Engine::default();
        vault.store("a", &compiled(&engine)).unwrap();
        fs::set_permissions(path.join("a"), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(vault.load(&engine, "a"), Err(VaultError::Writable { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Vault::open(&path), Err(VaultError::Writable { .. })));
    }

    #[test]
    fn mac_is_hmac_sha256() {
        // Checked against RFC 2104's definition, with the pieces put together by hand.
        let key = [7; KEY_BYTES];
        let mut mac = Mac::new(&key, "n");
        mac.update(b"data");
        let mut block = [0u8; BLOCK_BYTES];
        block[..KEY_BYTES].copy_from_slice(&key);
        let message = [PURPOSE, &1u64.to_be_bytes(), b"n", b"data"].concat();
        let inner = Sha256::digest([block.map(|b| b ^ 0x36).as_slice(), &message].concat());
        let outer = Sha256::digest([block.map(|b| b ^ 0x5c).as_slice(), &inner].concat());
        assert_eq!(mac.finish(), <[u8; 32]>::from(outer));
    }
}
