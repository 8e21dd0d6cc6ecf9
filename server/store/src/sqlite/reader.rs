//! Reads, each in one read transaction on a connection of its own.
//!
//! The file may be ahead of what is published (committed a moment ago) or behind it (heartbeats in memory). A read
//! is answered at the revision of its [`View`]: what is newer in the file is undone, what is not there yet is added.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use tokio::sync::Semaphore;

use super::{failure, from_sql, schema, stopped, to_sql};
use crate::{
    Event, KeyValue, Range, RangeOptions, Revision, StoreError,
    hub::{History, View},
    keys::prefix_end,
    memory::after,
};

/// How many reads run at once.
const CONNECTIONS: usize = 2;

/// Connections that only read, opened when first needed.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::default(), places: Semaphore::new(CONNECTIONS) }
    }

    /// Runs a read in a read transaction.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _place = self.places.acquire().await.map_err(|_| stopped())?;
        let readers = Arc::clone(self);
        let run = move || readers.run_blocking(read);
        tokio::task::spawn_blocking(run).await.map_err(|_| stopped())?.map_err(|error| match error {
            ReadError::Sqlite(error) => failure(&error),
            ReadError::Store(error) => error,
        })
    }

    fn run_blocking<T>(&self, read: impl FnOnce(&Connection) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let idle = self.idle.lock().pop();
        let mut connection = idle.map_or_else(|| schema::open_reader(&self.path), Ok)?;
        let transaction = connection.transaction()?;
        let result = read(&transaction);
        transaction.finish()?;
        if !self.places.is_closed() {
            self.idle.lock().push(connection);
        }
        result
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        self.places.close();
        self.idle.lock().clear();
    }
}

/// A read failed in SQLite, or for what it found.
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The columns key, create revision, revision and value.
fn pair(row: &Row<'_>) -> rusqlite::Result<KeyValue> {
    Ok(KeyValue {
        key: row.get(0)?,
        create_revision: from_sql(row.get(1)?),
        mod_revision: from_sql(row.get(2)?),
        value: row.get::<_, Vec<u8>>(3)?.into(),
    })
}

/// What is at a key now, as far as the file knows.
pub(super) fn current(connection: &Connection, key: &str) -> rusqlite::Result<Option<KeyValue>> {
    let sql = "SELECT key, create_rev, mod_rev, value FROM current WHERE key = ?1";
    connection.prepare_cached(sql)?.query_row([key], pair).optional()
}

/// What was at a key at a revision that is not compacted. Looks through the log from there on, so it is for a revision
/// of a moment ago.
pub(super) fn get(connection: &Connection, key: &str, at: Revision) -> Result<Option<KeyValue>, ReadError> {
    let now = current(connection, key)?;
    if now.as_ref().is_some_and(|pair| pair.mod_revision <= at) {
        return Ok(now);
    }
    // The first write after the revision knows what it replaced.
    let sql = "SELECT key, prev_create, prev_mod, prev_value FROM log WHERE rev > ?2 AND key = ?1 ORDER BY rev LIMIT 1";
    let replaced = |row: &Row<'_>| match row.get::<_, Option<i64>>(2)? {
        Some(_) => pair(row).map(Some),
        None => Ok(None),
    };
    Ok(connection.prepare_cached(sql)?.query_row(params![key, to_sql(at)], replaced).optional()?.flatten())
}

/// What a write put at a key, whatever has become of it since.
fn written(connection: &Connection, key: &str, revision: Revision) -> rusqlite::Result<Option<Vec<u8>>> {
    // The next write of the key knows what it replaced.
    let sql = "SELECT prev_value FROM log WHERE prev_mod = ?1";
    if let Some(value) = connection.prepare_cached(sql)?.query_row([to_sql(revision)], |row| row.get(0)).optional()? {
        return Ok(Some(value));
    }
    let sql = "SELECT value FROM current WHERE key = ?1 AND mod_rev = ?2";
    connection.prepare_cached(sql)?.query_row(params![key, to_sql(revision)], |row| row.get(0)).optional()
}

/// The keys of a range as they were at a revision, with `?1` to `?3` its bounds and the revision. What came later is
/// found by going through the log: lists at old revisions are few (the watch cache answers the recent ones), and an
/// index by key would be paid for by every write.
const KEYS_NOW: &str = "FROM current WHERE key >= ?1 AND key < ?2 AND ?3 = ?3";
const KEYS_KEPT: &str = "FROM current WHERE key >= ?1 AND key < ?2 AND mod_rev <= ?3";
const KEYS_UNDONE: &str = "FROM log NOT INDEXED WHERE rev > ?3 AND prev_mod <= ?3 AND key >= ?1 AND key < ?2";

/// One span of keys at a revision.
struct Span {
    from: String,
    to: String,
    at: Revision,
    /// Whether the file has later writes, which are to be undone.
    undo: bool,
}

