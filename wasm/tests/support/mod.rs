//! A runtime on a socket, driven as a kubelet would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub, reason = "tests")]

pub mod stream;

use std::{
    collections::HashMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    self as cri, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use skiff_wasm::{Config, RuntimeError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(90);

pub type Client = RuntimeServiceClient<Channel>;

/// A runtime.
pub struct Node {
    pub dir: PathBuf,
    pub client: Client,
    pub images: ImageServiceClient<Channel>,
    cancel: CancellationToken,
    served: Option<JoinHandle<Result<(), RuntimeError>>>,
    _temp: Option<tempfile::TempDir>,
}

impl Node {
    /// A runtime on a fresh folder, with a range of its own.
    pub async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut node = Self::at(temp.path()).await;
        node._temp = Some(temp);
        let pod_cidr = fresh_range();
        let config = cri::RuntimeConfig { network_config: Some(cri::NetworkConfig { pod_cidr }) };
        let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(config) };
        node.client.update_runtime_config(request).await.unwrap();
        node
    }

    /// A runtime on the folder `dir`.
    pub async fn at(dir: &Path) -> Self {
        let cancel = CancellationToken::new();
        let config = Config {
            socket: dir.join("run/wasm.sock"),
            root: dir.join("root"),
            registries: Some(dir.join("registries.yaml")),
            exit_on_stdin_close: false,
        };
        let socket = config.socket.clone();
        let served = tokio::spawn(skiff_wasm::run(config, cancel.clone()));
        let channel = connect(&socket).await;
        Self {
            dir: dir.to_owned(),
            client: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            cancel,
            served: Some(served),
            _temp: None,
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    pub fn store(&self) -> skiff_wasm::images::Store {
        skiff_wasm::images::Store::open(&self.root()).unwrap()
    }

    /// Stops the runtime; how long that took.
    pub async fn stop(&mut self) -> Duration {
        let began = Instant::now();
        self.cancel.cancel();
        self.served.take().unwrap().await.unwrap().unwrap();
        began.elapsed()
    }

    /// Imports bytes (or text) of a component under a name.
    pub fn import(&self, name: &str, wasm: &[u8]) {
        let file = self.dir.join("import.wasm");
        std::fs::write(&file, wat::parse_bytes(wasm).unwrap()).unwrap();
        self.store().import(&file, Some(name)).unwrap();
    }

    pub async fn sandbox(&mut self, name: &str) -> (String, cri::PodSandboxConfig) {
        let config = sandbox_config(name, &self.dir);
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "wasm".into() };
        (self.client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id, config)
    }

    pub async fn ip(&mut self, sandbox: &str) -> String {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.into(), verbose: false };
        let answer = self.client.pod_sandbox_status(request).await.unwrap().into_inner();
        answer.status.unwrap().network.unwrap().ip
    }

    pub async fn create(
        &mut self,
        sandbox: &(String, cri::PodSandboxConfig),
        config: cri::ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.1.clone()),
        };
        Ok(self.client.create_container(request).await?.into_inner().container_id)
    }

    pub async fn start(&mut self, container: &str) -> Result<(), tonic::Status> {
        let request = cri::StartContainerRequest { container_id: container.into() };
        self.client.start_container(request).await.map(|_| ())
    }

    /// A started container in a sandbox of its own: its identifier and address.
    pub async fn pod(&mut self, name: &str, config: cri::ContainerConfig) -> (String, String) {
        let sandbox = self.sandbox(name).await;
        let container = self.create(&sandbox, config).await.unwrap();
        self.start(&container).await.unwrap();
        (container, self.ip(&sandbox.0).await)
    }

    pub async fn stop_container(&mut self, container: &str, timeout: i64) {
        let request = cri::StopContainerRequest { container_id: container.into(), timeout };
        self.client.stop_container(request).await.unwrap();
    }

    pub async fn status(&mut self, container: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: container.into(), verbose: false };
        self.client.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// The status once the container has ended.
    pub async fn ended(&mut self, container: &str) -> cri::ContainerStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status(container).await;
            if status.state == i32::from(cri::ContainerState::ContainerExited) {
                return status;
            }
            assert!(Instant::now() < deadline, "still running: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The log's lines without their times.
    pub async fn log(&mut self, container: &str) -> Vec<String> {
        let path = self.status(container).await.log_path;
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn connect(socket: &Path) -> Channel {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        match Endpoint::from_static("http://runtime").connect_with_connector(connector).await {
            Ok(channel) => return channel,
            Err(error) => assert!(Instant::now() < deadline, "no runtime: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A /22 of the loopback range that no other test of this machine uses at this moment.
fn fresh_range() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let turn = std::process::id().wrapping_mul(31).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    format!("127.{}.{}.0/22", 72 + turn % 8, (turn / 8 % 64) * 4)
}

pub fn sandbox_config(name: &str, dir: &Path) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: format!("{name}-uid"),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: dir.join("logs").join(name).to_string_lossy().into_owned(),
        labels: HashMap::from([("app".to_owned(), name.to_owned())]),
        ..cri::PodSandboxConfig::default()
    }
}

/// A container of the image, with a port where one is given.
pub fn container(image: &str, port: Option<u16>) -> cri::ContainerConfig {
    let port = port.map(|port| {
        ("io.kubernetes.container.ports".to_owned(), format!(r#"[{{"containerPort":{port},"protocol":"TCP"}}]"#))
    });
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: image.into(), ..cri::ImageSpec::default() }),
        annotations: port.into_iter().collect(),
        log_path: "main/0.log".into(),
        ..cri::ContainerConfig::default()
    }
}

/// The same with folders of the host.
pub fn mounted(image: &str, folders: &[(&Path, &str, bool)]) -> cri::ContainerConfig {
    cri::ContainerConfig { mounts: mounts(folders), ..container(image, None) }
}

/// What is mounted: a path of the host, the path in the container, and whether it is read-only.
pub fn mounts(mounted: &[(&Path, &str, bool)]) -> Vec<cri::Mount> {
    let mount = |(host, at, readonly): &(&Path, &str, bool)| cri::Mount {
        host_path: host.to_str().unwrap().to_owned(),
        container_path: (*at).to_owned(),
        readonly: *readonly,
        ..cri::Mount::default()
    };
    mounted.iter().map(mount).collect()
}

/// The same with a memory limit in bytes.
pub fn limited(image: &str, port: Option<u16>, memory: i64) -> cri::ContainerConfig {
    let resources = cri::LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() };
    let linux = cri::LinuxContainerConfig { resources: Some(resources), security_context: None };
    cri::ContainerConfig { linux: Some(linux), ..container(image, port) }
}

