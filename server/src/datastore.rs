//! Where the cluster's state is: a file of this machine's, or an etcd that several servers share.

use std::{path::Path, sync::Arc, time::Duration};

use skiff_api::kinds::Kinds;
use skiff_store::{
    EtcdStore, Store, StoreError,
    cache::Cacher,
    etcd::{EtcdOptions, EtcdTls},
    sqlite::SqliteStore,
};
use tokio::time::Instant;

use crate::{ServerError, pki::certify::pem};

/// How long a start waits for an etcd that is not there yet.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long between two tries.
const START_AGAIN: Duration = Duration::from_millis(500);

/// The embedded datastore's file, below the control plane's folder.
pub(crate) const SQLITE_FILE: &str = "state.db";

/// Where the cluster's state is kept.
#[derive(Clone, Debug, Default)]
pub enum Datastore {
    /// In a file of the control plane's folder.
    #[default]
    Embedded,
    /// In etcd.
    Etcd {
        /// The members' addresses.
        endpoints: Vec<String>,
        /// For `https://`.
        tls: Option<EtcdTls>,
    },
}

/// Whom this machine trusts, as PEM: for an etcd whose authority is not given. Empty on a small machine that trusts
/// nobody. Where they are is OpenSSL's convention, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.
pub fn trusted_by_this_machine() -> String {
    rustls_native_certs::load_native_certs().certs.iter().map(|cert| pem(cert)).collect()
}

impl Datastore {
    /// What kind it is, in a word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Embedded => "sqlite",
            Self::Etcd { .. } => "etcd",
        }
    }
}

/// An open datastore.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// The same, where it is etcd.
    pub(crate) etcd: Option<Arc<EtcdStore>>,
    /// What it is called when something is wrong with it.
    pub(crate) place: String,
}

impl Opened {
    pub(crate) fn failed(&self, source: StoreError) -> ServerError {
        ServerError::Store { place: self.place.clone(), source }
    }

    /// The watch cache above it.
    pub(crate) async fn cache(&self) -> Result<Arc<Cacher>, ServerError> {
        let selectable = |storage: &skiff_api::kinds::StorageKey| {
            Kinds::builtin().stored_as(storage).map(|def| def.selectable.clone()).unwrap_or_default()
        };
        Cacher::start(Arc::clone(&self.store), selectable).await.map_err(|source| self.failed(source))
    }
}

/// Opens the datastore.
pub(crate) async fn open(datastore: &Datastore, data_dir: &Path) -> Result<Opened, ServerError> {
    match datastore {
        Datastore::Embedded => {
            let path = data_dir.join(SQLITE_FILE);
            let place = path.display().to_string();
            match SqliteStore::open(&path) {
                Ok(store) => Ok(Opened { store: Arc::new(store), etcd: None, place }),
                Err(source) => Err(ServerError::Store { place, source }),
            }
        }
        Datastore::Etcd { endpoints, tls } => {
            let place = endpoints.join(",");
            let options = EtcdOptions { tls: tls.clone(), ..EtcdOptions::new(endpoints.clone()) };
            let opened = open_etcd(options).await.map_err(|source| ServerError::Store { place: place.clone(), source });
            let etcd = Arc::new(opened?);
            Ok(Opened { store: Arc::clone(&etcd) as Arc<dyn Store>, etcd: Some(etcd), place })
        }
    }
}

/// Opens etcd; waits a while where it does not answer: after a power cut everything starts at once.
async fn open_etcd(options: EtcdOptions) -> Result<EtcdStore, StoreError> {
    let end = Instant::now() + START_PATIENCE;
    loop {
        match EtcdStore::open(options.clone()).await {
            Err(error @ StoreError::Unavailable(_)) if Instant::now() < end => {
                tracing::warn!(%error, "waiting for etcd");
                tokio::time::sleep(START_AGAIN).await;
            }
            opened => return opened,
        }
    }
}
