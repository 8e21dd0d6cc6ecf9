//! Pulls from a real registry (Debian's `docker-registry`) on loopback, with a password and with TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use k8s_cri::v1 as cri;
use oci_client::{
    Client, Reference,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol, Config, ImageLayer},
    secrets::RegistryAuth,
};
use support::{DEADLINE, HELLO, Node, container, get};

const USER: &str = "sailor";
const PASSWORD: &str = "open sesame";
/// The line of the password as `htpasswd -B` writes it.
const HTPASSWD: &str = "sailor:$2b$04$718ynIUVDdR7Q4m/mPGk4.5XVdoRd5zdUxVzLRQupteXCcV4pycya\n";

/// A registry that wants a password.
struct Registry {
    process: Child,
    at: SocketAddr,
    storage: PathBuf,
    authority: Option<PathBuf>,
}

impl Registry {
    /// Starts one under `dir`, with TLS where so asked.
    async fn start(dir: &Path, tls: bool) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (storage, passwords) = (dir.join("storage"), dir.join("htpasswd"));
        std::fs::write(&passwords, HTPASSWD).unwrap();
        let authority = tls.then(|| certificate(dir));
        let tls = authority.as_ref().map(|_| format!("  tls: {{certificate: {0}/crt, key: {0}/key}}\n", dir.display()));
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n\
             http:\n  addr: {at}\n{}",
            storage.display(),
            passwords.display(),
            tls.unwrap_or_default()
        );
        std::fs::write(dir.join("config.yml"), config).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null());
        let process =
            command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("docker-registry is installed");
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(at).is_err() {
            assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(dir.join("log")).unwrap());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Self { process, at, storage, authority }
    }

    /// Pushes an image of one layer; the digest of its manifest.
    async fn push(&self, name: &str, layer: ImageLayer, config: Config) -> String {
        let roots = self
            .authority
            .iter()
            .map(|file| Certificate { encoding: CertificateEncoding::Pem, data: std::fs::read(file).unwrap() });
        let protocol = if self.authority.is_some() { ClientProtocol::Https } else { ClientProtocol::Http };
        let config_of_client =
            ClientConfig { protocol, extra_root_certificates: roots.collect(), ..ClientConfig::default() };
        let client = Client::try_from(config_of_client).unwrap();
        let at = Reference::with_tag(self.at.to_string(), name.to_owned(), "1".to_owned());
        let auth = RegistryAuth::Basic(USER.into(), PASSWORD.into());
        let pushed = client.push(&at, &[layer], config, &auth, None).await.unwrap();
        pushed.manifest_url.rsplit('/').next().unwrap().to_owned()
    }

    async fn push_component(&self, name: &str) -> String {
        let layer = ImageLayer::new(HELLO.to_vec(), "application/wasm".into(), None);
        self.push(name, layer, Config::new(b"{}".to_vec(), "application/vnd.wasm.config.v0+json".into(), None)).await
    }

    /// Damages the content with this beginning.
    fn damage(&self, beginning: &[u8]) {
        let blobs = self.storage.join("docker/registry/v2/blobs/sha256");
        let files =
            std::fs::read_dir(blobs).unwrap().flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        let mut damaged = 0;
        for file in files.map(|folder| folder.unwrap().path().join("data")) {
            let mut bytes = std::fs::read(&file).unwrap();
            if bytes.starts_with(beginning) {
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(file, bytes).unwrap();
                damaged += 1;
            }
        }
        assert_eq!(damaged, 1);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// A certificate for loopback in the folder; the file to trust.
fn certificate(dir: &Path) -> PathBuf {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("crt"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key"), made.signing_key.serialize_pem()).unwrap();
    dir.join("crt")
}

async fn pull(node: &mut Node, image: &str, auth: Option<cri::AuthConfig>) -> Result<String, tonic::Status> {
    let image = Some(cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() });
    let request = cri::PullImageRequest { image, auth, sandbox_config: None };
    Ok(node.images.pull_image(request).await?.into_inner().image_ref)
}

fn secret() -> Option<cri::AuthConfig> {
    Some(cri::AuthConfig { username: USER.into(), password: PASSWORD.into(), ..cri::AuthConfig::default() })
}

async fn remove(node: &mut Node, image: &str) {
    let image = Some(cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() });
    node.images.remove_image(cri::RemoveImageRequest { image }).await.unwrap();
}

