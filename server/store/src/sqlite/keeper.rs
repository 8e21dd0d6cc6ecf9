//! Checkpoints off the write path, and what history is old enough to be forgotten.
//!
//! A checkpoint copies the pages of the write-ahead log into the file. The keeper does most of it beside the writer,
//! and again what was written meanwhile, until that is little; the writer then copies the few pages that are left, and
//! its next commit begins the log anew. So the log stays small and no write waits for more than those few pages.

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{SqliteOptions, writer::Command};
use crate::{Revision, hub::Hub};

/// How far the newest compaction must be passed before the next one is worth its writes.
const COMPACT_STEP: Revision = 256;

/// How often the keeper copies what was written while it copied, before it leaves the rest to the writer.
const PASSES: u32 = 4;

/// A pass that takes no longer than this leaves little.
const SHORT_PASS: Duration = Duration::from_millis(5);

/// What the keeper is asked.
pub(super) enum Keep {
    /// The write-ahead log has grown.
    Checkpoint,
}

/// See the module.
pub(super) struct Keeper {
    connection: Connection,
    hub: Arc<Hub>,
    writer: mpsc::Sender<Command>,
    options: SqliteOptions,
    /// What was the newest revision when, oldest first.
    marks: VecDeque<(Instant, Revision)>,
}

/// Copies what can be copied without waiting for anyone.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Takes the marks that are older than the history's age; returns the newest of them.
fn pass(marks: &mut VecDeque<(Instant, Revision)>, oldest: Instant) -> Option<Revision> {
    let mut passed = None;
    while let Some((_, revision)) = marks.front().filter(|(at, _)| *at <= oldest) {
        passed = Some(*revision);
        marks.pop_front();
    }
    passed
}

impl Keeper {
    pub(super) fn new(
        connection: Connection,
        hub: Arc<Hub>,
        writer: mpsc::Sender<Command>,
        options: SqliteOptions,
    ) -> Self {
        Self { connection, hub, writer, options, marks: VecDeque::new() }
    }

    /// Runs until the writer is gone.
    pub(super) fn run(mut self, requests: &mpsc::Receiver<Keep>) {
        let mut next_tick = Instant::now();
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            match requests.recv_timeout(wait) {
                Ok(Keep::Checkpoint) => self.checkpoint(),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.compact(Instant::now());
                    next_tick = Instant::now() + self.options.tick;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn checkpoint(&self) {
        for _ in 0..PASSES {
            let began = Instant::now();
            if let Err(error) = checkpoint(&self.connection) {
                tracing::warn!(%error, "the datastore's checkpoint failed");
            }
            if began.elapsed() <= SHORT_PASS {
                break;
            }
        }
        let _ = self.writer.send(Command::FinishCheckpoint);
    }

    /// Forgets what is too old or too much.
    fn compact(&mut self, now: Instant) {
        let newest = self.hub.published();
        self.marks.push_back((now, newest));
        let aged = now.checked_sub(self.options.history_age).and_then(|oldest| pass(&mut self.marks, oldest));
        let counted = newest.saturating_sub(self.options.history_revisions);
        let before = aged.unwrap_or_default().max(counted);
        if before >= self.hub.compacted() + COMPACT_STEP && self.hub.compact(before).is_ok() {
            let _ = self.writer.send(Command::Compact);
        }
    }
}
