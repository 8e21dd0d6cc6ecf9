//! One heap for all threads. glibc gives each thread that allocates a heap of its own, up to eight a core, and each
//! keeps what was freed in it: on a small machine that costs more memory (a fifth here) than sharing costs time.

use std::{env, os::unix::process::CommandExt, process::Command};

/// glibc reads this before `main` and never again.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Starts this program anew with one heap, unless its environment says how many there are. Returns where that cannot
/// be done: everything works without it.
pub(crate) fn share() {
    if env::var_os(ARENAS).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // `exec` returns only its error; children inherit the setting, the Wasm runtime among them.
    let error = command.args(arguments).env(ARENAS, "1").exec();
    tracing::debug!(%error, "memory is not kept in one heap");
}
