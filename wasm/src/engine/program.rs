//! A component that is ready to run: what it exports decides how.

use wasmtime::{
    Module,
    component::{Component, InstancePre, Linker},
};
use wasmtime_wasi::{p2::bindings::CommandPre as CommandPreP2, p3::bindings::CommandPre as CommandPreP3};
use wasmtime_wasi_http::{
    handler::ProxyPre, p2::bindings::ProxyPre as ProxyPreP2, p3::bindings::ServicePre as ProxyPreP3,
};

use super::guest::{CoreGuest, Guest};

/// A component that cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It needs what is not there.
    #[error("component imports {0:?}, which skiff does not offer")]
    Import(String),
    /// It offers nothing to run.
    #[error(
        "component exports neither wasi:cli/run nor wasi:http/incoming-handler (nor wasi:http/handler; a core \
         module: _start): there is nothing to run; it exports {0}"
    )]
    World(String),
    /// It does not fit for another reason.
    #[error("component cannot be linked: {0}")]
    Link(String),
}

/// How a component is run.
pub(crate) enum World {
    /// To its end, WASI 0.2.
    Command(CommandPreP2<Guest>),
    /// To its end, WASI 0.3.
    CommandP3(CommandPreP3<Guest>),
    /// To its end, a core module of WASI preview 1.
    Module(wasmtime::InstancePre<CoreGuest>),
    /// Once for each HTTP request.
    Http(ProxyPre<Guest>),
}

/// A component that is linked and ready to be instantiated.
pub(crate) struct Program {
    pub(crate) world: World,
    /// Whether it can see files at all; for one that cannot, none are opened.
    pub(crate) uses_files: bool,
    pub(crate) engine: wasmtime::Engine,
}

/// The interfaces that decide, by what their names begin with; an HTTP handler goes before a command.
const HTTP_P2: &str = "wasi:http/incoming-handler@0.2.";
const HTTP_P3: &str = "wasi:http/handler@0.3.";
const RUN_P2: &str = "wasi:cli/run@0.2.";
const RUN_P3: &str = "wasi:cli/run@0.3.";

impl Program {
    /// Links `component`.
    pub(crate) fn link(linker: &Linker<Guest>, component: &Component) -> Result<Self, ProgramError> {
        let engine = linker.engine();
        let kind = component.component_type();
        let exports: Vec<String> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let uses_files = kind.imports(engine).any(|(name, _)| name.starts_with("wasi:filesystem/"));
        let pre = linker.instantiate_pre(component).map_err(|error| link_error(&error))?;
        let world = choose(pre, &exports)?;
        Ok(Self { world, uses_files, engine: engine.clone() })
    }

    /// Links a core module.
    pub(crate) fn link_module(linker: &wasmtime::Linker<CoreGuest>, module: &Module) -> Result<Self, ProgramError> {
        if module.get_export(START).is_none() {
            let exports: Vec<&str> = module.exports().map(|export| export.name()).collect();
            return Err(ProgramError::World(exports.join(", ")));
        }
        let foreign = module.imports().find(|import| import.module() != PREVIEW1);
        if let Some(import) = foreign {
            return Err(ProgramError::Import(format!("{}::{}", import.module(), import.name())));
        }
        let pre = linker.instantiate_pre(module).map_err(|error| ProgramError::Link(format!("{error:#}")))?;
        Ok(Self { world: World::Module(pre), uses_files: true, engine: module.engine().clone() })
    }
}

/// What a core module that is a command exports.
pub(crate) const START: &str = "_start";
/// What a core module may import.
const PREVIEW1: &str = "wasi_snapshot_preview1";

fn choose(pre: InstancePre<Guest>, exports: &[String]) -> Result<World, ProgramError> {
    let has = |prefix: &str| exports.iter().any(|name| name.starts_with(prefix));
    let world = if has(HTTP_P2) {
        ProxyPreP2::new(pre).map(|pre| World::Http(ProxyPre::P2(pre)))
    } else if has(HTTP_P3) {
        ProxyPreP3::new(pre).map(|pre| World::Http(ProxyPre::P3(pre)))
    } else if has(RUN_P2) {
        CommandPreP2::new(pre).map(World::Command)
    } else if has(RUN_P3) {
        CommandPreP3::new(pre).map(World::CommandP3)
    } else {
        let list = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        return Err(ProgramError::World(list));
    };
    world.map_err(|error| ProgramError::Link(format!("{error:#}")))
}

/// Names the import that is missing, which the engine's message holds between backticks.
fn link_error(error: &wasmtime::Error) -> ProgramError {
    let text = format!("{error:#}");
    let missing = text.contains("component imports") && text.contains("not found");
    match text.split('`').nth(1) {
        Some(name) if missing => ProgramError::Import(name.to_owned()),
        _ => ProgramError::Link(text),
    }
}