fn files_of(node: &Node, folder: &str) -> usize {
    std::fs::read_dir(node.root().join(folder)).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_passwords_digests_and_what_is_damaged() {
    let mut node = Node::new().await;
    let registry = Registry::start(&node.dir.join("registry"), false).await;
    let digest = registry.push_component("team/hello").await;
    let name = format!("{}/team/hello", registry.at);

    let error = pull(&mut node, &format!("{name}:1"), None).await.unwrap_err();
    assert!(error.message().contains("pull access denied"), "{error}");
    let wrong = cri::AuthConfig { username: USER.into(), password: "guessed".into(), ..cri::AuthConfig::default() };
    let error = pull(&mut node, &format!("{name}:1"), Some(wrong)).await.unwrap_err();
    assert!(error.message().contains("pull access denied") && !error.message().contains("guessed"), "{error}");

    assert_eq!(pull(&mut node, &format!("{name}:1"), secret()).await.unwrap(), digest);
    assert_eq!(pull(&mut node, &format!("{name}@{digest}"), secret()).await.unwrap(), digest);
    let (_, ip) = node.pod("web", container(&format!("{name}@{digest}"), Some(8080))).await;
    assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
    let missing = format!("{name}@sha256:{}", "0".repeat(64));
    assert_eq!(pull(&mut node, &missing, secret()).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(pull(&mut node, &format!("{name}:2"), secret()).await.unwrap_err().code(), tonic::Code::NotFound);

    // Its name and its digest gone, nothing of it is left.
    remove(&mut node, &digest).await;
    assert_eq!((files_of(&node, "images/blobs/sha256"), files_of(&node, "images/refs")), (0, 0));
    registry.damage(b"\0asm");
    let error = pull(&mut node, &format!("{name}:1"), secret()).await.unwrap_err();
    assert!(error.message().contains("failed to copy: Invalid digest"), "{error}");
    assert_eq!((files_of(&node, "images/blobs/sha256"), files_of(&node, "images/tmp")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_a_wasm_entrypoint_compiled_once_however_many_start() {
    let mut node = Node::new().await;
    let registry = Registry::start(&node.dir.join("registry"), false).await;
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(HELLO.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "app/main.wasm", HELLO).unwrap();
    let mut packed = tar.into_inner().unwrap();
    packed.flush().unwrap();
    let layer = ImageLayer::oci_v1_gzip(packed.finish().unwrap(), None);
    let config =
        r#"{"architecture":"wasm","os":"wasi","config":{"Entrypoint":["/app/main.wasm"],"Env":["GREETING=Moin"]}}"#;
    registry.push("app", layer, Config::oci_v1(config.as_bytes().to_vec(), None)).await;
    let name = format!("{}/app:1", registry.at);

    let mut starts = Vec::new();
    for number in 0..20 {
        let (client, images) = (node.client.clone(), node.images.clone());
        let (sandbox, config) = node.sandbox(&format!("pod-{number}")).await;
        let (name, ip) = (name.clone(), node.ip(&sandbox).await);
        starts.push(async move {
            let (mut client, mut images) = (client, images);
            let image = Some(cri::ImageSpec { image: name.clone(), ..cri::ImageSpec::default() });
            images.pull_image(cri::PullImageRequest { image, auth: secret(), sandbox_config: None }).await.unwrap();
            let request = cri::CreateContainerRequest {
                pod_sandbox_id: sandbox,
                config: Some(container(&name, Some(8080))),
                sandbox_config: Some(config),
            };
            let container_id = client.create_container(request).await.unwrap().into_inner().container_id;
            client.start_container(cri::StartContainerRequest { container_id }).await.unwrap();
            get(&ip, 8080, "/").await
        });
    }
    for answer in futures::future::join_all(starts).await {
        assert!(answer.contains("Moin from"), "{answer}");
    }
    let request = cri::StatusRequest { verbose: true };
    let info = node.client.status(request).await.unwrap().into_inner().info;
    assert!(info["config"].contains("\"compiled\":1}"), "{info:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_of_registries_yaml() {
    let mut node = Node::new().await;
    let mirror = Registry::start(&node.dir.join("mirror"), true).await;
    let digest = mirror.push_component("cache/team/hello").await;
    let (file, at) = (node.dir.join("registries.yaml"), mirror.at);
    let write = |tls: &str, password: &str| {
        let text = format!(
            "mirrors:\n  registry.example:\n    endpoint: ['https://127.0.0.1:1', 'https://{at}/v2/cache']\n    \
             rewrite: {{'^old/(.*)': 'team/$1'}}\nconfigs:\n  '{at}':\n    auth: {{username: {USER}, password: \
             {password}}}\n    tls: {{{tls}}}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    let ca_file = format!("ca_file: {}", mirror.authority.as_ref().unwrap().display());

    // Whom nobody vouches for is not spoken to, nor who is to be trusted unseen; then the registry itself is asked,
    // which no name server knows.
    write("", PASSWORD);
    let error = pull(&mut node, "registry.example/old/hello:1", None).await.unwrap_err();
    assert!(error.message().contains("registry.example/old/hello:1"), "{error}");
    write("insecure_skip_verify: true", PASSWORD);
    let error = pull(&mut node, "registry.example/old/hello:1", None).await.unwrap_err();
    assert!(error.message().contains("insecure_skip_verify"), "{error}");
    // Pull secrets are the registry's own: no mirror is shown them.
    write(&ca_file, "wrong");
    assert!(pull(&mut node, "registry.example/old/hello:1", secret()).await.is_err());

    write(&ca_file, PASSWORD);
    assert_eq!(pull(&mut node, "registry.example/old/hello:1", None).await.unwrap(), digest);
    let (_, ip) = node.pod("web", container("registry.example/old/hello:1", Some(8080))).await;
    assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
}
