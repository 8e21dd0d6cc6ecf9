//! The cluster's authorities where there are several servers: kept in the datastore, sealed by the server token, so
//! that whoever has the token can start a further server and nobody else learns the keys.
//!
//! The first server's are everyone's: of two that start at once the datastore takes one's, and the other takes those.

use std::{
    io::{Read, Write},
    path::PathBuf,
};

use jiff::Timestamp;
use skiff_client::clock;
use skiff_store::EtcdStore;

use crate::{
    ServerError,
    datastore::Opened,
    pki::{Pki, SharedFiles},
    seal::{Key, Purpose, SealError, SealReader, SealWriter, Stretch},
    token::{self, Token},
};

/// What it is called in the datastore.
const NAME: &str = "certificates";

/// How large it may be; it is some kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// Opens the authorities of the cluster whose datastore this is; makes them if it has none.
pub(crate) async fn open(opened: &Opened, folder: PathBuf, token: &Token) -> Result<Pki, ServerError> {
    let now = clock::now();
    let Some(etcd) = &opened.etcd else { return Ok(Pki::open(folder, now)?) };
    if let Some(sealed) = etcd.shared(NAME).await.map_err(|source| opened.failed(source))? {
        return adopt(folder, &sealed, token, now);
    }
    let pki = Pki::open(folder.clone(), now)?;
    let shared = share(etcd, &pki, token).await?;
    match shared.map_err(|source| opened.failed(source))? {
        None => Ok(pki),
        Some(sealed) => adopt(folder, &sealed, token, now),
    }
}

/// Puts this server's authorities into the datastore; gives those of another that has been quicker.
async fn share(
    etcd: &EtcdStore,
    pki: &Pki,
    token: &Token,
) -> Result<Result<Option<Vec<u8>>, skiff_store::StoreError>, ServerError> {
    let sealed = seal(&pki.shared_files()?, token)?;
    let shared = etcd.share(NAME, &sealed).await;
    Ok(shared.map(|there| (there != sealed).then_some(there)))
}

/// Puts the authorities of a folder into the datastore, in the place of those that are there.
pub(crate) async fn replace(
    opened: &Opened,
    folder: PathBuf,
    token: &Token,
    now: Timestamp,
) -> Result<(), ServerError> {
    let Some(etcd) = &opened.etcd else { return Ok(()) };
    let sealed = seal(&Pki::open(folder, now)?.shared_files()?, token)?;
    etcd.replace_shared(NAME, &sealed).await.map_err(|source| opened.failed(source))
}

/// Seals what is in the datastore with another token.
pub(crate) async fn seal_anew(etcd: &EtcdStore, pki: &Pki, token: &Token) -> Result<(), ServerError> {
    let sealed = seal(&pki.shared_files()?, token)?;
    let replaced = etcd.replace_shared(NAME, &sealed).await;
    replaced.map_err(|source| ServerError::Store { place: "etcd".to_owned(), source })
}

fn adopt(folder: PathBuf, sealed: &[u8], token: &Token, now: Timestamp) -> Result<Pki, ServerError> {
    let files = unseal(sealed, token)?;
    Ok(Pki::adopt(folder, &files, now)?)
}

fn failed(source: SealError) -> ServerError {
    ServerError::SharedPki(source)
}

fn seal(files: &SharedFiles, token: &Token) -> Result<Vec<u8>, ServerError> {
    let key = Key::new(token.secret(), Stretch::new(token::random()?));
    let mut writer = SealWriter::new(Vec::new(), &key, Purpose::Certificates).map_err(failed)?;
    let text = serde_json::to_vec(files).map_err(|error| failed(SealError::Io(error.into())))?;
    writer.write_all(&text).map_err(|error| failed(error.into()))?;
    writer.finish().map_err(failed)
}

fn unseal(sealed: &[u8], token: &Token) -> Result<SharedFiles, ServerError> {
    let (reader, _) = SealReader::open(sealed, token.secret(), Purpose::Certificates).map_err(failed)?;
    let mut text = Vec::new();
    reader.take(MAX_BYTES).read_to_end(&mut text).map_err(|error| failed(error.into()))?;
    serde_json::from_slice(&text).map_err(|error| failed(SealError::Io(error.into())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_has_the_first_ones_authorities() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pki = Pki::open(first.path().join("tls"), Timestamp::now()).unwrap();
        let token = Token::parse("secret").unwrap();
        let sealed = seal(&pki.shared_files().unwrap(), &token).unwrap();
        // It has made its own before it learned of the first.
        let own = Pki::open(second.path().join("tls"), Timestamp::now()).unwrap();
        assert_ne!(own.server_ca(), pki.server_ca());
        let adopted = adopt(second.path().join("tls"), &sealed, &token, Timestamp::now()).unwrap();
        assert_eq!(adopted.server_ca(), pki.server_ca());
        assert_eq!(adopted.client_ca(), pki.client_ca());
        assert_eq!(adopted.request_header_ca(), pki.request_header_ca());
        assert_eq!(adopted.service_account_key().unwrap(), pki.service_account_key().unwrap());
        let wrong = Token::parse("another").unwrap();
        let refused = adopt(second.path().join("tls"), &sealed, &wrong, Timestamp::now()).err().unwrap();
        assert!(matches!(refused, ServerError::SharedPki(SealError::WrongToken)), "{refused}");
    }
}
