//! The config maps and secrets that volumes are made of, followed once each however many pods mention them: every pod
//! has the cluster's CA.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use skiff_api::request::Options;
use skiff_client::{Client, Informer, Informers, Key, Kind};
use tokio_util::sync::{CancellationToken, DropGuard};

/// One object that is followed as long as somebody holds this.
pub struct Followed<K> {
    /// The object, and its changes.
    pub informer: Arc<Informer<K>>,
    _until_dropped: DropGuard,
}

/// Objects of one kind that are followed.
pub struct Shared<K> {
    client: Client,
    cancel: CancellationToken,
    followed: Mutex<HashMap<Key, Weak<Followed<K>>>>,
}

impl<K: Kind> Shared<K> {
    fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, cancel, followed: Mutex::default() }
    }

    /// Follows an object, with whoever follows it already.
    pub fn follow(&self, namespace: &str, name: &str) -> Arc<Followed<K>> {
        let mut all = self.followed.lock();
        let key = Key::new(namespace, name);
        if let Some(followed) = all.get(&key).and_then(Weak::upgrade) {
            return followed;
        }
        all.retain(|_, followed| followed.strong_count() > 0);
        let cancel = self.cancel.child_token();
        let informers = Informers::new(self.client.clone(), cancel.clone());
        let options = Options { field_selector: Some(format!("metadata.name={name}")), ..Options::default() };
        let informer = informers.select::<K>(Some(namespace), &options);
        let followed = Arc::new(Followed { informer, _until_dropped: cancel.drop_guard() });
        all.insert(key, Arc::downgrade(&followed));
        followed
    }
}

/// All that volumes of this node are made of.
pub struct Sources {
    /// Config maps.
    pub config_maps: Shared<ConfigMap>,
    /// Secrets.
    pub secrets: Shared<Secret>,
}

impl Sources {
    /// Follows nothing yet, and nothing any more once cancelled.
    pub fn new(client: &Client, cancel: &CancellationToken) -> Self {
        Self {
            config_maps: Shared::new(client.clone(), cancel.clone()),
            secrets: Shared::new(client.clone(), cancel.clone()),
        }
    }
}
