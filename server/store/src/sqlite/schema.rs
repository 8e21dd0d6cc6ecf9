//! The file: its lock, its schema and the way from older ones, and how it is opened.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::{failure, from_sql, to_sql};
use crate::{Revision, StoreError, hub::Lost};

/// Each entry makes a file of its index one newer.
const MIGRATIONS: [&str; 2] = [
    // 0 to 1. Each table of one row has a key that only one row can have.
    "CREATE TABLE migration (version INTEGER PRIMARY KEY, skiff TEXT NOT NULL) STRICT;
     CREATE TABLE current (
         create_rev INTEGER PRIMARY KEY, mod_rev INTEGER NOT NULL, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL
     ) STRICT;
     CREATE TABLE log (
         rev INTEGER PRIMARY KEY, key TEXT NOT NULL, deleted INTEGER NOT NULL,
         prev_create INTEGER, prev_mod INTEGER, prev_value BLOB
     ) STRICT;
     CREATE INDEX log_by_key ON log (key);
     CREATE TABLE compaction (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL) STRICT;
     INSERT INTO compaction VALUES (1, 0);
     CREATE TABLE reservation (
         one INTEGER PRIMARY KEY CHECK (one = 1), until INTEGER NOT NULL, clean INTEGER NOT NULL
     ) STRICT;
     INSERT INTO reservation VALUES (1, 0, 1);
     CREATE TABLE lost (after INTEGER PRIMARY KEY, until INTEGER NOT NULL) STRICT;",
    // 1 to 2. A create no longer costs an entry in an index of the log, a heartbeat one page less.
    "DROP INDEX log_by_key;
     CREATE INDEX log_by_previous ON log (prev_mod) WHERE prev_mod IS NOT NULL;",
];

/// The newest schema known.
pub(super) const NEWEST: u32 = 2;

/// How many revisions are reserved at once.
pub(super) const RESERVE: Revision = 10_000;

/// A write-ahead log that grew beyond this is cut back when it starts over.
const LOG_KEPT_BYTES: u32 = 16 << 20;

/// How long to wait for another connection of this process where SQLite itself has to lock.
const BUSY: Duration = Duration::from_secs(5);

/// The file of this name beside the store's.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn unavailable(what: &str, path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull => StoreError::NoSpace,
        io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly(path.display().to_string()),
        _ => StoreError::Unavailable(format!("cannot {what} {}: {error}", path.display())),
    }
}

/// Opens a file that only its owner may read, for it holds Secrets.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Takes the lock that one process holds while it has the store open.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let lock_path = beside(path, "-lock");
    let lock = private(&lock_path).map_err(|error| unavailable("open", &lock_path, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "{} is in use by another process: is a skiff server running on this data directory?",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unavailable("lock", &lock_path, &error)),
    }
}

/// Opens or creates the file for writing and brings it to the newest schema.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let created = !path.exists();
    private(path).map_err(|error| unavailable("open", path, &error))?;
    if created && let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| unavailable("sync the folder of", path, &error))?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| failure(&error))?;
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| failure(&error))?;
    if found > NEWEST {
        return Err(StoreError::NewerSchema { found, known: NEWEST });
    }
    configure(&connection, 2_048).and_then(|()| migrate(&mut connection, found)).map_err(|error| failure(&error))?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

/// The connection that checkpoints.
pub(super) fn open_keeper(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| failure(&error))?;
    configure(&connection, 64).map_err(|error| failure(&error))?;
    Ok(connection)
}

fn configure(connection: &Connection, cache_kib: i32) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    // Heeded only while the file is empty.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn migrate(connection: &mut Connection, found: u32) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (version, step) in (1_u32..).zip(MIGRATIONS).skip_while(|(version, _)| *version <= found) {
        transaction.execute_batch(step)?;
        transaction.execute("INSERT INTO migration VALUES (?1, ?2)", params![version, env!("CARGO_PKG_VERSION")])?;
        transaction.pragma_update(None, "user_version", version)?;
    }
    transaction.commit()
}

/// Where a store that has been opened begins.
pub(super) struct Start {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) reserved: Revision,
    pub(super) lost: Vec<Lost>,
}

/// Reads where the last run ended and reserves revisions for this one.
pub(super) fn start(connection: &mut Connection) -> rusqlite::Result<Start> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (newest, compacted) = newest_and_compacted(&transaction)?;
    let (until, clean) = transaction.query_row("SELECT until, clean FROM reservation", [], |row| {
        Ok((from_sql(row.get(0)?), row.get::<_, bool>(1)?))
    })?;
    let revision = if clean { until.max(newest) } else { until.max(newest) + 1 };
    if !clean {
        let sql = "INSERT OR REPLACE INTO lost VALUES (?1, ?2)";
        transaction.execute(sql, params![to_sql(newest), to_sql(revision)])?;
    }
    let reserved = revision + RESERVE;
    reserve(&transaction, reserved, false)?;
    let lost = lost(&transaction)?;
    transaction.commit()?;
    Ok(Start { revision, compacted, reserved, lost })
}

/// Writes down a revision that none given exceeds; `clean` where none exceeds the newest in the file either.
pub(super) fn reserve(connection: &Connection, until: Revision, clean: bool) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE reservation SET until = ?1, clean = ?2")?;
    statement.execute(params![to_sql(until), clean]).map(drop)
}

fn lost(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Lost>> {
    let mut statement = transaction.prepare("SELECT after, until FROM lost ORDER BY after")?;
    let rows =
        statement.query_map([], |row| Ok(Lost { after: from_sql(row.get(0)?), until: from_sql(row.get(1)?) }))?;
    rows.collect()
}

/// The newest revision in the file, and the one before which history is gone.
pub(super) fn newest_and_compacted(connection: &Connection) -> rusqlite::Result<(Revision, Revision)> {
    let sql = "SELECT (SELECT coalesce(max(rev), 0) FROM log), (SELECT revision FROM compaction)";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([], |row| Ok((from_sql(row.get(0)?), from_sql(row.get(1)?))))
}
