//! What is put right whenever objects of a kind change.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use skiff_api::{kinds::StorageKey, status::ApiError};
use skiff_store::cache::WatchQuery;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

/// How long a lost watch or a failed write waits before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Does some work now, and at every change of a kind, until cancelled.
pub(super) async fn whenever_changed<Done>(
    registry: &Arc<Registry>,
    kind: &StorageKey,
    cancel: &CancellationToken,
    work: impl Fn(Arc<Registry>) -> Done,
) where
    Done: Future<Output = Result<(), ApiError>>,
{
    while !cancel.is_cancelled() {
        let query = WatchQuery { after: Some(registry.cacher().revision()), ..WatchQuery::default() };
        if let Ok(mut changes) = registry.cacher().watch(kind, query).await {
            loop {
                if let Err(error) = work(Arc::clone(registry)).await {
                    tracing::warn!(kind = kind.resource, %error, "what every cluster has could not be put right");
                    break;
                }
                let Some(Some(Ok(_))) = cancel.run_until_cancelled(changes.next()).await else { break };
                // Changes come in bursts, above all at the first start; one look is enough for all of them.
                while let Some(Some(Ok(_))) = changes.next().now_or_never() {}
            }
        }
        cancel.run_until_cancelled(tokio::time::sleep(RETRY_AFTER)).await;
    }
}
