//! The cluster's certificates: its authorities, made at the first start, and what they sign.
//!
//! Everything lies in one folder (mode 0700), a `NAME.crt` and a `NAME.key` (mode 0600) each. A pair is used again
//! as long as it fits: the key belongs to the certificate, the authority signed it, it says what is asked for and
//! it does not end soon. Otherwise it is made anew. Authorities are never made anew: that would lock everyone out.

pub(crate) mod certify;
mod files;
mod sign;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair};

use files::Folder;

/// Why a certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// An authority's certificate is there without its key, or the other way round, or they do not belong together.
    #[error(
        "the authority {name} in {path} is damaged: restore {name}.crt and {name}.key from a backup, \
         or remove both for a new authority, which every node and user must then learn anew"
    )]
    DamagedAuthority {
        /// The authority's name.
        name: &'static str,
        /// The folder.
        path: PathBuf,
    },
    /// A certificate could not be made.
    #[error("making the certificate {name}")]
    Make {
        /// The certificate's name.
        name: String,
        /// What went wrong.
        #[source]
        source: rcgen::Error,
    },
}

/// A certificate (with its chain) and its key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// The private key, PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The common name: the user's name to the API server.
    pub common_name: &'a str,
    /// The organization: the user's group.
    pub organization: Option<&'a str>,
    /// Names by which a server is reached; empty for clients.
    pub dns_names: Vec<String>,
    /// Addresses by which a server is reached; empty for clients.
    pub addresses: Vec<IpAddr>,
}

impl<'a> Subject<'a> {
    /// A client: a user and a group.
    pub fn client(common_name: &'a str, organization: Option<&'a str>) -> Self {
        Self { common_name, organization, dns_names: Vec::new(), addresses: Vec::new() }
    }

    fn is_server(&self) -> bool {
        !self.dns_names.is_empty() || !self.addresses.is_empty()
    }
}

/// The cluster's authorities.
pub struct Pki {
    folder: Folder,
    server: Authority,
    node: Authority,
    client: Authority,
    request_header: Authority,
}

/// The files by which all servers of a cluster are one, by name.
pub type SharedFiles = BTreeMap<String, String>;

/// The authorities.
const AUTHORITIES: [&str; 4] = ["server-ca", "node-ca", "client-ca", "request-header-ca"];

/// The key that signs service-account tokens.
const SERVICE_ACCOUNT_KEY: &str = "service.key";

/// One authority: what others verify by, and what signs.
struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Opens the folder of certificates, and makes the folder and the authorities where they are missing.
    pub fn open(folder: PathBuf, now: Timestamp) -> Result<Self, PkiError> {
        let folder = Folder::open(folder)?;
        let server = Authority::load_or_make(&folder, "server-ca", now)?;
        let node = Authority::load_or_make(&folder, "node-ca", now)?;
        let client = Authority::load_or_make(&folder, "client-ca", now)?;
        let request_header = Authority::load_or_make(&folder, "request-header-ca", now)?;
        Ok(Self { folder, server, node, client, request_header })
    }

    /// The certificate of the authority that signs the API server.
    pub fn server_ca(&self) -> &str {
        &self.server.cert
    }

    /// The certificate of the authority that signs the nodes' HTTPS API. It is another than the API server's, so that
    /// no node can be taken for an API server, whatever names it has.
    pub fn node_ca(&self) -> &str {
        &self.node.cert
    }

    /// The certificate of the authority that signs clients: users, nodes and components.
    pub fn client_ca(&self) -> &str {
        &self.client.cert
    }

    /// The certificates of all authorities whose clients are known, read anew: the cluster's own, and what has been
    /// added to its file.
    pub fn client_cas(&self) -> Result<String, PkiError> {
        Ok(self.folder.read("client-ca.crt")?.unwrap_or_else(|| self.client.cert.clone()))
    }

    /// The certificate of the authority that signs the aggregation layer's front proxies.
    pub fn request_header_ca(&self) -> &str {
        &self.request_header.cert
    }

    /// The pair `NAME.crt`, `NAME.key` for a subject: signed by the server authority if it names hosts, else by the
    /// client authority.
    pub fn issue(&self, name: &str, subject: &Subject<'_>, now: Timestamp) -> Result<Identity, PkiError> {
        let authority = if subject.is_server() { &self.server } else { &self.client };
        self.issue_by(authority, name, subject, now)
    }

    /// As [`Self::issue`], the certificate of a node's HTTPS API.
    pub fn issue_node_serving(&self, name: &str, subject: &Subject<'_>, now: Timestamp) -> Result<Identity, PkiError> {
        self.issue_by(&self.node, name, subject, now)
    }

    fn issue_by(
        &self,
        authority: &Authority,
        name: &str,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Result<Identity, PkiError> {
        if let Some(identity) = self.folder.read_pair(name)?
            && sign::still_fits(&identity, subject, &authority.cert, now)
        {
            return Ok(identity);
        }
        let identity = sign::sign(subject, &authority.issuer, now)
            .map_err(|source| PkiError::Make { name: name.to_owned(), source })?;
        self.folder.write_pair(name, &identity)?;
        Ok(identity)
    }

    /// The key that signs service-account tokens, as PEM.
    pub fn service_account_key(&self) -> Result<String, PkiError> {
        const NAME: &str = SERVICE_ACCOUNT_KEY;
        if let Some(key) = self.folder.read(NAME)?
            && KeyPair::from_pem(&key).is_ok()
        {
            return Ok(key);
        }
        let key = KeyPair::generate().map_err(|source| PkiError::Make { name: NAME.to_owned(), source })?;
        let pem = key.serialize_pem();
        self.folder.write(NAME, &pem)?;
        Ok(pem)
    }

    /// What further servers of the cluster need.
    pub fn shared_files(&self) -> Result<SharedFiles, PkiError> {
        self.service_account_key()?;
        let mut files = SharedFiles::new();
        for name in shared_names() {
            files.extend(self.folder.read(&name)?.map(|text| (name, text)));
        }
        Ok(files)
    }

    /// Opens the folder with another server's files in the place of its own.
    pub fn adopt(folder: PathBuf, files: &SharedFiles, now: Timestamp) -> Result<Self, PkiError> {
        let there = Folder::open(folder.clone())?;
        for name in shared_names() {
            let Some(text) = files.get(&name) else { continue };
            let own = there.read(&name)?;
            if own.as_ref() == Some(text) {
                continue;
            }
            if own.is_some() && name.ends_with(".crt") {
                tracing::warn!(name, "this server's authority is replaced by the cluster's");
            }
            there.write(&name, text)?;
        }
        Self::open(folder, now)
    }
}

