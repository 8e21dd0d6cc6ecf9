//! The API server's parts, and the scheduler and controllers as its clients.

use std::{path::Path, sync::Arc};

use futures::future::BoxFuture;
use jiff::Timestamp;
use skiff_api::user::UserInfo;
use skiff_apiserver::{
    authz::Authorizer,
    bootstrap,
    front::{
        actions::Action,
        authn::token::{AnyOf, IdentityTokens},
        catalog::KindsCatalog,
        connect::dial::{Dial, NetDial},
        health::CheckScope,
    },
    registry::{Dispatch, Identity, Registry},
    server::{ApiServer, ApiServerParts, Config as ApiServerConfig},
    tokens::{
        ISSUER, Tokens, TokensConfig, account_user_name,
        claims::{Claims, Reference},
        discovery::IssuerDocuments,
        jws::SigningKey,
        usage::{self, Use},
    },
};
use skiff_client::{client::Client, informer::Informers, link::ClusterConfig, recorder::EventRecorder};
use skiff_controllers::tokens::{Sign, TokenOf};
use skiff_store::{EtcdStore, Store};
use tokio::sync::mpsc::Receiver;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Config, ServerError,
    election::{Election, Timing},
    identities::Identities,
    join::ServerToken,
    pki::{Pki, certify::ClusterSigner},
    rotate::{self, Rotation},
    snapshot::{
        Source,
        service::{self, Snapshots},
    },
    token::Live,
};

/// The program whose fields the controllers manage, as it is called in Kubernetes.
const CONTROLLERS: &str = "kube-controller-manager";

/// The scheduler's, which is the name of its Lease too, as the other is of the controllers'.
const SCHEDULER: &str = "kube-scheduler";
/// The controllers' common user: reads for all of them, and writes the tokens in Secrets.
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";

/// The prefix of a node's share of the pod addresses: 8,190 of them, so that addresses never cap a node.
pub(crate) const NODE_PREFIX: u8 = 19;

/// The API server over a registry.
pub(crate) fn api_server(
    registry: &Arc<Registry>,
    identities: &Identities,
    pki: &Pki,
    key: &Arc<SigningKey>,
    token: &Live,
    cluster_cidr: &str,
) -> Result<(ApiServer, Arc<NetDial>, Receiver<Use>), ServerError> {
    let dial = NetDial::new(identities.node_client(pki)?).map_err(|error| ServerError::Tls(error.into()))?;
    let dial = Arc::new(dial);
    let config = registry.config();
    let advertised = format!("{}:{}", config.advertise_address, config.advertise_port);
    let issuer = IssuerDocuments::new(ISSUER, &advertised, key);
    let (told, uses) = usage::uses();
    let tokens = TokensConfig { uses: Some(told), ..TokensConfig::new(Arc::clone(key)) };
    let tokens: Arc<dyn Identity> = Arc::new(Tokens::new(tokens, Arc::clone(registry.cacher())));
    registry.set_identity(Arc::clone(&tokens));
    let parts = ApiServerParts {
        dispatch: Arc::clone(registry) as Arc<dyn Dispatch>,
        authorizer: registry.authorizer() as Arc<dyn Authorizer>,
        tokens: Arc::new(AnyOf(vec![Arc::new(IdentityTokens(tokens)), Arc::new(ServerToken(token.clone()))])),
        catalog: Arc::new(KindsCatalog::new(registry.kinds(), advertised)),
        dial: Arc::clone(&dial) as Arc<dyn Dial>,
        issuer: Some(issuer),
        spans: Arc::clone(registry.spans()),
        cluster: Some(ClusterConfig {
            server_ca: pki.server_ca().to_owned(),
            client_ca: pki.client_ca().to_owned(),
            cluster_cidr: cluster_cidr.to_owned(),
            service_cidr: config.service_cidr.to_string(),
        }),
    };
    Ok((ApiServer::new(ApiServerConfig::default(), parts), dial, uses))
}

/// What must be well for the API server to be live and ready: the datastore, and what every cluster has, which is
/// there before anything listens.
pub(crate) fn add_health(api: &ApiServer, store: &Arc<dyn Store>) {
    let store = Arc::clone(store);
    let check = move || -> BoxFuture<'static, Result<(), String>> {
        let store = Arc::clone(&store);
        Box::pin(async move { store.health().await.map_err(|error| error.to_string()) })
    };
    api.health().add("etcd", CheckScope::All, Arc::new(check));
    api.health().add_flag(bootstrap::READINESS, CheckScope::All).done();
}

