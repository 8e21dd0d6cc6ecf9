//! A command: one instance, run to its end.

use std::sync::Arc;

use super::{Exit, Signals, Spec};
use crate::engine::{
    meter::Metered,
    program::{START, World},
};

/// Runs the command to its end or until it is told to end.
pub(crate) async fn run(spec: Arc<Spec>, signals: Signals) -> Exit {
    let guest = Metered::new(call(spec.clone()), spec.pod.usage.clone(), spec.ticker.clone());
    let exit = tokio::select! {
        biased;
        () = signals.kill.cancelled() => Exit::killed(""),
        () = signals.stop.cancelled() => Exit::terminated(),
        ended = guest => match ended {
            Ok(code) => Exit::code(code),
            Err(error) => Exit::from_error(&error),
        },
    };
    if !exit.message.is_empty() {
        spec.stdio.note(&exit.message);
    }
    exit
}

/// The guest's own way: its exit code, 1 where `run` answers with an error.
async fn call(spec: Arc<Spec>) -> wasmtime::Result<i32> {
    let ended = match &spec.program.world {
        World::Module(pre) => {
            let mut store = spec.core_store()?;
            let instance = pre.instantiate_async(&mut store).await?;
            instance.get_typed_func::<(), ()>(&mut store, START)?.call_async(&mut store, ()).await?;
            Ok(())
        }
        World::Command(pre) => {
            let mut store = spec.store()?;
            let command = pre.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await?
        }
        World::CommandP3(pre) => {
            let mut store = spec.store()?;
            let command = pre.instantiate_async(&mut store).await?;
            store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await).await??
        }
        World::Http(_) => wasmtime::bail!("an HTTP component is not a command"),
    };
    Ok(if ended.is_ok() { 0 } else { 1 })
}
