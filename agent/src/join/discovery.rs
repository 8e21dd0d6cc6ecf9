//! The first contact. The server shows the certificate of its authority over a connection that nothing vouches for;
//! the token says which one it must be. A token that does not say so is trusted on first use, as k3s does, and the
//! fingerprint is shown, so that whoever wants to can compare it.

use sha2::{Digest as _, Sha256};
use skiff_api::status::ApiError;
use skiff_client::{
    https::{self, Https},
    link::CA_PATH,
};

use super::{CONFIG_TIMEOUT, JoinError, is_passing, token::Token, transport};

/// The hash of an authority's certificate as tokens carry it.
fn hash(pem: &str) -> String {
    Sha256::digest(pem).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The certificate of the server's authority, as PEM.
pub(super) async fn authority(url: &str, token: &Token) -> Result<String, JoinError> {
    let no_server = |why: String| JoinError::NoServer { url: url.to_owned(), why };
    let failed = |error: ApiError| match is_passing(&error) {
        true => JoinError::Away(error),
        false => no_server(error.message),
    };
    let shown = Https::unverified(url)?.get(CA_PATH, CONFIG_TIMEOUT).await.map_err(failed)?;
    let pem = String::from_utf8(shown.to_vec()).map_err(|_| no_server("what it shows is no certificate".to_owned()))?;
    let found = hash(&pem);
    match &token.ca_sha256 {
        Some(wanted) if *wanted != found => {
            return Err(JoinError::OtherCluster { url: url.to_owned(), found, wanted: wanted.clone() });
        }
        Some(_) => {}
        None => eprintln!(
            "skiff: the token does not say which cluster it is of: trusting {url}, whose authority has the SHA-256 \
             {found}. A full token (K10{found}::...) checks that."
        ),
    }
    // Who shows the certificate must also be one that it signed.
    let verified = transport(url, &pem, https::Identity::Anonymous)?;
    verified.get(CA_PATH, CONFIG_TIMEOUT).await.map_err(failed)?;
    Ok(pem)
}
