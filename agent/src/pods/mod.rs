//! The life of a pod: what is wanted and what was seen go in, what is to be done and what is to be told come out.
//!
//! - [`model`]: the pod as it is desired and as it was observed, and the actions.
//! - [`decide()`]: the actions that bring the one closer to the other; pure.
//! - [`status()`]: the `PodStatus` that says where the pod is; pure.
//! - [`restart`]: restart policies and the crash back-off.
//! - [`worker`]: one task a pod, which runs actions and feeds what came of them back; [`manager`] starts the workers.
//! - [`sysctls`]: kernel parameters that a pod may set; pure.
//! - [`statics`]: pods that files of the node describe.
//! - [`execute`]: the actions themselves, against CRI, each with a deadline.

pub mod admission;
pub mod cgroup;
mod conditions;
pub mod config;
pub mod credentials;
mod decide;
pub mod dns;
pub mod env;
pub mod execute;
mod expand;
pub mod fields;
pub mod hooks;
pub mod hosts;
mod image;
mod init;
pub mod manager;
mod memory;
mod message;
pub mod model;
pub mod observe;
mod patch;
mod phase;
mod pull;
pub mod qos;
mod resize;
pub mod restart;
mod rotate;
pub mod security;
pub mod statics;
mod status;
pub mod sysctls;
pub mod worker;

pub use decide::decide;
pub use status::status;

#[cfg(test)]
mod tests;
