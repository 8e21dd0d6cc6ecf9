//! The node's HTTPS API.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{Config, context::Context};

/// The node's API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The node's API, listening.
pub struct Listener;

impl Listener {
    pub(crate) async fn bind(_config: &Config, _ctx: Arc<Context>) -> Result<Self, ServeError> {
        Ok(Self)
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        cancel.cancelled().await;
    }
}
