//! The folder in which a node keeps what it has been given when it joined: a restart needs no token.

use std::{fs, io::ErrorKind, net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use skiff_client::{
    files::{make_private_folder, write_private},
    link::ClusterConfig,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, parse_x509_pem};

use super::JoinError;
use crate::Credentials;

/// Of a certificate's time, the part that is left when it is renewed, as one of so many.
const RENEW_LEFT: i64 = 3;

/// The node's key, by which its name is known. It stays when certificates are renewed.
const KEY: &str = "node.key";
/// Its certificate as a client of the API server.
const CLIENT: &str = "client.crt";
/// Its certificate as the server of its own API.
const SERVING: &str = "serving.crt";
/// What it knows of the cluster.
const CLUSTER: &str = "cluster.json";

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) common_name: String,
    pub(super) addresses: Vec<IpAddr>,
    public_key: Vec<u8>,
    begin_seconds: i64,
    end_seconds: i64,
}

impl Said {
    pub(super) fn read(pem: &str) -> Option<Self> {
        let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
        let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let address = |name: &GeneralName<'_>| match name {
            GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
            _ => None,
        };
        Some(Self {
            common_name: certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned(),
            addresses: names.iter().filter_map(address).collect(),
            public_key: certificate.public_key().raw.to_vec(),
            begin_seconds: certificate.validity().not_before.timestamp(),
            end_seconds: certificate.validity().not_after.timestamp(),
        })
    }

    /// Whether it is over.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now.as_second() >= self.end_seconds
    }

    /// Whether it serves at an address. Loopback is not asked for: every machine has it.
    pub(super) fn serves_at(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// Whether it is to be renewed.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let whole = self.end_seconds.saturating_sub(self.begin_seconds);
        self.end_seconds.saturating_sub(now.as_second()) < whole / RENEW_LEFT
    }
}

impl Folder {
    /// Makes the folder where it is missing.
    pub(super) fn open(path: PathBuf) -> Result<Self, JoinError> {
        make_private_folder(&path).map_err(|source| JoinError::File { doing: "make", path: path.clone(), source })?;
        Ok(Self(path))
    }

    fn read(&self, name: &str) -> Result<Option<String>, JoinError> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(JoinError::File { doing: "read", path, source }),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), JoinError> {
        let path = self.0.join(name);
        write_private(&path, text.as_bytes()).map_err(|source| JoinError::File { doing: "write", path, source })
    }

    /// The node's key; made where there is none.
    pub(super) fn key(&self) -> Result<KeyPair, JoinError> {
        if let Some(pem) = self.read(KEY)? {
            return KeyPair::from_pem(&pem).map_err(JoinError::Key);
        }
        let key = KeyPair::generate().map_err(JoinError::Key)?;
        self.write(KEY, &key.serialize_pem())?;
        Ok(key)
    }

    /// What is known of the cluster.
    pub(super) fn cluster(&self) -> Result<Option<ClusterConfig>, JoinError> {
        Ok(self.read(CLUSTER)?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    pub(super) fn keep_cluster(&self, cluster: &ClusterConfig) -> Result<(), JoinError> {
        self.write(CLUSTER, &serde_json::to_string_pretty(cluster).unwrap_or_default())
    }

    /// A certificate of this node's for this key; over or not.
    fn certificate(&self, name: &str, node: &str, key: &KeyPair) -> Result<Option<(String, Said)>, JoinError> {
        let Some(pem) = self.read(name)? else { return Ok(None) };
        let said = Said::read(&pem).filter(|said| {
            said.common_name == format!("system:node:{node}") && said.public_key == key.subject_public_key_info()
        });
        Ok(said.map(|said| (pem, said)))
    }

    pub(super) fn client(&self, node: &str, key: &KeyPair) -> Result<Option<(String, Said)>, JoinError> {
        self.certificate(CLIENT, node, key)
    }

    pub(super) fn serving(&self, node: &str, key: &KeyPair) -> Result<Option<(String, Said)>, JoinError> {
        self.certificate(SERVING, node, key)
    }

    pub(super) fn keep_client(&self, pem: &str) -> Result<(), JoinError> {
        self.write(CLIENT, pem)
    }

    pub(super) fn keep_serving(&self, pem: &str) -> Result<(), JoinError> {
        self.write(SERVING, pem)
    }

    /// All that a node needs, if it is there; over or not, for a node goes on without a server too.
    pub(super) fn credentials(&self, node: &str) -> Result<Option<Credentials>, JoinError> {
        let key = self.key()?;
        let (client, serving) = (self.client(node, &key)?, self.serving(node, &key)?);
        let (Some(cluster), Some((client, _)), Some((serving, _))) = (self.cluster()?, client, serving) else {
            return Ok(None);
        };
        Ok(Some(Credentials {
            server_ca: cluster.server_ca,
            client_ca: cluster.client_ca,
            client_cert: client,
            client_key: key.serialize_pem(),
            serving_cert: serving,
            serving_key: key.serialize_pem(),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, DnType, SanType};

    use super::*;

    fn certificate(key: &KeyPair, node: &str, address: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        params.subject_alt_names.push(SanType::IpAddress(address.parse().unwrap()));
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        params.self_signed(key).unwrap().pem()
    }

    #[test]
    fn what_was_given_is_found_again_and_another_names_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("tls")).unwrap();
        assert!(folder.credentials("n1").unwrap().is_none());
        let key = folder.key().unwrap();
        folder.keep_client(&certificate(&key, "n1", "10.0.0.1")).unwrap();
        folder.keep_serving(&certificate(&key, "n1", "10.0.0.1")).unwrap();
        let cluster = ClusterConfig {
            server_ca: "s".into(),
            client_ca: "c".into(),
            cluster_cidr: "10.64.0.0/12".into(),
            service_cidr: "10.43.0.0/16".into(),
        };
        folder.keep_cluster(&cluster).unwrap();
        assert_eq!(folder.cluster().unwrap(), Some(cluster));
        assert!(folder.credentials("n1").unwrap().is_some());
        let (_, said) = folder.serving("n1", &key).unwrap().unwrap();
        let at = ["10.0.0.1", "10.0.0.2", "127.0.0.1"].map(|text| said.serves_at(text.parse().unwrap()));
        assert_eq!(at, [true, false, true]);
        // Another name, another key.
        assert!(folder.credentials("n2").unwrap().is_none());
        folder.keep_client(&certificate(&KeyPair::generate().unwrap(), "n1", "10.0.0.1")).unwrap();
        assert!(folder.credentials("n1").unwrap().is_none());
        for file in fs::read_dir(&folder.0).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
    }

    #[test]
    fn a_certificate_is_renewed_before_its_end() {
        let said = Said::read(&certificate(&KeyPair::generate().unwrap(), "n1", "10.0.0.1")).unwrap();
        let at = |text: &str| -> (bool, bool) {
            let now = text.parse().unwrap();
            (said.is_due(now), said.is_over(now))
        };
        assert_eq!(at("2026-08-01T00:00:00Z"), (false, false));
        assert_eq!(at("2026-10-01T00:00:00Z"), (true, false));
        assert_eq!(at("2027-01-02T00:00:00Z"), (true, true));
    }
}
