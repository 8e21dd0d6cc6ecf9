//! From a datastore to a file.
//!
//! Two sides: one pages through the datastore at one revision, the other compresses, seals and writes. A short queue
//! lies between them, so that neither fills memory when the other is slow.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use skiff_client::files;
use skiff_store::{KeyValue, RangeOptions, Revision, Store, StoreError};
use tokio::sync::mpsc;

use super::{
    KEYS_FOLDER, SnapshotError,
    file::SnapshotWriter,
    folder,
    header::Header,
    records::{MAX_FILE_BYTES, Record, is_file_name},
};
use crate::{
    Datastore, KUBERNETES_VERSION, ServerError,
    datastore::{self, SQLITE_FILE},
    pki::Pki,
    seal::{Key, Stretch},
    token::authority_hash,
};

/// How many pages may wait for the disk.
const QUEUED_PAGES: usize = 2;

/// How large a page should be.
const PAGE_BYTES: usize = 1 << 20;

/// How many pairs a page has at first, at least and at most.
const FIRST_PAGE: usize = 200;
const LEAST_PAGE: usize = 4;
const LARGEST_PAGE: usize = 1_000;

/// How many times a snapshot is begun anew whose revision has been compacted meanwhile.
const ATTEMPTS: usize = 3;

/// What is saved.
#[derive(Clone)]
pub struct Source {
    /// The datastore.
    pub store: Arc<dyn Store>,
    /// Its kind, for the header.
    pub datastore: &'static str,
    /// The server's folder, which has the certificates and keys.
    pub server_dir: PathBuf,
    /// The cluster: the hash of its server authority.
    pub authority: String,
}

impl Source {
    /// The source of a server.
    pub fn new(store: Arc<dyn Store>, datastore: &'static str, server_dir: &Path, pki: &Pki) -> Self {
        Self { store, datastore, server_dir: server_dir.to_owned(), authority: authority_hash(pki.server_ca()) }
    }

    /// The source of a server that does not run: what its folder and its datastore hold. The caller holds the lock that
    /// keeps servers from starting on the folder, and closes the store.
    pub async fn at_rest(datastore: &Datastore, server_dir: &Path) -> Result<Self, ServerError> {
        if let Datastore::Embedded = datastore {
            // Opening would make one.
            let path = server_dir.join(SQLITE_FILE);
            let failed = |source| SnapshotError::File { action: "opening the datastore", path: path.clone(), source };
            fs::metadata(&path).map_err(failed)?;
        }
        let ca = server_dir.join(KEYS_FOLDER).join("server-ca.crt");
        let server_ca = fs::read_to_string(&ca);
        let server_ca = server_ca.map_err(|source| SnapshotError::File { action: "reading", path: ca, source })?;
        let store = datastore::open(datastore, server_dir).await?.store;
        let authority = authority_hash(&server_ca);
        Ok(Self { store, datastore: datastore.kind(), server_dir: server_dir.to_owned(), authority })
    }
}

/// How it is saved.
#[derive(Clone, Debug)]
pub struct Request {
    /// Into which folder.
    pub folder: PathBuf,
    /// What it is for, e.g. `on-demand`.
    pub name: String,
    /// The name of this host.
    pub node: String,
    /// Now.
    pub created: Timestamp,
    /// The server token's secret.
    pub secret: String,
    /// How the secret is stretched, with a random salt.
    pub stretch: Stretch,
}

/// What has been saved.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub header: Header,
}

/// What goes to the side that writes. Without the end, nothing is kept.
enum Part {
    Page(Vec<KeyValue>),
    End(Revision),
}

/// Saves everything as it is at one revision.
pub async fn save(source: &Source, request: &Request) -> Result<Saved, SnapshotError> {
    folder::check_name(&request.name)?;
    let mut attempt = 1;
    loop {
        match try_save(source, request.clone()).await {
            Err(SnapshotError::Store { source: StoreError::Compacted { .. }, .. }) if attempt < ATTEMPTS => {
                tracing::info!(attempt, "the snapshot's revision was compacted meanwhile, it is begun anew");
                attempt += 1;
            }
            other => return other,
        }
    }
}

