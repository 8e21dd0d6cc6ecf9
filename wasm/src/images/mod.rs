//! The node's Wasm images: a folder that any process may read and write, the runtime needs no telling.
//!
//! - `blobs/sha256/HEX`: content, named by its digest;
//! - `refs/HEX.json`: one small file a name, which says which image it means and how to run it;
//! - `tmp/`: what is being written.
//!
//! Blobs come first and the name last, both by rename under a lock, so a reader finds an image whole or not at all.

mod archive;
mod manifest;
mod pull;
mod reference;
mod stage;

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

pub use manifest::RunConfig;
pub use pull::Auth;
pub use reference::{Reference, ReferenceError, Version};

use crate::disk;
use reference::{is_digest, is_hex64};
use stage::Staging;
pub(crate) use stage::WASM_MAGIC;

/// Most bytes of a name's file.
const MAX_REF_BYTES: u64 = 1 << 20;

/// Why an image cannot be stored, found or used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file of the store cannot be used.
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
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A JSON document of the image cannot be read.
    #[error("cannot read the image's {what}")]
    Json {
        /// Which.
        what: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The image is against the rules.
    #[error("invalid image: {0}")]
    Invalid(String),
    /// The image has nothing that this runtime runs.
    #[error(
        "not a Wasm image: it has no application/wasm layer and its entrypoint is not a .wasm file (a pod with \
         `runtimeClassName: wasm` needs a component)"
    )]
    NotWasm,
    /// The file is neither a component nor an archive.
    #[error("{path} is neither a .wasm file nor an OCI or Docker archive")]
    UnknownFile {
        /// The file.
        path: PathBuf,
    },
    /// There is no such image.
    #[error("image {0:?}: not found")]
    NotFound(String),
    /// The registry did not give it.
    #[error("failed to pull and unpack image \"{reference}\": {problem}")]
    Pull {
        /// The image's full name.
        reference: String,
        /// What went wrong, in containerd's words.
        problem: String,
        /// Whether the registry said that there is no such image.
        not_found: bool,
    },
}

impl ImageError {
    pub(crate) fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    pub(crate) fn json(what: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { what, source }
    }

    /// Whether the image does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Pull { not_found: true, .. })
    }
}

/// What a name means: the content of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The full name.
    pub reference: String,
    /// The digest of the image's manifest, which is also the image's identifier.
    pub manifest: String,
    /// The digest of the component (or core module) to run.
    pub component: String,
    /// Bytes of the image in all.
    pub size: u64,
    /// What the program is called, for `argv[0]` where nothing else names it.
    pub program: String,
    /// How to run it.
    pub run: RunConfig,
    /// When it was stored, in seconds since 1970.
    pub stored_at: u64,
}

#[cfg(test)]
impl Entry {
    /// An entry of which only what is run matters.
    pub(crate) fn that_runs(program: &str, run: RunConfig) -> Self {
        let (reference, manifest, component) = Default::default();
        Self { reference, manifest, component, size: 0, program: program.into(), run, stored_at: 0 }
    }
}

/// An image with all its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its manifest.
    pub id: String,
    /// Its tagged names, e.g. `docker.io/library/hello:latest`.
    pub tags: Vec<String>,
    /// Its names with the digest, e.g. `docker.io/library/hello@sha256:...`.
    pub digests: Vec<String>,
    /// One of its entries.
    pub entry: Entry,
}

/// What an import brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The images' names, each with its digest.
    pub images: Vec<Entry>,
}

