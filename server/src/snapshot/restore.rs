//! From a file to a server's folder, all or nothing.
//!
//! What is restored is built beside what is there, in [`STAGING`]. When it is whole and on disk, a note says so; from
//! then on the restore has happened: what was there is moved aside and the new takes its place, and where a crash
//! comes between, the next start (or restore) goes on ([`finish_interrupted`]). Before the note, nothing has been
//! touched. What was there is kept in `before-restore-SECONDS`.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use skiff_client::files::write_private;
use skiff_store::{PairStream, Revision, SqliteStore, Store, StoreError};
use tokio::sync::mpsc;

use super::{
    KEYS_FOLDER, REVISIONS_SKIPPED, SnapshotError,
    file::{SnapshotReader, verify},
    header::Header,
    records::Record,
    save::make_private_folder,
};
use crate::{
    Datastore, ServerError,
    datastore::{self, Opened, SQLITE_FILE},
    shared_pki,
    token::Token,
};

/// Where a restore is built, below the server's folder.
const STAGING: &str = "restoring";

/// Says that what is in [`STAGING`] is whole, and which folder takes what was there.
const NOTE: &str = "whole";

/// The server token's file.
const TOKEN: &str = "token";

/// How many batches may wait for the datastore, and how large one may be.
const QUEUED_BATCHES: usize = 2;
const BATCH_PAIRS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// What is restored, and where.
pub struct Request {
    /// The snapshot's file.
    pub snapshot: PathBuf,
    /// The token that it was sealed with.
    pub token: Token,
    /// The server's folder. The caller holds the lock that keeps servers from starting on it.
    pub server_dir: PathBuf,
    /// Where the objects go. Servers that share an etcd must all be stopped.
    pub datastore: Datastore,
    /// Now.
    pub now: Timestamp,
}

/// What has been restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The snapshot.
    pub header: Header,
    /// The revision that the datastore now begins at.
    pub revision: Revision,
    /// Where what was there before is kept, if anything was.
    pub before: Option<PathBuf>,
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::File { action, path: path.to_owned(), source }
}

/// Restores a snapshot. It is read whole and verified first.
pub async fn restore(request: Request) -> Result<Restored, ServerError> {
    let (path, secret) = (request.snapshot.clone(), request.token.secret().to_owned());
    let header = blocking(move || verify(&path, &secret)).await?;
    make_private_folder(&request.server_dir)?;
    finish_interrupted(&request.server_dir)?;

    let staging = request.server_dir.join(STAGING);
    make_private_folder(&staging.join(KEYS_FOLDER))?;
    let floor = header.revision.max(newest_there(&request).await?).saturating_add(REVISIONS_SKIPPED);
    let revision = match &request.datastore {
        Datastore::Embedded => fill_embedded(&staging, &request, floor).await?,
        shared => fill_shared(&datastore::open(shared, &request.server_dir).await?, &request, floor).await?,
    };
    keep_token(&request.token, &staging)?;
    let before = format!("before-restore-{}", request.now.as_second());
    note_whole(&staging, &before)?;
    finish_interrupted(&request.server_dir)?;
    let before = Some(request.server_dir.join(before)).filter(|before| before.exists());
    Ok(Restored { header, revision, before })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(SnapshotError::GivenUp))
}

/// The newest revision of the SQLite datastore that is there. One that makes no sense may be why somebody restores;
/// one that cannot be opened now is not touched.
async fn newest_there(request: &Request) -> Result<Revision, SnapshotError> {
    let path = request.server_dir.join(SQLITE_FILE);
    if !matches!(request.datastore, Datastore::Embedded) || !path.exists() {
        return Ok(0);
    }
    let newest = async {
        let store = SqliteStore::open(&path)?;
        let newest = store.revision().await;
        store.close().await?;
        newest
    };
    match newest.await {
        Err(error @ (StoreError::Corrupt(_) | StoreError::NewerSchema { .. })) => {
            tracing::warn!(%error, "the datastore that is replaced cannot be read");
            Ok(0)
        }
        newest => newest.map_err(|source| SnapshotError::Store { action: "opening", source }),
    }
}

/// Into a new file beside what is there.
async fn fill_embedded(staging: &Path, request: &Request, floor: Revision) -> Result<Revision, SnapshotError> {
    let store = SqliteStore::open(&staging.join(SQLITE_FILE));
    let store = store.map_err(|source| SnapshotError::Store { action: "making", source })?;
    let revision = fill(&store, request, floor).await?;
    store.close().await.map_err(|source| SnapshotError::Store { action: "closing", source })?;
    drop(store);
    nothing_left_in_log(staging)?;
    Ok(revision)
}

/// Into a datastore that servers share, with the authorities that they share there. Where this is interrupted, the
/// datastore refuses everything until it is done again.
async fn fill_shared(opened: &Opened, request: &Request, floor: Revision) -> Result<Revision, ServerError> {
    let revision = fill(&*opened.store, request, floor).await?;
    let keys = request.server_dir.join(STAGING).join(KEYS_FOLDER);
    shared_pki::replace(opened, keys, &request.token, request.now).await?;
    opened.store.close().await.map_err(|source| opened.failed(source))?;
    Ok(revision)
}

/// All is in the file itself: only that is moved.
fn nothing_left_in_log(staging: &Path) -> Result<(), SnapshotError> {
    let log = staging.join(format!("{SQLITE_FILE}-wal"));
    match fs::metadata(&log) {
        Ok(data) if data.len() > 0 => {
            let source = StoreError::Unavailable(format!("{} is not empty", log.display()));
            Err(SnapshotError::Store { action: "closing", source })
        }
        _ => Ok(()),
    }
}

