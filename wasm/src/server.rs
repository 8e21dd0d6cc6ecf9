//! The runtime as a process: its lock, its socket, its end.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use k8s_cri::v1::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer};
use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    Config, RuntimeError,
    compile::Compiler,
    cri, disk,
    images::Store,
    runtime::{Runtime, records::Records},
    streaming,
};

/// How long guests and open calls may take to end when the runtime does.
const SHUTDOWN: Duration = Duration::from_millis(900);
/// Largest CRI message, as containerd takes it.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Polls of guests after which a thread looks for what came in. A poll lasts up to a tick of the engine's clock, so that
/// tokio's own 61 would let a few spinning guests hold up everybody's connections for more than half a second.
const LOOK_AFTER_POLLS: u32 = 4;
/// Stack of the threads that guests' tasks run on (guests themselves have stacks of their own).
const GUEST_THREAD_STACK_BYTES: usize = 1 << 20;

/// Runs the runtime until `cancel` is cancelled or, where so configured, standard input closes.
///
/// # Errors
/// When another runtime uses the same folder, or the folder, the engine or the socket cannot be used.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), RuntimeError> {
    disk::private_dir(&config.root).map_err(io_error("make the folder", &config.root))?;
    let _lock = lock(&config.root)?;
    // Both pulls and guests' outgoing requests use it; that it is set already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    raise_file_limit();
    let guests = guest_runtime().map_err(io_error("start threads for", &config.root))?;
    let cancel = cancel.child_token();
    if config.exit_on_stdin_close {
        cancel_when_stdin_closes(cancel.clone()).map_err(io_error("start threads for", &config.root))?;
    }
    let guests = Guests(Some(guests));
    let runtime = open(&config, guests.handle(), cancel.clone())?;
    serve(&config, runtime, cancel).await
}

/// The threads of guests. They are given up without waiting, since this may be dropped within another runtime.
struct Guests(Option<tokio::runtime::Runtime>);

impl Guests {
    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().map_or_else(tokio::runtime::Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn open(
    config: &Config,
    guests: tokio::runtime::Handle,
    cancel: CancellationToken,
) -> Result<Arc<Runtime>, RuntimeError> {
    let root = &config.root;
    let images = Store::open(root).map_err(RuntimeError::Images)?;
    let compiler = Compiler::open(root).map_err(RuntimeError::Compile)?;
    compiler.remove_others();
    let records = Records::open(root).map_err(io_error("use the state in", root))?;
    let runtime = Runtime::open(images, compiler, records, guests, config.registries.clone(), cancel);
    Ok(Arc::new(runtime.map_err(io_error("read the state in", root))?))
}

async fn serve(config: &Config, runtime: Arc<Runtime>, cancel: CancellationToken) -> Result<(), RuntimeError> {
    let listener = listen(&config.socket)?;
    tracing::info!(socket = %config.socket.display(), "the Wasm runtime is ready");
    let streaming = streaming::Server::bind().await.map_err(io_error("serve streams for", &config.root))?;
    let service = cri::Service(runtime.clone(), streaming.desk());
    tokio::spawn(streaming.run(runtime.clone(), cancel.clone()));
    let service = RuntimeServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let images = ImageServiceServer::new(cri::Images(runtime.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder()
        .add_service(service)
        .add_service(images)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), cancel.clone().cancelled_owned());
    let end = async {
        cancel.cancelled().await;
        // Open event streams never end by themselves.
        let _ = tokio::time::timeout(SHUTDOWN, runtime.end_all()).await;
    };
    let outcome = tokio::select! {
        served = server => served,
        () = end => Ok(()),
    };
    let _ = tokio::time::timeout(SHUTDOWN, runtime.end_all()).await;
    let _ = disk::remove(&config.socket);
    outcome.map_err(RuntimeError::Serve)
}

/// Takes the folder for this process, as long as the answer lives.
fn lock(root: &Path) -> Result<Flock<File>, RuntimeError> {
    let path = root.join("runtime.lock");
    let file = File::create(&path).map_err(io_error("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| RuntimeError::InUse { root: root.to_owned() })
}

/// Listens on the socket; one that a former runtime left is replaced (that none lives, the lock has shown).
fn listen(socket: &Path) -> Result<UnixListener, RuntimeError> {
    if let Some(dir) = socket.parent() {
        disk::private_dir(dir).map_err(io_error("make the folder", dir))?;
    }
    disk::remove(socket).map_err(io_error("remove the stale socket", socket))?;
    let listener = UnixListener::bind(socket).map_err(io_error("listen on", socket))?;
    let only_us = fs::Permissions::from_mode(0o600);
    fs::set_permissions(socket, only_us).map_err(io_error("protect", socket))?;
    Ok(listener)
}

fn guest_runtime() -> io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("skiff-guests")
        .thread_stack_size(GUEST_THREAD_STACK_BYTES)
        .event_interval(LOOK_AFTER_POLLS)
        .enable_all()
        .build()
}

/// Watches standard input on a thread of its own: tokio's would keep its runtime from ending while nothing is typed.
fn cancel_when_stdin_closes(cancel: CancellationToken) -> io::Result<()> {
    let watch = move || {
        let mut chunk = [0; 64];
        while let Ok(1..) = io::stdin().lock().read(&mut chunk) {}
        cancel.cancel();
    };
    thread::Builder::new().name("skiff-stdin".into()).stack_size(64 << 10).spawn(watch).map(|_| ())
}

/// Each pod takes a socket and a log file: the few thousand of a node need more than the usual 1,024 descriptors.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RuntimeError + 'a {
    move |source| RuntimeError::Io { doing, path: path.to_owned(), source }
}
