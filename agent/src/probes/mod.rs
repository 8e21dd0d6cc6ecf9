//! Startup, readiness and liveness probes: [`core`] counts results against thresholds, [`run`] keeps a container's
//! probes going, [`check`] carries a single one out.

pub mod check;
pub mod core;
mod grpc;
pub mod http;
pub mod run;

pub use run::{ProbeKind, Verdict, watch_container};