async fn try_save(source: &Source, request: Request) -> Result<Saved, SnapshotError> {
    let (sender, parts) = mpsc::channel(QUEUED_PAGES);
    let (server_dir, about) = (source.server_dir.clone(), (source.datastore, source.authority.clone()));
    let writing = tokio::task::spawn_blocking(move || write(&server_dir, about, &request, parts));
    let read = read(&*source.store, sender).await;
    let written = writing.await.unwrap_or(Err(SnapshotError::GivenUp));
    match (read, written) {
        (_, Ok(saved)) => Ok(saved),
        // Where reading failed, the other side knows only that the end did not come.
        (Err(source), Err(SnapshotError::GivenUp)) => Err(SnapshotError::Store { action: "reading", source }),
        (_, Err(error)) => Err(error),
    }
}

/// Pages through the datastore at one revision.
async fn read(store: &dyn Store, parts: mpsc::Sender<Part>) -> Result<(), StoreError> {
    let mut options = RangeOptions { limit: FIRST_PAGE, ..RangeOptions::default() };
    loop {
        let range = store.range("/", options.clone()).await?;
        let bytes: usize = range.items.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
        options.limit = next_limit(range.items.len(), bytes);
        options.revision = Some(range.revision);
        options.start_after = range.items.last().map(|pair| pair.key.clone());
        // Where the other side has ended, it says why.
        if parts.send(Part::Page(range.items)).await.is_err() {
            return Ok(());
        }
        if !range.more {
            let _ = parts.send(Part::End(range.revision)).await;
            return Ok(());
        }
    }
}

/// How many pairs the next page has, so that it is about as large as a page should be.
fn next_limit(pairs: usize, bytes: usize) -> usize {
    let each = (bytes / pairs.max(1)).max(1);
    (PAGE_BYTES / each).clamp(LEAST_PAGE, LARGEST_PAGE)
}

fn write(
    server_dir: &Path,
    (datastore, authority): (&str, String),
    request: &Request,
    mut parts: mpsc::Receiver<Part>,
) -> Result<Saved, SnapshotError> {
    make_private_folder(&request.folder)?;
    let path = folder::new_path(&request.folder, &request.name, &request.node, request.created);
    let key = Key::new(&request.secret, request.stretch);
    let mut writer = SnapshotWriter::create(&path, key)?;
    for file in key_files(&server_dir.join(KEYS_FOLDER))? {
        writer.add(&file)?;
    }
    let revision = loop {
        match parts.blocking_recv() {
            Some(Part::Page(pairs)) => {
                for KeyValue { key, value, .. } in pairs {
                    writer.add(&Record::Pair { key, value })?;
                }
            }
            Some(Part::End(revision)) => break revision,
            None => return Err(SnapshotError::GivenUp),
        }
    };
    let header = writer.finish(&path, |counts, body_bytes, body_sha256| Header {
        name: request.name.clone(),
        node: request.node.clone(),
        created: request.created,
        revision,
        objects: counts.pairs,
        files: counts.files,
        datastore: datastore.to_owned(),
        skiff: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes: KUBERNETES_VERSION.to_owned(),
        authority,
        body_bytes,
        body_sha256,
    })?;
    Ok(Saved { path, header })
}

/// Makes a folder for the owner alone, and those above it.
pub(super) fn make_private_folder(path: &Path) -> Result<(), SnapshotError> {
    let made = files::make_private_folder(path);
    made.map_err(|source| SnapshotError::File { action: "making the folder", path: path.to_owned(), source })
}

/// The certificates and keys, in the order of their names. What is being written beside them (`NAME.new`) is not.
fn key_files(folder: &Path) -> Result<Vec<Record>, SnapshotError> {
    let failed = |path: &Path, source| SnapshotError::File { action: "reading", path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| failed(folder, source))? {
        let entry = entry.map_err(|source| failed(folder, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = entry.metadata().is_ok_and(|data| data.is_file() && data.len() <= MAX_FILE_BYTES as u64);
        match file && is_file_name(&name) && !name.ends_with(".new") {
            true => names.push(name),
            false => tracing::debug!(name, "not part of the snapshot"),
        }
    }
    names.sort();
    let read = |name: String| {
        let path = folder.join(&name);
        fs::read(&path).map(|content| Record::File { name, content }).map_err(|source| failed(&path, source))
    };
    names.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_of_one_size_whatever_the_objects_are() {
        assert_eq!(next_limit(200, 200 * 2_048), 512);
        assert_eq!(next_limit(10, 10 << 20), LEAST_PAGE);
        assert_eq!(next_limit(100, 100), LARGEST_PAGE);
        assert_eq!(next_limit(0, 0), LARGEST_PAGE);
    }
}
