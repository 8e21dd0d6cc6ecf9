//! Forgetting old history: of all servers on one etcd, one does it in each turn.
//!
//! As kube-apiserver does it (`etcd3/compact.go`): a key counts the turns. Who finds the count as it was the time
//! before moves it on and compacts to the revision of that time; the others only take note. So every server finds
//! at least one interval of history.

use std::{sync::Arc, time::Duration};

use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use super::{Inner, endpoints::Again, failure::Failure, found, revision_of};

/// What a server has seen of the turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    /// How many there have been.
    count: i64,
    /// etcd's revision then; 0 before the first.
    revision: i64,
}

/// What came of trying to take a turn.
struct Tried {
    /// Whether nobody else had taken it.
    won: bool,
    /// How many turns there have been, where somebody had.
    count: i64,
    /// etcd's revision now.
    revision: i64,
}

/// The turn after a try, and the revision to compact to.
fn decide(turn: Turn, tried: &Tried) -> (Turn, Option<i64>) {
    if !tried.won {
        return (Turn { count: tried.count, revision: tried.revision }, None);
    }
    let next = Turn { count: turn.count + 1, revision: tried.revision };
    (next, (turn.revision > 0).then_some(turn.revision))
}

async fn take(inner: &Inner, turn: Turn) -> Result<Tried, Failure> {
    let key = inner.layout.compaction_key();
    let txn = Txn::new()
        .when([Compare::version(key.clone(), CompareOp::Equal, turn.count)])
        .and_then([TxnOp::put(key.clone(), turn.revision.to_string(), None)])
        .or_else([TxnOp::get(key, None)]);
    // Done twice, the second try only takes note of the first.
    let response = inner.transact(Again::Harmless, txn).await?;
    let count = found(&response, 0).map_or(0, |pair| pair.version());
    Ok(Tried { won: response.succeeded(), count, revision: revision_of(response.header()) })
}

/// Takes turns until the store is closed.
pub(super) async fn run(inner: Arc<Inner>, every: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let step = async {
            let tried = take(&inner, turn).await?;
            let (next, compact) = decide(turn, &tried);
            turn = next;
            match compact {
                Some(revision) => inner.compact(revision).await,
                None => Ok(()),
            }
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            done = step => if let Err(failure) = done {
                tracing::warn!(error = %failure.into_error(), "etcd's history is not compacted this time");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_compacts_to_what_all_have_seen() {
        let won = |revision| Tried { won: true, count: 0, revision };
        let lost = |count, revision| Tried { won: false, count, revision };
        // The first turn of a fresh server compacts nothing: it does not know what others have seen.
        let (a, compact) = decide(Turn::default(), &won(10));
        assert_eq!((a, compact), (Turn { count: 1, revision: 10 }, None));
        let (b, compact) = decide(Turn::default(), &lost(1, 12));
        assert_eq!((b, compact), (Turn { count: 1, revision: 12 }, None));
        let (a, compact) = decide(a, &won(20));
        assert_eq!((a, compact), (Turn { count: 2, revision: 20 }, Some(10)));
        let (b, compact) = decide(b, &lost(2, 21));
        assert_eq!((b, compact), (Turn { count: 2, revision: 21 }, None));
        // The other goes on where the first has died.
        assert_eq!(decide(b, &won(30)).1, Some(21));
    }
}
