//! The folder that certificates and keys are kept in.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{Identity, PkiError};
use skiff_client::files::{make_private_folder, write_private};

/// A folder that only its owner may read.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn open(path: PathBuf) -> Result<Self, PkiError> {
        make_private_folder(&path).map_err(|source| PkiError::File {
            action: "making the folder",
            path: path.clone(),
            source,
        })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether the pair's certificate is there. It is written after the key, so with it the pair is whole.
    pub(super) fn holds_certificate(&self, name: &str) -> Result<bool, PkiError> {
        Ok(self.read(&format!("{name}.crt"))?.is_some())
    }

    /// Both files of a pair, or `None` where one is missing.
    pub(super) fn read_pair(&self, name: &str) -> Result<Option<Identity>, PkiError> {
        let cert = self.read(&format!("{name}.crt"))?;
        let key = self.read(&format!("{name}.key"))?;
        Ok(cert.zip(key).map(|(cert, key)| Identity { cert, key }))
    }

    pub(super) fn write_pair(&self, name: &str, identity: &Identity) -> Result<(), PkiError> {
        self.write(&format!("{name}.key"), &identity.key)?;
        self.write(&format!("{name}.crt"), &identity.cert)
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<String>, PkiError> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::File { action: "reading", path, source }),
        }
    }

    /// Writes a file whole or not at all, also when the power fails.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), PkiError> {
        let path = self.0.join(name);
        write_private(&path, text.as_bytes()).map_err(|source| PkiError::File { action: "writing", path, source })
    }
}