/// Reads the snapshot once more: files go into the staging folder, pairs into the datastore.
async fn fill(store: &dyn Store, request: &Request, floor: Revision) -> Result<Revision, SnapshotError> {
    let (batches, received) = mpsc::channel(QUEUED_BATCHES);
    let (path, secret) = (request.snapshot.clone(), request.token.secret().to_owned());
    let keys = request.server_dir.join(STAGING).join(KEYS_FOLDER);
    let reading = tokio::spawn(blocking(move || read(&path, &secret, &keys, &batches)));
    let restored = store.restore(pairs(received), floor).await;
    match (reading.await.unwrap_or(Err(SnapshotError::GivenUp)), restored) {
        (Ok(()), Ok(revision)) => Ok(revision),
        (_, Err(source)) if source != given_up() => Err(SnapshotError::Store { action: "restoring", source }),
        (Err(error), _) => Err(error),
        (Ok(()), Err(source)) => Err(SnapshotError::Store { action: "restoring", source }),
    }
}

/// What the datastore is told where reading the snapshot has failed; why, the reading side knows.
fn given_up() -> StoreError {
    StoreError::Unavailable("the snapshot could not be read to its end".to_owned())
}

/// A batch, or the end. Without the end, the datastore keeps what it has.
type Batch = Option<Vec<(String, bytes::Bytes)>>;

fn pairs(received: mpsc::Receiver<Batch>) -> PairStream {
    let next = |received: Option<mpsc::Receiver<Batch>>| async {
        let mut received = received?;
        match received.recv().await {
            Some(Some(batch)) => Some((Ok(batch), Some(received))),
            Some(None) => None,
            None => Some((Err(given_up()), None)),
        }
    };
    stream::unfold(Some(received), next).boxed()
}

fn read(path: &Path, secret: &str, keys: &Path, batches: &mpsc::Sender<Batch>) -> Result<(), SnapshotError> {
    let mut reader = SnapshotReader::open(path, secret)?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    // Where the datastore has failed, it says why.
    let send = |batch: Batch| batches.blocking_send(batch).map_err(|_| SnapshotError::GivenUp);
    while let Some(record) = reader.next()? {
        match record {
            Record::File { name, content } => {
                let path = keys.join(name);
                write_private(&path, &content).map_err(failed("writing", &path))?;
            }
            Record::Pair { key, value } => {
                bytes += key.len() + value.len();
                batch.push((key, value));
            }
        }
        if batch.len() >= BATCH_PAIRS || bytes >= BATCH_BYTES {
            send(Some(std::mem::take(&mut batch)))?;
            bytes = 0;
        }
    }
    send(Some(batch))?;
    send(None)
}

/// Keeps the token for the starts to come.
fn keep_token(token: &Token, staging: &Path) -> Result<(), SnapshotError> {
    let path = staging.join(KEYS_FOLDER).join("server-ca.crt");
    let server_ca = fs::read_to_string(&path).map_err(failed("reading", &path))?;
    Ok(token.keep(&staging.join(TOKEN), &server_ca)?)
}

fn sync_folder(path: &Path) -> Result<(), SnapshotError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("syncing the folder", path))
}

/// From here on the restore has happened.
fn note_whole(staging: &Path, before: &str) -> Result<(), SnapshotError> {
    sync_folder(&staging.join(KEYS_FOLDER))?;
    sync_folder(staging)?;
    let note = staging.join(NOTE);
    write_private(&note, before.as_bytes()).map_err(failed("writing", &note))?;
    sync_folder(staging.parent().unwrap_or(staging))
}

/// Goes on with a restore that was interrupted after it was whole, and removes what is left of one that was not.
/// To be called before anything in the server's folder is opened.
pub fn finish_interrupted(server_dir: &Path) -> Result<(), SnapshotError> {
    let staging = server_dir.join(STAGING);
    let note = staging.join(NOTE);
    match fs::read_to_string(&note) {
        Ok(before) => put_in_place(server_dir, &staging, before.trim())?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed("reading", &note)(error)),
    }
    match fs::remove_file(&note).and_then(|()| File::open(&staging)?.sync_all()) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("removing", &note)(error)),
        _ => {}
    }
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("removing", &staging)(error)),
        _ => Ok(()),
    }
}

/// Moves each thing aside that has a new one, and the new one in. What has been moved is not moved again.
fn put_in_place(server_dir: &Path, staging: &Path, before: &str) -> Result<(), SnapshotError> {
    let before = server_dir.join(before);
    for name in [SQLITE_FILE, KEYS_FOLDER, TOKEN] {
        let new = staging.join(name);
        if !new.exists() {
            continue;
        }
        if name == SQLITE_FILE {
            // The old log must never meet the new file.
            for suffix in ["-wal", "-shm"] {
                let log = OsString::from(format!("{name}{suffix}"));
                move_aside(&server_dir.join(&log), &before)?;
            }
        }
        let place = server_dir.join(name);
        move_aside(&place, &before)?;
        sync_folder(server_dir)?;
        fs::rename(&new, &place).map_err(failed("moving into its place", &place))?;
        sync_folder(server_dir)?;
    }
    Ok(())
}

fn move_aside(path: &Path, before: &Path) -> Result<(), SnapshotError> {
    if !path.exists() {
        return Ok(());
    }
    make_private_folder(before)?;
    let aside = before.join(path.file_name().unwrap_or_default());
    fs::rename(path, &aside).map_err(failed("moving aside", path))?;
    sync_folder(before)
}
