//! Tokens in Secrets that nobody has used for a year are first marked invalid, and a year later deleted. Source:
//! `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go` of Kubernetes 1.36.
//!
//! Only what Kubernetes itself once made for an account is cleaned up: Secrets that the account lists in its `secrets`
//! and that no pod names. The API server notes when a token is used, and since when it does so.

use std::time::Duration;

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use serde_json::{Value, json};
use skiff_api::{request::ContentType, status::ApiError};
use skiff_client::Key;

use crate::{
    frame::Context,
    meta::{is_deleting, name, namespace, uid},
    tokens::{ACCOUNT_NAME, ACCOUNT_UID, TYPE},
};

/// The controller's identity.
pub const NAME: &str = "legacy-service-account-token-cleaner";

/// How often it looks.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a token must not have been used, kube-controller-manager's
/// `--legacy-service-account-token-clean-up-period`: a year.
const UNUSED_DAYS: i64 = 365;

/// Since when it is noted that tokens are used.
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");

/// On which day a token was last used; the API server writes it.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// Since which day a token is not taken any more.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What is to be done about a Secret.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Leave,
    /// Its token is not to be taken from this day on.
    Mark(String),
    Delete,
}

/// A day as labels have it, `2026-01-31`; days compare as their texts do.
fn day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).date().to_string()
}

/// Whether a text is a day.
fn is_day(text: &str) -> bool {
    text.parse::<jiff::civil::Date>().is_ok_and(|date| date.to_string() == text)
}

/// The time before which a token that was not used since is old; `None` where it has not been noted for long enough
/// that tokens are used. `since` is what the ConfigMap says.
fn old_before(since: &str, now: Timestamp) -> Option<Timestamp> {
    let old = now.checked_sub((UNUSED_DAYS * 24).hours()).ok()?;
    // At some time of the day that it names tracking had begun, at its end for sure.
    let tracked = since.parse::<jiff::civil::Date>().ok().filter(|_| is_day(since))?.tomorrow().ok()?;
    (tracked.to_zoned(TimeZone::UTC).ok()?.timestamp() <= old).then_some(old)
}

/// What is to be done about a Secret with a token, its account being as it is.
fn decide(secret: &Secret, account: Option<&ServiceAccount>, is_mounted: bool, old: Timestamp, now: Timestamp) -> Step {
    let metadata = &secret.metadata;
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let is_young = metadata.creation_timestamp.as_ref().is_none_or(|time| time.0 >= old);
    // What is no day cannot be judged.
    let is_used = label(LAST_USED).is_some_and(|used| !is_day(used) || used >= day(old).as_str());
    if is_young || is_deleting(metadata) || is_used || is_mounted {
        return Step::Leave;
    }
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let is_listed = |account: &ServiceAccount| {
        let is_its = annotation(ACCOUNT_UID).is_none_or(|claimed| claimed == uid(&account.metadata));
        let listed = account.secrets.iter().flatten().any(|listed| listed.name == metadata.name);
        is_its && listed
    };
    if !account.is_some_and(is_listed) {
        // Somebody made it by hand.
        return Step::Leave;
    }
    match label(INVALID_SINCE).filter(|since| is_day(since)) {
        None => Step::Mark(day(now)),
        Some(since) if since >= day(old).as_str() => Step::Leave,
        Some(_) => Step::Delete,
    }
}