/// The answer to `GET path`, head and body.
pub async fn get(ip: &str, port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((ip, port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that ends by force resets the connection: what came before counts.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A component that answers HTTP, as built from `examples/hello`.
pub const HELLO: &[u8] = include_bytes!("../../../examples/hello/hello.wasm");

/// A component that does what its path asks, as built from `tests/guest`.
pub const GUEST: &[u8] = include_bytes!("../guest/guest.wasm");

/// A core module of preview 1 whose `_start` is `body`; `$write` prints the first `n` bytes of the text to a stream.
pub fn command(text: &str, body: &str) -> Vec<u8> {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (data (i32.const 16) "{text}")
          (func $write (param $stream i32) (param $n i32)
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (local.get $n))
            (drop (call $fd_write (local.get $stream) (i32.const 0) (i32.const 1) (i32.const 8))))
          (func (export "_start") {body}))"#
    )
    .into_bytes()
}

/// A core module of preview 1 that makes the calls in turn and prints the error number of each, one a line.
pub fn calls(calls: &[Call]) -> Vec<u8> {
    let (mut data, mut code, mut free) = (String::new(), String::new(), 1024);
    let mut place = |text: &str| {
        let at = free;
        let _ = write!(data, "(data (i32.const {at}) \"{text}\")");
        free += text.len();
        format!("(i32.const {at}) (i32.const {})", text.len())
    };
    for call in calls {
        let made = match call {
            Call::Open(fd, path, flags, rights) => {
                let path = place(path);
                format!(
                    "(call $open (i32.const {fd}) (i32.const 1) {path} (i32.const {flags}) (i64.const {rights}) \
                     (i64.const {rights}) (i32.const 0) (i32.const 8))"
                )
            }
            Call::Symlink(target, fd, path) => {
                format!("(call $symlink {} (i32.const {fd}) {})", place(target), place(path))
            }
            Call::Link(from, old, to, new) => {
                format!("(call $link (i32.const {from}) (i32.const 0) {} (i32.const {to}) {})", place(old), place(new))
            }
            Call::Rename(from, old, to, new) => {
                format!("(call $rename (i32.const {from}) {} (i32.const {to}) {})", place(old), place(new))
            }
            Call::Unlink(fd, path) => format!("(call $unlink (i32.const {fd}) {})", place(path)),
            Call::Mkdir(fd, path) => format!("(call $mkdir (i32.const {fd}) {})", place(path)),
        };
        let _ = write!(code, "(call $tell {made})");
    }
    let p1 = |name: &str, parameters: &str| {
        let short = name.rsplit('_').next().unwrap();
        let short = if name == "path_create_directory" {
            "mkdir"
        } else if name == "path_unlink_file" {
            "unlink"
        } else {
            short
        };
        format!(r#"(import "wasi_snapshot_preview1" "{name}" (func ${short} (param {parameters}) (result i32)))"#)
    };
    let imports = [
        p1("fd_write", "i32 i32 i32 i32"),
        p1("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        p1("path_symlink", "i32 i32 i32 i32 i32"),
        p1("path_link", "i32 i32 i32 i32 i32 i32 i32"),
        p1("path_rename", "i32 i32 i32 i32 i32 i32"),
        p1("path_unlink_file", "i32 i32 i32"),
        p1("path_create_directory", "i32 i32 i32"),
    ]
    .concat();
    format!(
        r#"(module {imports} (memory (export "memory") 1) {data}
          (func $tell (param $error i32)
            (i32.store8 (i32.const 16) (i32.add (i32.const 48) (i32.div_u (local.get $error) (i32.const 10))))
            (i32.store8 (i32.const 17) (i32.add (i32.const 48) (i32.rem_u (local.get $error) (i32.const 10))))
            (i32.store8 (i32.const 18) (i32.const 10))
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 3))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
          (func (export "_start") {code}))"#
    )
    .into_bytes()
}

