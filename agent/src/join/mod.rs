//! Joining a cluster from another machine: whom to trust, who this node is, and keeping that current.
//!
//! - [`token`]: what a node joins with.
//! - `discovery`: the first contact with a server, verified by the token.
//! - `request`: certificates by CertificateSigningRequests.
//! - `folder`: what is kept, so that a restart needs neither token nor server.
//! - `renew`: certificates are renewed before their end.
//!
//! Entry point: [`join`].

mod discovery;
mod folder;
mod renew;
mod request;
pub mod token;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use skiff_api::status::{ApiError, Reason};
use skiff_client::{
    Client, backoff,
    https::{self, Https},
    link::{CONFIG_PATH, ClusterConfig},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Credentials;
use folder::Folder;
use request::{Purpose, certificate};
use token::Token;

/// The first and the longest wait for a server that does not answer.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How long the server may take to tell of the cluster.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(15);
/// Sent as `User-Agent`.
const USER_AGENT: &str = "skiff-agent";

/// What a node joins by.
#[derive(Clone, Debug)]
pub struct Join {
    /// A server, e.g. `https://10.0.0.1:6443`.
    pub server_url: String,
    /// The token, needed the first time.
    pub token: Option<Token>,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// Where to keep what is given.
    pub folder: PathBuf,
}

/// A node that has joined.
#[derive(Debug)]
pub struct Joined {
    /// What it knows of the cluster.
    pub cluster: ClusterConfig,
    /// Its credentials, of the moment.
    pub credentials: watch::Receiver<Credentials>,
}

/// Why a node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server cannot be reached, for now.
    #[error("the server cannot be reached")]
    Away(#[source] ApiError),
    /// The server's URL, or what it sent, cannot be used.
    #[error("the server's address or certificate")]
    Setup(#[from] https::SetupError),
    /// There is no token, and the node has not joined before.
    #[error(
        "this node has not joined yet: give --token, which `skiff token create --print-join-command` prints on a server"
    )]
    NoToken,
    /// The token is of another cluster, or somebody is in between.
    #[error(
        "the server at {url} is not of the cluster that the token is of: its certificate authority is {found}, the \
         token's is {wanted}. Check --server, and take a token of that cluster; do not go on if both are right, for \
         then somebody answers in the server's place"
    )]
    OtherCluster {
        /// The server.
        url: String,
        /// The hash of the authority that it shows.
        found: String,
        /// The hash in the token.
        wanted: String,
    },
    /// What answers is no skiff server.
    #[error("{url} is no skiff server: {why}")]
    NoServer {
        /// The URL.
        url: String,
        /// What it answered.
        why: String,
    },
    /// The token is not good.
    #[error(
        "the server refuses the token: it is wrong, was deleted, or its time is over. Make a new one on a server: \
         skiff token create --print-join-command"
    )]
    Token,
    /// The token is good, but not for joining.
    #[error("the token may not let nodes join ({0}): make one with `skiff token create` on a server")]
    Forbidden(String),
    /// The cluster says no.
    #[error("the cluster refuses this node: {0}")]
    Denied(String),
    /// Another error of the API.
    #[error("the server refuses")]
    Refused(#[source] ApiError),
    /// A key.
    #[error("the node's key")]
    Key(#[source] rcgen::Error),
    /// A file.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl JoinError {
    /// What the API server's answer means to who joins.
    fn of(error: ApiError) -> Self {
        match error.code {
            401 => Self::Token,
            403 => Self::Forbidden(error.message),
            _ if is_passing(&error) => Self::Away(error),
            _ => Self::Refused(error),
        }
    }

    /// Whether it may pass by itself.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

fn is_passing(error: &ApiError) -> bool {
    matches!(error.reason, Reason::ServiceUnavailable | Reason::Timeout | Reason::TooManyRequests) || error.code >= 500
}

/// Joins, or goes on as what this node has joined as before. Waits for a server that is not there; cancelled, it gives
/// `None`. Renews certificates in the background from then on.
pub async fn join(join: Join, cancel: CancellationToken) -> Result<Option<Joined>, JoinError> {
    let folder = Folder::open(join.folder.clone())?;
    let mut again = backoff::Backoff::new(AGAIN.0, AGAIN.1);
    let credentials = loop {
        if let Some(kept) = folder.credentials(&join.node_name)? {
            break kept;
        }
        match cancel.run_until_cancelled(try_join(&join, &folder)).await {
            None => return Ok(None),
            Some(Ok(())) => continue,
            Some(Err(error)) if error.is_passing() => {
                let delay = again.next(backoff::random());
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, server = join.server_url, "waiting for the server, to join");
                if cancel.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                    return Ok(None);
                }
            }
            Some(Err(error)) => return Err(error),
        }
    };
    let cluster = folder.cluster()?.ok_or(JoinError::NoToken)?;
    let (sender, credentials) = watch::channel(credentials);
    tokio::spawn(renew::run(join, folder, sender, cancel));
    Ok(Some(Joined { cluster, credentials }))
}

