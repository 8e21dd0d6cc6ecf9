//! The control plane put together.

mod files;
pub mod pki;
