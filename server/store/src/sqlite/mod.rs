//! The store in one SQLite file.
//!
//! # Tasks
//!
//! - One **writer** thread ([`writer`]) takes all writes that wait, decides them in order, and commits them with one
//!   fsync (group commit); then it publishes the events, then it acknowledges.
//! - One **keeper** thread ([`keeper`]) copies the write-ahead log into the file (checkpoints), and says what history
//!   is old enough to be forgotten.
//! - Reads run on connections of their own ([`reader`]) and block nobody.
//!
//! # The file
//!
//! `current` holds every pair once. `log` holds what each write replaced (an undo log): a create costs a few bytes
//! there, an old revision is read by undoing what came after it, and a watcher's event has its new value from the
//! next log row of its key, or from `current`. See [`schema`].
//!
//! # Durability
//!
//! The write-ahead log is synced at every commit (`synchronous=FULL`). Heartbeats are acknowledged from memory and
//! written with the next synced write, or some seconds later ([`SqliteOptions::heartbeat_delay`]); heartbeats that
//! only renew what is there already wait longer ([`SqliteOptions::renewal_delay`]), for an idle cluster writes nothing
//! else. So the file always holds a whole prefix of the history and a power loss costs at most a tail that consists
//! of heartbeats alone.
//!
//! Revisions that were given to heartbeats must not be given again to others after a power loss. So the file holds a
//! *reservation*: a revision that none given exceeds. A start after a clean end goes on where it ended; one after a
//! crash goes on behind the reservation, and remembers the span between as *lost*: a watch or a range at a revision
//! within the span is refused ([`StoreError::Compacted`], the client lists again), for the client may have seen
//! writes that are no more; one from before it goes on without a gap, for everything that is in the history is
//! still to come.

mod keeper;
mod pending;
mod reader;
mod restore;
mod schema;
mod writer;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc as queue, oneshot};

use crate::{
    EventStream, KeyValue, PairStream, Range, RangeOptions, Revision, Store, StoreError, Write, WriteOutcome,
    hub::{Hub, Limits},
};
use keeper::Keeper;
use reader::Readers;
use restore::Restore;
use writer::{Command, Job, Writer};

/// How many writes may wait for the writer; further callers wait for a place.
const QUEUED_WRITES: usize = 1_024;

/// How much of the recent past is kept in memory for watchers; what is older is read from the file.
const RECENT: Limits = Limits { events: 1_024, bytes: 1 << 20 };

/// How long and how much history is kept, and when heartbeats reach the disk.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// How long a heartbeat that creates or deletes (an Event, most often) may be in memory alone.
    pub heartbeat_delay: Duration,
    /// How long a heartbeat that renews what is there (a Lease, a node's status) may be in memory alone. Each batch
    /// costs the disk about 100 kB, however little it holds: pages, their index, the file system's journal. So this
    /// is what an idle cluster writes. Nobody misses a renewal: who lives renews again within seconds of a start.
    pub renewal_delay: Duration,
    /// How long history is kept.
    pub history_age: Duration,
    /// How many revisions of history are kept at most.
    pub history_revisions: u64,
    /// How often the age of the history is looked at.
    pub tick: Duration,
    /// How long the write-ahead log grows before it is copied into the file.
    pub checkpoint_bytes: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            heartbeat_delay: Duration::from_secs(10),
            renewal_delay: Duration::from_secs(5 * 60),
            history_age: Duration::from_secs(5 * 60),
            history_revisions: 100_000,
            tick: Duration::from_secs(30),
            checkpoint_bytes: 8 << 20,
        }
    }
}

/// A store in one SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    hub: Arc<Hub>,
    readers: Arc<Readers>,
    commands: mpsc::Sender<Command>,
    /// One for each write that may wait.
    places: Arc<Semaphore>,
    /// Why the last commit failed, until one succeeds.
    trouble: Trouble,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Why the last commit failed, until one succeeds.
type Trouble = Arc<Mutex<Option<StoreError>>>;

/// An error of SQLite as the store's own.
fn failure(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode;
    /// `SQLITE_IOERR_SHMSIZE`: the shared-memory file cannot grow, for want of space.
    const SHARED_MEMORY_SIZE: i32 = 4874;
    match error {
        rusqlite::Error::SqliteFailure(code, _) => match code.code {
            ErrorCode::DiskFull => StoreError::NoSpace,
            ErrorCode::SystemIoFailure if code.extended_code == SHARED_MEMORY_SIZE => StoreError::NoSpace,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(error.to_string()),
            _ => StoreError::Unavailable(error.to_string()),
        },
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::QueryReturnedNoRows
        | rusqlite::Error::Utf8Error(..) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// An error of a write as the store's own: SQLite says of a disk that has become read-only only that I/O failed.
fn write_failure(path: &Path, error: &rusqlite::Error) -> StoreError {
    let read_only = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ReadOnly) => true,
        Some(rusqlite::ErrorCode::SystemIoFailure) => {
            let opened = File::options().append(true).open(path);
            opened.is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
        }
        _ => false,
    };
    if read_only { StoreError::ReadOnly(path.display().to_string()) } else { failure(error) }
}

