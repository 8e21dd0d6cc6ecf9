//! The certificates of the control plane's own parts and of what talks to it.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use skiff_apiserver::{
    front::{
        connect::dial::NodeClientMaterial,
        tls::{ServingTls, TlsMaterial},
    },
    registry::RegistryConfig,
};
use skiff_client::clock;

use crate::{
    Config, NodeIdentity, ServerError,
    pki::{Identity, Pki, PkiError, Subject},
};

/// The names by which pods reach the API server.
const SERVICE_NAMES: [&str; 5] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"];

/// What the control plane shows of itself.
pub(crate) struct Identities {
    /// The API server to its clients.
    serving: Identity,
    /// The API server to nodes.
    node_client: Identity,
    /// The administrator.
    pub(crate) admin: Identity,
}

impl Identities {
    pub(crate) fn issue(
        pki: &Pki,
        config: &Config,
        registry: &RegistryConfig,
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        let serving = pki.issue("serving-kube-apiserver", &api_server(config, registry), now)?;
        let masters = Some("system:masters");
        let node_client =
            pki.issue("client-kube-apiserver", &Subject::client("kube-apiserver-kubelet-client", masters), now)?;
        let admin = pki.issue("client-admin", &Subject::client("system:admin", masters), now)?;
        Ok(Self { serving, node_client, admin })
    }

    /// What the API server accepts connections with.
    pub(crate) fn serving_tls(&self, pki: &Pki) -> Result<Arc<ServingTls>, ServerError> {
        let material = self.serving_material(&pki.client_cas()?)?;
        ServingTls::new(material).map_err(|error| ServerError::Tls(error.into()))
    }

    /// What the API server shows, and whom it trusts (PEM).
    pub(crate) fn serving_material(&self, client_cas: &str) -> Result<TlsMaterial, ServerError> {
        let (chain, key) = read(&self.serving)?;
        Ok(TlsMaterial { chain, key, client_cas: certificates(client_cas)? })
    }

    /// The API server to its clients.
    pub(crate) fn serving(&self) -> &Identity {
        &self.serving
    }

    /// The API server to nodes.
    pub(crate) fn node_client_identity(&self) -> &Identity {
        &self.node_client
    }

    /// What the API server shows to nodes.
    pub(crate) fn node_client(&self, pki: &Pki) -> Result<NodeClientMaterial, ServerError> {
        let (chain, key) = read(&self.node_client)?;
        Ok(NodeClientMaterial { chain, key, node_cas: certificates(pki.node_ca())? })
    }
}

/// The certificates of a node.
pub(crate) fn issue_node(pki: &Pki, name: &str, address: IpAddr) -> Result<NodeIdentity, PkiError> {
    let now = clock::now();
    let user = format!("system:node:{name}");
    let client = Subject::client(&user, Some("system:nodes"));
    let serving = Subject { dns_names: vec![name.to_owned()], addresses: vec![address], ..client.clone() };
    Ok(NodeIdentity {
        client: pki.issue(&format!("client-node-{name}"), &client, now)?,
        serving: pki.issue_node_serving(&format!("serving-node-{name}"), &serving, now)?,
        server_ca: pki.server_ca().to_owned(),
        client_ca: pki.client_ca().to_owned(),
    })
}

/// Every name and address by which the API server may be reached.
fn api_server(config: &Config, registry: &RegistryConfig) -> Subject<'static> {
    let mut subject = Subject::client("kube-apiserver", None);
    subject.dns_names = SERVICE_NAMES.map(str::to_owned).to_vec();
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let service = IpAddr::V4(registry.service_cidr.nth(1));
    subject.addresses = vec![loopback, service, config.advertise_address];
    if !config.bind_address.is_unspecified() {
        subject.addresses.push(config.bind_address);
    }
    for san in &config.tls_sans {
        match san.parse() {
            Ok(address) => subject.addresses.push(address),
            Err(_) => subject.dns_names.push(san.clone()),
        }
    }
    subject.addresses.sort();
    subject.addresses.dedup();
    subject
}

type Chain = Vec<CertificateDer<'static>>;

fn read(identity: &Identity) -> Result<(Chain, PrivateKeyDer<'static>), ServerError> {
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| ServerError::Tls(error.into()))?;
    Ok((certificates(&identity.cert)?, key))
}

fn certificates(pem: &str) -> Result<Chain, ServerError> {
    let read: Result<Chain, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.map_err(|error| ServerError::Tls(error.into()))
}
