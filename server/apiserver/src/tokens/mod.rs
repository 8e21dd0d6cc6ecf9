//! Tokens that the cluster itself issues and knows: those of ServiceAccounts, and bootstrap tokens.
//!
//! - [`jws`]: signed tokens (ES256, and no other algorithm).
//! - [`claims`]: what a ServiceAccount's token says.
//! - [`issue`]: answering a `TokenRequest`.
//! - [`check`]: whether what a token says still holds.
//! - [`known`]: tokens whose signature has been checked already.
//! - [`usage`]: noting that those in Secrets are used.
//! - [`bootstrap`]: tokens that are Secrets, for nodes that join.
//! - [`discovery`]: the documents by which others check tokens.

pub mod bootstrap;
pub mod check;
pub mod claims;
pub mod discovery;
pub mod issue;
pub mod jws;
mod known;
pub mod usage;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use skiff_api::{object::Object, status::ApiError, user::UserInfo};
use skiff_store::cache::Cacher;
use uuid::Uuid;

use crate::registry::{Identity, Reviewed};
use check::{CacheRecords, Refusal};
use claims::Claims;
use jws::{JwsError, SigningKey};
use known::Known;
use usage::Uses;

/// Who issues the tokens of ServiceAccounts, and for whom they are where nothing else is asked for.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Who issued the tokens in Secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// How tokens are issued and checked.
pub struct TokensConfig {
    /// Signs and verifies.
    pub key: Arc<SigningKey>,
    /// Who issues, a URL.
    pub issuer: String,
    /// The names by which the API server is meant. The first is that of tokens for which nothing else is asked for.
    pub audiences: Vec<String>,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// The source of the tokens' ids.
    pub random: fn() -> Uuid,
    /// Where the use of tokens in Secrets is told, if anywhere.
    pub uses: Option<Uses>,
}

impl TokensConfig {
    /// The usual issuer, audience, clock and randomness.
    pub fn new(key: Arc<SigningKey>) -> Self {
        Self {
            key,
            issuer: ISSUER.to_owned(),
            audiences: vec![ISSUER.to_owned()],
            now: skiff_client::clock::now,
            random: Uuid::new_v4,
            uses: None,
        }
    }
}

/// Issues and checks tokens, against the objects in the watch cache.
pub struct Tokens {
    config: TokensConfig,
    records: CacheRecords,
    known: Known,
}

impl Tokens {
    /// Over a cache.
    pub fn new(config: TokensConfig, cacher: Arc<Cacher>) -> Self {
        Self { config, records: CacheRecords::new(cacher), known: Known::default() }
    }

    /// What a token says, if it was signed here; `None` for what is no such token.
    fn read(&self, token: &str) -> Result<Option<Arc<Claims>>, JwsError> {
        if let Some(claims) = self.known.get(token) {
            return Ok(Some(claims));
        }
        // Whose token it says to be decides whether it is looked at; nothing else is believed before it is verified.
        let issuer = jws::unverified_issuer(token);
        if !issuer.is_some_and(|issuer| issuer == self.config.issuer || issuer == LEGACY_ISSUER) {
            return Ok(None);
        }
        let payload = jws::verify(token, &self.config.key)?;
        let claims = Arc::new(Claims::read(&payload).ok_or(JwsError::Malformed)?);
        self.known.put(token, Arc::clone(&claims));
        Ok(Some(claims))
    }

    /// The user of a ServiceAccount's token, with the audiences that both sides know.
    fn service_account(&self, token: &str, audiences: &[String]) -> Result<Option<Reviewed>, Refusal> {
        let Some(claims) = self.read(token)? else { return Ok(None) };
        let wanted = if audiences.is_empty() { &self.config.audiences } else { audiences };
        let shared = check::shared_audiences(&claims, &self.config.issuer, &self.config.audiences, wanted)?;
        let now = (self.config.now)();
        if let Some(secret) = check::check(&claims, token, now, &self.records)? {
            usage::note(self.config.uses.as_ref(), &secret, now);
        }
        Ok(Some((claims.user(), shared)))
    }
}

#[async_trait]
impl Identity for Tokens {
    async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<Reviewed>, String> {
        if let Some(user) = bootstrap::user(token, (self.config.now)(), &self.records) {
            // Such a token names no audience: it is for the API server.
            let is_wanted = |own: &&String| audiences.is_empty() || audiences.contains(own);
            let shared: Vec<String> = self.config.audiences.iter().filter(is_wanted).cloned().collect();
            return Ok((!shared.is_empty()).then_some((user, shared)));
        }
        self.service_account(token, audiences).map_err(|refusal| refusal.to_string())
    }

    async fn issue(&self, account: &Object, request: &Object) -> Result<Object, ApiError> {
        let parties = issue::Parties::find(account, request, &self.records)?;
        issue::issue(&self.config, account, request, &parties)
    }

    fn audiences(&self) -> &[String] {
        &self.config.audiences
    }
}

/// The name of a ServiceAccount as a user.
pub fn account_user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// A ServiceAccount as a user, without what only a token says.
pub(crate) fn account_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: account_user_name(namespace, name),
        uid: uid.to_owned(),
        groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
        ..UserInfo::default()
    }
}
