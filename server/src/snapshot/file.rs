//! A snapshot's file: header block, then the records, compressed and sealed.
//!
//! It is written under another name and takes its own only when it is whole and on disk; where that fails, nothing is
//! left. What it holds is only believed after [`verify`] has read all of it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use ring::digest::{self, SHA256};

use super::{
    SnapshotError,
    header::{self, BLOCK_BYTES, Claimed, Header, hex},
    records::{Counts, Malformed, Reader, Record, Writer},
};
use crate::seal::{Key, Purpose, SealError, SealReader, SealWriter, seal_error};

/// How hard to compress: the objects are text and shrink well; more costs a small machine more than it saves.
const COMPRESSION: Compression = Compression::new(3);

/// What hashes and counts what is written through it.
struct Hashed<W> {
    inner: W,
    hash: digest::Context,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A file under another name, removed unless it is given its own.
struct Part {
    path: PathBuf,
    kept: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

type Content = Writer<GzEncoder<SealWriter<Hashed<BufWriter<File>>>>>;

/// A snapshot that is being written.
pub(super) struct SnapshotWriter {
    part: Part,
    content: Content,
    key: Key,
}

/// The name under which a snapshot is written.
pub(super) fn part_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{PART_SUFFIX}"))
}

/// How the names of snapshots end that are being written.
pub(super) const PART_SUFFIX: &str = ".part";

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::File { action, path: path.to_owned(), source }
}

fn seal_failed<'a>(path: &'a Path) -> impl FnOnce(SealError) -> SnapshotError + 'a {
    move |source| match source {
        SealError::Io(source) => SnapshotError::File { action: "writing", path: path.to_owned(), source },
        source => SnapshotError::Seal { path: path.to_owned(), source },
    }
}

impl SnapshotWriter {
    /// Begins a snapshot that is to be called `path`.
    pub(super) fn create(path: &Path, key: Key) -> Result<Self, SnapshotError> {
        let part = Part { path: part_path(path), kept: false };
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&part.path);
        let mut file = opened.map_err(failed("making", &part.path))?;
        file.seek(SeekFrom::Start(BLOCK_BYTES as u64)).map_err(failed("writing", &part.path))?;
        let hashed = Hashed { inner: BufWriter::new(file), hash: digest::Context::new(&SHA256), bytes: 0 };
        let sealed = SealWriter::new(hashed, &key, Purpose::Snapshot).map_err(seal_failed(&part.path))?;
        let content = Writer::new(GzEncoder::new(sealed, COMPRESSION));
        Ok(Self { part, content, key })
    }

    pub(super) fn add(&mut self, record: &Record) -> Result<(), SnapshotError> {
        let added = match record {
            Record::File { name, content } => self.content.file(name, content),
            Record::Pair { key, value } => self.content.pair(key, value),
        };
        added.map_err(failed("writing", &self.part.path))
    }

    /// Brings it to disk and gives it its name. `header` fills in what is known by now.
    pub(super) fn finish(
        mut self,
        path: &Path,
        header: impl FnOnce(Counts, u64, String) -> Header,
    ) -> Result<Header, SnapshotError> {
        let part = &mut self.part;
        let (compressed, counts) = self.content.finish().map_err(failed("writing", &part.path))?;
        let sealed = compressed.finish().map_err(failed("writing", &part.path))?;
        let hashed = sealed.finish().map_err(seal_failed(&part.path))?;
        let digest = hex(hashed.hash.finish().as_ref());
        let mut file = hashed.inner.into_inner().map_err(|error| failed("writing", &part.path)(error.into_error()))?;
        let header = header(counts, hashed.bytes, digest);
        let authenticator = self.key.authenticator(Purpose::Snapshot).map_err(seal_failed(&part.path))?;
        let block = header::encode(&header, &authenticator);
        let block = block.map_err(|source| SnapshotError::Header { path: path.to_owned(), source })?;
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&block)).and_then(|()| file.sync_all());
        written.map_err(failed("writing", &part.path))?;
        fs::rename(&part.path, path).map_err(failed("renaming to", path))?;
        part.kept = true;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("syncing the folder", folder))?;
        Ok(header)
    }
}

/// Reads a header, and whether the file is as long as it says; verifies nothing.
pub(super) fn glance(path: &Path) -> Result<(Header, bool), SnapshotError> {
    let (claimed, file) = begin(path)?;
    let length = file.metadata().map_err(failed("reading", path))?.len();
    let whole = claimed.header.body_bytes.checked_add(BLOCK_BYTES as u64) == Some(length);
    Ok((claimed.header, whole))
}

