//! What nodes on other machines ask of the server beside the API, see [`skiff_client::link`]: whom to trust, how the
//! cluster is set up, and a tunnel.

use http::{HeaderValue, Method, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use skiff_api::{
    status::{ApiError, Reason},
    user::UserInfo,
};
use skiff_client::link::{CA_PATH, CONFIG_PATH, CONNECT_PATH, ClusterConfig, TUNNEL_PROTOCOL};

use super::{
    Call, Front,
    body::Body,
    connect::forward::upgrade_of,
    respond::{Reply, reply},
};
use crate::authz::node::node_name;

/// The group of those who join.
const BOOTSTRAPPERS: &str = "system:bootstrappers";

/// Answers a request on one of the paths; `None` for any other path.
pub(super) fn answer(front: &Front, user: &UserInfo, call: &mut Call, path: &str) -> Option<Result<Reply, ApiError>> {
    let config = front.cluster.as_ref()?;
    let answer = match path {
        CA_PATH => only_get(call).map(|()| reply(200, "text/plain", Body::full(config.server_ca.clone()))),
        CONFIG_PATH => only_get(call).and_then(|()| document(config, user, path)),
        CONNECT_PATH => only_get(call).and_then(|()| connect(front, user, call, path)),
        _ => return None,
    };
    Some(answer)
}

fn only_get(call: &Call) -> Result<(), ApiError> {
    if call.parts.method == Method::GET {
        return Ok(());
    }
    let message = "the server does not allow this method on the requested resource";
    Err(ApiError::new(Reason::MethodNotAllowed, message))
}

fn forbidden(user: &UserInfo, path: &str) -> ApiError {
    let message = format!("forbidden: User {:?} cannot get path {path:?}: only nodes may", user.name);
    ApiError::new(Reason::Forbidden, message)
}

fn document(config: &ClusterConfig, user: &UserInfo, path: &str) -> Result<Reply, ApiError> {
    let joins = user.groups.iter().any(|group| group == BOOTSTRAPPERS);
    if node_name(user).is_none() && !joins {
        return Err(forbidden(user, path));
    }
    let json = serde_json::to_vec(config).map_err(ApiError::internal)?;
    Ok(reply(200, "application/json", Body::full(json)))
}

/// Takes a node's tunnel. It is the tunnel of the node that the client certificate names, and of no other.
fn connect(front: &Front, user: &UserInfo, call: &mut Call, path: &str) -> Result<Reply, ApiError> {
    let node = node_name(user).ok_or_else(|| forbidden(user, path))?.to_owned();
    let asks = upgrade_of(&call.parts.headers).is_some_and(|protocol| protocol == TUNNEL_PROTOCOL);
    let Some(upgrade) = call.parts.extensions.remove::<OnUpgrade>().filter(|_| asks) else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let (turn, running) = (front.long_running_turn()?, front.metrics.running(&call.label));
    let (tunnels, shutdown) = (front.connector.dial.tunnels().clone(), front.shutdown().clone());
    tokio::spawn(async move {
        tunnels.carry(&node, upgrade, &shutdown).await;
        drop((turn, running));
    });
    let mut reply = Reply::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    reply.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(TUNNEL_PROTOCOL));
    Ok(reply)
}
