//! Keeps what a node was given current: certificates are renewed when a third of their time is left, and what the
//! server tells of the cluster is read again.

use std::time::Duration;

use skiff_client::{backoff, clock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Join, JoinError, as_node, bootstrap, cluster,
    folder::Folder,
    node_transport,
    request::{Purpose, certificate},
};
use crate::Credentials;

/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// The first and the longest wait after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10 * 60));

/// Renews until cancelled.
pub(super) async fn run(join: Join, folder: Folder, sender: watch::Sender<Credentials>, cancel: CancellationToken) {
    let mut again = backoff::Backoff::new(AGAIN.0, AGAIN.1);
    loop {
        let Some(looked) = cancel.run_until_cancelled(look(&join, &folder, &sender)).await else { return };
        let delay = match looked {
            Ok(()) => {
                again.reset();
                LOOK_EVERY
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the node's certificates could not be looked after; the present ones stay");
                again.next(backoff::random())
            }
        };
        if cancel.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return;
        }
    }
}

async fn look(join: &Join, folder: &Folder, sender: &watch::Sender<Credentials>) -> Result<(), JoinError> {
    let (key, now) = (folder.key()?, clock::now());
    let client = folder.client(&join.node_name, &key)?.map(|(_, said)| said);
    match client {
        Some(said) if !said.is_over(now) => {
            if said.is_due(now)
                && let Some(client) = as_node(join, folder)?
            {
                folder.keep_client(&certificate(&client, &key, &join.node_name, Purpose::Client).await?)?;
            }
        }
        // Away for too long: the token, if there is one, and the key that has the name.
        _ => bootstrap(join, join.token.as_ref().ok_or(JoinError::NoToken)?, folder).await?,
    }
    if let Some(transport) = node_transport(join, folder)? {
        let known = cluster(&transport).await?;
        if folder.cluster()?.as_ref() != Some(&known) {
            folder.keep_cluster(&known)?;
        }
    }
    let serving = folder.serving(&join.node_name, &key)?;
    if serving.is_none_or(|(_, said)| said.is_due(now) || !said.serves_at(join.node_ip))
        && let Some(client) = as_node(join, folder)?
    {
        let purpose = Purpose::Serving(join.node_ip);
        folder.keep_serving(&certificate(&client, &key, &join.node_name, purpose).await?)?;
    }
    if let Some(fresh) = folder.credentials(&join.node_name)? {
        sender.send_if_modified(|known| {
            let differs = *known != fresh;
            *known = fresh;
            differs
        });
    }
    Ok(())
}
