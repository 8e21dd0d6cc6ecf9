//! The front over real TLS on loopback, in front of a fake registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod actions;
mod authn;
mod bad_input;
mod connect;
mod fakes;
mod forms;
mod harness;
mod lifecycle;
mod protobuf;
mod tunnel;
mod watch;
