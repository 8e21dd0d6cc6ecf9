//! From a component's bytes to a [`Program`]: compiled once for each component and engine, kept on disk, mapped.
//!
//! One thread of low priority compiles, one component after the other; who asks for one that is being compiled waits
//! for it. Programs are shared while anybody holds them.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use skiff_mapped::{Vault, VaultError};
use tokio::sync::{Semaphore, oneshot};
use wasmtime::{
    Module,
    component::{Component, Linker},
};

use crate::{
    disk,
    engine::{
        guest::{CoreGuest, Guest},
        new_core_linker, new_engine, new_linker,
        places::Places,
        program::{Program, ProgramError},
    },
    images::Store,
};

/// Most bytes of a component.
const MAX_COMPONENT_BYTES: u64 = 256 << 20;
/// Components from volumes that stay compiled after they were run.
const MAX_TRANSIENT: usize = 8;
/// The tools that skiff brings to containers.
const TOOLS: &[u8] = include_bytes!("../tools/tools.wasm");
/// Stack of the compiling thread; the compiler recurses over the code's nesting.
const COMPILER_STACK_BYTES: usize = 8 << 20;
/// How much the compiling thread stands back (`nice`).
const COMPILER_NICENESS: i32 = 10;

/// Why a component cannot be made to run.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Its bytes cannot be read.
    #[error("cannot read component {digest}")]
    Read {
        /// The component's digest.
        digest: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is damaged on disk.
    #[error("the content of component {0} does not have that digest: remove the image and import or pull it again")]
    Digest(String),
    /// The compiler refuses it.
    #[error("component does not compile: {0}")]
    Invalid(String),
    /// It cannot run here.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The compiled form cannot be kept or mapped.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The engine cannot be set up.
    #[error("cannot set up the Wasm engine: {0}")]
    Engine(String),
    /// No thread can be had to compile on.
    #[error("cannot start a thread to compile on")]
    Thread(#[source] io::Error),
    /// The compiler ended without a result.
    #[error("the compiler ended without a result")]
    Lost,
}

/// Compiles components and keeps what came of it.
pub(crate) struct Compiler {
    engine: wasmtime::Engine,
    places: Places,
    linker: Linker<Guest>,
    core_linker: wasmtime::Linker<CoreGuest>,
    vault: Arc<Vault>,
    programs: Mutex<HashMap<String, Weak<Program>>>,
    /// Components from volumes, compiled in memory alone, by their digest, newest last.
    transient: Mutex<VecDeque<(String, Arc<Program>)>>,
    /// One at a time: compiling takes memory, and a second of the same component would be wasted.
    turn: Semaphore,
    /// How many components were compiled since the start.
    compiled: AtomicU64,
}

impl Compiler {
    /// Opens the folder of compiled components under `root`.
    pub(crate) fn open(root: &Path) -> Result<Self, CompileError> {
        let unusable = |error: wasmtime::Error| CompileError::Engine(format!("{error:#}"));
        let (engine, places) = new_engine().map_err(unusable)?;
        let linker = new_linker(&engine).map_err(unusable)?;
        let core_linker = new_core_linker(&engine).map_err(unusable)?;
        let dir = root.join("compiled").join(engine_name(&engine));
        let vault = Arc::new(Vault::open(&dir)?);
        Ok(Self {
            engine,
            places,
            linker,
            core_linker,
            vault,
            programs: Mutex::default(),
            transient: Mutex::default(),
            turn: Semaphore::new(1),
            compiled: AtomicU64::new(0),
        })
    }

    /// Removes what engines of other versions or settings compiled. Only the runtime does so, when it starts: another
    /// process cannot know which engine runs.
    pub(crate) fn remove_others(&self) {
        let keep = self.vault.dir();
        let Some(Ok(entries)) = keep.parent().map(std::fs::read_dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path != keep) {
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::debug!(path = %path.display(), %error, "cannot remove compiled components of another engine");
            }
        }
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// How many components were compiled since the start.
    pub(crate) fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Where the engine's instances find room.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// The program of the component with this digest: shared, mapped, or compiled now.
    pub(crate) async fn program(&self, images: &Store, digest: &str) -> Result<Arc<Program>, CompileError> {
        self.kept(digest, Source::File(images.blob_path(digest))).await
    }

    /// The program of the tools that skiff brings.
    pub(crate) async fn tools(&self) -> Result<Arc<Program>, CompileError> {
        static DIGEST: LazyLock<String> = LazyLock::new(|| digest_of(TOOLS));
        self.kept(&DIGEST, Source::Memory(TOOLS)).await
    }

    /// The program of a component that is not an image's: compiled in memory, and kept while others do not push it out.
    pub(crate) async fn transient(&self, bytes: Vec<u8>) -> Result<Arc<Program>, CompileError> {
        let digest = digest_of(&bytes);
        let recent = |all: &VecDeque<(String, Arc<Program>)>| {
            all.iter().find(|(known, _)| *known == digest).map(|(_, program)| program.clone())
        };
        if let Some(program) = recent(&self.transient.lock()) {
            return Ok(program);
        }
        let _turn = self.turn.acquire().await.map_err(|_| CompileError::Lost)?;
        if let Some(program) = recent(&self.transient.lock()) {
            return Ok(program);
        }
        let engine = self.engine.clone();
        let code = on_compiler_thread(move || Code::compile(&engine, &bytes)).await?;
        let program = Arc::new(self.link(code)?);
        let mut transient = self.transient.lock();
        transient.push_back((digest, program.clone()));
        if transient.len() > MAX_TRANSIENT {
            transient.pop_front();
        }
        Ok(program)
    }

    /// Links compiled code.
    fn link(&self, code: Code) -> Result<Program, ProgramError> {
        match code {
            Code::Component(component) => Program::link(&self.linker, &component),
            Code::Module(module) => Program::link_module(&self.core_linker, &module),
        }
    }

    /// A program whose compiled form is kept on disk.
    async fn kept(&self, digest: &str, source: Source) -> Result<Arc<Program>, CompileError> {
        if let Some(program) = self.known(digest) {
            return Ok(program);
        }
        let code = match self.map(digest) {
            Some(code) => code,
            None => self.compile(source, digest).await?,
        };
        let program = Arc::new(self.link(code)?);
        let mut programs = self.programs.lock();
        if let Some(other) = programs.get(digest).and_then(Weak::upgrade) {
            return Ok(other);
        }
        programs.retain(|_, program| program.strong_count() > 0);
        programs.insert(digest.to_owned(), Arc::downgrade(&program));
        Ok(program)
    }

    /// Forgets the compiled form of components that no image has any more.
    pub(crate) fn forget(&self, images: &Store, digests: impl Iterator<Item = String>) {
        for digest in digests {
            if !images.blob_path(&digest).exists() {
                self.vault.remove(&component_file(&digest));
                self.vault.remove(&module_file(&digest));
            }
        }
    }

    fn known(&self, digest: &str) -> Option<Arc<Program>> {
        self.programs.lock().get(digest).and_then(Weak::upgrade)
    }

    /// Maps the compiled form; one that is refused is as good as none.
    fn map(&self, digest: &str) -> Option<Code> {
        let refused = |error: VaultError| {
            tracing::warn!(%digest, error = crate::error::chain(&error), "compiling again");
        };
        let component = self.vault.load(&self.engine, &component_file(digest)).map_err(refused).ok()?;
        if let Some(component) = component {
            return Some(Code::Component(component));
        }
        self.vault.load_module(&self.engine, &module_file(digest)).map_err(refused).ok()?.map(Code::Module)
    }

    /// Compiles on a thread of its own and maps the outcome.
    async fn compile(&self, source: Source, digest: &str) -> Result<Code, CompileError> {
        let _turn = self.turn.acquire().await.map_err(|_| CompileError::Lost)?;
        // Whoever had the turn before may have compiled the same.
        if let Some(code) = self.map(digest) {
            return Ok(code);
        }
        let (engine, vault, name) = (self.engine.clone(), self.vault.clone(), digest.to_owned());
        // Nobody may wait any more: the result is on disk for the next who asks.
        self.compiled.fetch_add(1, Ordering::Relaxed);
        on_compiler_thread(move || compile_to(&engine, &vault, &source, &name)).await?;
        self.map(digest).ok_or(CompileError::Lost)
    }
}

/// Does work on a thread of low priority.
async fn on_compiler_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CompileError> + Send + 'static,
) -> Result<T, CompileError> {
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        stand_back();
        let _ = sender.send(work());
    };
    let thread = std::thread::Builder::new().name("skiff-compile".into()).stack_size(COMPILER_STACK_BYTES);
    thread.spawn(work).map_err(CompileError::Thread)?;
    receiver.await.map_err(|_| CompileError::Lost)?
}

