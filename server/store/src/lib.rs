//! Where a cluster's state is kept: one trait, several implementations, one suite that all of them pass, and the
//! watch cache above.
//!
//! - [`Store`]: keys and values with revisions; every write is one compare-and-swap.
//! - [`SqliteStore`]: one file, one writer thread with group commit.
//! - [`EtcdStore`]: etcd, where there are several servers.
//! - [`MemoryStore`]: the same semantics without a file, for tests and throw-away clusters.
//! - [`cache`]: every object in memory as encoded bytes; what the API server reads and watches.
//!
//! # Revisions
//!
//! Revision `R` names the state after the write `R`. A range at `R` and a watch after `R` need the history since
//! `R`: they are answered while `R` is not below the compacted revision, and refused with
//! [`StoreError::Compacted`] after that. A write of [`Durability::Heartbeat`] has its revision, is seen by every
//! read and watch at once, and reaches the disk some seconds later, never after a later write: what is on disk is
//! always a whole prefix of the history. See [`sqlite`] for what a power loss does to the rest.

pub mod cache;
pub mod etcd;
mod hub;
mod keys;
mod memory;
mod restore;
pub mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use skiff_api::kinds::Durability;

pub use etcd::EtcdStore;
pub use memory::MemoryStore;
pub use restore::{Ascending, PairStream};
pub use sqlite::SqliteStore;

/// A revision: one growing sequence for the whole store. 0 is before the first write.
pub type Revision = u64;

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, e.g. `/core/pods/default/web`.
    pub key: String,
    /// The stored form of the object, see `skiff_api::wire`.
    pub value: Bytes,
    /// The revision of the write that created the key.
    pub create_revision: Revision,
    /// The revision of the last write.
    pub mod_revision: Revision,
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// The key at exactly this revision.
    At(Revision),
}

/// One compare-and-swap.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: String,
    /// What must be there for the write to happen.
    pub expect: Expect,
    /// The new value, or `None` to delete the key.
    pub value: Option<Bytes>,
    /// How soon the write must be on disk.
    pub durability: Durability,
}

/// How a compare-and-swap ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It was done, at this revision.
    Done(Revision),
    /// Nothing was written; this is what is there.
    Mismatch(Option<KeyValue>),
}

/// What a range asks for.
#[derive(Clone, Debug, Default)]
pub struct RangeOptions {
    /// At which revision; `None` for the newest.
    pub revision: Option<Revision>,
    /// How many at most; 0 for all.
    pub limit: usize,
    /// Only keys after this one.
    pub start_after: Option<String>,
    /// Whether to count the keys that follow after the last item, which costs a scan of them.
    pub count: bool,
}

/// The answer to a range.
#[derive(Clone, Debug)]
pub struct Range {
    /// The revision at which the range is consistent.
    pub revision: Revision,
    /// The pairs, in key order.
    pub items: Vec<KeyValue>,
    /// Whether further keys of the prefix follow after the last item.
    pub more: bool,
    /// How many follow, where it was asked for.
    pub remaining: Option<usize>,
}

/// One committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// Its revision.
    pub revision: Revision,
    /// The new value; `None` if the key was deleted.
    pub value: Option<Bytes>,
    /// The value before; `None` if the key was created.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// Says that all changes up to a revision have been told, where the revision itself was taken by something that
    /// is no change of this store's keys: etcd, which others write to.
    pub fn progress(revision: Revision) -> Self {
        Self { key: String::new(), revision, value: None, previous: None }
    }

    /// Whether it only says how far a watch has come.
    pub fn is_progress(&self) -> bool {
        self.key.is_empty()
    }
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is no longer kept.
    #[error("revision {asked} has been compacted, the oldest kept is {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest one that can be asked for.
        oldest: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("revision {asked} is in the future, the newest is {newest}")]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The newest one.
        newest: Revision,
    },
    /// The disk is full.
    #[error("no space left for the datastore: nothing can be written until the server's disk has some again")]
    NoSpace,
    /// The disk can no longer be written.
    #[error(
        "the disk of the datastore {0} is read-only: see the kernel's log for what is wrong with it, then mount it for \
         writing and restart skiff"
    )]
    ReadOnly(String),
    /// The datastore cannot be written or reached for now.
    #[error("the datastore is unavailable: {0}")]
    Unavailable(String),
    /// An object is larger than the datastore takes.
    #[error("the object cannot be stored: {0}")]
    TooLarge(String),
    /// The datastore's file was made by a newer version of skiff.
    #[error(
        "the datastore has schema {found}, this skiff knows up to {known}: use the newer skiff, or restore a snapshot"
    )]
    NewerSchema {
        /// The file's schema.
        found: u32,
        /// The newest schema known.
        known: u32,
    },
    /// What was read makes no sense.
    #[error("the datastore is corrupt: {0}")]
    Corrupt(String),
}

/// Every committed change from a revision on, in order, without gaps, in batches. Ends after an error, or when the
/// store is closed.
pub type EventStream = BoxStream<'static, Result<Vec<Arc<Event>>, StoreError>>;

/// A store of keys and values with revisions.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest value of a key.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError>;

    /// The keys that begin with a prefix.
    async fn range(&self, prefix: &str, options: RangeOptions) -> Result<Range, StoreError>;

    /// One compare-and-swap. Acknowledged only when it is as durable as it asks to be.
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError>;

    /// Every change with a revision greater than `after`.
    async fn watch(&self, after: Revision) -> Result<EventStream, StoreError>;

    /// Forgets all history before a revision; current values stay. A revision that is older than the oldest kept
    /// is no error; one that does not exist yet is.
    async fn compact(&self, before: Revision) -> Result<(), StoreError>;

    /// Replaces everything by these pairs, whose keys must ascend ([`Ascending`] checks). Every pair is as if created
    /// now, at a revision greater than `floor` and than every one that the store has ever given, and so is every later
    /// write; returns the newest of these revisions. There is no history before it: watches that are open end, and
    /// older revisions are refused ([`StoreError::Compacted`]).
    ///
    /// All or nothing: where it fails, or the process dies within, what was there is there still. An implementation
    /// that cannot do so (etcd has no transaction of that size) is then refused, by every call and at every start,
    /// until a restore succeeds, rather than shown half restored.
    async fn restore(&self, pairs: PairStream, floor: Revision) -> Result<Revision, StoreError>;

    /// The newest committed revision.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// The size on disk (or in memory) in bytes.
    async fn size_bytes(&self) -> Result<u64, StoreError>;

    /// Fails where a write would fail for reasons of the store's own.
    async fn health(&self) -> Result<(), StoreError>;

    /// Whether every write goes through this value, so that what it has published is all there is. Where others
    /// write too (etcd), a consistent read of the cache asks [`Store::revision`] first and waits for it.
    fn sole_writer(&self) -> bool {
        true
    }

    /// Brings everything acknowledged to disk and ends; watches end.
    async fn close(&self) -> Result<(), StoreError>;
}
