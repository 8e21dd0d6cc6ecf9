//! Signed tokens: the compact form of JSON Web Signatures (RFC 7515) with ECDSA on P-256 (`ES256`) alone. A token that
//! names another algorithm, `none` above all, is refused before its signature is looked at.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The only algorithm.
pub const ALGORITHM: &str = "ES256";

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What precedes the point in a P-256 public key's `SubjectPublicKeyInfo`.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// How many bytes a coordinate of a point has.
const COORDINATE_BYTES: usize = 32;

/// A token is not what it should be, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum JwsError {
    /// It does not consist of the three parts that it should.
    #[error("the token is malformed")]
    Malformed,
    /// It names an algorithm that is not taken.
    #[error("the token's algorithm {0:?} is not allowed")]
    Algorithm(String),
    /// It was signed with a key that is not ours.
    #[error("the token's signature does not fit")]
    Signature,
    /// The signing key cannot be read.
    #[error("the service-account key is no PKCS #8 key on P-256: remove it for a new one, which ends all tokens")]
    Key,
    /// The signature could not be made.
    #[error("the token could not be signed")]
    Sign,
}

/// The key by which tokens are signed and verified.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    id: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// From a PKCS #8 key as PEM.
    pub fn from_pem(pem: &str) -> Result<Self, JwsError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| JwsError::Key)?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &SystemRandom::new());
        let pair = pair.map_err(|_| JwsError::Key)?;
        let mut digest = Sha256::new();
        digest.update(SPKI_PREFIX);
        digest.update(pair.public_key().as_ref());
        Ok(Self { id: BASE64.encode(digest.finalize()), pair })
    }

    /// The key's id: the digest of the public key, as Kubernetes names its keys.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key as a JSON Web Key (RFC 7517).
    pub fn jwk(&self) -> Value {
        // An uncompressed point: 4, then the coordinates.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(COORDINATE_BYTES.min(point.len().saturating_sub(1)));
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": ALGORITHM,
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        })
    }

    /// A token that says `claims`.
    pub fn sign(&self, claims: &Value) -> Result<String, JwsError> {
        let header = BASE64.encode(json!({"alg": ALGORITHM, "kid": self.id}).to_string());
        let message = format!("{header}.{}", BASE64.encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).map_err(|_| JwsError::Sign)?;
        Ok(format!("{message}.{}", BASE64.encode(signature.as_ref())))
    }
}

/// The three parts of a token.
fn parts(token: &str) -> Option<[&str; 3]> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let mut parts = token.split('.');
    let all = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(all)
}

fn json_of(part: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}

/// Who a token says that it is from; nothing is verified.
pub fn unverified_issuer(token: &str) -> Option<String> {
    let [_, payload, _] = parts(token)?;
    json_of(payload)?.get("iss")?.as_str().map(str::to_owned)
}

/// What a token says, once its algorithm and signature are found right.
pub fn verify(token: &str, key: &SigningKey) -> Result<Value, JwsError> {
    let [header, payload, signature] = parts(token).ok_or(JwsError::Malformed)?;
    let head = json_of(header).ok_or(JwsError::Malformed)?;
    let algorithm = head.get("alg").and_then(Value::as_str).unwrap_or_default();
    if algorithm != ALGORITHM {
        return Err(JwsError::Algorithm(algorithm.chars().take(16).collect()));
    }
    // Extensions that must be understood are not; keys are ours, wherever the token says that they lie.
    if head.get("crit").is_some() {
        return Err(JwsError::Malformed);
    }
    if head.get("kid").and_then(Value::as_str).is_some_and(|id| id != key.id) {
        return Err(JwsError::Signature);
    }
    let signature = BASE64.decode(signature).map_err(|_| JwsError::Malformed)?;
    let message = token.get(..header.len() + 1 + payload.len()).ok_or(JwsError::Malformed)?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref());
    public.verify(message.as_bytes(), &signature).map_err(|_| JwsError::Signature)?;
    json_of(payload).ok_or(JwsError::Malformed)
}