/// Starts scheduler and controllers. All read through one set of informers; each writes as itself. Where other
/// servers may run them too, they run while this one holds their Leases.
pub(crate) fn start(
    api: &Arc<ApiServer>,
    config: &Config,
    pki: &Arc<Pki>,
    key: &Arc<SigningKey>,
    alone: bool,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) {
    let manager = Client::new(api.local(component(CONTROLLER_MANAGER), CONTROLLERS));
    let informers = Informers::new(manager.clone(), cancel.child_token());
    let scheduler = Client::new(api.local(component("system:kube-scheduler"), SCHEDULER));
    let schedule = {
        let (client, informers) = (scheduler.clone(), informers.clone());
        move |cancel| {
            skiff_scheduler::run(client.clone(), informers.clone(), skiff_scheduler::Config::default(), cancel)
        }
    };
    let as_controller = {
        let api = Arc::clone(api);
        move |name: &str| {
            let is_the_manager_itself = name == skiff_controllers::tokens::NAME;
            let user = if is_the_manager_itself {
                component(CONTROLLER_MANAGER)
            } else {
                service_account("kube-system", name)
            };
            Client::new(api.local(user, CONTROLLERS))
        }
    };
    let controllers = skiff_controllers::Config {
        root_ca: pki.server_ca().to_owned(),
        nodes: skiff_controllers::nodes::Config {
            pod_cidrs: vec![(config.cluster_cidr.clone(), NODE_PREFIX)],
            ..Default::default()
        },
        signer: Arc::new(ClusterSigner(Arc::clone(pki))),
        server: itself(api),
        sign_token: sign_token(key),
        local_path: config.local_storage,
    };
    let control =
        move |cancel| skiff_controllers::run_all(as_controller.clone(), informers.clone(), controllers.clone(), cancel);
    if alone {
        tasks.spawn(schedule(cancel.child_token()));
        tasks.spawn(control(cancel.child_token()));
        return;
    }
    let identity = format!("{}_{}", config.advertise_address, Uuid::new_v4());
    let stand = |client, name| Election::new(client, name, &identity, Timing::default());
    tasks.spawn(stand(scheduler, SCHEDULER).run(schedule, cancel.child_token()));
    tasks.spawn(stand(manager, CONTROLLERS).run(control, cancel.child_token()));
}

/// Makes snapshots when an administrator asks, and on schedule.
pub(crate) fn add_snapshots(
    api: &Arc<ApiServer>,
    source: Source,
    token: Live,
    config: service::Config,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<(), ServerError> {
    let host = config.node.clone();
    let snapshots = Snapshots::new(source, token, config, Arc::new(Timestamp::now))?;
    api.actions().add(service::PATH, Arc::clone(&snapshots) as Arc<dyn Action>);
    let writer = Client::new(api.local(administrator(), "skiff"));
    let recorder = EventRecorder::new(writer, "skiff-snapshots", &host, cancel.child_token());
    tasks.spawn(snapshots.follow_schedule(recorder, cancel.child_token()));
    Ok(())
}

/// Lets an administrator put another server token in the place of the one that is.
pub(crate) fn add_rotation(
    api: &ApiServer,
    etcd: Option<Arc<EtcdStore>>,
    pki: &Arc<Pki>,
    token: &Live,
    data_dir: &Path,
) {
    let rotation = Rotation {
        etcd,
        pki: Arc::clone(pki),
        token: token.clone(),
        data_dir: data_dir.to_owned(),
        turn: tokio::sync::Mutex::default(),
    };
    api.actions().add(rotate::PATH, Arc::new(rotation));
}

/// Signs the tokens that lie in Secrets.
fn sign_token(key: &Arc<SigningKey>) -> Sign {
    let key = Arc::clone(key);
    Sign(Arc::new(move |of: &TokenOf| {
        let account = Reference { name: of.account.clone(), uid: of.account_uid.clone() };
        key.sign(&Claims::legacy_json(&of.namespace, &account, &of.secret)).map_err(|error| error.to_string())
    }))
}

/// The API as the API server itself.
pub(crate) fn itself(api: &ApiServer) -> Client {
    Client::new(api.local(user("system:apiserver", &["system:masters"]), "kube-apiserver"))
}

/// Who may do all: the identity of what the operator of this process asks for.
pub(crate) fn administrator() -> UserInfo {
    user("system:admin", &["system:masters"])
}

fn component(name: &str) -> UserInfo {
    user(name, &[])
}

fn service_account(namespace: &str, name: &str) -> UserInfo {
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
    user(&account_user_name(namespace, name), &groups)
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}
