//! The API server: one line from a TLS connection to the store and back, the same for every kind.
//!
//! - `front/`: TLS, HTTP, who asks (authn), URL to `Request`, answers in the form that was asked for (JSON, YAML,
//!   `Table`, partial metadata, watch frames), discovery, OpenAPI, health, version, metrics, proxying to nodes.
//! - `authz/`: may they.
//! - `admission/`: what a write is changed to or refused for, beyond its kind's own rules.
//! - `registry/`: the verbs, once for all kinds, over the watch cache; `strategy/` holds what is particular to a kind.
//! - `tokens/`: the tokens that the cluster issues and knows.
//! - `bootstrap/`: the objects that a fresh cluster holds.
//! - `local.rs`: the in-process transport. `spans.rs`: what the three of authn, authz and admission cost a request.

pub mod admission;
pub mod authz;
pub mod bootstrap;
pub mod front;
pub mod local;
pub mod registry;
pub mod server;
pub mod spans;
pub mod strategy;
pub mod tokens;

pub use server::{ApiServer, ApiServerParts, Config};
