//! Replacing everything, in one transaction.

use bytes::Bytes;
use futures::TryStreamExt;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{
    failure,
    schema::{self, RESERVE},
    to_sql,
};
use crate::{Ascending, PairStream, Revision, StoreError, restore::base};

/// How many batches may wait for the writer.
pub(super) const QUEUED_BATCHES: usize = 2;

/// A part of what is restored. Without the end, nothing is.
pub(super) enum Part {
    Pairs(Vec<(String, Bytes)>),
    End,
}

/// What the writer is asked.
pub(super) struct Restore {
    pub(super) parts: mpsc::Receiver<Part>,
    pub(super) floor: Revision,
    pub(super) done: oneshot::Sender<Result<Revision, StoreError>>,
}

/// Hands the pairs to the writer. It may have ended early; then it has said why.
pub(super) async fn feed(mut pairs: PairStream, parts: mpsc::Sender<Part>) -> Result<(), StoreError> {
    while let Some(batch) = pairs.try_next().await? {
        if parts.send(Part::Pairs(batch)).await.is_err() {
            return Ok(());
        }
    }
    let _ = parts.send(Part::End).await;
    Ok(())
}

/// Replaces everything; returns the newest revision. A crash, an error, or an end of the parts without [`Part::End`]
/// leaves what was there.
pub(super) fn replace(
    connection: &mut Connection,
    newest: Revision,
    floor: Revision,
    parts: &mut mpsc::Receiver<Part>,
) -> Result<Revision, StoreError> {
    let mut revision = base(floor, newest)?;
    let sqlite = |error: rusqlite::Error| failure(&error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    transaction.execute_batch("DELETE FROM current; DELETE FROM log; DELETE FROM lost").map_err(sqlite)?;
    let mut order = Ascending::default();
    loop {
        match parts.blocking_recv() {
            Some(Part::Pairs(pairs)) => {
                for (key, value) in pairs {
                    order.check(&key)?;
                    revision += 1;
                    insert(&transaction, revision, &key, &value).map_err(sqlite)?;
                }
            }
            Some(Part::End) => break,
            None => return Err(StoreError::Unavailable("the restore was given up".to_owned())),
        }
    }
    begin_history(&transaction, revision).and_then(|()| transaction.commit()).map_err(sqlite)?;
    Ok(revision)
}

fn insert(connection: &Connection, revision: Revision, key: &str, value: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO current (create_rev, mod_rev, key, value) VALUES (?1, ?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![to_sql(revision), key, value]).map(drop)
}

/// History begins here. The newest row of the log says which revision the file is at; this one is of no key.
fn begin_history(connection: &Connection, revision: Revision) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO log (rev, key, deleted) VALUES (?1, '', 1)", [to_sql(revision)])?;
    connection.execute("UPDATE compaction SET revision = ?1", [to_sql(revision)])?;
    schema::reserve(connection, revision + RESERVE, false)
}
