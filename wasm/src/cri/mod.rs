//! CRI v1 over gRPC: thin translations between messages and the runtime.

mod images;
mod service;
mod stats;
pub(crate) mod view;

pub(crate) use images::Images;
pub(crate) use service::Service;
