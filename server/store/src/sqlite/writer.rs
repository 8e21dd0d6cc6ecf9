//! The one thread that writes: group commit, heartbeats in memory, and the housekeeping between commits.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, hooks::Wal, params};
use skiff_api::kinds::Durability;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    SqliteOptions, Trouble, failure,
    keeper::{Keep, checkpoint},
    pending::Pending,
    reader::current,
    restore::{self, Restore},
    schema::{self, RESERVE},
    to_sql, write_failure,
};
use crate::{Event, Revision, StoreError, Write, WriteOutcome, hub::Hub, memory::decide};

/// How many writes share a commit at most.
const BATCH_WRITES: usize = 256;

/// How many bytes of values share a commit at most, but for one write alone.
const BATCH_BYTES: usize = 4 << 20;

/// How many rows of history are deleted in a step of its own, and along with each commit.
const COMPACT_ROWS: usize = 256;

/// The size of a page, SQLite's default.
const PAGE_BYTES: usize = 4_096;

/// How many pages are given back to the file system in a step.
const VACUUM_PAGES: u32 = 64;

/// How many free pages the file keeps, to be used again.
const FREE_PAGES: u32 = 256;

/// How long no write must have come before a step of housekeeping.
const QUIET: Duration = Duration::from_millis(20);

/// One write that waits.
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) done: oneshot::Sender<Result<WriteOutcome, StoreError>>,
    /// Its place in the queue, given back when it is done.
    pub(super) _place: OwnedSemaphorePermit,
}

/// What the writer is asked.
pub(super) enum Command {
    Write(Job),
    /// The hub's compacted revision has grown.
    Compact,
    /// The keeper has copied most of the write-ahead log.
    FinishCheckpoint,
    /// Replace everything.
    Restore(Restore),
    /// Whether writing works.
    Probe(oneshot::Sender<Result<(), StoreError>>),
    /// Bring everything to disk and end.
    Close(Option<oneshot::Sender<Result<(), StoreError>>>),
}

/// What is to be done between writes.
#[derive(Default)]
struct Housekeeping {
    /// Delete history up to the hub's compacted revision.
    compact: bool,
    /// Give free pages back.
    vacuum: bool,
    /// Some have been given back since the last checkpoint.
    vacuumed: bool,
}

/// See the module.
pub(super) struct Writer {
    connection: Connection,
    hub: Arc<Hub>,
    /// The newest revision given.
    revision: Revision,
    reserved: Revision,
    pending: Pending,
    housekeeping: Housekeeping,
    options: SqliteOptions,
    keeper: mpsc::Sender<Keep>,
    /// How many pages the write-ahead log has, as SQLite says after each commit.
    log_pages: Arc<AtomicUsize>,
    /// How many of them were there at the last checkpoint.
    copied_pages: usize,
    /// A checkpoint is wanted, however long the log is.
    wants_checkpoint: bool,
    checkpointing: bool,
    trouble: Trouble,
}

