//! Content on its way into the store: written beside it, its digest checked, and put in place only when the image is
//! whole.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    path::{Component as PathPart, Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{
    Entry, ImageError, Reference, Store,
    manifest::{self, Document, Location, MAX_JSON_BYTES, MAX_LAYER_BYTES, Manifest, RunConfig},
    now_seconds,
};
use crate::disk;

/// How deep indexes may point to indexes.
const MAX_INDEX_DEPTH: usize = 4;
/// Most entries of a layer's tar looked at.
const MAX_TAR_ENTRIES: usize = 200_000;
/// The first bytes of a gzip stream.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The first bytes of a Wasm module or component.
pub(crate) const WASM_MAGIC: [u8; 4] = *b"\0asm";

/// Blobs that wait to be put in place.
pub(crate) struct Staging {
    store: Store,
    dir: PathBuf,
    blobs: HashMap<String, (NamedTempFile, u64)>,
}

/// One blob being written.
pub(crate) struct Writer {
    file: NamedTempFile,
    hash: Sha256,
    size: u64,
    limit: u64,
}

impl Staging {
    pub(crate) fn new(store: &Store) -> Self {
        Self { store: store.clone(), dir: store.tmp(), blobs: HashMap::new() }
    }

    /// Begins a blob of at most `limit` bytes.
    pub(crate) fn writer(&self, limit: u64) -> Result<Writer, ImageError> {
        let file = NamedTempFile::new_in(&self.dir).map_err(ImageError::io("write in", &self.dir))?;
        Ok(Writer { file, hash: Sha256::new(), size: 0, limit })
    }

    /// Ends a blob; its digest.
    pub(crate) fn finish(&mut self, mut writer: Writer) -> Result<String, ImageError> {
        writer.file.flush().map_err(ImageError::io("write in", &self.dir))?;
        let digest = format!("sha256:{}", disk::hex(&writer.hash.finalize()));
        self.blobs.insert(digest.clone(), (writer.file, writer.size));
        Ok(digest)
    }

    /// Takes all of `content`; its digest.
    pub(crate) fn add(&mut self, content: &mut dyn Read, limit: u64) -> Result<String, ImageError> {
        let mut writer = self.writer(limit)?;
        io::copy(content, &mut writer).map_err(ImageError::io("copy into", &self.dir))?;
        self.finish(writer)
    }

    /// Whether the content is here or in the store already.
    pub(crate) fn contains(&self, digest: &str) -> bool {
        self.blobs.contains_key(digest) || self.store.blob_path(digest).is_file()
    }

    pub(crate) fn size(&self, digest: &str) -> u64 {
        match self.blobs.get(digest) {
            Some((_, size)) => *size,
            None => self.store.blob_path(digest).metadata().map_or(0, |meta| meta.len()),
        }
    }

    pub(crate) fn open(&self, digest: &str) -> Result<File, ImageError> {
        if let Some((file, _)) = self.blobs.get(digest) {
            return file.reopen().map_err(ImageError::io("open", file.path()));
        }
        let opened = File::open(self.store.blob_path(digest));
        opened.map_err(|_| ImageError::Invalid(format!("{digest} is missing")))
    }

    pub(crate) fn json(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let read = self.open(digest)?.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(ImageError::io("read in", &self.dir))?;
        if bytes.len() as u64 > MAX_JSON_BYTES {
            return Err(ImageError::Invalid(format!("{digest} is larger than {MAX_JSON_BYTES} bytes")));
        }
        Ok(bytes)
    }

    /// The image's manifest that `digest` is or leads to, with that manifest's digest.
    pub(crate) fn manifest(&self, digest: &str) -> Result<(String, Manifest), ImageError> {
        let mut digest = digest.to_owned();
        for _ in 0..MAX_INDEX_DEPTH {
            match Document::parse(&self.json(&digest)?)? {
                Document::Image(manifest) => return Ok((digest, manifest)),
                Document::Index(index) => {
                    let chosen = index.choose().ok_or_else(|| ImageError::Invalid("an empty index".into()))?;
                    digest = chosen.digest.clone();
                }
            }
        }
        Err(ImageError::Invalid("indexes nested too deeply".into()))
    }

