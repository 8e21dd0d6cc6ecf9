//! What is done with containers: create, start, stop, remove.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use k8s_cri::v1::{ContainerEventType, CreateContainerRequest, PodSandboxConfig};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use super::{
    Container, Runtime,
    container::{Ready, container_name},
    files,
    records::{ContainerRecord, ImageNames, Kind, Life, Phase},
    spec::http_port,
};
use crate::{
    disk,
    engine::program::World,
    error::Failure,
    images::Image,
    log::LogFile,
    run::{
        Exit, Spec, command, http,
        stdio::{self, Destination, Stdin, Stdio},
    },
};

/// Pieces of input that wait for a container that does not read.
const INPUT_BACKLOG: usize = 16;
/// Connections that the kernel keeps for a server that is busy.
const BACKLOG: u32 = 1024;
/// The first port that anybody may listen on.
const FIRST_FREE_PORT: u16 = 1024;

impl Runtime {
    /// Makes a container: its image is found, its component compiled and linked, so that what cannot run is said now.
    pub(crate) async fn create_container(&self, request: CreateContainerRequest) -> Result<String, Failure> {
        let config = request.config.ok_or_else(|| Failure::Invalid("container config is missing".into()))?;
        if config.metadata.is_none() {
            return Err(Failure::Invalid("container config must include metadata".into()));
        }
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Failure::Precondition(format!("sandbox {:?} is not ready", sandbox.id)));
        }
        let wanted = config.image.clone().unwrap_or_default();
        let image = self.images.find(&wanted.image)?;
        let program = self.compiler.program(&self.images, &image.entry.component).await?;
        let ready = Ready { program, image: image.entry.clone() };
        let record = ContainerRecord {
            id: disk::new_id(),
            sandbox: sandbox.id.clone(),
            created_at: disk::now_ns(),
            log_path: log_path(request.sandbox_config.as_ref().unwrap_or(&sandbox.config), &config.log_path),
            image: image_names(&image, &wanted.user_specified_image, &wanted.image),
            config,
            life: Life::created(),
        };
        let container = self.add_container(Container::new(record, ready))?;
        self.records.save(Kind::Container, &container.id, &container.record());
        self.publish(&container.id, &container.sandbox, ContainerEventType::ContainerCreatedEvent);
        Ok(container.id.clone())
    }

    fn add_container(&self, container: Container) -> Result<Arc<Container>, Failure> {
        let mut state = self.state.lock();
        let name = container_name(&container.sandbox, &container.config);
        if let Some(id) = state.names.get(&name) {
            let problem = format!("name {name:?} is reserved for {id:?}");
            return Err(Failure::AlreadyExists(format!("failed to reserve container name: {problem}")));
        }
        // The sandbox may have been removed while the component was compiled.
        if !state.sandboxes.get(&container.sandbox).is_some_and(|sandbox| sandbox.is_ready()) {
            return Err(Failure::Precondition(format!("sandbox {:?} is not ready", container.sandbox)));
        }
        let container = Arc::new(container);
        state.names.insert(name, container.id.clone());
        state.containers.insert(container.id.clone(), container.clone());
        Ok(container)
    }

    /// Starts a container. An HTTP component answers from the moment this returns.
    pub(crate) fn start_container(self: &Arc<Self>, id: &str) -> Result<(), Failure> {
        let container = self.container(id)?;
        let sandbox = self.sandbox(&container.sandbox)?;
        let (Some(ready), true) = (container.ready(), sandbox.is_ready()) else {
            let state = format!("{:?}", container.life().phase).to_lowercase();
            return Err(Failure::Precondition(format!("container {id:?} cannot be started: it is {state}")));
        };
        let address = self.listen_address(&sandbox)?;
        let listeners = match &ready.program.world {
            World::Http(_) => vec![self.listen(address, http_port(&container.config))?],
            World::Command(_) | World::CommandP3(_) | World::Module(_) => Vec::new(),
        };
        let path = &container.log_path;
        let log = LogFile::open(path).map_err(Failure::io(format!("open the log {}", path.display())))?;
        let log = Arc::new(log);
        let (input, stdin) = container.config.stdin.then(open_stdin).unzip();
        let stdio = Stdio { stdin, output: Destination::Log(log.clone()), terminal: container.config.tty };
        let staging = self.records.files(&container.id);
        container.set_preopens(files::preopens(&container.config, &staging).map_err(Failure::io("mount files"))?);
        let spec = self.spec(&sandbox, &container, ready, stdio)?;
        if !container.begin(log, input) {
            return Err(Failure::Precondition(format!("container {id:?} is not in the created state")));
        }
        self.records.save(Kind::Container, &container.id, &container.record());
        self.publish(&container.id, &container.sandbox, ContainerEventType::ContainerStartedEvent);
        self.guests.spawn(self.clone().supervise(container, Arc::new(spec), listeners));
        Ok(())
    }

    /// Runs a container to its end, whatever that is.
    async fn supervise(self: Arc<Self>, container: Arc<Container>, spec: Arc<Spec>, listeners: Vec<TcpListener>) {
        let signals = container.signals.clone();
        let run = async {
            match &spec.program.world {
                World::Http(_) => http::serve(spec.clone(), listeners, signals).await,
                World::Command(_) | World::CommandP3(_) | World::Module(_) => command::run(spec.clone(), signals).await,
            }
        };
        let mut exit = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| Exit::panicked());
        drop(spec);
        if self.shutdown.is_cancelled() && exit.message.is_empty() && exit.code != 0 {
            exit.message = "the Wasm runtime was stopped".into();
        }
        self.conclude(&container, exit);
    }

    fn conclude(&self, container: &Arc<Container>, exit: Exit) {
        if container.finish(exit) {
            self.records.save(Kind::Container, &container.id, &container.record());
            self.publish(&container.id, &container.sandbox, ContainerEventType::ContainerStoppedEvent);
        }
        container.set_ended();
    }

    /// Listens on a pod's address. Guests accept on their own runtime, which the socket must belong to.
    fn listen(&self, address: Ipv4Addr, port: u16) -> Result<TcpListener, Failure> {
        let at = SocketAddr::new(IpAddr::V4(address), port);
        let _guests = self.guests.enter();
        let bind = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(at)?;
            socket.listen(BACKLOG)
        };
        bind().map_err(|source| Failure::Io { doing: listen_advice(at, &source), source })
    }

    /// Stops a container: told to end, given `grace`, then ended by force. One that does not run is left as it is.
    pub(crate) async fn stop_container(&self, container: &Arc<Container>, grace: Duration) -> Result<(), Failure> {
        if container.life().phase == Phase::Created {
            self.conclude(container, Exit::killed("stopped before it was started"));
        }
        if grace.is_zero() {
            container.signals.kill.cancel();
        } else {
            container.signals.stop.cancel();
            if tokio::time::timeout(grace, container.ended()).await.is_err() {
                container.signals.kill.cancel();
            }
        }
        /// A guest yields within moments; what takes longer is stuck in the host.
        const FORCE: Duration = Duration::from_secs(10);
        let ended = tokio::time::timeout(FORCE, container.ended()).await;
        ended.map_err(|_| Failure::Failed(format!("container {:?} does not end", container.id)))
    }

    /// Removes a container, ending it first where need be. One that is gone counts as removed.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Failure> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_container(&container, Duration::ZERO).await?;
        self.records.remove(Kind::Container, &container.id);
        self.records.remove_files(&container.id);
        let removed = {
            let mut state = self.state.lock();
            state.names.remove(&container.name());
            state.containers.remove(&container.id)
        };
        if removed.is_some() {
            self.publish(&container.id, &container.sandbox, ContainerEventType::ContainerDeletedEvent);
        }
        Ok(())
    }
}