/// A call of preview 1 with paths. Descriptors are numbers: the first folder that is mounted is 3.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// Descriptor, path, flags (1: create, 2: must be a folder, 4: must be new, 8: truncate), rights (2: read, 64: write).
    Open(u32, &'static str, u32, u64),
    /// Target, descriptor, path.
    Symlink(&'static str, u32, &'static str),
    Link(u32, &'static str, u32, &'static str),
    Rename(u32, &'static str, u32, &'static str),
    Unlink(u32, &'static str),
    Mkdir(u32, &'static str),
}

/// A component that handles HTTP with the core instructions `body`.
pub fn handler(body: &str) -> Vec<u8> {
    format!(
        r#"(component
          (import "wasi:http/types@0.2.0" (instance $types
            (export "incoming-request" (type (sub resource)))
            (export "response-outparam" (type (sub resource)))))
          (alias export $types "incoming-request" (type $request))
          (alias export $types "response-outparam" (type $out))
          (core module $m
            (memory (export "memory") 1)
            (func (export "handle") (param i32 i32) (local i64) {body}))
          (core instance $i (instantiate $m))
          (func $handle (param "request" (own $request)) (param "response-out" (own $out))
            (canon lift (core func $i "handle")))
          (instance $h (export "handle" (func $handle)))
          (export "wasi:http/incoming-handler@0.2.0" (instance $h)))"#
    )
    .into_bytes()
}

/// An endless loop.
pub const SPIN: &str = "(loop $again (br $again))";
/// A loop that takes all memory there is.
pub const HOG: &str = "(loop $again (drop (memory.grow (i32.const 16))) (br $again))";
