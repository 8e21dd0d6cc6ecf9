//! The API server, put together: the registry behind the HTTPS front and the in-process transport.

use std::{io, sync::Arc};

use skiff_api::user::UserInfo;
use skiff_client::{Transport, link::ClusterConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    authz::Authorizer,
    front::{
        Front, FrontParts,
        actions::Actions,
        authn::{Authenticator, token::TokenAuthenticator},
        catalog::Catalog,
        connect::{Connector, dial::Dial},
        health::{CheckScope, Health},
        listen::{self, Patience},
        metrics::Metrics,
        tls::ServingTls,
        version::Version,
    },
    local::Local,
    registry::Dispatch,
    spans::Spans,
    tokens::discovery::IssuerDocuments,
};

/// What the API server is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether requests without credentials are let in as `system:anonymous`.
    pub anonymous_auth: bool,
    /// What `/version` says.
    pub version: Version,
    /// How long clients are waited for.
    pub patience: Patience,
}

impl Default for Config {
    fn default() -> Self {
        Self { anonymous_auth: true, version: Version::default(), patience: Patience::default() }
    }
}

/// What the API server is made of.
pub struct ApiServerParts {
    /// The registry.
    pub dispatch: Arc<dyn Dispatch>,
    /// May they.
    pub authorizer: Arc<dyn Authorizer>,
    /// Whose a token is.
    pub tokens: Arc<dyn TokenAuthenticator>,
    /// Kinds and their documents.
    pub catalog: Arc<dyn Catalog>,
    /// The way to nodes and pods.
    pub dial: Arc<dyn Dial>,
    /// By what others check tokens that are issued here; `None` where none are.
    pub issuer: Option<IssuerDocuments>,
    /// How long it takes to know who asks and whether they may.
    pub spans: Arc<Spans>,
    /// What nodes on other machines are told of the cluster; `None` where none may join.
    pub cluster: Option<ClusterConfig>,
}

/// The API server.
pub struct ApiServer {
    front: Arc<Front>,
    dispatch: Arc<dyn Dispatch>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl ApiServer {
    /// An API server of these parts. Nothing listens until [`ApiServer::serve`].
    pub fn new(config: Config, parts: ApiServerParts) -> Self {
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::default()));
        let told = Arc::clone(&parts.spans);
        metrics.add_source(Arc::new(move |out: &mut String| told.write(out)));
        let front = Front::new(FrontParts {
            dispatch: Arc::clone(&parts.dispatch),
            authorizer: parts.authorizer,
            authenticator: Authenticator::new(parts.tokens, config.anonymous_auth),
            catalog: parts.catalog,
            connector: Connector { dial: parts.dial },
            issuer: parts.issuer,
            cluster: parts.cluster,
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            spans: Arc::clone(&parts.spans),
            version: config.version,
            patience: config.patience,
        });
        let ending = front.shutdown().clone();
        let serving = move || -> futures::future::BoxFuture<'static, Result<(), String>> {
            let ended = ending.is_cancelled();
            Box::pin(async move { if ended { Err("process is shutting down".to_owned()) } else { Ok(()) } })
        };
        health.add("shutdown", CheckScope::Ready, Arc::new(serving));
        Self { front, dispatch: parts.dispatch, health, metrics }
    }

    /// Serves HTTPS until cancelled. Then nothing more is accepted, watches end, requests may finish within the
    /// grace period, and the call returns; it never takes as long as a second. To listen on several addresses, call
    /// it for each, with one token.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<ServingTls>,
        cancel: CancellationToken,
    ) -> io::Result<()> {
        listen::serve(Arc::clone(&self.front), listener, tls, cancel).await
    }

    /// A client in this process that asks as `user` and writes as `program`.
    pub fn local(&self, user: UserInfo, program: &str) -> Arc<dyn Transport> {
        Arc::new(Local::new(Arc::clone(&self.dispatch), user, program))
    }

    /// Where the other rooms register what must be well or done before the server is ready.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Where the other rooms add what an administrator may ask of them.
    pub fn actions(&self) -> &Actions {
        self.front.actions()
    }

    /// Where the other rooms add their metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}
