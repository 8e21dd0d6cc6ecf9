//! Container runtimes: the CRI calls as a trait, the client of a CRI socket, the events that a runtime sends, the
//! supervision of a runtime's process, and containerd as skiff runs it.

pub mod containerd;
pub mod cri;
pub mod error;
#[cfg(test)]
pub(crate) mod fake;
pub mod grpc;
pub mod process;
pub mod router;
pub mod watch;

pub use cri::Cri;
pub use error::CriError;