/// Where a component's bytes are.
enum Source {
    File(PathBuf),
    Memory(&'static [u8]),
}

impl Source {
    fn read(&self) -> io::Result<Cow<'static, [u8]>> {
        match self {
            Self::File(path) => disk::read_bounded(path, MAX_COMPONENT_BYTES).map(Cow::Owned),
            Self::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
        }
    }
}

/// Compiles the components of these images ahead of their first pod, for a process that imports them.
///
/// # Errors
/// When one does not compile.
pub fn precompile(root: &Path, digests: &[String]) -> Result<(), CompileError> {
    let images = Store::open(root).map_err(|error| CompileError::Engine(crate::error::chain(&error)))?;
    let compiler = Compiler::open(root)?;
    for digest in digests {
        if compiler.map(digest).is_none() {
            compile_to(&compiler.engine, &compiler.vault, &Source::File(images.blob_path(digest)), digest)?;
        }
    }
    Ok(())
}

fn compile_to(engine: &wasmtime::Engine, vault: &Vault, source: &Source, digest: &str) -> Result<(), CompileError> {
    let bytes = source.read().map_err(|source| CompileError::Read { digest: digest.to_owned(), source })?;
    if digest_of(&bytes) != digest {
        return Err(CompileError::Digest(digest.to_owned()));
    }
    if is_core_module(&bytes) {
        let code = engine.precompile_module(&bytes).map_err(invalid)?;
        return Ok(vault.store(&module_file(digest), &code)?);
    }
    let code = engine.precompile_component(&bytes).map_err(invalid)?;
    Ok(vault.store(&component_file(digest), &code)?)
}

