//! Keeps the `rules` of aggregating ClusterRoles as clients read them. Authorization does not depend on it: the RBAC
//! index puts aggregated rules together itself.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use skiff_store::cache::WatchQuery;
use tokio_util::sync::CancellationToken;

use crate::{authz::rbac, registry::Registry};

/// How long a lost watch or a failed write waits before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes the aggregated rules at every change of a ClusterRole, until cancelled.
pub async fn keep_aggregated(registry: Arc<Registry>, cancel: CancellationToken) {
    let kind = rbac::storage("clusterroles");
    while !cancel.is_cancelled() {
        let query = WatchQuery { after: Some(registry.cacher().revision()), ..WatchQuery::default() };
        if let Ok(mut changes) = registry.cacher().watch(&kind, query).await {
            loop {
                if let Err(error) = registry.write_aggregated_rules().await {
                    tracing::warn!(%error, "aggregated ClusterRoles could not be written");
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