/// Gets what is missing, each at its turn: what is there is not asked for again.
async fn try_join(join: &Join, folder: &Folder) -> Result<(), JoinError> {
    let key = folder.key()?;
    let known = folder.client(&join.node_name, &key)?.zip(folder.cluster()?);
    let now = skiff_client::clock::now();
    if !known.is_some_and(|((_, said), _)| !said.is_over(now)) {
        let token = join.token.as_ref().ok_or(JoinError::NoToken)?;
        bootstrap(join, token, folder).await?;
    }
    let client = as_node(join, folder)?.ok_or(JoinError::NoToken)?;
    let purpose = Purpose::Serving(join.node_ip);
    folder.keep_serving(&certificate(&client, &key, &join.node_name, purpose).await?)
}

/// Gets a client certificate by the token.
async fn bootstrap(join: &Join, token: &Token, folder: &Folder) -> Result<(), JoinError> {
    let server_ca = discovery::authority(&join.server_url, token).await?;
    let transport = transport(&join.server_url, &server_ca, https::Identity::Token(token.bearer.clone()))?;
    let cluster = cluster(&transport).await?;
    let pem = certificate(&Client::new(transport), &folder.key()?, &join.node_name, Purpose::Client).await?;
    folder.keep_cluster(&ClusterConfig { server_ca, ..cluster })?;
    folder.keep_client(&pem)
}

/// The API as this node; `None` where it has no certificate.
fn as_node(join: &Join, folder: &Folder) -> Result<Option<Client>, JoinError> {
    Ok(node_transport(join, folder)?.map(|transport| Client::new(transport)))
}

fn node_transport(join: &Join, folder: &Folder) -> Result<Option<std::sync::Arc<Https>>, JoinError> {
    let key = folder.key()?;
    let Some(((certificate, _), cluster)) = folder.client(&join.node_name, &key)?.zip(folder.cluster()?) else {
        return Ok(None);
    };
    let identity = https::Identity::Certificate { certificate, key: key.serialize_pem() };
    transport(&join.server_url, &cluster.server_ca, identity).map(Some)
}

fn transport(url: &str, server_ca: &str, identity: https::Identity) -> Result<std::sync::Arc<Https>, JoinError> {
    let (server_url, server_ca) = (url.to_owned(), server_ca.to_owned());
    Ok(Https::new(&https::Config { server_url, server_ca, identity, user_agent: USER_AGENT.to_owned() })?)
}

/// What the server tells of the cluster.
async fn cluster(transport: &Https) -> Result<ClusterConfig, JoinError> {
    let body = transport.get(CONFIG_PATH, CONFIG_TIMEOUT).await.map_err(JoinError::of)?;
    serde_json::from_slice(&body).map_err(|error| JoinError::Refused(ApiError::internal(error)))
}
