//! A server on loopback, and clients of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use skiff_api::user::UserInfo;
use skiff_apiserver::{
    ApiServer, ApiServerParts, Config,
    front::{
        authn::token::StaticTokens,
        connect::dial::{NetDial, NodeClientMaterial},
        tls::{ServingTls, TlsMaterial},
    },
};
use skiff_client::link::ClusterConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::fakes::{FakeAuthorizer, FakeCatalog, FakeRegistry};

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The token of an administrator.
pub(crate) const ADMIN: &str = "admin-token";
/// The token of one who may only get.
pub(crate) const VIEWER: &str = "viewer-token";

/// A certificate and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.as_ref().der().clone()
    }

    pub(crate) fn issue(&self, name: &str, groups: &[&str], usage: ExtendedKeyUsagePurpose) -> Identity {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "n1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![certificate.der().clone()], key)
    }

    pub(crate) fn server(&self) -> Identity {
        self.issue("server", &[], ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self, name: &str, groups: &[&str]) -> Identity {
        self.issue(name, groups, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// A running server.
pub(crate) struct Harness {
    pub(crate) registry: Arc<FakeRegistry>,
    pub(crate) ca: Ca,
    pub(crate) address: SocketAddr,
    pub(crate) cancel: CancellationToken,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
    pub(crate) tls: Arc<ServingTls>,
    pub(crate) server: Arc<ApiServer>,
}

fn user(name: &str, group: &str) -> UserInfo {
    UserInfo { name: name.to_owned(), groups: vec![group.to_owned()], ..UserInfo::default() }
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let ca = Ca::new();
        let registry = Arc::new(FakeRegistry::default());
        let (chain, key) = ca.client("kube-apiserver", &[]);
        let dial = NetDial::new(NodeClientMaterial { chain, key, node_cas: vec![ca.der()] }).unwrap();
        let tokens =
            StaticTokens::new().with(ADMIN, user("admin", "system:masters")).with(VIEWER, user("viewer", "viewers"));
        let parts = ApiServerParts {
            dispatch: Arc::clone(&registry) as _,
            authorizer: Arc::new(FakeAuthorizer),
            tokens: Arc::new(tokens),
            catalog: Arc::new(FakeCatalog),
            dial: Arc::new(dial),
            issuer: None,
            spans: Arc::default(),
            cluster: Some(ClusterConfig {
                server_ca: "the server's CA".to_owned(),
                client_ca: "the clients' CA".to_owned(),
                cluster_cidr: "10.64.0.0/12".to_owned(),
                service_cidr: "10.43.0.0/16".to_owned(),
            }),
        };
        let server = Arc::new(ApiServer::new(config, parts));
        let (chain, key) = ca.server();
        let tls = ServingTls::new(TlsMaterial { chain, key, client_cas: vec![ca.der()] }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let (running, with, until) = (Arc::clone(&server), Arc::clone(&tls), cancel.clone());
        let serving = tokio::spawn(async move { running.serve(listener, with, until).await });
        Self { registry, ca, address, cancel, serving, tls, server }
    }

    /// A TLS connection, with a client certificate or without, that speaks a protocol.
    pub(crate) async fn connect(&self, identity: Option<Identity>, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Sends a request over a connection of its own.
    pub(crate) async fn send_as(
        &self,
        identity: Option<Identity>,
        request: Request<Full<Bytes>>,
    ) -> Response<Incoming> {
        let stream = self.connect(identity, b"http/1.1").await;
        let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        tokio::time::timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap()
    }

    /// The same over HTTP/2.
    pub(crate) async fn send_http2(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = self.connect(None, b"h2").await;
        let (mut sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        tokio::time::timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap()
    }

    /// Sends a request as the administrator.
    pub(crate) async fn send(&self, request: http::request::Builder) -> Response<Incoming> {
        self.send_body(request, "").await
    }

    /// The same with a body.
    pub(crate) async fn send_body(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        self.send_as(None, as_admin(request).body(Full::new(body.into())).unwrap()).await
    }

    /// Gets a path as the administrator: status and body.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> (u16, String) {
        let reply = self.send(Request::get(path).header("accept", accept)).await;
        (reply.status().as_u16(), text(reply).await)
    }

    /// Sends bytes as they are and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect(None, b"http/1.1").await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the server closes"));
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A request with the administrator's token.
pub(crate) fn as_admin(request: http::request::Builder) -> http::request::Builder {
    let host = request.headers_ref().is_some_and(|headers| headers.contains_key("host"));
    let request = if host { request } else { request.header("host", "localhost") };
    request.header("authorization", format!("Bearer {ADMIN}"))
}

/// The whole body as text.
pub(crate) async fn text(reply: Response<Incoming>) -> String {
    let body = tokio::time::timeout(DEADLINE, reply.into_body().collect()).await.expect("the body ends").unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}
