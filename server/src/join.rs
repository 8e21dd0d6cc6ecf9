//! The server token as what a node joins with: it proves the same as a bootstrap token, and no more.

use async_trait::async_trait;
use ring::digest;
use skiff_api::user::UserInfo;
use skiff_apiserver::{
    bootstrap::JOINING_GROUP,
    front::authn::token::{TokenAuthenticator, TokenError},
};

use crate::token::Live;

/// Who comes with the server token. Not the name of a bootstrap token: those have six characters.
const USER: &str = "system:bootstrap:server-token";

/// Knows the server token, whatever it is at the moment.
pub(crate) struct ServerToken(pub(crate) Live);

#[async_trait]
impl TokenAuthenticator for ServerToken {
    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, TokenError> {
        // Digests are compared, so that how long it takes tells nothing.
        let digest = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
        let is_it = digest(self.0.get().secret()).as_ref() == digest(token).as_ref();
        Ok(is_it.then(|| UserInfo {
            name: USER.to_owned(),
            groups: vec!["system:bootstrappers".to_owned(), JOINING_GROUP.to_owned()],
            ..UserInfo::default()
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::token::Token;

    #[tokio::test]
    async fn the_token_of_the_moment_lets_join() {
        let live = Live::new(Token::parse("first").unwrap());
        let known = ServerToken(live.clone());
        assert_eq!(known.authenticate("first").await.unwrap().unwrap().name, USER);
        live.set(Token::parse("second").unwrap());
        assert_eq!(known.authenticate("first").await.unwrap(), None);
        assert!(known.authenticate("second").await.unwrap().is_some());
    }
}