/// A revision as SQLite keeps it.
fn to_sql(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A number of SQLite's as a revision.
fn from_sql(number: i64) -> Revision {
    u64::try_from(number).unwrap_or_default()
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the datastore is closed".to_owned())
}

impl SqliteStore {
    /// Opens or creates the file at `path`, with `-wal`, `-shm` and `-lock` files beside it. One process at a time
    /// can have it open. The folder must exist.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, SqliteOptions::default())
    }

    /// As [`Self::open`], with other limits.
    pub fn open_with(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let lock = schema::lock(path)?;
        let mut connection = schema::open_writer(path)?;
        let start = schema::start(&mut connection).map_err(|error| failure(&error))?;
        let hub = Arc::new(Hub::new(start.revision, start.compacted, start.lost, RECENT));
        let (commands, receiver) = mpsc::channel();
        let (keeper_sender, keeper_receiver) = mpsc::channel();
        let trouble = Trouble::default();
        let keeper = Keeper::new(schema::open_keeper(path)?, Arc::clone(&hub), commands.clone(), options);
        let writer =
            Writer::new(connection, Arc::clone(&hub), start.reserved, options, keeper_sender, Arc::clone(&trouble))
                .map_err(|error| failure(&error))?;
        let threads = vec![
            spawn("store-writer", move || hold(lock, || writer.run(&receiver)))?,
            spawn("store-keeper", move || keeper.run(&keeper_receiver))?,
        ];
        Ok(Self {
            path: path.to_owned(),
            hub,
            readers: Arc::new(Readers::new(path)),
            commands,
            places: Arc::new(Semaphore::new(QUEUED_WRITES)),
            trouble,
            threads: Mutex::new(threads),
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(command(sender)).map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer brings to disk what is in memory; nobody waits for it.
        let _ = self.commands.send(Command::Close(None));
    }
}

/// Keeps the file locked while the writer runs.
fn hold(lock: File, run: impl FnOnce()) {
    run();
    drop(lock);
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| StoreError::Unavailable(format!("cannot start the thread {name}: {error}")))
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let view = self.hub.view(None, |pending| pending == key)?;
        if let Some(newest) = view.pending.last() {
            return Ok(crate::memory::after(newest));
        }
        let key = key.to_owned();
        self.readers.run(move |connection| reader::get(connection, &key, view.revision)).await
    }

    async fn range(&self, prefix: &str, options: RangeOptions) -> Result<Range, StoreError> {
        let view = self.hub.view(options.revision, |pending| pending.starts_with(prefix))?;
        let prefix = prefix.to_owned();
        self.readers.run(move |connection| reader::range(connection, &prefix, &options, &view)).await
    }

    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| stopped())?;
        self.ask(|done| Command::Write(Job { write, done, _place: place })).await?
    }

    async fn watch(&self, after: Revision) -> Result<EventStream, StoreError> {
        self.hub.watch(after, Arc::new(Arc::clone(&self.readers)))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.hub.compact(before)?;
        // Reads are refused from now on; the rows go bit by bit.
        self.commands.send(Command::Compact).map_err(|_| stopped())
    }

    async fn restore(&self, pairs: PairStream, floor: Revision) -> Result<Revision, StoreError> {
        let (sender, parts) = queue::channel(restore::QUEUED_BATCHES);
        let restoring = self.ask(|done| Command::Restore(Restore { parts, floor, done }));
        let (fed, restored) = tokio::join!(restore::feed(pairs, sender), restoring);
        fed.and(restored?)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.hub.published())
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        let path = self.path.clone();
        let sizes = move || {
            let size = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
            size(&path) + size(&schema::beside(&path, "-wal"))
        };
        tokio::task::spawn_blocking(sizes).await.map_err(|_| stopped())
    }

    async fn health(&self) -> Result<(), StoreError> {
        if self.trouble.lock().is_none() {
            return Ok(());
        }
        // Whether it still is so is only known by trying.
        self.ask(Command::Probe).await?
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.hub.close();
        let result = self.ask(|done| Command::Close(Some(done))).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        tokio::task::spawn_blocking(join).await.map_err(|_| stopped())?;
        self.readers.close();
        // Closed before: everything is on disk.
        result.unwrap_or(Ok(()))
    }
}
