//! What a node joins with, in k3s's forms:
//!
//! - `K10<SHA-256 of the CA's PEM>::server:<secret>`, the server token in full; `node:` for `server:` is taken too;
//! - `K10<SHA-256 of the CA's PEM>::<id>.<secret>`, a bootstrap token of `skiff token create`;
//! - the part behind `::` alone, or the secret alone: then nothing says which authority to trust.

use std::fmt;

/// Why a text is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token {0}")]
pub struct TokenError(&'static str);

/// How the full form begins.
const FULL_PREFIX: &str = "K10";
/// The digits of a SHA-256.
const HASH_DIGITS: usize = 64;
/// How long a token may be, in bytes.
const MAX_BYTES: usize = 1_024;
/// Whose secret stands behind a colon.
const USERS: [&str; 2] = ["server:", "node:"];

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The SHA-256 of the authority's certificate (its PEM), in lower-case hexadecimal digits, where the token says it.
    pub ca_sha256: Option<String>,
    /// What is shown to the server.
    pub bearer: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads any of the forms; white space around it does not count.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError("is empty"));
        }
        if text.len() > MAX_BYTES {
            return Err(TokenError("is longer than 1024 bytes"));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err(TokenError("has white space, or what is not ASCII, within"));
        }
        let full = text.strip_prefix(FULL_PREFIX).and_then(|rest| rest.split_once("::"));
        let (ca_sha256, credentials) = match full {
            Some((hash, credentials)) => (Some(hash), credentials),
            None => (None, text),
        };
        if ca_sha256.is_some_and(|hash| hash.len() != HASH_DIGITS || !hash.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(TokenError("is damaged: between K10 and :: there must be 64 hexadecimal digits"));
        }
        let bearer = USERS.iter().find_map(|user| credentials.strip_prefix(user)).unwrap_or(credentials);
        if bearer.is_empty() {
            return Err(TokenError("has no secret"));
        }
        Ok(Self { ca_sha256: ca_sha256.map(str::to_ascii_lowercase), bearer: bearer.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn all_forms_are_read() {
        let hash = "aB".repeat(32);
        let read = |text: &str| Token::parse(text).map(|token| (token.ca_sha256.is_some(), token.bearer)).unwrap();
        for (text, pinned, bearer) in [
            (format!("K10{hash}::server:s3cret\n"), true, "s3cret"),
            (format!("K10{hash}::node:s3cret"), true, "s3cret"),
            (format!("K10{hash}::abcdef.0123456789abcdef"), true, "abcdef.0123456789abcdef"),
            ("abcdef.0123456789abcdef".to_owned(), false, "abcdef.0123456789abcdef"),
            ("server:s3cret".to_owned(), false, "s3cret"),
            ("K10-is-how-mine-begins".to_owned(), false, "K10-is-how-mine-begins"),
        ] {
            assert_eq!(read(&text), (pinned, bearer.to_owned()), "{text}");
        }
        assert_eq!(Token::parse(&format!("K10{hash}::x")).unwrap().ca_sha256.unwrap(), "ab".repeat(32));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let hash = "0".repeat(64);
        for text in ["", " \n", "two words", "é", "K10123::server:x", &format!("K10{hash}::server:"), &"x".repeat(1025)]
        {
            assert!(Token::parse(text).is_err(), "{text:?}");
        }
    }
}
