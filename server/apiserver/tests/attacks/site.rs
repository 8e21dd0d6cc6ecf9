//! The server under attack, and clients of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::{Value, json};
use skiff_api::{
    kinds::Kinds,
    request::{ContentType, Parsed, Request},
    user::UserInfo,
};
use skiff_apiserver::{
    ApiServer, ApiServerParts, Config, bootstrap,
    front::{
        authn::token::IdentityTokens,
        catalog::KindsCatalog,
        connect::dial::{NetDial, NodeClientMaterial},
        listen::Patience,
        tls::{ServingTls, TlsMaterial},
    },
    registry::{Answer, Dispatch, Identity, Registry, RegistryConfig},
    tokens::{ISSUER, Tokens, TokensConfig, discovery::IssuerDocuments, jws::SigningKey},
};
use skiff_store::{MemoryStore, cache::Cacher};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What no answer may hold.
pub(crate) const TREASURE: &str = "dHJlYXN1cmU=";

type Material = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A server with accounts, secrets and nodes in it.
pub(crate) struct Site {
    pub(crate) registry: Arc<Registry>,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) address: SocketAddr,
    ca: CertifiedIssuer<'static, KeyPair>,
    cancel: CancellationToken,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn issue(
    ca: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    groups: &[&str],
    usage: ExtendedKeyUsagePurpose,
) -> Material {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (vec![certificate.der().clone()], key)
}

fn new_ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
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

impl Site {
    /// A server that listens, with what there is to be stolen.
    pub(crate) async fn start() -> Self {
        let registry = registry().await;
        let key = Arc::new(SigningKey::from_pem(&KeyPair::generate().unwrap().serialize_pem()).unwrap());
        let tokens: Arc<dyn Identity> =
            Arc::new(Tokens::new(TokensConfig::new(Arc::clone(&key)), Arc::clone(registry.cacher())));
        registry.set_identity(Arc::clone(&tokens));
        let ca = new_ca();
        let (chain, client_key) = issue(&ca, "kube-apiserver", &[], ExtendedKeyUsagePurpose::ClientAuth);
        let dial =
            NetDial::new(NodeClientMaterial { chain, key: client_key, node_cas: vec![ca.as_ref().der().clone()] });
        let patience = Patience { headers: Duration::from_secs(2), ..Patience::default() };
        let parts = ApiServerParts {
            dispatch: Arc::clone(&registry) as Arc<dyn Dispatch>,
            authorizer: registry.authorizer(),
            tokens: Arc::new(IdentityTokens(tokens)),
            catalog: Arc::new(KindsCatalog::new(registry.kinds(), "127.0.0.1:6443".to_owned())),
            dial: Arc::new(dial.unwrap()),
            issuer: Some(IssuerDocuments::new(ISSUER, "127.0.0.1:6443", &key)),
            spans: Arc::clone(registry.spans()),
            cluster: None,
        };
        let server = ApiServer::new(Config { patience, ..Config::default() }, parts);
        let (chain, serving_key) = issue(&ca, "server", &[], ExtendedKeyUsagePurpose::ServerAuth);
        let client_cas = vec![ca.as_ref().der().clone()];
        let tls = ServingTls::new(TlsMaterial { chain, key: serving_key, client_cas }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cancel) = (listener.local_addr().unwrap(), CancellationToken::new());
        let until = cancel.clone();
        tokio::spawn(async move { server.serve(listener, tls, until).await });
        let site = Self { registry, key, address, ca, cancel };
        site.furnish().await;
        site
    }

    /// Two namespaces with an account and a secret each, two nodes, and a pod on each node.
    async fn furnish(&self) {
        for name in ["one", "two"] {
            self.make("/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
            let within = format!("/api/v1/namespaces/{name}");
            self.make(&format!("{within}/serviceaccounts"), json!({"metadata": {"name": "robot"}})).await;
            self.make(&format!("{within}/secrets"), json!({"metadata": {"name": "s"}, "data": {"k": TREASURE}})).await;
            let node = format!("node-{name}");
            self.make("/api/v1/nodes", json!({"metadata": {"name": node}})).await;
            let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "nodeName": node,
                "containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "s", "secret": {"secretName": "s"}}]}});
            self.make(&format!("{within}/pods"), pod).await;
        }
        let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/one/rolebindings";
        let binding = json!({"metadata": {"name": "robot"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "one"}]});
        self.make(rbac, binding).await;
    }

    /// Makes an object as the administrator, past the network.
    pub(crate) async fn make(&self, path: &str, object: Value) -> Value {
        self.ask_inside("POST", path, object.to_string()).await
    }

    /// Asks the registry as the administrator.
    pub(crate) async fn ask_inside(&self, method: &str, path: &str, body: String) -> Value {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let Parsed::Resource(mut request) = Request::parse(method, path, query).unwrap() else { panic!("{path}") };
        request.content_type = ContentType::Json;
        request.body = body.into();
        let groups = vec!["system:masters".to_owned()];
        let admin = UserInfo { name: "admin".to_owned(), groups, ..UserInfo::default() };
        match self.registry.dispatch(&admin, request).await.unwrap().answer {
            Answer::Object { entry, .. } => serde_json::from_slice(&entry.json).unwrap(),
            Answer::Json { body, .. } => serde_json::from_slice(&body).unwrap(),
            _ => Value::Null,
        }
    }

    /// A good token of the account `robot` of a namespace.
    pub(crate) async fn token(&self, namespace: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/robot/token");
        let issued = self.make(&path, json!({"spec": {}})).await;
        issued["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A client certificate of the cluster's own CA.
    pub(crate) fn certificate(&self, name: &str, groups: &[&str]) -> Material {
        issue(&self.ca, name, groups, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A TLS connection that speaks HTTP/1.1.
    pub(crate) async fn connect(&self, identity: Option<Material>) -> TlsStream<TcpStream> {
        self.connect_for(identity, b"http/1.1").await
    }

    /// A TLS connection that speaks a protocol.
    pub(crate) async fn connect_for(&self, identity: Option<Material>, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.as_ref().der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Sends bytes as they are, and reads until the server closes.
    pub(crate) async fn raw(&self, identity: Option<Material>, bytes: &[u8]) -> String {
        let mut stream = self.connect(identity).await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A server that has heard enough may close without a farewell.
        let _end = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the server closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Status and body of a request with further header lines (each ended by CR LF).
    pub(crate) async fn ask(&self, identity: Option<Material>, line: &str, headers: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        );
        split(&self.raw(identity, request.as_bytes()).await)
    }

    /// Status and body of a request with a bearer token.
    pub(crate) async fn with_token(&self, line: &str, token: &str) -> (u16, String) {
        self.ask(None, line, &format!("authorization: Bearer {token}\r\n"), "").await
    }

    /// Whether others are served as ever.
    pub(crate) async fn still_serves(&self) {
        let token = self.token("one").await;
        let (code, body) = self.with_token("GET /api/v1/namespaces/one/configmaps", &token).await;
        assert_eq!(code, 200, "{body}");
    }
}

/// Status and body of an answer.
pub(crate) fn split(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