/// The names of the files that servers share; an authority's key before its certificate, with which it is whole.
fn shared_names() -> impl Iterator<Item = String> {
    let authorities = AUTHORITIES.iter().flat_map(|name| [format!("{name}.key"), format!("{name}.crt")]);
    authorities.chain([SERVICE_ACCOUNT_KEY.to_owned()])
}

impl Authority {
    fn load_or_make(folder: &Folder, name: &'static str, now: Timestamp) -> Result<Self, PkiError> {
        let damaged = || PkiError::DamagedAuthority { name, path: folder.path().to_path_buf() };
        let make_failed = |source| PkiError::Make { name: name.to_owned(), source };
        if !folder.holds_certificate(name)? {
            let identity = sign::make_authority(&format!("skiff-{name}"), now).map_err(make_failed)?;
            folder.write_pair(name, &identity)?;
        }
        let identity = folder.read_pair(name)?.ok_or_else(damaged)?;
        if !sign::belong_together(&identity) {
            return Err(damaged());
        }
        let key = KeyPair::from_pem(&identity.key).map_err(|_| damaged())?;
        let issuer = Issuer::from_ca_cert_pem(&identity.cert, key).map_err(|_| damaged())?;
        Ok(Self { cert: identity.cert, issuer })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::ToSpan;

    use super::*;

    fn now() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn pairs_are_kept_until_they_no_longer_fit() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path().join("tls"), now()).unwrap();
        let admin = Subject::client("admin", Some("system:masters"));
        let first = pki.issue("client-admin", &admin, now()).unwrap();

        let again = Pki::open(dir.path().join("tls"), now()).unwrap();
        assert_eq!(again.server_ca(), pki.server_ca());
        assert_eq!(again.issue("client-admin", &admin, now()).unwrap().cert, first.cert);

        let other = Subject::client("other", Some("system:masters"));
        assert_ne!(again.issue("client-admin", &other, now()).unwrap().cert, first.cert);
        let near_the_end = now() + (24 * 300).hours();
        let renewed = again.issue("client-admin", &other, near_the_end).unwrap();
        assert_ne!(renewed.cert, again.issue("x", &other, now()).unwrap().cert);
    }

    #[test]
    fn a_server_is_signed_anew_when_it_gets_another_address() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path().join("tls"), now()).unwrap();
        let subject = |address: &str| Subject {
            dns_names: vec!["localhost".to_owned()],
            addresses: vec![address.parse().unwrap()],
            ..Subject::client("kube-apiserver", None)
        };
        let first = pki.issue("serving", &subject("127.0.0.1"), now()).unwrap();
        assert_eq!(pki.issue("serving", &subject("127.0.0.1"), now()).unwrap().cert, first.cert);
        assert_ne!(pki.issue("serving", &subject("127.0.0.2"), now()).unwrap().cert, first.cert);
    }

    #[test]
    fn keys_are_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path().join("tls"), now()).unwrap();
        pki.service_account_key().unwrap();
        for file in std::fs::read_dir(dir.path().join("tls")).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
    }

    #[test]
    fn half_a_pair_is_made_anew_but_half_an_authority_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tls = dir.path().join("tls");
        let pki = Pki::open(tls.clone(), now()).unwrap();
        let admin = Subject::client("admin", None);
        let first = pki.issue("client-admin", &admin, now()).unwrap();
        std::fs::write(tls.join("client-admin.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert_ne!(pki.issue("client-admin", &admin, now()).unwrap().cert, first.cert);

        std::fs::remove_file(tls.join("client-ca.key")).unwrap();
        assert!(matches!(Pki::open(tls, now()), Err(PkiError::DamagedAuthority { name: "client-ca", .. })));
    }
}