/// A container's standard input, and where it is given.
fn open_stdin() -> (mpsc::Sender<Bytes>, Stdin) {
    let (sender, receiver) = mpsc::channel(INPUT_BACKLOG);
    let bytes = ReceiverStream::new(receiver).map(Ok::<_, std::io::Error>);
    (sender, stdio::stdin(StreamReader::new(bytes)))
}

/// What could not be done, and what to do about it.
fn listen_advice(at: SocketAddr, error: &std::io::Error) -> String {
    let advice = match error.kind() {
        std::io::ErrorKind::PermissionDenied if at.port() < FIRST_FREE_PORT => {
            " (ports below 1024 need root here: give the container a containerPort of 1024 or above, or set the sysctl \
             net.ipv4.ip_unprivileged_port_start)"
        }
        std::io::ErrorKind::AddrInUse => " (another container of the pod or a process of this machine listens there)",
        std::io::ErrorKind::AddrNotAvailable => " (the pod range is not routed to this machine: see `skiff check`)",
        _ => "",
    };
    format!("listen on {at}{advice}")
}

/// Where the log goes; nowhere in particular when the caller names no place.
fn log_path(sandbox: &PodSandboxConfig, path: &str) -> std::path::PathBuf {
    if path.is_empty() || sandbox.log_directory.is_empty() {
        return "/dev/null".into();
    }
    std::path::Path::new(&sandbox.log_directory).join(path)
}

fn image_names(image: &Image, user_specified: &str, wanted: &str) -> ImageNames {
    let full = crate::images::Reference::parse(user_specified).map(|reference| reference.to_string());
    let named = full.ok().filter(|full| image.tags.contains(full) || image.digests.contains(full));
    let name = named.or_else(|| image.tags.first().cloned()).unwrap_or_else(|| wanted.to_owned());
    let reference = image.digests.first().cloned().unwrap_or_else(|| image.id.clone());
    ImageNames { id: image.id.clone(), name, reference }
}
