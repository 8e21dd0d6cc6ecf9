//! Connections to nodes, pods and Service endpoints: through the tunnel of the node that they are on, where it has
//! opened one, else directly.

use std::{net::IpAddr, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLock;
use rustls::{ClientConfig, Error, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use skiff_client::{clock::TlsTime, https::AnyServer, link::NODE_API};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::tunnels::Tunnels;
use crate::front::limits::CONNECT_TIMEOUT;

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// The node's own API: its certificate is verified, ours is shown.
    Node,
    /// TLS to a pod or Service whose certificate nobody vouches for (`https:NAME` in a proxy path, as in Kubernetes).
    Unverified,
    /// None.
    Plain,
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An IP address, or a host name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How.
    pub security: Security,
    /// The node that it is or is on, where that is known.
    pub node: Option<String>,
}

impl Endpoint {
    /// `host:port` as a URL has it.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// The name that its certificate must have: a node's API is the one of the node, wherever it is reached.
    fn tls_name(&self) -> &str {
        match (&self.node, self.security) {
            (Some(node), Security::Node) => node,
            _ => &self.host,
        }
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.security == Security::Plain { "http" } else { "https" }
    }
}

/// A connection's bytes.
pub trait Bytestream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Bytestream for T {}

/// Opens connections.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// The tunnels that connections are opened through.
    fn tunnels(&self) -> &Arc<Tunnels>;

    /// A connection, within the connect timeout.
    async fn dial(&self, endpoint: &Endpoint) -> std::io::Result<Box<dyn Bytestream>>;
}

/// The API server's identity towards nodes.
pub struct NodeClientMaterial {
    /// The client certificate (`system:kube-apiserver`...), then its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Who signs the nodes' serving certificates.
    pub node_cas: Vec<CertificateDer<'static>>,
}

/// Connects by tunnels or TCP, and TLS.
pub struct NetDial {
    tunnels: Arc<Tunnels>,
    node: RwLock<Arc<ClientConfig>>,
    unverified: Arc<ClientConfig>,
}

impl NetDial {
    /// With this identity towards nodes.
    pub fn new(material: NodeClientMaterial) -> Result<Self, Error> {
        let unverified = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer::default()))
            .with_no_client_auth();
        Ok(Self {
            tunnels: Arc::default(),
            node: RwLock::new(node_config(material)?),
            unverified: Arc::new(unverified),
        })
    }

    /// Uses another identity from now on.
    pub fn replace(&self, material: NodeClientMaterial) -> Result<(), Error> {
        let next = node_config(material)?;
        *self.node.write() = next;
        Ok(())
    }

    async fn connect(&self, endpoint: &Endpoint) -> std::io::Result<Box<dyn Bytestream>> {
        if let Some(node) = &endpoint.node {
            let authority = endpoint.authority();
            let target = if endpoint.security == Security::Node { NODE_API } else { authority.as_str() };
            if let Some(stream) = self.tunnels.open(node, target).await? {
                return Ok(stream);
            }
        }
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        drop(stream.set_nodelay(true));
        Ok(Box::new(stream))
    }
}

fn node_config(material: NodeClientMaterial) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for ca in material.node_cas {
        roots.add(ca)?;
    }
    let config = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(TlsTime))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(material.chain, material.key)?;
    Ok(Arc::new(config))
}

#[async_trait]
impl Dial for NetDial {
    fn tunnels(&self) -> &Arc<Tunnels> {
        &self.tunnels
    }

    async fn dial(&self, endpoint: &Endpoint) -> std::io::Result<Box<dyn Bytestream>> {
        let config = match endpoint.security {
            Security::Plain => None,
            Security::Node => Some(Arc::clone(&self.node.read())),
            Security::Unverified => Some(Arc::clone(&self.unverified)),
        };
        let connecting = async {
            let stream = self.connect(endpoint).await?;
            let Some(config) = config else { return Ok(stream) };
            let name = ServerName::try_from(endpoint.tls_name().to_owned()).map_err(std::io::Error::other)?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn Bytestream>)
        };
        timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }
}
