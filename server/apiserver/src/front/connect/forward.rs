//! Sends a request on and its answer back.

use std::{io, sync::Arc};

use futures::TryStreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::{Response, body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use skiff_api::status::{ApiError, Reason};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::dial::{Dial, Endpoint};
use crate::front::{
    Call, Front,
    body::{Body, ByteStream},
    resources::Held,
    respond::Reply,
};

/// Headers that are between two hops and not passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// A request to be sent on.
pub struct Outgoing {
    /// Where to.
    pub endpoint: Endpoint,
    /// The method.
    pub method: Method,
    /// The path and query, encoded.
    pub path_and_query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Outgoing {
    /// Its URL, for messages.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.endpoint.scheme(), self.endpoint.authority(), self.path_and_query)
    }
}

/// An answer on its way back, with the connection that it comes over.
pub struct Answering {
    /// The answer.
    pub response: Response<Incoming>,
    /// Its connection ends when this is dropped.
    pub connection: AbortOnDropHandle<()>,
}

/// The headers that are passed on; those of an upgrade where there is one.
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    let upgrade = upgrade_of(headers).cloned();
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain([&header::UPGRADE]) {
        passed.remove(name);
    }
    if let Some(protocol) = upgrade {
        passed.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        passed.insert(header::UPGRADE, protocol);
    }
    passed
}

/// What a message asks to upgrade to.
pub fn upgrade_of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let asks = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks = asks.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    asks.then(|| headers.get(header::UPGRADE)).flatten()
}

/// Sends a request on and waits for the head of its answer.
pub async fn send(dial: &Arc<dyn Dial>, outgoing: Outgoing) -> Result<Answering, ApiError> {
    let url = outgoing.url();
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("error trying to reach service: {error} ({url})");
        ApiError::new(Reason::ServiceUnavailable, message)
    };
    let stream = dial.dial(&outgoing.endpoint).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        drop(connection.with_upgrades().await);
    }));
    let mut request = http::Request::new(outgoing.body);
    *request.method_mut() = outgoing.method;
    *request.uri_mut() = outgoing.path_and_query.parse().map_err(ApiError::internal)?;
    *request.headers_mut() = outgoing.headers;
    let host = outgoing.endpoint.authority().parse().map_err(ApiError::internal)?;
    request.headers_mut().entry(header::HOST).or_insert(host);
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    Ok(Answering { response, connection })
}

/// An answer's body as the body of our own, with all that it holds.
pub fn streamed(front: &Front, call: &Call, incoming: Answering) -> Result<Reply, ApiError> {
    let turn = front.long_running_turn()?;
    let (parts, body) = incoming.response.into_parts();
    let ended = front.shutdown().clone().cancelled_owned();
    let bytes: ByteStream = Box::pin(body.into_data_stream().map_err(io::Error::other));
    let bytes = futures::StreamExt::take_until(bytes, ended);
    let running = front.metrics.running(&call.label);
    let held = Held { inner: Box::pin(bytes), _turn: turn, _share: None, _running: running };
    let body = Body::Stream(Box::pin(Tied { inner: held, _connection: incoming.connection }));
    let mut reply = Response::from_parts(parts, body);
    let passed = passed_on(reply.headers());
    *reply.headers_mut() = passed;
    Ok(reply)
}

/// Tunnels bytes between a client and the other side after both have agreed to upgrade.
pub fn tunnel(front: &Front, call: &mut Call, mut incoming: Answering) -> Result<Reply, ApiError> {
    let Some(client) = call.parts.extensions.remove::<OnUpgrade>() else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let turn = front.long_running_turn()?;
    let running = front.metrics.running(&call.label);
    let other = hyper::upgrade::on(&mut incoming.response);
    let shutdown = front.shutdown().clone();
    let connection = incoming.connection;
    tokio::spawn(async move {
        if let Err(error) = carry(client, other, &shutdown).await {
            tracing::debug!(%error, "a tunnel ended");
        }
        drop((turn, running, connection));
    });
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = passed_on(incoming.response.headers());
    Ok(reply)
}

async fn carry(client: OnUpgrade, other: OnUpgrade, shutdown: &CancellationToken) -> io::Result<()> {
    let carrying = async {
        let (client, other) = tokio::try_join!(client, other).map_err(io::Error::other)?;
        let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
        tokio::io::copy_bidirectional(&mut client, &mut other).await.map(drop)
    };
    shutdown.run_until_cancelled(carrying).await.unwrap_or(Ok(()))
}

/// A stream with the connection that feeds it.
struct Tied<S> {
    inner: S,
    _connection: AbortOnDropHandle<()>,
}

impl<S: futures::Stream + Unpin> futures::Stream for Tied<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::pin::Pin::new(&mut self.inner).poll_next(cx)
    }
}