/// Whether a pod names a Secret, in whatever field: what may be in use is kept.
fn names(pod: &Pod, secret: &str) -> bool {
    fn has(value: &Value, text: &str) -> bool {
        match value {
            Value::String(found) => found == text,
            Value::Array(all) => all.iter().any(|value| has(value, text)),
            Value::Object(all) => all.values().any(|value| has(value, text)),
            _ => false,
        }
    }
    pod.spec.as_ref().and_then(|spec| serde_json::to_value(spec).ok()).is_some_and(|spec| has(&spec, secret))
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let cancel = context.cancel.clone();
    let work = async {
        let informers = &context.informers;
        informers.of::<Secret>().synced().await;
        informers.of::<ServiceAccount>().synced().await;
        informers.of::<Pod>().synced().await;
        loop {
            if let Err(error) = clean(&context, Timestamp::now()).await {
                tracing::warn!(%error, "old tokens of ServiceAccounts are not cleaned up this time");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    cancel.run_until_cancelled(work).await;
}

/// One look at all tokens.
async fn clean(context: &Context, now: Timestamp) -> Result<(), ApiError> {
    let tracking: ConfigMap = context.client.get(TRACKING.0, TRACKING.1).await?;
    let since = tracking.data.as_ref().and_then(|data| data.get("since")).map(String::as_str).unwrap_or_default();
    let Some(old) = old_before(since, now) else { return Ok(()) };
    let (pods, accounts) = (context.informers.of::<Pod>(), context.informers.of::<ServiceAccount>());
    for secret in context.informers.of::<Secret>().list() {
        if secret.type_.as_deref() != Some(TYPE) {
            continue;
        }
        let place = namespace(&secret.metadata);
        let annotations = secret.metadata.annotations.as_ref();
        let account =
            annotations.and_then(|all| all.get(ACCOUNT_NAME)).and_then(|account| accounts.get(place, account));
        let is_near = |pod: &Pod| namespace(&pod.metadata) == place;
        let is_mounted = || pods.list().iter().any(|pod| is_near(pod) && names(pod, name(&secret.metadata)));
        // Pods are looked through only for what would have to go.
        let step = match decide(&secret, account.as_deref(), false, old, now) {
            Step::Leave => Step::Leave,
            _ => decide(&secret, account.as_deref(), is_mounted(), old, now),
        };
        if let Err(error) = act(context, &secret, step).await {
            tracing::warn!(secret = %Key::of(&*secret), %error, "an old token is left for the next time");
        }
    }
    Ok(())
}

async fn act(context: &Context, secret: &Secret, step: Step) -> Result<(), ApiError> {
    let metadata = &secret.metadata;
    let (place, name) = (namespace(metadata), name(metadata));
    match step {
        Step::Leave => Ok(()),
        Step::Mark(day) => {
            let labels = json!({INVALID_SINCE: day});
            let patch = json!({"metadata": {
                "uid": metadata.uid, "resourceVersion": metadata.resource_version, "labels": labels,
            }});
            context.client.patch::<Secret>(place, name, None, ContentType::MergePatch, &patch).await.map(drop)
        }
        Step::Delete => {
            let exactly =
                Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
            let options = DeleteOptions { preconditions: Some(exactly), ..DeleteOptions::default() };
            match context.client.delete::<Secret>(place, name, &options).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Running, eventually, object};

    const NOW: &str = "2026-06-30T12:00:00Z";

    fn secret(labels: Value) -> Secret {
        object(json!({
            "metadata": {"name": "s", "namespace": "x", "creationTimestamp": "2020-01-01T00:00:00Z", "labels": labels,
                "annotations": {"kubernetes.io/service-account.name": "a", "kubernetes.io/service-account.uid": "u"}},
            "type": TYPE,
        }))
    }

    fn account(secrets: Value) -> ServiceAccount {
        object(json!({"metadata": {"name": "a", "namespace": "x", "uid": "u"}, "secrets": secrets}))
    }

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    #[test]
    fn tracking_must_have_gone_on_for_a_year() {
        for (since, enough) in [("2025-06-29", true), ("2025-06-30", false), ("2026-06-30", false), ("soon", false)] {
            assert_eq!(old_before(since, now()).is_some(), enough, "{since}");
        }
    }

    #[test]
    fn a_token_is_marked_and_deleted_only_where_nobody_uses_it() {
        let old = old_before("2024-01-01", now()).unwrap();
        let listed = account(json!([{"name": "s"}]));
        let unlisted = account(json!([]));
        let cases = [
            ("never used", secret(json!({})), Some(&listed), false, Step::Mark("2026-06-30".to_owned())),
            (
                "used long ago",
                secret(json!({LAST_USED: "2025-06-29"})),
                Some(&listed),
                false,
                Step::Mark("2026-06-30".to_owned()),
            ),
            ("used lately", secret(json!({LAST_USED: "2025-06-30"})), Some(&listed), false, Step::Leave),
            ("used at some time", secret(json!({LAST_USED: "yesterday"})), Some(&listed), false, Step::Leave),
            (
                "marked badly",
                secret(json!({INVALID_SINCE: "x"})),
                Some(&listed),
                false,
                Step::Mark("2026-06-30".to_owned()),
            ),
            ("marked lately", secret(json!({INVALID_SINCE: "2025-06-30"})), Some(&listed), false, Step::Leave),
            ("marked long ago", secret(json!({INVALID_SINCE: "2025-06-29"})), Some(&listed), false, Step::Delete),
            ("mounted", secret(json!({})), Some(&listed), true, Step::Leave),
            ("made by hand", secret(json!({})), Some(&unlisted), false, Step::Leave),
            ("nobody's", secret(json!({})), None, false, Step::Leave),
        ];
        for (what, secret, account, is_mounted, expected) in cases {
            assert_eq!(decide(&secret, account, is_mounted, old, now()), expected, "{what}");
        }
        let mut young = secret(json!({}));
        young.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
        assert_eq!(decide(&young, Some(&listed), false, old, now()), Step::Leave);
    }

    #[tokio::test]
    async fn unused_tokens_are_marked_then_deleted_and_what_a_pod_names_stays() {
        let cluster = Running::start(|_| async {});
        let client = &cluster.client;
        let tracking =
            json!({"metadata": {"name": TRACKING.1, "namespace": TRACKING.0}, "data": {"since": "2020-01-01"}});
        client.create::<ConfigMap>(&object(tracking)).await.unwrap();
        client.create(&account(json!([{"name": "s"}, {"name": "mounted"}]))).await.unwrap();
        let secret = secret(json!({}));
        let mut mounted = secret.clone();
        mounted.metadata.name = Some("mounted".to_owned());
        let uid = client.get::<ServiceAccount>("x", "a").await.unwrap().metadata.uid.unwrap();
        for mut secret in [secret, mounted] {
            secret.metadata.annotations.as_mut().unwrap().insert(ACCOUNT_UID.to_owned(), uid.clone());
            client.create(&secret).await.unwrap();
        }
        let volume = json!({"name": "v", "secret": {"secretName": "mounted"}});
        let pod = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {"containers": [], "volumes": [volume]}});
        client.create::<Pod>(&object(pod)).await.unwrap();
        let context = Context {
            client: client.clone(),
            informers: cluster.informers.clone(),
            events: skiff_client::EventRecorder::new(client.clone(), "test", "", Default::default()),
            cancel: Default::default(),
        };
        let later = Timestamp::now().checked_add((24 * 400).hours()).unwrap();
        let marked = async || {
            clean(&context, later).await.unwrap();
            // As the controller sees it: what it has not seen yet it would mark once more.
            let secret = context.informers.of::<Secret>().get("x", "s");
            let label = |secret: &Secret| secret.metadata.labels.as_ref()?.get(INVALID_SINCE).cloned();
            secret.as_deref().and_then(label) == Some(day(later))
        };
        eventually(marked).await;
        let much_later = later.checked_add((24 * 400).hours()).unwrap();
        eventually(async || {
            clean(&context, much_later).await.unwrap();
            client.get::<Secret>("x", "s").await.is_err()
        })
        .await;
        let mounted = client.get::<Secret>("x", "mounted").await.unwrap();
        assert!(mounted.metadata.labels.unwrap_or_default().is_empty());
    }
}
