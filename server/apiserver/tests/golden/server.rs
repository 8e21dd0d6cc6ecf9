//! The API server over a store in memory, on loopback.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use skiff_api::{kinds::Kinds, user::UserInfo};
use skiff_apiserver::{
    ApiServer, ApiServerParts, Config, bootstrap,
    front::{
        authn::token::StaticTokens,
        catalog::KindsCatalog,
        connect::dial::{NetDial, NodeClientMaterial},
        tls::{ServingTls, TlsMaterial},
    },
    registry::{Registry, RegistryConfig},
};
use skiff_store::{MemoryStore, cache::Cacher};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The token of the administrator.
pub(crate) const ADMIN: &str = "admin-token";

/// A running server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Who signed its certificate, as PEM.
    pub(crate) ca_pem: String,
    ca: CertificateDer<'static>,
    _ends: DropGuard,
}

type Issued = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(ca: &CertifiedIssuer<'static, KeyPair>, usage: ExtendedKeyUsagePurpose) -> Issued {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (vec![certificate.der().clone()], key)
}

async fn registry() -> Arc<Registry> {
    let selectable = |key: &skiff_api::kinds::StorageKey| {
        Kinds::builtin().stored_as(key).map(|def| def.selectable.clone()).unwrap_or_default()
    };
    let cacher = Cacher::start(Arc::new(MemoryStore::new()), selectable).await.unwrap();
    let registry = Registry::new(RegistryConfig::default(), cacher, Kinds::builtin());
    bootstrap::run(&registry).await.unwrap();
    registry
}

impl Server {
    pub(crate) async fn start() -> Self {
        let ca = authority();
        let (chain, key) = issue(&ca, ExtendedKeyUsagePurpose::ClientAuth);
        let dial = NetDial::new(NodeClientMaterial { chain, key, node_cas: vec![ca.der().clone()] }).unwrap();
        let admin = UserInfo {
            name: "admin".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
            ..UserInfo::default()
        };
        let registry = registry().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = ApiServer::new(
            Config::default(),
            ApiServerParts {
                dispatch: Arc::clone(&registry) as _,
                authorizer: registry.authorizer(),
                tokens: Arc::new(StaticTokens::new().with(ADMIN, admin)),
                catalog: Arc::new(KindsCatalog::new(Kinds::builtin(), address.to_string())),
                dial: Arc::new(dial),
                issuer: None,
                spans: Arc::clone(registry.spans()),
                cluster: None,
            },
        );
        let (chain, key) = issue(&ca, ExtendedKeyUsagePurpose::ServerAuth);
        let tls = ServingTls::new(TlsMaterial { chain, key, client_cas: Vec::new() }).unwrap();
        let cancel = CancellationToken::new();
        let until = cancel.clone();
        tokio::spawn(async move { server.serve(listener, tls, until).await });
        Self { address, ca_pem: ca.pem(), ca: ca.der().clone(), _ends: cancel.drop_guard() }
    }

    /// A connection.
    pub(crate) async fn connect(&self) -> conn::http1::SendRequest<Full<Bytes>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends a request over a connection of its own, and reads the whole answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let mut sender = self.connect().await;
        let answering = async {
            let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
            Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
        };
        tokio::time::timeout(DEADLINE, answering).await.expect("an answer in time")
    }
}
