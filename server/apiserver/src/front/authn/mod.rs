//! Who asks: client certificates, bearer tokens, and nobody in particular; then impersonation.

pub mod impersonate;
pub mod token;
pub mod x509;

use std::sync::Arc;

use http::{HeaderMap, header};
use skiff_api::{
    status::{ApiError, Reason},
    user::UserInfo,
};

use token::TokenAuthenticator;
use x509::PeerIdentity;

/// The group of all who said who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of those who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user who did not say.
pub const ANONYMOUS: &str = "system:anonymous";

/// What browsers, which cannot set headers on WebSockets, put a token's base64url form behind.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Who asks, from what a connection and a request show.
pub struct Authenticator {
    tokens: Arc<dyn TokenAuthenticator>,
    /// The user without credentials; `None` where anonymous requests are refused.
    anonymous: Option<Arc<UserInfo>>,
}

impl Authenticator {
    /// With these tokens; `anonymous` lets requests without credentials in as `system:anonymous`.
    pub fn new(tokens: Arc<dyn TokenAuthenticator>, anonymous: bool) -> Self {
        let nobody =
            UserInfo { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..UserInfo::default() };
        Self { tokens, anonymous: anonymous.then(|| Arc::new(nobody)) }
    }

    /// The user; 401 where credentials are wrong, or absent and needed. Credentials are taken out of the headers,
    /// so that nothing behind (a proxied pod above all) sees them.
    pub async fn identify(&self, peer: &PeerIdentity, headers: &mut HeaderMap) -> Result<Arc<UserInfo>, ApiError> {
        let presented = bearer(headers).or_else(|| websocket_bearer(headers));
        headers.remove(header::AUTHORIZATION);
        if let PeerIdentity::User(certified) = peer
            && let Some(user) = certified.user_now()
        {
            return Ok(user);
        }
        if let Some(token) = presented {
            return match self.tokens.authenticate(&token).await {
                Ok(Some(user)) => Ok(Arc::new(with_group(user, AUTHENTICATED))),
                Ok(None) | Err(_) => Err(unauthorized()),
            };
        }
        match (peer, &self.anonymous) {
            (PeerIdentity::None, Some(user)) => Ok(Arc::clone(user)),
            _ => Err(unauthorized()),
        }
    }
}

/// 401.
pub fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}

/// The user as a member of a group too.
pub fn with_group(mut user: UserInfo, group: &str) -> UserInfo {
    if !user.groups.iter().any(|g| g == group) {
        user.groups.push(group.to_owned());
    }
    user
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The token among the WebSocket subprotocols, which is taken out of them.
fn websocket_bearer(headers: &mut HeaderMap) -> Option<String> {
    use base64::Engine as _;
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        offered.split(',').map(str::trim).partition(|name| name.starts_with(WEBSOCKET_TOKEN_PREFIX));
    let encoded = tokens.first()?.strip_prefix(WEBSOCKET_TOKEN_PREFIX)?;
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    let rest = others.join(", ");
    if let Ok(value) = rest.parse() {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_browser_sends_its_token_as_a_subprotocol() {
        let mut headers = HeaderMap::new();
        let offer = "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io";
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
        assert_eq!(websocket_bearer(&mut headers).as_deref(), Some("secret"));
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
    }

    #[test]
    fn only_bearer_is_a_token() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearer ", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers).as_deref(), expected, "{value}");
        }
    }
}
