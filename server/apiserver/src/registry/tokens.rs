//! `continue` tokens: opaque to clients, a revision and the last key given to the server.

use base64::{DecodeError, Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use skiff_api::status::ApiError;

use super::config::MAX_TOKEN_BYTES;

/// The version of the token's form, which is that of Kubernetes.
const VERSION: &str = "meta.k8s.io/v1";

/// The revision of a token that goes on with whatever is newest.
const INCONSISTENT: i64 = -1;

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// At this revision; `None` at the newest, which may not fit what was given before.
    pub(super) revision: Option<u64>,
    /// After the object of this namespace (empty for cluster-scoped objects) and name.
    pub(super) after: (String, String),
}

fn invalid(why: &str) -> ApiError {
    ApiError::bad_request(format!("continue key is not valid: {why}"))
}

fn not_base64(error: &DecodeError) -> String {
    let at = match error {
        DecodeError::InvalidByte(at, _) => *at,
        DecodeError::InvalidLength(len) => len.saturating_sub(1),
        _ => 0,
    };
    format!("illegal base64 data at input byte {at}")
}

impl Token {
    /// The token as text.
    pub(super) fn encode(&self) -> String {
        let revision = self.revision.map_or_else(|| json!(INCONSISTENT), Into::into);
        let (namespace, name) = &self.after;
        let start = if namespace.is_empty() { format!("{name}\0") } else { format!("{namespace}/{name}\0") };
        URL_SAFE_NO_PAD.encode(json!({"v": VERSION, "rv": revision, "start": start}).to_string())
    }

    /// Reads a token; what is no token of this server is a 400.
    pub(super) fn decode(text: &str) -> Result<Self, ApiError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(invalid("it is too long"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| invalid(&not_base64(&error)))?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if token["v"] != VERSION {
            return Err(invalid(&format!("server does not recognize this encoded version {}", token["v"])));
        }
        let revision = match token["rv"].as_i64() {
            Some(INCONSISTENT) => None,
            Some(rv) if rv > 0 => u64::try_from(rv).ok(),
            _ => return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
        };
        let start = token["start"].as_str().unwrap_or_default();
        let start = start.strip_suffix('\0').filter(|start| !start.is_empty());
        let start = start.ok_or_else(|| invalid("encoded start key empty (version meta.k8s.io/v1)"))?;
        let (namespace, name) = start.split_once('/').unwrap_or(("", start));
        Ok(Self { revision, after: (namespace.to_owned(), name.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        for (revision, namespace) in [(Some(7), "ns"), (None, ""), (Some(u64::MAX / 2), "")] {
            let token = Token { revision, after: (namespace.to_owned(), "name".to_owned()) };
            assert_eq!(Token::decode(&token.encode()), Ok(token));
        }
        for text in ["", "x", "e30", &"A".repeat(5000)] {
            assert_eq!(Token::decode(text).map_err(|error| error.code), Err(400), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_token_comes_back(
            revision in proptest::option::of(1..=i64::MAX.unsigned_abs()),
            namespace in "[a-z0-9-]{0,20}",
            name in "[a-z0-9.:-]{1,40}",
        ) {
            let token = Token { revision, after: (namespace, name) };
            prop_assert_eq!(Token::decode(&token.encode()), Ok(token));
        }

        #[test]
        fn any_text_is_a_token_or_refused(
            text in ".{0,80}",
            start in ".{0,20}",
            ended in any::<bool>(),
            rv in any::<i64>(),
        ) {
            let start = if ended { format!("{start}\0") } else { start };
            let inner = json!({"v": VERSION, "rv": rv, "start": start}).to_string();
            for text in [URL_SAFE_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(inner), text] {
                if let Err(error) = Token::decode(&text) {
                    prop_assert_eq!(error.code, 400);
                }
            }
        }
    }
}
