//! The server token: the one secret that an operator keeps beside a cluster.
//!
//! Further servers join with it, and what leaves this machine for storage (snapshots, the certificates in a shared
//! datastore) is sealed with it, see [`crate::seal`]. It has k3s's two forms:
//!
//! - short: the secret alone, as an operator may choose it;
//! - full: `K10<SHA-256 of the server authority's PEM>::server:<secret>`, which also says which cluster is meant. The
//!   file `server/token` holds this form.
//!
//! Only the secret seals, so either form opens what the other has sealed.

use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use skiff_client::files::write_private_if_changed;

/// How the full form begins.
const FULL_PREFIX: &str = "K10";

/// Whose token it is, in the full form.
const USER: &str = "server";

/// How long a token may be, in bytes.
const MAX_TOKEN_BYTES: usize = 1_024;

/// The random bytes of a token that skiff makes.
pub const FRESH_BYTES: usize = 16;

/// Why there is no server token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// What was given is no token.
    #[error("the server token {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The full form names another cluster's authority.
    #[error(
        "the server token is of another cluster: its certificate authority is {found}, this cluster's is {own}; \
         give this cluster's token, or its secret alone (what follows the last colon)"
    )]
    OtherCluster {
        /// The hash in the token.
        found: String,
        /// The hash of the cluster's authority.
        own: String,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
    /// The file.
    #[error("{action} the server token {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    /// The hash of the authority that the full form names, in lower-case hexadecimal digits.
    authority: Option<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where a server keeps its token, below its folder.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("token")
}

/// Random bytes of the operating system's for [`Token::resolve`] and for salts.
pub fn random<const N: usize>() -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map(|()| bytes).map_err(|_| TokenError::NoRandomness)
}

/// The hash of an authority's certificate as tokens carry it.
pub fn authority_hash(server_ca: &str) -> String {
    let digest = digest::digest(&digest::SHA256, server_ca.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Token {
    /// Reads either form; white space around it does not count.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let malformed = |problem| Err(TokenError::Malformed { problem });
        let text = text.trim();
        if text.is_empty() {
            return malformed("is empty");
        }
        if text.len() > MAX_TOKEN_BYTES {
            return malformed("is longer than 1024 bytes");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return malformed("has white space within");
        }
        let Some(full) = text.strip_prefix(FULL_PREFIX).filter(|rest| rest.contains("::")) else {
            return Ok(Self { secret: text.to_owned(), authority: None });
        };
        let (hash, credentials) = full.split_once("::").unwrap_or_default();
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return malformed("is damaged: between K10 and :: there must be 64 hexadecimal digits");
        }
        match credentials.split_once(':') {
            Some((USER, secret)) if !secret.is_empty() => {
                Ok(Self { secret: secret.to_owned(), authority: Some(hash.to_ascii_lowercase()) })
            }
            _ => malformed("is not a server's: after :: it must go on with server: and the secret"),
        }
    }

    /// A new token of random bytes.
    pub fn fresh(random: [u8; FRESH_BYTES]) -> Self {
        Self { secret: random.iter().map(|byte| format!("{byte:02x}")).collect(), authority: None }
    }

    /// What seals and what proves: the same in both forms.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The full form for the cluster of this authority. A token that names another one is refused.
    pub fn full(&self, server_ca: &str) -> Result<String, TokenError> {
        let own = authority_hash(server_ca);
        match &self.authority {
            Some(found) if *found != own => Err(TokenError::OtherCluster { found: found.clone(), own }),
            _ => Ok(format!("{FULL_PREFIX}{own}::{USER}:{}", self.secret)),
        }
    }

    /// The token of a server: what the operator gives, else what the file holds, else a new one of these random
    /// bytes. Nothing is written: see [`Token::keep`].
    pub fn resolve(given: Option<&str>, path: &Path, random: [u8; FRESH_BYTES]) -> Result<Self, TokenError> {
        match (given, Self::read(path)?) {
            (Some(given), _) => Self::parse(given),
            (None, Some(kept)) => Ok(kept),
            (None, None) => Ok(Self::fresh(random)),
        }
    }

    /// The token that a file holds, or `None` where there is no file.
    pub fn read(path: &Path) -> Result<Option<Self>, TokenError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TokenError::File { action: "reading", path: path.to_owned(), source }),
        }
    }

    /// Keeps the full form in a file for the owner alone; a file that holds it already is left as it is.
    pub fn keep(&self, path: &Path, server_ca: &str) -> Result<(), TokenError> {
        let line = self.full(server_ca)? + "\n";
        let failed = |source| TokenError::File { action: "writing", path: path.to_owned(), source };
        write_private_if_changed(path, line.as_bytes()).map_err(failed)
    }
}

/// The server token of the moment: it is another after `skiff token rotate`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live(Arc<RwLock<Token>>);

impl Live {
    /// The token at the start.
    pub fn new(token: Token) -> Self {
        Self(Arc::new(RwLock::new(token)))
    }

    /// The token now.
    pub fn get(&self) -> Token {
        self.0.read().clone()
    }

    /// Puts another in its place.
    pub fn set(&self, token: Token) {
        *self.0.write() = token;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const CA: &str = "-----BEGIN CERTIFICATE-----\n";

    #[test]
    fn both_forms_have_the_same_secret() {
        let short = Token::parse(" s3cret\n").unwrap();
        let full = short.full(CA).unwrap();
        assert!(full.starts_with("K10") && full.ends_with("::server:s3cret"), "{full}");
        let read = Token::parse(&full).unwrap();
        assert_eq!((read.secret(), short.secret()), ("s3cret", "s3cret"));
        assert_eq!(read.full(CA).unwrap(), full);
        assert_eq!(Token::parse("K10-is-how-mine-begins").unwrap().secret(), "K10-is-how-mine-begins");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let hash = "0".repeat(64);
        for text in ["", " \n", "two words", "K10123::server:x", &format!("K10{hash}::server:"), &"x".repeat(1025)] {
            assert!(Token::parse(text).is_err(), "{text:?}");
        }
        let nodes = Token::parse(&format!("K10{hash}::node:x")).unwrap_err().to_string();
        assert!(nodes.contains("not a server's"), "{nodes}");
    }

    #[test]
    fn a_token_of_another_cluster_is_refused() {
        let other = Token::parse(&Token::fresh([1; 16]).full("another").unwrap()).unwrap();
        let said = other.full(CA).unwrap_err().to_string();
        assert!(said.contains("another cluster") && said.contains(&authority_hash(CA)), "{said}");
    }

    #[test]
    fn it_is_made_once_kept_for_the_owner_and_the_operators_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server/token");
        let made = Token::resolve(None, &path, [7; 16]).unwrap();
        made.keep(&path, CA).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::resolve(None, &path, [8; 16]).unwrap().secret(), made.secret());

        let given = Token::resolve(Some("mine"), &path, [9; 16]).unwrap();
        given.keep(&path, CA).unwrap();
        assert_eq!(Token::read(&path).unwrap().unwrap().secret(), "mine");
        assert!(!format!("{given:?}").contains("mine"));
    }

    #[test]
    fn a_damaged_file_is_no_reason_for_a_new_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "").unwrap();
        assert!(matches!(Token::resolve(None, &path, [7; 16]), Err(TokenError::Malformed { .. })));
    }
}
