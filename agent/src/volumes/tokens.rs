//! The tokens of a pod's volumes: asked for, kept, and renewed while they are good, by the kubelet's rule.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ServiceAccount, ServiceAccountTokenProjection},
};
use parking_lot::Mutex;
use skiff_api::status::ApiError;
use skiff_client::Client;

use super::VolumeError;
use crate::pods::fields::Fields;

/// How long a token lives where nothing else is said.
const LIFE_SECONDS: i64 = 3600;

/// A token is renewed when this part of its life is left.
const RENEW_PERCENT: i32 = 20;

/// A token is renewed at this age, however long it lives.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);

/// By how much earlier it is renewed at most, so that not all of a node's pods ask at once.
const JITTER_MILLIS: i64 = 10_000;

/// When a renewal that failed is tried again; also the shortest time between two, whatever the clocks say.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// One token.
#[derive(Clone, Debug)]
struct Held {
    /// Empty where none could be had yet.
    token: String,
    expires: Timestamp,
    renew_at: Timestamp,
}

/// One pod's tokens, by volume and path.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<BTreeMap<String, Held>>);

impl Tokens {
    /// When one must be renewed.
    pub(super) fn renew_at(&self) -> Option<Timestamp> {
        self.0.lock().values().map(|held| held.renew_at).min()
    }

    /// A token bound to the pod: the one at hand unless it is due for renewal. Where it cannot be renewed it is used
    /// for as long as it is good.
    pub(super) async fn get(
        &self,
        client: &Client,
        key: String,
        source: &ServiceAccountTokenProjection,
        fields: &Fields<'_>,
        now: Timestamp,
    ) -> Result<String, VolumeError> {
        let held = self.0.lock().get(&key).filter(|held| !held.token.is_empty() && held.expires > now).cloned();
        if let Some(held) = &held
            && held.renew_at > now
        {
            return Ok(held.token.clone());
        }
        let renew_at = now.checked_add(AGAIN).unwrap_or(now);
        match (request(client, source, fields, now).await, held) {
            (Ok(new), _) => {
                let token = new.token.clone();
                self.0.lock().insert(key, new);
                Ok(token)
            }
            (Err(error), Some(held)) => {
                tracing::warn!(pod = fields.desired.name(), error = error.chain(), "a token could not be renewed yet");
                self.0.lock().insert(key, Held { renew_at, ..held.clone() });
                Ok(held.token)
            }
            (Err(error), None) => {
                self.0.lock().insert(key, Held { token: String::new(), expires: now, renew_at });
                Err(error)
            }
        }
    }
}

async fn request(
    client: &Client,
    source: &ServiceAccountTokenProjection,
    fields: &Fields<'_>,
    now: Timestamp,
) -> Result<Held, VolumeError> {
    let seconds = source.expiration_seconds.unwrap_or(LIFE_SECONDS);
    let request = token_request(source, fields, seconds);
    let account = fields.desired.spec().service_account_name.as_deref();
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    let api = |source| VolumeError::Api { what: format!("a token of serviceaccount {account:?}"), source };
    let namespace = fields.desired.namespace();
    let answer = client.create_subresource::<ServiceAccount, _>(namespace, account, "token", &request).await;
    let answer: TokenRequest =
        serde_json::from_slice(&answer.map_err(api)?).map_err(|error| api(ApiError::internal(error)))?;
    let status = answer.status.unwrap_or_default();
    let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err(api(ApiError::internal("the answer holds no token")));
    };
    // The server may have given another life than was asked for.
    let life = SignedDuration::from_secs(answer.spec.and_then(|spec| spec.expiration_seconds).unwrap_or(seconds));
    Ok(Held { renew_at: renewal(expires.0, life, jitter(&token), now), expires: expires.0, token })
}

/// When a token is renewed that lives until some time, after `life` altogether.
fn renewal(expires: Timestamp, life: SignedDuration, jitter: SignedDuration, now: Timestamp) -> Timestamp {
    let before_end = (life * RENEW_PERCENT / 100).max(life.saturating_sub(OLDEST)).saturating_add(jitter);
    let at = expires.checked_sub(before_end).unwrap_or(expires);
    at.max(now.checked_add(AGAIN).unwrap_or(now))
}

/// What differs from token to token: the end of its signature.
fn jitter(token: &str) -> SignedDuration {
    let number = token.bytes().rev().take(6).fold(0_i64, |number, byte| number * 64 + i64::from(byte % 64));
    SignedDuration::from_millis(number % JITTER_MILLIS)
}

fn token_request(source: &ServiceAccountTokenProjection, fields: &Fields<'_>, seconds: i64) -> TokenRequest {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(fields.desired.name().to_owned()),
        uid: Some(fields.desired.uid().to_owned()),
    };
    let audiences = source.audience.clone().into_iter().filter(|audience| !audience.is_empty()).collect();
    let spec = TokenRequestSpec {
        audiences: Some(audiences),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(seconds),
    };
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_in_the_last_fifth_of_its_life_or_at_a_days_age() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |hours: i64, jitter: i64| {
            let life = SignedDuration::from_hours(hours);
            let at = renewal(now + life, life, SignedDuration::from_secs(jitter), now);
            at.duration_since(now).as_secs()
        };
        assert_eq!(after(1, 0), 2_880);
        assert_eq!(after(1, 7), 2_873);
        assert_eq!(after(30, 0), 24 * 3600);
        assert_eq!(after(24 * 365, 9), 24 * 3600 - 9);
        // A clock that is ahead does not make the node ask again and again.
        let ended = renewal(now, SignedDuration::from_hours(1), SignedDuration::ZERO, now);
        assert_eq!(ended, now + AGAIN);
    }

    #[test]
    fn tokens_are_renewed_at_different_times() {
        let all: std::collections::BTreeSet<_> = ["x.y.AAAAAA", "x.y.BBBBBB", "x.y.ABABAB"].map(jitter).into();
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|jitter| jitter.as_millis() < i128::from(JITTER_MILLIS)));
    }
}