/// Whether the file is what the header says, byte by byte. Needs no token, and so shows damage, not forgery.
pub(super) fn check_sum(path: &Path) -> Result<Header, SnapshotError> {
    let (claimed, mut file) = begin(path)?;
    let (mut hash, mut bytes, mut buffer) = (digest::Context::new(&SHA256), 0, vec![0; 64 << 10]);
    loop {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(failed("reading", path))?,
        };
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
    let header = claimed.header;
    if bytes != header.body_bytes || hex(hash.finish().as_ref()) != header.body_sha256 {
        let problem = format!("its {bytes} bytes after the header are not the {} that were saved", header.body_bytes);
        return Err(SnapshotError::Damaged { path: path.to_owned(), problem });
    }
    Ok(header)
}

fn begin(path: &Path) -> Result<(Claimed, File), SnapshotError> {
    let mut file = File::open(path).map_err(failed("opening", path))?;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    Read::by_ref(&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut block).map_err(failed("reading", path))?;
    let claimed = header::decode(&block);
    let claimed = claimed.map_err(|source| SnapshotError::Header { path: path.to_owned(), source })?;
    Ok((claimed, file))
}

/// A snapshot that is being read. Its header is verified; each record is, as it is given; that all are there is known
/// when [`SnapshotReader::next`] has given `None`.
pub(super) struct SnapshotReader {
    path: PathBuf,
    pub(super) header: Header,
    /// `None` after the end.
    records: Option<Reader<GzDecoder<SealReader<File>>>>,
}

impl SnapshotReader {
    pub(super) fn open(path: &Path, secret: &str) -> Result<Self, SnapshotError> {
        let (claimed, file) = begin(path)?;
        let sealed = |source| SnapshotError::Seal { path: path.to_owned(), source };
        let (content, key) = SealReader::open(file, secret, Purpose::Snapshot).map_err(sealed)?;
        let authenticator = key.authenticator(Purpose::Snapshot).map_err(sealed)?;
        if !claimed.verify(&authenticator) {
            let problem = "its header has been altered".to_owned();
            return Err(SnapshotError::Damaged { path: path.to_owned(), problem });
        }
        let records = Some(Reader::new(GzDecoder::new(content)));
        Ok(Self { path: path.to_owned(), header: claimed.header, records })
    }

    /// What was wrong with what was read.
    fn wrong(&self, error: io::Error) -> SnapshotError {
        let path = self.path.clone();
        match error.downcast::<Malformed>() {
            Ok(malformed) => SnapshotError::Damaged { path, problem: malformed.to_string() },
            Err(error) => match seal_error(error) {
                // What decompressing says: the content verified, so it was written so.
                SealError::Io(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    SnapshotError::Damaged { path, problem: "its content does not decompress".to_owned() }
                }
                SealError::Io(source) => SnapshotError::File { action: "reading", path, source },
                source => SnapshotError::Seal { path, source },
            },
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>, SnapshotError> {
        let Some(records) = &mut self.records else { return Ok(None) };
        match records.next() {
            Ok(Some(record)) => Ok(Some(record)),
            Ok(None) => self.end().map(|()| None),
            Err(error) => {
                self.records = None;
                Err(self.wrong(error))
            }
        }
    }

    /// Whether nothing follows, and the numbers are those of the header.
    fn end(&mut self) -> Result<(), SnapshotError> {
        let Some(records) = self.records.take() else { return Ok(()) };
        let (counts, compressed) = records.into_inner();
        let more = compressed.into_inner().read(&mut [0]).map_err(|error| self.wrong(error))?;
        let told = Counts { files: self.header.files, pairs: self.header.objects };
        if more > 0 || counts != told {
            let problem = "its content is not what its header says".to_owned();
            return Err(SnapshotError::Damaged { path: self.path.clone(), problem });
        }
        Ok(())
    }
}

/// Reads all of a snapshot, so that whatever was cut off or altered is found.
pub(super) fn verify(path: &Path, secret: &str) -> Result<Header, SnapshotError> {
    let mut reader = SnapshotReader::open(path, secret)?;
    // What the header says of the body is authentic; whether it is so shows damage between the chunks too.
    check_sum(path)?;
    while reader.next()?.is_some() {}
    Ok(reader.header)
}