    /// The entry for the image whose manifest is (or is reached from) `digest`; its component is staged too.
    pub(crate) fn entry(&mut self, digest: &str, reference: &Reference) -> Result<Entry, ImageError> {
        let (digest, manifest) = self.manifest(digest)?;
        let run = match manifest.config.media_type.as_str() {
            kind if kind.contains("image") => manifest::run_config(&self.json(&manifest.config.digest)?)?,
            _ => RunConfig::default(),
        };
        if let Some(missing) = manifest.layers.iter().find(|layer| !self.contains(&layer.digest)) {
            return Err(ImageError::Invalid(format!("layer {} is missing", missing.digest)));
        }
        let component = match manifest.locate(&run)? {
            Location::Layer(digest) => digest,
            Location::File(path) => self.extract(&manifest, &path, &run.working_dir)?,
        };
        self.check_magic(&component)?;
        let parts = manifest.layers.iter().chain([&manifest.config]).map(|part| self.size(&part.digest));
        Ok(Entry {
            reference: reference.to_string(),
            size: parts.sum::<u64>() + self.size(&digest),
            manifest: digest,
            component,
            program: program(&manifest, reference),
            run,
            stored_at: now_seconds(),
        })
    }

    fn check_magic(&self, digest: &str) -> Result<(), ImageError> {
        let mut magic = [0; 4];
        let read = self.open(digest)?.read_exact(&mut magic);
        if read.is_err() || magic != WASM_MAGIC {
            return Err(ImageError::Invalid(
                "its component is not WebAssembly (the first bytes are not \"\\0asm\")".into(),
            ));
        }
        Ok(())
    }

    /// Takes the file `path` out of the uppermost layer that has it.
    fn extract(&mut self, manifest: &Manifest, path: &str, working_dir: &str) -> Result<String, ImageError> {
        let wanted = normal(&Path::new("/").join(working_dir).join(path));
        for layer in manifest.layers.iter().rev() {
            let mut tar = tar::Archive::new(unpacked(self.open(&layer.digest)?)?);
            let entries = tar.entries().map_err(ImageError::io("read a layer of", Path::new("the image")))?;
            for entry in entries.take(MAX_TAR_ENTRIES) {
                let mut entry = entry.map_err(ImageError::io("read a layer of", Path::new("the image")))?;
                let is_it = entry.path().is_ok_and(|path| normal(&path) == wanted);
                if is_it && entry.header().entry_type().is_file() {
                    return self.add(&mut entry, MAX_LAYER_BYTES);
                }
            }
        }
        Err(ImageError::Invalid(format!("its entrypoint {path:?} is in none of its layers")))
    }

    /// Moves everything into the store. The caller holds the store's lock.
    pub(crate) fn into_blobs(self, store: &Store) -> Result<(), ImageError> {
        for (digest, (file, _)) in self.blobs {
            let path = store.blob_path(&digest);
            file.persist(&path).map_err(|failed| ImageError::Io { doing: "write", path, source: failed.error })?;
        }
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        if self.size > self.limit {
            return Err(io::Error::other(format!("larger than {} bytes", self.limit)));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// `file`, unpacked if it is packed, and never more than a layer may hold.
pub(crate) fn unpacked(mut file: File) -> Result<Box<dyn Read>, ImageError> {
    use std::io::Seek;
    let mut magic = [0; 2];
    let read = file.read(&mut magic).and_then(|read| file.rewind().map(|()| read));
    let read = read.map_err(ImageError::io("read", Path::new("a layer")))?;
    let packed = read == magic.len() && magic == GZIP_MAGIC;
    let file = io::BufReader::new(file);
    Ok(if packed { Box::new(flate2::read::MultiGzDecoder::new(file).take(MAX_LAYER_BYTES)) } else { Box::new(file) })
}

/// A path from the image's root, without `.`, `..` and doubled slashes.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            PathPart::Normal(part) => normal.push(part),
            PathPart::ParentDir => {
                normal.pop();
            }
            PathPart::RootDir | PathPart::CurDir | PathPart::Prefix(_) => {}
        }
    }
    normal
}

/// What the program calls itself where the image has no entrypoint.
fn program(manifest: &Manifest, reference: &Reference) -> String {
    let last = reference.repository.rsplit('/').next().unwrap_or_default();
    manifest.title().cloned().unwrap_or_else(|| format!("{last}.wasm"))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
