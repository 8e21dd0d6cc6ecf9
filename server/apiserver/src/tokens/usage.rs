//! Noting that the tokens in Secrets are used, in the Secrets' labels, so that those that nobody uses can go.
//! Source: `patchSecretWithLastUsedDate` of `pkg/serviceaccount/legacy.go`, and
//! `pkg/controlplane/controller/legacytokentracking`, of Kubernetes 1.36.

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use serde_json::json;
use skiff_api::{
    object::Object,
    request::{ContentType, GroupVersionResource},
};
use skiff_client::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// On which day a token was last used.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// Since which day a token is not taken any more.
pub const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// How many uses wait to be noted; more are noted when the tokens are used the next time.
const QUEUE: usize = 256;

/// A token was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    namespace: String,
    name: String,
    uid: String,
    day: String,
}

/// Where uses are told.
pub type Uses = mpsc::Sender<Use>;

/// Where uses are told, and where they come out.
pub fn uses() -> (Uses, mpsc::Receiver<Use>) {
    mpsc::channel(QUEUE)
}

/// A day as labels have it.
pub(crate) fn day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).date().to_string()
}

/// What is to be noted of a token's use: once a day.
fn due(secret: &Object, now: Timestamp) -> Option<Use> {
    let noted = secret.str_at(&["metadata", "labels", LAST_USED]).and_then(|text| text.parse::<Date>().ok());
    let noted = noted.and_then(|day| day.to_zoned(TimeZone::UTC).ok()?.timestamp().checked_add(24.hours()).ok());
    if noted.is_some_and(|until| now < until) {
        return None;
    }
    let text = |text: &str| text.to_owned();
    Some(Use { namespace: text(secret.namespace()), name: text(secret.name()), uid: text(secret.uid()), day: day(now) })
}

/// A Secret's token was taken.
pub(super) fn note(uses: Option<&Uses>, secret: &Object, now: Timestamp) {
    if let (Some(uses), Some(used)) = (uses, due(secret, now)) {
        // Whoever asks is not kept waiting for it.
        let _noted_next_time = uses.try_send(used);
    }
}

/// Writes what is told into the Secrets, as the API server itself, until cancelled.
pub async fn run(client: Client, mut uses: mpsc::Receiver<Use>, cancel: CancellationToken) {
    let secrets = GroupVersionResource::new("", "v1", "secrets");
    while let Some(Some(used)) = cancel.run_until_cancelled(uses.recv()).await {
        let Use { namespace, name, uid, day } = used;
        let patch = json!({"metadata": {"uid": uid, "labels": {LAST_USED: day}}});
        let written = client.patch_object(&secrets, &namespace, &name, ContentType::MergePatch, &patch).await;
        if let Err(error) = written.map(drop) {
            tracing::debug!(namespace, name, %error, "the use of a token is not noted");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_noted_once_a_day() {
        let secret = |labels| {
            let object = json!({"metadata": {"name": "s", "namespace": "x", "uid": "u", "labels": labels}});
            Object(object.as_object().unwrap().clone())
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let used = due(&secret(json!({})), at("2026-06-30T12:00:00Z")).unwrap();
        assert_eq!((used.name.as_str(), used.day.as_str()), ("s", "2026-06-30"));
        let noted = secret(json!({LAST_USED: "2026-06-30"}));
        assert_eq!(due(&noted, at("2026-06-30T23:59:59Z")), None);
        assert_eq!(due(&noted, at("2026-07-01T00:00:00Z")).unwrap().day, "2026-07-01");
        assert!(due(&secret(json!({LAST_USED: "once"})), at("2026-06-30T12:00:00Z")).is_some());
    }
}
