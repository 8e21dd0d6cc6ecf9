//! Bearer tokens.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use skiff_api::user::UserInfo;

use crate::registry::Identity;

/// Knows whose a token is.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// The token's user; `None` for a token that is not of this kind; an error for one that is and is not valid.
    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, TokenError>;
}

/// A token is not valid. Clients are told 401 alone; this is for the log.
#[derive(Debug, thiserror::Error)]
#[error("invalid token: {0}")]
pub struct TokenError(pub String);

/// Tokens that are known beforehand. Kept as digests, so that looking one up takes the same time whatever it
/// has in common with a valid one.
#[derive(Default)]
pub struct StaticTokens {
    users: HashMap<[u8; 32], UserInfo>,
}

impl StaticTokens {
    /// No tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more token.
    #[must_use]
    pub fn with(mut self, token: &str, user: UserInfo) -> Self {
        self.users.insert(Sha256::digest(token).into(), user);
        self
    }
}

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, TokenError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        Ok(self.users.get(&digest).cloned())
    }
}

/// The tokens that the registry's identity issues and knows (`TokenRequest`, `TokenReview`): those for the API
/// server itself.
pub struct IdentityTokens(pub Arc<dyn Identity>);

#[async_trait]
impl TokenAuthenticator for IdentityTokens {
    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, TokenError> {
        // No audiences are named: those of the API server are meant.
        let reviewed = self.0.review(token, &[]).await.map_err(TokenError)?;
        Ok(reviewed.map(|(user, _)| user))
    }
}

/// Several kinds of tokens: the first that knows the token says whose it is.
pub struct AnyOf(pub Vec<Arc<dyn TokenAuthenticator>>);

#[async_trait]
impl TokenAuthenticator for AnyOf {
    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, TokenError> {
        let mut refused = None;
        for authenticator in &self.0 {
            match authenticator.authenticate(token).await {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}
