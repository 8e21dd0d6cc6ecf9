//! What another process on this machine asks of the server that runs: as the administrator, with the credentials that
//! the server leaves in its folder for those who may read it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use skiff_api::status::ApiError;
use skiff_client::{
    Client, Transport,
    https::{self, Https, SetupError},
};

use crate::kubeconfig;

/// Why the server was not asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Its credentials cannot be read.
    #[error("reading {path}: are you the user that the server runs as?")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// Its credentials are something else.
    #[error("{path} is not what a server writes there: start the server again")]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The credentials cannot be used.
    #[error("connecting to the server")]
    Setup(#[from] SetupError),
    /// The server refuses.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// Where a server keeps the administrator's kubeconfig for its own commands, below its folder.
pub fn kubeconfig_path(server_dir: &Path) -> PathBuf {
    server_dir.join("cred/admin.kubeconfig")
}

/// The way to the server that runs on a folder.
pub struct Admin {
    transport: Arc<Https>,
    /// Who signed its certificate, as PEM.
    pub server_ca: String,
}

impl Admin {
    /// With the credentials that the server keeps in its folder.
    pub fn of(server_dir: &Path) -> Result<Self, AdminError> {
        let file = kubeconfig_path(server_dir);
        let text = std::fs::read_to_string(&file).map_err(|source| AdminError::Read { path: file.clone(), source })?;
        let access = kubeconfig::parse(&text).ok_or(AdminError::Unreadable { path: file })?;
        let config = https::Config {
            server_url: access.url,
            server_ca: access.server_ca.clone(),
            identity: https::Identity::Certificate { certificate: access.admin.cert, key: access.admin.key },
            user_agent: "skiff".to_owned(),
        };
        Ok(Self { transport: Https::new(&config)?, server_ca: access.server_ca })
    }

    /// The API as the administrator.
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.transport) as Arc<dyn Transport>)
    }

    /// Posts to a path that is no resource.
    pub async fn post(&self, path: &str, limit: Duration) -> Result<Bytes, AdminError> {
        Ok(self.transport.post(path, limit).await?)
    }
}
