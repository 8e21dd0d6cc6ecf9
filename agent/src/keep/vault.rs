//! Encrypted files, each under a folder and a name: AES-256-GCM with a key of this node's own, in a file that only its
//! owner reads. It keeps secrets out of backups and away from who gets hold of the disk without that file; it does
//! not keep them from root.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use sha2::{Digest, Sha256};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of the largest file that is read back: more than the API server takes for an object.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// The most files that a folder gives.
const MAX_FILES: usize = 100_000;

/// The vault cannot be opened, or a file not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct VaultError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> VaultError + 'a {
    move |source| VaultError { doing, path: path.to_owned(), source }
}

/// Encrypted files under a folder. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    folder: PathBuf,
    key: Arc<LessSafeKey>,
    random: SystemRandom,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({})", self.folder.display())
    }
}

fn broken(_: ring::error::Unspecified) -> io::Error {
    io::Error::other("it is not what this node wrote, or its key was lost")
}

impl Vault {
    /// The vault of a folder; its key is made where there is none.
    pub fn open(folder: &Path) -> Result<Self, VaultError> {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        let random = SystemRandom::new();
        let path = folder.join("key");
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_key(&path, &random).map_err(failed("write", &path))?
            }
            read => read.map_err(failed("read", &path))?,
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(broken).map_err(failed("use", &path))?;
        Ok(Self { folder: folder.to_owned(), key: Arc::new(LessSafeKey::new(key)), random })
    }

    /// Names come from the API: their hash is what a file system takes.
    fn path(&self, kind: &str, name: &str) -> PathBuf {
        let digest = Sha256::digest(name);
        let file = digest.iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        self.folder.join(kind).join(file)
    }

    /// Writes a file, whole or not at all.
    pub fn write(&self, kind: &str, name: &str, data: &[u8]) -> Result<(), VaultError> {
        let path = self.path(kind, name);
        self.put(kind, &path, data).map_err(failed("write", &path))
    }

    fn put(&self, kind: &str, path: &Path, data: &[u8]) -> io::Result<()> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(broken)?;
        let mut sealed = data.to_vec();
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce_of, Aad::from(bound(kind, path)), &mut sealed).map_err(broken)?;
        fs::create_dir_all(self.folder.join(kind))?;
        let new = path.with_extension("new");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&nonce)?;
        file.write_all(&sealed)?;
        fs::rename(&new, path)
    }

    /// Reads a file; `None` where there is none, or none that this node wrote.
    pub fn read(&self, kind: &str, name: &str) -> Option<Vec<u8>> {
        self.get(kind, &self.path(kind, name))
    }

    fn get(&self, kind: &str, path: &Path) -> Option<Vec<u8>> {
        let found = fs::metadata(path).ok().filter(|found| found.len() <= MAX_BYTES)?;
        let mut data = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
        io::Read::read_to_end(&mut io::Read::take(fs::File::open(path).ok()?, MAX_BYTES), &mut data).ok()?;
        let (nonce, sealed) = data.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        match self.key.open_in_place(nonce, Aad::from(bound(kind, path)), sealed) {
            Ok(opened) => Some(opened.to_vec()),
            Err(_) => {
                tracing::warn!(path = %path.display(), "a kept file is not what this node wrote, and is passed over");
                None
            }
        }
    }

    /// All files of a kind.
    pub fn read_all(&self, kind: &str) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(self.folder.join(kind)).into_iter().flatten().flatten().take(MAX_FILES);
        let whole = entries.map(|entry| entry.path()).filter(|path| path.extension().is_none());
        whole.filter_map(|path| self.get(kind, &path)).collect()
    }

    /// Removes a file.
    pub fn remove(&self, kind: &str, name: &str) {
        let path = self.path(kind, name);
        if let Err(e) = fs::remove_file(&path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(error = %e, path = %path.display(), "a kept file cannot be removed");
        }
    }

    /// Removes the files of a kind but those of the names given.
    pub fn retain(&self, kind: &str, names: impl Iterator<Item = String>) {
        let kept: std::collections::BTreeSet<PathBuf> = names.map(|name| self.path(kind, &name)).collect();
        for entry in fs::read_dir(self.folder.join(kind)).into_iter().flatten().flatten() {
            if !kept.contains(&entry.path()) {
                let _gone = fs::remove_file(entry.path());
            }
        }
    }
}

/// What a file is bound to: moved to another name, it cannot be opened.
fn bound(kind: &str, path: &Path) -> Vec<u8> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    [kind.as_bytes(), b"/", name].concat()
}

fn make_key(path: &Path, random: &SystemRandom) -> io::Result<Vec<u8>> {
    let mut key = vec![0; KEY_BYTES];
    random.fill(&mut key).map_err(broken)?;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&key)?;
    file.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_is_read_by_this_node_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        vault.write("secrets", "n/a", b"hunter2").unwrap();
        assert_eq!(Vault::open(dir.path()).unwrap().read("secrets", "n/a").unwrap(), b"hunter2");
        assert_eq!(fs::metadata(dir.path().join("key")).unwrap().permissions().mode() & 0o777, 0o600);
        let file = vault.path("secrets", "n/a");
        let mut raw = fs::read(&file).unwrap();
        assert!(!raw.windows(7).any(|part| part == b"hunter2"));
        // Under another name, changed, cut, or without the key it is nothing.
        fs::copy(&file, vault.path("secrets", "n/b")).unwrap();
        assert_eq!(vault.read("secrets", "n/b"), None);
        *raw.last_mut().unwrap() ^= 1;
        fs::write(&file, &raw).unwrap();
        assert_eq!(vault.read("secrets", "n/a"), None);
        fs::write(&file, &raw[..5]).unwrap();
        assert_eq!(vault.read("secrets", "n/a"), None);
    }

    #[test]
    fn kinds_are_listed_and_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        for name in ["a", "b", "c"] {
            vault.write("pods", name, name.as_bytes()).unwrap();
        }
        vault.remove("pods", "a");
        vault.retain("pods", ["c".to_owned()].into_iter());
        assert_eq!(vault.read_all("pods"), [b"c".to_vec()]);
        assert!(vault.read_all("none").is_empty());
    }
}