/// The folder of images.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens (or makes) the store of the runtime whose folder is `root`.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let store = Self { dir: root.join("images") };
        for dir in [store.refs(), store.blobs(), store.tmp()] {
            disk::private_dir(&dir).map_err(ImageError::io("make the folder", &dir))?;
        }
        Ok(store)
    }

    /// Imports a `.wasm` file (component or core module of WASI preview 1), or an OCI or Docker archive with any number
    /// of images. `name` names a single image; without it a `.wasm` file is called by its file name, an archive's
    /// images as the archive says.
    ///
    /// # Errors
    /// When the file is none of these, breaks a digest or a limit, or cannot be stored.
    pub fn import(&self, file: &Path, name: Option<&str>) -> Result<Imported, ImageError> {
        let name = name.map(Reference::parse).transpose()?;
        Ok(Imported { images: archive::import(self, file, name)? })
    }

    /// All images, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut images: BTreeMap<(u64, String), Image> = BTreeMap::new();
        let mut entries = self.entries()?;
        entries.sort_by(|a, b| (a.stored_at, &a.reference).cmp(&(b.stored_at, &b.reference)));
        let mut first_seen: BTreeMap<String, u64> = BTreeMap::new();
        for entry in entries {
            let at = *first_seen.entry(entry.manifest.clone()).or_insert(entry.stored_at);
            let image = images.entry((at, entry.manifest.clone())).or_insert_with(|| Image::new(&entry));
            image.add(&entry);
        }
        Ok(images.into_values().collect())
    }

    /// The image that `name` means: a name, or an image's identifier.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when there is none, or when the folder cannot be read.
    pub fn find(&self, name: &str) -> Result<Image, ImageError> {
        let entry = self.entry(name)?;
        let image = self.list()?.into_iter().find(|image| image.id == entry.manifest);
        image.ok_or_else(|| ImageError::NotFound(name.to_owned()))
    }

    /// One entry of the image that `name` means; a name costs one small read.
    pub(crate) fn entry(&self, name: &str) -> Result<Entry, ImageError> {
        let missing = || ImageError::NotFound(name.to_owned());
        let id = if is_hex64(name) { format!("sha256:{name}") } else { name.to_owned() };
        if is_digest(&id) {
            return self.entries()?.into_iter().find(|entry| entry.manifest == id).ok_or_else(missing);
        }
        let reference = Reference::parse(name)?;
        if let Some(entry) = self.read_entry(&self.ref_path(&reference.to_string()))? {
            return Ok(entry);
        }
        // A name with a digest means the image of any of that repository's tags, if it is that one.
        let Version::Digest(digest) = &reference.version else { return Err(missing()) };
        let same_repository =
            |entry: &Entry| Reference::parse(&entry.reference).is_ok_and(|known| known.name() == reference.name());
        self.entries()?
            .into_iter()
            .find(|entry| entry.manifest == *digest && same_repository(entry))
            .ok_or_else(missing)
    }

    /// Removes the image that `name` means: by a name only that name, by its identifier all its names. Content that no
    /// image needs any more goes with it. What is not there counts as removed.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<Vec<Entry>, ImageError> {
        let _lock = self.lock()?;
        let id = if is_hex64(name) { format!("sha256:{name}") } else { name.to_owned() };
        let removed: Vec<Entry> = if is_digest(&id) {
            self.entries()?.into_iter().filter(|entry| entry.manifest == id).collect()
        } else {
            match self.entry(name) {
                Ok(entry) => vec![entry],
                Err(error) if error.is_not_found() => Vec::new(),
                Err(error) => return Err(error),
            }
        };
        for entry in &removed {
            let path = self.ref_path(&entry.reference);
            disk::remove(&path).map_err(ImageError::io("remove", &path))?;
        }
        self.collect()?;
        Ok(removed)
    }

    /// The bytes on disk.
    pub(crate) fn used_bytes(&self) -> u64 {
        let Ok(blobs) = fs::read_dir(self.blobs()) else { return 0 };
        blobs.flatten().filter_map(|blob| blob.metadata().ok()).map(|meta| meta.len()).sum()
    }

    /// The store's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of the content with this digest.
    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        self.blobs().join(digest.strip_prefix("sha256:").unwrap_or(digest))
    }

    /// Puts staged content and its entries in place.
    fn commit(&self, staging: Staging, entries: &[Entry]) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        staging.into_blobs(self)?;
        for entry in entries {
            let path = self.ref_path(&entry.reference);
            let json = serde_json::to_vec(entry).map_err(ImageError::json("entry"))?;
            disk::replace(&path, &json).map_err(ImageError::io("write", &path))?;
        }
        Ok(())
    }

    /// Removes the blobs that no entry needs. The caller holds the lock.
    fn collect(&self) -> Result<(), ImageError> {
        let mut needed = HashSet::new();
        for entry in self.entries()? {
            needed.extend(self.content_of(&entry));
        }
        let blobs = self.blobs();
        for blob in fs::read_dir(&blobs).map_err(ImageError::io("list", &blobs))?.flatten() {
            let name = format!("sha256:{}", blob.file_name().to_string_lossy());
            if !needed.contains(&name) {
                disk::remove(&blob.path()).map_err(ImageError::io("remove", &blob.path()))?;
            }
        }
        Ok(())
    }

    /// The digests of everything that an entry needs.
    fn content_of(&self, entry: &Entry) -> Vec<String> {
        let mut digests = vec![entry.manifest.clone(), entry.component.clone()];
        let manifest = disk::read_bounded(&self.blob_path(&entry.manifest), manifest::MAX_JSON_BYTES);
        if let Some(manifest::Document::Image(manifest)) =
            manifest.ok().and_then(|bytes| manifest::Document::parse(&bytes).ok())
        {
            digests.push(manifest.config.digest);
            digests.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        }
        digests
    }

    fn entries(&self) -> Result<Vec<Entry>, ImageError> {
        let dir = self.refs();
        let files = fs::read_dir(&dir).map_err(ImageError::io("list", &dir))?;
        let paths =
            files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
        let entries = paths.map(|path| self.read_entry(&path));
        entries.filter_map(Result::transpose).collect()
    }

    /// Reads a name's file; one that is gone or cut short means no image.
    fn read_entry(&self, path: &Path) -> Result<Option<Entry>, ImageError> {
        match disk::read_bounded(path, MAX_REF_BYTES) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::io("read", path)(error)),
        }
    }

    fn lock(&self) -> Result<Flock<File>, ImageError> {
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(ImageError::io("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| ImageError::Io {
            doing: "lock",
            path,
            source: errno.into(),
        })
    }

    fn ref_path(&self, reference: &str) -> PathBuf {
        self.refs().join(format!("{}.json", disk::hex(&stage::sha256(reference.as_bytes()))))
    }

    fn refs(&self) -> PathBuf {
        self.dir.join("refs")
    }

    fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }
}

impl Image {
    fn new(entry: &Entry) -> Self {
        Self { id: entry.manifest.clone(), tags: Vec::new(), digests: Vec::new(), entry: entry.clone() }
    }

    fn add(&mut self, entry: &Entry) {
        let Ok(reference) = Reference::parse(&entry.reference) else { return };
        if matches!(reference.version, Version::Tag(_)) {
            self.tags.push(entry.reference.clone());
        }
        let digest = reference.at_digest(&entry.manifest).to_string();
        if !self.digests.contains(&digest) {
            self.digests.push(digest);
        }
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
