//! Attacks on a whole API server: real registry, real authorizers, real tokens, over TLS on loopback. Each must be
//! refused with the right status, give nothing away, and keep nobody else from being served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod floods;
mod nodes;
mod paths;
mod site;
mod tokens;
