//! What every namespace has: the `default` ServiceAccount, and the cluster's CA in `kube-root-ca.crt`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use skiff_api::status::ApiError;
use skiff_client::{Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, name, namespace},
    pods::is_namespace_terminating,
};

/// The identity of the controller of `default` ServiceAccounts.
pub const ACCOUNTS_NAME: &str = "service-account-controller";
/// The identity of the controller of the CA's ConfigMaps.
pub const ROOT_CA_NAME: &str = "root-ca-cert-publisher";

const ACCOUNT: &str = "default";
const CONFIG_MAP: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
/// The annotation that says what the ConfigMap is for, as Kubernetes writes it.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

struct Accounts {
    context: Context,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
}

/// Keeps a `default` ServiceAccount in every namespace.
pub async fn run_accounts(context: Context) {
    let (namespaces, accounts) = (context.informers.of::<Namespace>(), context.informers.of::<ServiceAccount>());
    let cancel = context.cancel.clone();
    let controller = Accounts { context, namespaces: Arc::clone(&namespaces), accounts: Arc::clone(&accounts) };
    Frame::new(ACCOUNTS_NAME, Arc::new(controller), &cancel)
        .watch(&namespaces, |one| vec![Key::new("", name(&one.metadata))])
        .watch(&accounts, |one| namespace_if(&one.metadata, ACCOUNT))
        .run(1)
        .await;
}

#[async_trait]
impl Controller for Accounts {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        if !is_staying(&self.namespaces, &key.name) || self.accounts.get(&key.name, ACCOUNT).is_some() {
            return Ok(None);
        }
        let account = ServiceAccount { metadata: metadata(&key.name, ACCOUNT), ..ServiceAccount::default() };
        match self.context.client.create(&account).await {
            Ok(account) => self.accounts.observe(account),
            Err(error) if is_no_fault(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(None)
    }
}

struct RootCa {
    context: Context,
    namespaces: Arc<Informer<Namespace>>,
    maps: Arc<Informer<ConfigMap>>,
    root_ca: String,
}

/// Keeps the cluster's CA (PEM) in every namespace.
pub async fn run_root_ca(context: Context, root_ca: String) {
    let (namespaces, maps) = (context.informers.of::<Namespace>(), context.informers.of::<ConfigMap>());
    let cancel = context.cancel.clone();
    let controller = RootCa { context, namespaces: Arc::clone(&namespaces), maps: Arc::clone(&maps), root_ca };
    Frame::new(ROOT_CA_NAME, Arc::new(controller), &cancel)
        .watch(&namespaces, |one| vec![Key::new("", name(&one.metadata))])
        .watch(&maps, |one| namespace_if(&one.metadata, CONFIG_MAP))
        .run(1)
        .await;
}

#[async_trait]
impl Controller for RootCa {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        if !is_staying(&self.namespaces, &key.name) {
            return Ok(None);
        }
        let data = BTreeMap::from([(CA_KEY.to_owned(), self.root_ca.clone())]);
        let written = match self.maps.get(&key.name, CONFIG_MAP) {
            None => self.context.client.create(&self.config_map(&key.name, data)).await,
            Some(map) if map.data.as_ref() == Some(&data) => return Ok(None),
            Some(map) => self.context.client.update(&ConfigMap { data: Some(data), ..(*map).clone() }).await,
        };
        match written {
            Ok(map) => self.maps.observe(map),
            Err(error) if is_no_fault(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(None)
    }
}

impl RootCa {
    fn config_map(&self, namespace: &str, data: BTreeMap<String, String>) -> ConfigMap {
        let mut metadata = metadata(namespace, CONFIG_MAP);
        metadata.annotations = Some(BTreeMap::from([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())]));
        ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
    }
}

fn is_staying(namespaces: &Informer<Namespace>, name: &str) -> bool {
    namespaces.get("", name).is_some_and(|namespace| !is_deleting(&namespace.metadata))
}

fn is_no_fault(error: &ApiError) -> bool {
    error.is_already_exists() || error.is_not_found() || is_namespace_terminating(error)
}

fn namespace_if(metadata: &ObjectMeta, wanted: &str) -> Vec<Key> {
    if name(metadata) == wanted { vec![Key::new("", namespace(metadata))] } else { Vec::new() }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), name: Some(name.to_owned()), ..ObjectMeta::default() }
}