/// What a batch of writes came to.
struct Done {
    outcomes: Vec<WriteOutcome>,
    events: Vec<Arc<Event>>,
    revision: Revision,
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        hub: Arc<Hub>,
        reserved: Revision,
        options: SqliteOptions,
        keeper: mpsc::Sender<Keep>,
        trouble: Trouble,
    ) -> rusqlite::Result<Self> {
        let log_pages = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&log_pages);
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            counted.store(usize::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            connection,
            revision: hub.published(),
            hub,
            reserved,
            pending: Pending::default(),
            housekeeping: Housekeeping { compact: true, vacuum: true, vacuumed: false },
            options,
            keeper,
            log_pages,
            copied_pages: 0,
            wants_checkpoint: false,
            checkpointing: false,
            trouble,
        })
    }

    /// Runs until it is told to close, or nobody is left to tell it.
    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        let mut next = None;
        loop {
            let command = match next.take() {
                Some(command) => Some(command),
                None => match self.wait(commands) {
                    Err(mpsc::RecvTimeoutError::Disconnected) => Some(Command::Close(None)),
                    waited => waited.ok(),
                },
            };
            match command {
                None => self.rest(),
                Some(Command::Write(job)) => {
                    let jobs;
                    (jobs, next) = gather(job, commands);
                    self.write(jobs);
                }
                Some(Command::Compact) => self.housekeeping.compact = true,
                Some(Command::FinishCheckpoint) => self.finish_checkpoint(),
                Some(Command::Restore(restore)) => self.restore(restore),
                Some(Command::Probe(done)) => drop(done.send(self.probe())),
                Some(Command::Close(done)) => return self.close(done),
            }
        }
    }

    fn wait(&self, commands: &mpsc::Receiver<Command>) -> Result<Command, mpsc::RecvTimeoutError> {
        let due = self.pending.due.map(|due| due.saturating_duration_since(Instant::now()));
        let quiet = (self.housekeeping.compact || self.housekeeping.vacuum).then_some(QUIET);
        match due.into_iter().chain(quiet).min() {
            Some(wait) => commands.recv_timeout(wait),
            None => commands.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        }
    }

    /// Nothing has come: time for what is due, or for a step of housekeeping.
    fn rest(&mut self) {
        if self.pending.is_due() {
            let _ = self.flush();
            return;
        }
        let step = if self.housekeeping.compact { self.compact_step() } else { self.vacuum_step() };
        if let Err(error) = step {
            tracing::warn!(%error, "the datastore's housekeeping failed");
            self.housekeeping = Housekeeping::default();
        }
    }

    /// Does a batch: on disk if any of it must be, in memory otherwise.
    fn write(&mut self, jobs: Vec<Job>) {
        let synced = jobs.iter().any(|job| job.write.durability == Durability::Synced)
            || self.pending.is_full(jobs.len())
            || self.pending.is_due()
            || self.revision + as_revisions(jobs.len()) > self.reserved;
        let writes: Vec<&Write> = jobs.iter().map(|job| &job.write).collect();
        let result = if synced { self.commit(&writes) } else { self.hold(&writes) };
        match result {
            Ok(done) => {
                self.revision = done.revision;
                self.hub.publish(done.events, if synced { done.revision } else { 0 });
                for (job, outcome) in jobs.into_iter().zip(done.outcomes) {
                    let _ = job.done.send(Ok(outcome));
                }
            }
            Err(error) => jobs.into_iter().for_each(|job| drop(job.done.send(Err(error.clone())))),
        }
    }

    /// Decides heartbeats and keeps what they change in memory.
    fn hold(&mut self, writes: &[&Write]) -> Result<Done, StoreError> {
        let mut done = Done { outcomes: Vec::with_capacity(writes.len()), events: Vec::new(), revision: self.revision };
        // First everything that can fail, then what changes.
        let mut found = Vec::with_capacity(writes.len());
        for write in writes {
            let stored = match self.pending.newest.contains_key(&write.key) {
                true => None,
                false => current(&self.connection, &write.key).map_err(|error| failure(&error))?,
            };
            found.push(stored);
        }
        for (write, stored) in writes.iter().zip(found) {
            let there = self.pending.newest.get(&write.key).map_or(stored.as_ref(), Option::as_ref);
            match decide(write, there, done.revision + 1) {
                None => done.outcomes.push(WriteOutcome::Mismatch(there.cloned())),
                Some(event) => {
                    done.revision = event.revision;
                    done.outcomes.push(WriteOutcome::Done(event.revision));
                    let event = Arc::new(event);
                    self.pending.push(Arc::clone(&event), Instant::now() + self.delay(&event));
                    done.events.push(event);
                }
            }
        }
        Ok(done)
    }

    /// How long a heartbeat may be in memory alone.
    fn delay(&self, event: &Event) -> Duration {
        match (&event.previous, &event.value) {
            (Some(_), Some(_)) => self.options.renewal_delay,
            _ => self.options.heartbeat_delay,
        }
    }

    /// Decides writes and brings them, with all heartbeats before them, to disk.
    fn commit(&mut self, writes: &[&Write]) -> Result<Done, StoreError> {
        let result = self.transact(|writer| writer.apply(writes));
        if let Ok(done) = &result {
            self.pending = Pending::default();
            self.revision = done.revision;
        }
        result
    }

    /// Brings the heartbeats to disk.
    fn flush(&mut self) -> Result<(), StoreError> {
        let done = self.commit(&[]);
        if done.is_err() && self.pending.due.is_some() {
            self.pending.due = Some(Instant::now() + self.options.heartbeat_delay);
        }
        self.hub.publish(Vec::new(), done?.revision);
        Ok(())
    }

    /// Replaces everything. What is in memory alone goes with the rest.
    fn restore(&mut self, mut asked: Restore) {
        let result = restore::replace(&mut self.connection, self.revision, asked.floor, &mut asked.parts);
        if let Ok(revision) = result {
            (self.revision, self.reserved) = (revision, revision + RESERVE);
            self.pending = Pending::default();
            self.housekeeping = Housekeeping { compact: false, vacuum: true, vacuumed: false };
            self.hub.restart(revision);
            self.wants_checkpoint = true;
            self.ask_for_checkpoint();
        }
        let _ = asked.done.send(result);
    }

    /// Writes, though there be nothing to write: what does not change, SQLite would not write.
    fn probe(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        self.transact(|writer| {
            writer.reserved += 1;
            schema::reserve(&writer.connection, writer.reserved, false)
        })
    }

    /// Runs changes in one transaction, synced when this returns.
    fn transact<T>(&mut self, change: impl FnOnce(&mut Self) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let (reserved, housekeeping_compact) = (self.reserved, self.housekeeping.compact);
        let begin = |writer: &Self, sql: &str| writer.connection.prepare_cached(sql)?.execute([]).map(drop);
        let result = begin(self, "BEGIN IMMEDIATE").and_then(|()| {
            let result = change(self)?;
            begin(self, "COMMIT").map(|()| result)
        });
        let result = result.map_err(|error| {
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            (self.reserved, self.housekeeping.compact) = (reserved, housekeeping_compact);
            tracing::error!(%error, "the datastore cannot be written");
            write_failure(Path::new(self.connection.path().unwrap_or_default()), &error)
        });
        *self.trouble.lock() = result.as_ref().err().cloned();
        self.ask_for_checkpoint();
        result
    }

    fn apply(&mut self, writes: &[&Write]) -> rusqlite::Result<Done> {
        for event in &self.pending.events {
            store(&self.connection, event)?;
        }
        let mut done = Done { outcomes: Vec::with_capacity(writes.len()), events: Vec::new(), revision: self.revision };
        for write in writes {
            let there = current(&self.connection, &write.key)?;
            match decide(write, there.as_ref(), done.revision + 1) {
                None => done.outcomes.push(WriteOutcome::Mismatch(there)),
                Some(event) => {
                    store(&self.connection, &event)?;
                    done.revision = event.revision;
                    done.outcomes.push(WriteOutcome::Done(event.revision));
                    done.events.push(Arc::new(event));
                }
            }
        }
        if done.revision + RESERVE / 2 > self.reserved {
            self.reserved = done.revision + RESERVE;
            schema::reserve(&self.connection, self.reserved, false)?;
        }
        if self.housekeeping.compact && !done.events.is_empty() {
            self.compact_rows()?;
        }
        Ok(done)
    }

    /// Deletes some history; clears the task when there is no more.
    fn compact_rows(&mut self) -> rusqlite::Result<()> {
        let before = self.note_compacted()?;
        let connection = &self.connection;
        // The newest row stays: it says which revision the file is at.
        let sql = "DELETE FROM log WHERE rev <= (SELECT max(rev) FROM (SELECT rev FROM log WHERE rev <= ?1 \
                   AND rev < (SELECT max(rev) FROM log) ORDER BY rev LIMIT ?2))";
        let rows = connection.prepare_cached(sql)?.execute(params![before, COMPACT_ROWS as i64])?;
        if rows < COMPACT_ROWS {
            (self.housekeeping.compact, self.housekeeping.vacuum) = (false, true);
        }
        Ok(())
    }

    /// Writes down before which revision history is gone, before any of it goes.
    fn note_compacted(&self) -> rusqlite::Result<i64> {
        let before = to_sql(self.hub.compacted());
        let sql = "UPDATE compaction SET revision = ?1 WHERE revision < ?1";
        self.connection.prepare_cached(sql)?.execute([before])?;
        self.connection.prepare_cached("DELETE FROM lost WHERE until <= ?1")?.execute([before])?;
        Ok(before)
    }

    fn compact_step(&mut self) -> Result<(), StoreError> {
        self.transact(Self::compact_rows)
    }

    fn vacuum_step(&mut self) -> Result<(), StoreError> {
        let free = self.connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, u32>(0));
        let free = free.map_err(|error| failure(&error))?;
        if free <= FREE_PAGES {
            self.housekeeping.vacuum = false;
            if std::mem::take(&mut self.housekeeping.vacuumed) {
                // The file is cut at a checkpoint.
                self.wants_checkpoint = true;
                self.ask_for_checkpoint();
            }
            return Ok(());
        }
        let pages = VACUUM_PAGES.min(free - FREE_PAGES);
        self.housekeeping.vacuumed = true;
        self.transact(|writer| {
            // Each step of the statement frees one page.
            let mut statement = writer.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        })
    }

    fn ask_for_checkpoint(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        if pages < self.copied_pages {
            // The log has begun anew.
            self.copied_pages = 0;
        }
        let is_long = (pages - self.copied_pages) * PAGE_BYTES >= self.options.checkpoint_bytes;
        if (is_long || self.wants_checkpoint) && !self.checkpointing {
            self.checkpointing = self.keeper.send(Keep::Checkpoint).is_ok();
        }
    }

    fn finish_checkpoint(&mut self) {
        if let Err(error) = checkpoint(&self.connection) {
            tracing::warn!(%error, "the datastore's checkpoint failed");
        }
        self.copied_pages = self.log_pages.load(Ordering::Relaxed);
        (self.checkpointing, self.wants_checkpoint) = (false, false);
    }

    fn close(mut self, done: Option<oneshot::Sender<Result<(), StoreError>>>) {
        let result = self.flush().and_then(|()| {
            let revision = self.revision;
            self.transact(|writer| {
                writer.note_compacted()?;
                schema::reserve(&writer.connection, revision, true)
            })
        });
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the datastore's last checkpoint failed");
        }
        if let Some(done) = done {
            let _ = done.send(result);
        }
    }
}

