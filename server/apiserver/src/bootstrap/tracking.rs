//! Since when it is noted that tokens in Secrets are used: a ConfigMap that says so as long as the cluster lives.
//! Source: `pkg/controlplane/controller/legacytokentracking` of Kubernetes 1.36.

use std::sync::Arc;

use skiff_api::status::ApiError;
use tokio_util::sync::CancellationToken;

use super::{kept, own};
use crate::{
    registry::{Registry, world},
    tokens::usage,
};

/// Puts the ConfigMap right whenever it is gone or says no day that has come, until cancelled.
pub async fn keep_tracking(registry: Arc<Registry>, cancel: CancellationToken) {
    kept::whenever_changed(&registry, &world::storage("", "configmaps"), &cancel, put_right).await;
}

async fn put_right(registry: Arc<Registry>) -> Result<(), ApiError> {
    let seed = own::tracking(registry.now());
    let there = registry.cacher().peek(&world::storage("", "configmaps"), seed.object.namespace(), seed.object.name());
    let today = usage::day(registry.now());
    let says_a_day = there.and_then(|entry| entry.object().ok()).is_some_and(|object| {
        let since = object.str_at(&["data", "since"]).unwrap_or_default();
        since.parse::<jiff::civil::Date>().is_ok_and(|day| day.to_string() == since) && since <= today.as_str()
    });
    if says_a_day { Ok(()) } else { registry.seed_fields(&seed.gvr, &seed.object, &["data"]).await }
}
