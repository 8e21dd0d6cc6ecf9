//! Tokens that nodes join with are deleted when their time is over. Source: the token cleaner of Kubernetes 1.36.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use skiff_api::status::ApiError;
use skiff_client::{Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::uid,
    pods::delete_options,
};

/// The controller's identity.
pub const NAME: &str = "token-cleaner";

/// Where the tokens are.
const NAMESPACE: &str = "kube-system";
/// Their type.
const TYPE: &str = "bootstrap.kubernetes.io/token";

struct Cleaner {
    context: Context,
    secrets: Arc<Informer<Secret>>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let secrets = context.informers.of::<Secret>();
    let cancel = context.cancel.clone();
    let controller = Cleaner { context, secrets: Arc::clone(&secrets) };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&secrets, |secret| if is_token(secret) { vec![Key::of(secret)] } else { Vec::new() })
        .run(1)
        .await;
}

fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE) && secret.metadata.namespace.as_deref() == Some(NAMESPACE)
}

/// How long a token still is good; `None` for one that is always, or whose end cannot be read.
fn time_left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let text = &secret.data.as_ref()?.get("expiration")?.0;
    let end: Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(Duration::try_from(end.duration_since(now)).unwrap_or_default())
}

#[async_trait]
impl Controller for Cleaner {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else { return Ok(None) };
        match time_left(&secret, Timestamp::now()) {
            Some(left) if left.is_zero() => {}
            left => return Ok(left),
        }
        let options = delete_options(uid(&secret.metadata));
        match self.context.client.delete::<Secret>(&key.namespace, &key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::testing::{Running, eventually, object};

    fn token(name: &str, kind: &str, expiration: &str) -> Secret {
        let mut secret: Secret = object(json!({"metadata": {"name": name, "namespace": NAMESPACE}, "type": kind}));
        let data = (!expiration.is_empty()).then(|| ("expiration".to_owned(), ByteString(expiration.into())));
        secret.data = Some(data.into_iter().collect());
        secret
    }

    #[tokio::test]
    async fn what_is_over_goes_and_the_rest_stays() {
        let cluster = Running::start(run);
        for secret in [
            token("over", TYPE, "2026-01-01T00:00:00Z"),
            token("good", TYPE, "2999-01-01T00:00:00Z"),
            token("for-ever", TYPE, ""),
            token("unreadable", TYPE, "tomorrow"),
            token("another-kind", "Opaque", "2026-01-01T00:00:00Z"),
        ] {
            cluster.client.create(&secret).await.unwrap();
        }
        let left = async || {
            let all = cluster.client.list::<Secret>(None, &Default::default()).await.unwrap().items;
            let mut names: Vec<String> = all.into_iter().filter_map(|secret| secret.metadata.name).collect();
            names.sort();
            names
        };
        eventually(async || left().await == ["another-kind", "for-ever", "good", "unreadable"]).await;
    }
}
