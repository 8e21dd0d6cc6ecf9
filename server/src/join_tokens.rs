//! Bootstrap tokens, `ID.SECRET`, made, listed and deleted: each a Secret in `kube-system` that lets nodes join for a
//! while. `skiff token` is all that uses this; the API server reads the Secrets itself.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
};
use skiff_api::{request::Options, status::ApiError};
use skiff_apiserver::bootstrap::JOINING_GROUP;
use skiff_client::Client;

use crate::token::{TokenError, random};

/// Where the Secrets are.
const NAMESPACE: &str = "kube-system";
/// What their names begin with; the token's id follows.
const NAME_PREFIX: &str = "bootstrap-token-";
/// Their type.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The lengths of a token's parts.
const PARTS: (usize, usize) = (6, 16);
/// What tokens are made of.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Why a token is not made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum JoinTokenError {
    /// It has not the form of one.
    #[error(
        "{0:?} is no token: it must be six and, after a dot, sixteen of a-z and 0-9, such as abcdef.0123456789abcdef"
    )]
    Form(String),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] TokenError),
    /// The API refuses.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// A token as it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    id: String,
    secret: String,
}

fn is_word(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| LETTERS.contains(&byte))
}

/// Random letters, each as likely as any other.
fn letters<const N: usize>() -> Result<String, TokenError> {
    let mut text = String::with_capacity(N);
    while text.len() < N {
        // What is beyond the last whole round of letters would favour the first ones.
        let fair = random::<N>()?.into_iter().filter(|byte| usize::from(*byte) < 256 / LETTERS.len() * LETTERS.len());
        let room = N - text.len();
        text.extend(fair.take(room).map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])));
    }
    Ok(text)
}

impl NewToken {
    /// A token of random letters.
    pub fn random() -> Result<Self, TokenError> {
        Ok(Self { id: letters::<{ PARTS.0 }>()?, secret: letters::<{ PARTS.1 }>()? })
    }

    /// The token that is given.
    pub fn parse(text: &str) -> Result<Self, JoinTokenError> {
        let parts = text.split_once('.').filter(|(id, secret)| is_word(id, PARTS.0) && is_word(secret, PARTS.1));
        let (id, secret) = parts.ok_or_else(|| JoinTokenError::Form(text.to_owned()))?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The token in full, with the hash of the cluster's authority.
    pub fn full(&self, authority_hash: &str) -> String {
        format!("K10{authority_hash}::{}.{}", self.id, self.secret)
    }

    /// The Secret that makes it known. Without a time to live it is good until it is deleted.
    fn secret(&self, description: &str, ttl: Option<Duration>, now: Timestamp) -> Secret {
        let mut data = vec![
            ("token-id", self.id.clone()),
            ("token-secret", self.secret.clone()),
            ("usage-bootstrap-authentication", "true".to_owned()),
            ("auth-extra-groups", JOINING_GROUP.to_owned()),
        ];
        if !description.is_empty() {
            data.push(("description", description.to_owned()));
        }
        if let Some(ttl) = ttl {
            let end = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
            data.push(("expiration", end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        }
        let data = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
        Secret {
            metadata: ObjectMeta {
                name: Some(format!("{NAME_PREFIX}{}", self.id)),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    /// Makes it known to the cluster.
    pub async fn create(
        &self,
        client: &Client,
        description: &str,
        ttl: Option<Duration>,
        now: Timestamp,
    ) -> Result<(), JoinTokenError> {
        client.create(&self.secret(description, ttl, now)).await?;
        Ok(())
    }
}

/// A token that is known; never with its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// When its time is over; `None` for never.
    pub expires: Option<Timestamp>,
    /// What it may be used for.
    pub usages: Vec<String>,
    /// What it is for, in its maker's words.
    pub description: String,
}

fn known(secret: &Secret) -> Option<Known> {
    let data: &BTreeMap<String, ByteString> = secret.data.as_ref()?;
    let text = |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned());
    let usage = |key: &String| key.strip_prefix("usage-bootstrap-").map(str::to_owned);
    let granted = |key: &&String| text(key).as_deref() == Some("true");
    Some(Known {
        id: secret.metadata.name.as_ref()?.strip_prefix(NAME_PREFIX)?.to_owned(),
        expires: text("expiration").and_then(|text| text.parse().ok()),
        usages: data.keys().filter(granted).filter_map(usage).collect(),
        description: text("description").unwrap_or_default(),
    })
}

/// The tokens that the cluster knows.
pub async fn list(client: &Client) -> Result<Vec<Known>, ApiError> {
    let options = Options { field_selector: Some(format!("type={TYPE}")), ..Options::default() };
    let secrets = client.list::<Secret>(Some(NAMESPACE), &options).await?.items;
    Ok(secrets.iter().filter_map(known).collect())
}

/// Deletes a token by its id, or as it is, with or without the cluster's hash.
pub async fn delete(client: &Client, named: &str) -> Result<String, JoinTokenError> {
    let behind = named.rsplit_once("::").map_or(named, |(_, rest)| rest);
    let id = behind.split_once('.').map_or(behind, |(id, _)| id);
    if !is_word(id, PARTS.0) {
        // What is told must not be a secret.
        return Err(JoinTokenError::Form(id.chars().take(PARTS.0).collect()));
    }
    client.delete::<Secret>(NAMESPACE, &format!("{NAME_PREFIX}{id}"), &DeleteOptions::default()).await?;
    Ok(id.to_owned())
}

/// Where nodes reach a server: the first that the Service `kubernetes` has.
pub async fn server_url(client: &Client) -> Result<Option<String>, ApiError> {
    let slice = client.get::<EndpointSlice>("default", "kubernetes").await?;
    let port = slice.ports.iter().flatten().find_map(|port| port.port);
    let address = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses).next();
    Ok(address.zip(port).map(|(address, port)| format!("https://{address}:{port}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use skiff_client::fake::FakeApi;

    use super::*;

    #[test]
    fn tokens_are_random_and_of_the_form() {
        let (one, two) = (NewToken::random().unwrap(), NewToken::random().unwrap());
        assert!(one != two);
        let full = one.full("abc");
        let bare = full.strip_prefix("K10abc::").unwrap();
        assert!(NewToken::parse(bare).unwrap() == one);
        for text in ["", "abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde-"] {
            assert!(NewToken::parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn made_listed_and_deleted() {
        let client = FakeApi::new().client();
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let token = NewToken::parse("abcdef.0123456789abcdef").unwrap();
        token.create(&client, "for the boat", Some(Duration::from_secs(3600)), now).await.unwrap();
        NewToken::parse("fedcba.0123456789abcdef").unwrap().create(&client, "", None, now).await.unwrap();
        let mut known = list(&client).await.unwrap();
        known.sort_by(|one, two| one.id.cmp(&two.id));
        let expected = Known {
            id: "abcdef".to_owned(),
            expires: Some("2026-06-01T13:00:00Z".parse().unwrap()),
            usages: vec!["authentication".to_owned()],
            description: "for the boat".to_owned(),
        };
        assert_eq!(known[0], expected);
        assert_eq!(known[1].expires, None);
        assert_eq!(delete(&client, "K10aa::abcdef.0123456789abcdef").await.unwrap(), "abcdef");
        assert_eq!(delete(&client, "fedcba").await.unwrap(), "fedcba");
        assert!(delete(&client, "fedcba").await.is_err());
        assert!(list(&client).await.unwrap().is_empty());
    }
}