impl Span {
    fn pairs(&self, connection: &Connection, limit: usize) -> rusqlite::Result<Vec<KeyValue>> {
        let sql = match self.undo {
            false => format!("SELECT key, create_rev, mod_rev, value {KEYS_NOW} ORDER BY key LIMIT ?4"),
            true => format!(
                "SELECT key, create_rev, mod_rev, value {KEYS_KEPT} UNION ALL \
                 SELECT key, prev_create, prev_mod, prev_value {KEYS_UNDONE} ORDER BY key LIMIT ?4"
            ),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = connection.prepare_cached(&sql)?;
        let bounds: [&dyn ToSql; 4] = [&self.from, &self.to, &to_sql(self.at), &limit];
        statement.query_map(bounds, pair)?.collect()
    }

    fn count(&self, connection: &Connection) -> rusqlite::Result<usize> {
        let sql = match self.undo {
            false => format!("SELECT count(*) {KEYS_NOW}"),
            true => format!("SELECT (SELECT count(*) {KEYS_KEPT}) + (SELECT count(*) {KEYS_UNDONE})"),
        };
        let mut statement = connection.prepare_cached(&sql)?;
        let count: i64 = statement.query_row(params![self.from, self.to, to_sql(self.at)], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or_default())
    }
}

/// A key that was written after the newest revision of the file.
struct Newer {
    /// Whether the file has the key.
    stored: bool,
    pair: Option<KeyValue>,
}

/// The least key greater than this one.
fn next_key(key: &str) -> String {
    format!("{key}\0")
}

pub(super) fn range(
    connection: &Connection,
    prefix: &str,
    options: &RangeOptions,
    view: &View,
) -> Result<Range, ReadError> {
    let (newest, compacted) = schema::newest_and_compacted(connection)?;
    if view.revision < compacted {
        return Err(ReadError::Store(StoreError::Compacted { asked: view.revision, oldest: compacted }));
    }
    let mut newer: BTreeMap<&str, Newer> = BTreeMap::new();
    for event in view.pending.iter().filter(|event| event.revision > newest) {
        let entry = newer.entry(&event.key).or_insert(Newer { stored: event.previous.is_some(), pair: None });
        entry.pair = after(event);
    }
    let from = options.start_after.as_deref().map_or_else(String::new, next_key).max(prefix.to_owned());
    let mut span = Span { from, to: prefix_end(prefix), at: view.revision, undo: view.revision < newest };
    newer = newer.split_off(span.from.as_str());

    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let fetched = limit.saturating_add(newer.len()).saturating_add(1);
    let mut items = span.pairs(connection, fetched)?;
    if !newer.is_empty() {
        items.retain(|pair| !newer.contains_key(pair.key.as_str()));
        items.extend(newer.values().filter_map(|newer| newer.pair.clone()));
        items.sort_by(|a, b| a.key.cmp(&b.key));
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let remaining = match (options.count, more, items.last()) {
        (false, ..) => None,
        (true, true, Some(last)) => {
            span.from = next_key(&last.key);
            let later = newer.split_off(span.from.as_str());
            let stored = later.values().filter(|newer| newer.stored).count();
            let live = later.values().filter(|newer| newer.pair.is_some()).count();
            Some(span.count(connection)? + live - stored)
        }
        _ => Some(0),
    };
    Ok(Range { revision: view.revision, items, more, remaining })
}

/// One row of the log.
struct Logged {
    revision: Revision,
    key: String,
    deleted: bool,
    previous: Option<KeyValue>,
}

fn logged(row: &Row<'_>) -> rusqlite::Result<Logged> {
    let previous = match row.get::<_, Option<i64>>(2)? {
        Some(_) => Some(pair(row)?),
        None => None,
    };
    Ok(Logged { revision: from_sql(row.get(4)?), key: row.get(0)?, deleted: row.get(5)?, previous })
}

fn history(
    connection: &Connection,
    after: Revision,
    until: Revision,
    limit: usize,
) -> Result<Vec<Arc<Event>>, ReadError> {
    let (_, compacted) = schema::newest_and_compacted(connection)?;
    if after < compacted {
        return Err(ReadError::Store(StoreError::Compacted { asked: after, oldest: compacted }));
    }
    let sql = "SELECT key, prev_create, prev_mod, prev_value, rev, deleted FROM log WHERE rev > ?1 AND rev <= ?2 \
               ORDER BY rev LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![to_sql(after), to_sql(until), limit], logged)?;
    let mut events = Vec::new();
    for row in rows {
        let Logged { revision, key, deleted, previous } = row?;
        let value = match deleted {
            true => None,
            false => {
                let missing = || StoreError::Corrupt(format!("the value of {key} at revision {revision} is missing"));
                Some(written(connection, &key, revision)?.ok_or_else(missing).map_err(ReadError::Store)?.into())
            }
        };
        events.push(Arc::new(Event { key, revision, value, previous }));
    }
    Ok(events)
}

#[async_trait]
impl History for Arc<Readers> {
    async fn history(&self, after: Revision, until: Revision, limit: usize) -> Result<Vec<Arc<Event>>, StoreError> {
        self.run(move |connection| history(connection, after, until, limit)).await
    }
}