fn invalid(error: wasmtime::Error) -> CompileError {
    CompileError::Invalid(format!("{error:#}"))
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", disk::hex(&Sha256::digest(bytes)))
}

/// Compiled code.
enum Code {
    Component(Component),
    Module(Module),
}

impl Code {
    /// Compiles in memory.
    fn compile(engine: &wasmtime::Engine, bytes: &[u8]) -> Result<Self, CompileError> {
        if is_core_module(bytes) {
            return Module::from_binary(engine, bytes).map(Self::Module).map_err(invalid);
        }
        Component::from_binary(engine, bytes).map(Self::Component).map_err(invalid)
    }
}

/// Whether these are the bytes of a core module: its version is 1, a component's has a second half (the layer).
fn is_core_module(bytes: &[u8]) -> bool {
    const CORE: [u8; 4] = [1, 0, 0, 0];
    bytes.get(4..8) == Some(CORE.as_slice())
}

/// Lowers the priority of this thread.
fn stand_back() {
    // Not being allowed to is no reason not to compile.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), COMPILER_NICENESS);
}

fn component_file(digest: &str) -> String {
    format!("{}.cwasm", digest.strip_prefix("sha256:").unwrap_or(digest))
}

fn module_file(digest: &str) -> String {
    format!("{}.module", digest.strip_prefix("sha256:").unwrap_or(digest))
}

/// A name for everything about an engine that its compiled code depends on.
fn engine_name(engine: &wasmtime::Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    disk::hex(hasher.0.finalize().get(..16).unwrap_or_default())
}