fn as_revisions(count: usize) -> Revision {
    Revision::try_from(count).unwrap_or(Revision::MAX)
}

/// The first write and all that wait behind it, up to the limits; and what came after them that is no write.
fn gather(first: Job, commands: &mpsc::Receiver<Command>) -> (Vec<Job>, Option<Command>) {
    let bytes_of = |job: &Job| job.write.value.as_ref().map_or(0, |value| value.len());
    let mut bytes = bytes_of(&first);
    let mut jobs = vec![first];
    while jobs.len() < BATCH_WRITES && bytes < BATCH_BYTES {
        match commands.try_recv() {
            Ok(Command::Write(job)) => {
                bytes += bytes_of(&job);
                jobs.push(job);
            }
            Ok(other) => return (jobs, Some(other)),
            Err(_) => break,
        }
    }
    (jobs, None)
}

/// Writes an event into the tables.
fn store(connection: &Connection, event: &Event) -> rusqlite::Result<()> {
    let revision = to_sql(event.revision);
    let previous = event.previous.as_ref();
    match (&event.value, previous) {
        (Some(value), None) => {
            let sql = "INSERT INTO current (create_rev, mod_rev, key, value) VALUES (?1, ?1, ?2, ?3)";
            connection.prepare_cached(sql)?.execute(params![revision, event.key, &value[..]])?;
        }
        (Some(value), Some(previous)) => {
            let sql = "UPDATE current SET mod_rev = ?1, value = ?2 WHERE create_rev = ?3";
            let created = to_sql(previous.create_revision);
            connection.prepare_cached(sql)?.execute(params![revision, &value[..], created])?;
        }
        (None, Some(previous)) => {
            let sql = "DELETE FROM current WHERE create_rev = ?1";
            connection.prepare_cached(sql)?.execute([to_sql(previous.create_revision)])?;
        }
        (None, None) => {}
    }
    let sql = "INSERT INTO log (rev, key, deleted, prev_create, prev_mod, prev_value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let row = params![
        revision,
        event.key,
        event.value.is_none(),
        previous.map(|previous| to_sql(previous.create_revision)),
        previous.map(|previous| to_sql(previous.mod_revision)),
        previous.map(|previous| &previous.value[..]),
    ];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}
