//! What OpenID Connect discovery tells of tokens, so that others can check them without asking here.

use bytes::Bytes;
use serde_json::json;

use super::jws::{ALGORITHM, SigningKey};

/// The path of the issuer's description.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";

/// The path of the keys.
pub const KEYS_PATH: &str = "/openid/v1/jwks";

/// The documents.
#[derive(Clone, Debug)]
pub struct IssuerDocuments {
    configuration: Bytes,
    keys: Bytes,
}

impl IssuerDocuments {
    /// For an issuer whose keys are served at `HOST:PORT`.
    pub fn new(issuer: &str, advertised: &str, key: &SigningKey) -> Self {
        let configuration = json!({
            "issuer": issuer,
            "jwks_uri": format!("https://{advertised}{KEYS_PATH}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        });
        let keys = json!({"keys": [key.jwk()]});
        Self { configuration: configuration.to_string().into(), keys: keys.to_string().into() }
    }

    /// The document at a path, with its media type.
    pub fn get(&self, path: &str) -> Option<(&'static str, Bytes)> {
        match path {
            CONFIGURATION_PATH => Some(("application/json", self.configuration.clone())),
            KEYS_PATH => Some(("application/jwk-set+json", self.keys.clone())),
            _ => None,
        }
    }
}
