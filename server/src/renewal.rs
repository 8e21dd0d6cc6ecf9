//! Certificates are renewed and the clients' authorities read again while the server runs, without a restart: what is
//! new counts for the next connection.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use skiff_apiserver::{
    front::{connect::dial::NetDial, tls::ServingTls},
    registry::RegistryConfig,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ServerError,
    identities::Identities,
    kubeconfig::Kubeconfigs,
    pki::{Identity, Pki},
};

/// How often it is looked at whether something ends or has been changed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What is kept new.
pub(crate) struct Renewal {
    pub(crate) pki: Arc<Pki>,
    pub(crate) config: Config,
    pub(crate) registry: RegistryConfig,
    pub(crate) serving: Arc<ServingTls>,
    pub(crate) nodes: Arc<NetDial>,
    pub(crate) kubeconfigs: Arc<Kubeconfigs>,
}

/// What was in use when it was last looked.
struct Used {
    serving: Identity,
    node_client: Identity,
    client_cas: String,
}

impl Renewal {
    /// Looks from time to time, until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut used = None;
        while cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match self.look(used.as_ref(), skiff_client::clock::now()) {
                Ok(now_used) => used = Some(now_used),
                Err(error) => tracing::warn!(%error, "the certificates could not be renewed; the present ones stay"),
            }
        }
    }

    /// Puts to use what differs from what was in use.
    fn look(&self, used: Option<&Used>, now: Timestamp) -> Result<Used, ServerError> {
        let identities = Identities::issue(&self.pki, &self.config, &self.registry, now)?;
        self.kubeconfigs.renew(&identities.admin)?;
        let now_used = Used {
            serving: identities.serving().clone(),
            node_client: identities.node_client_identity().clone(),
            client_cas: self.pki.client_cas()?,
        };
        let same = |old: &Identity, new: &Identity| old.cert == new.cert;
        let serves = |used: &Used| same(&used.serving, &now_used.serving) && used.client_cas == now_used.client_cas;
        if !used.is_some_and(serves) {
            self.serving
                .replace(identities.serving_material(&now_used.client_cas)?)
                .map_err(|error| ServerError::Tls(error.into()))?;
        }
        if !used.is_some_and(|used| same(&used.node_client, &now_used.node_client)) {
            self.nodes.replace(identities.node_client(&self.pki)?).map_err(|error| ServerError::Tls(error.into()))?;
        }
        Ok(now_used)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use jiff::ToSpan as _;
    use skiff_apiserver::front::connect::dial::NetDial;

    use super::*;

    fn renewal(dir: &std::path::Path, now: Timestamp) -> Renewal {
        let config = Config::on_loopback(dir.to_owned());
        let pki = Arc::new(Pki::open(dir.join("tls"), now).unwrap());
        let registry = RegistryConfig::default();
        let identities = Identities::issue(&pki, &config, &registry, now).unwrap();
        let serving = identities.serving_tls(&pki).unwrap();
        let nodes = Arc::new(NetDial::new(identities.node_client(&pki).unwrap()).unwrap());
        let kubeconfigs = Kubeconfigs::new("https://x".to_owned(), pki.server_ca(), identities.admin.clone());
        let kubeconfigs = Arc::new(kubeconfigs);
        Renewal { pki, config, registry, serving, nodes, kubeconfigs }
    }

    #[test]
    fn what_ends_is_renewed_and_what_is_trusted_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let renewal = renewal(dir.path(), now);
        let first = renewal.look(None, now).unwrap();
        let before = renewal.serving.current().config;
        let kubeconfig = dir.path().join("kubeconfig");
        let admin = || crate::kubeconfig::parse(&std::fs::read_to_string(&kubeconfig).unwrap()).unwrap().admin.cert;
        renewal.kubeconfigs.write(&kubeconfig).unwrap();
        let first_admin = admin();
        let second = renewal.look(Some(&first), now).unwrap();
        assert!(Arc::ptr_eq(&before, &renewal.serving.current().config), "nothing is new");

        let third = renewal.look(Some(&second), now + (24 * 300).hours()).unwrap();
        assert_ne!(third.serving.cert, first.serving.cert);
        assert_ne!(admin(), first_admin, "the administrator's kubeconfig is written anew");
        let renewed = renewal.serving.current().config;
        assert!(!Arc::ptr_eq(&before, &renewed), "the next connection gets the new certificate");

        // Another authority beside the cluster's own.
        let other = tempfile::tempdir().unwrap();
        let more = Pki::open(other.path().join("tls"), now).unwrap();
        let both = format!("{}{}", renewal.pki.client_ca(), more.client_ca());
        std::fs::write(dir.path().join("tls/client-ca.crt"), &both).unwrap();
        let fourth = renewal.look(Some(&third), now + (24 * 300).hours()).unwrap();
        assert_eq!(fourth.client_cas, both);
        assert!(!Arc::ptr_eq(&renewed, &renewal.serving.current().config));
    }
}
