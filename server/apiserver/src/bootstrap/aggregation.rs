//! Keeps the `rules` of aggregating ClusterRoles as clients read them. Authorization does not depend on it: the RBAC
//! index puts aggregated rules together itself.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::kept;
use crate::{authz::rbac, registry::Registry};

/// Writes the aggregated rules at every change of a ClusterRole, until cancelled.
pub async fn keep_aggregated(registry: Arc<Registry>, cancel: CancellationToken) {
    let write = |registry: Arc<Registry>| async move { registry.write_aggregated_rules().await };
    kept::whenever_changed(&registry, &rbac::storage("clusterroles"), &cancel, write).await;
}
