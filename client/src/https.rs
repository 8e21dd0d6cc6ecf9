//! The transport over HTTP/2 and TLS: one connection to the API server, shared by all requests and watches, made
//! anew when it is lost.
//!
//! The server is always verified against the cluster's CA; there is no way to turn that off. Only who does not know
//! that CA yet may ask one document of a server that is not verified ([`Https::unverified`]).

mod connection;
mod decode;
mod tls;

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use skiff_api::{
    request::Request,
    status::{ApiError, Reason},
};

use crate::{List, Transport, WatchStream};
use connection::Connection;
use decode::Frames;
pub use tls::{AnyServer, Identity, SetupError, client_config};

/// How long one request may take from its first byte to the last of its answer; a watch: to its first.
const CALL_TIMEOUT: Duration = Duration::from_secs(34);

/// How long one page of a list may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// How large the answer to a request for one object may be.
const MAX_OBJECT_BYTES: usize = 16 << 20;

/// How large a document may be that is no object.
const MAX_DOCUMENT_BYTES: usize = 256 << 10;

/// How large one page of a list may be.
const MAX_LIST_BYTES: usize = 256 << 20;

/// What a transport needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The API server, e.g. `https://127.0.0.1:6443`.
    pub server_url: String,
    /// Who signs the server's certificate, as PEM. One or several certificates.
    pub server_ca: String,
    /// Who the client is.
    pub identity: Identity,
    /// Sent as `User-Agent`, e.g. `skiff-agent`.
    pub user_agent: String,
}

/// The transport. One connection, however many requests.
pub struct Https {
    connection: Connection,
    user_agent: String,
}

impl Https {
    /// A transport to a server. Does not connect yet: that the server is away is no reason to fail here.
    pub fn new(config: &Config) -> Result<Arc<Self>, SetupError> {
        let connection = Connection::new(&config.server_url, &config.server_ca, &config.identity)?;
        Ok(Arc::new(Self { connection, user_agent: config.user_agent.clone() }))
    }

    /// Uses a new identity from the next connection on, and ends the present one as soon as its requests are done.
    pub fn set_identity(&self, server_ca: &str, identity: &Identity) -> Result<(), SetupError> {
        self.connection.set_identity(server_ca, identity)
    }

    /// Connects to any of these servers from now on, all of one cluster: when one is lost, to another. The present
    /// connection stays.
    pub fn set_servers<'a>(&self, urls: impl Iterator<Item = &'a str>) -> Result<(), SetupError> {
        self.connection.set_servers(urls)
    }

    /// A connection to a server that nothing vouches for: whatever certificate it shows is taken, as long as it has
    /// the key. For the first contact alone, where what comes over it is verified by other means; asks as nobody.
    pub fn unverified(server_url: &str) -> Result<Self, SetupError> {
        let connection = Connection::unverified(server_url)?;
        Ok(Self { connection, user_agent: "skiff".to_owned() })
    }

    /// Posts to a path that is no resource, without a body, and waits up to `limit` for the answer.
    pub async fn post(&self, path: &str, limit: Duration) -> Result<Bytes, ApiError> {
        self.ask(Method::POST, path, limit, MAX_OBJECT_BYTES).await
    }

    /// Gets a small document from a path that is no resource, and waits up to `limit` for it.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<Bytes, ApiError> {
        self.ask(Method::GET, path, limit, MAX_DOCUMENT_BYTES).await
    }

    async fn ask(&self, method: Method, path: &str, limit: Duration, max_bytes: usize) -> Result<Bytes, ApiError> {
        let request = || {
            let mut builder = http::Request::builder()
                .method(method.clone())
                .uri(format!("{}{path}", self.connection.base()))
                .header(header::ACCEPT, "application/json")
                .header(header::USER_AGENT, &self.user_agent);
            if let Some(token) = self.connection.bearer() {
                builder = builder.header(header::AUTHORIZATION, token);
            }
            let unfit = |e| ApiError::bad_request(format!("{path:?} cannot be put into a URL: {e}"));
            builder.body(Full::new(Bytes::new())).map_err(unfit)
        };
        within(limit, async {
            let response = checked(self.connection.send(request).await?).await?;
            collect(response.into_body(), max_bytes).await
        })
        .await
    }

    async fn send(&self, request: &Request) -> Result<http::Response<Incoming>, ApiError> {
        checked(self.connection.send(|| self.http_request(request)).await?).await
    }

    fn http_request(&self, request: &Request) -> Result<http::Request<Full<Bytes>>, ApiError> {
        let (method, path) = request.to_method_and_uri();
        let mut builder = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.connection.base()))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, &self.user_agent);
        if let Some(token) = self.connection.bearer() {
            builder = builder.header(header::AUTHORIZATION, token);
        }
        if !request.body.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, request.content_type.as_str());
        }
        builder
            .body(Full::new(request.body.clone()))
            .map_err(|e| ApiError::bad_request(format!("the request cannot be put into a URL: {e}")))
    }
}

#[async_trait]
impl Transport for Https {
    async fn call(&self, request: Request) -> Result<Bytes, ApiError> {
        within(CALL_TIMEOUT, async {
            let response = self.send(&request).await?;
            collect(response.into_body(), MAX_OBJECT_BYTES).await
        })
        .await
    }

    async fn list(&self, request: Request) -> Result<List, ApiError> {
        within(LIST_TIMEOUT, async {
            let response = self.send(&request).await?;
            decode::list(&collect(response.into_body(), MAX_LIST_BYTES).await?)
        })
        .await
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, ApiError> {
        let response = within(CALL_TIMEOUT, self.send(&request)).await?;
        Ok(events(response.into_body()))
    }
}

/// The events of a watch's body. Ends with the body, or after the first error.
fn events(body: Incoming) -> WatchStream {
    let state = Some((body, Frames::default()));
    stream::unfold(state, |state| async move {
        let (mut body, mut frames) = state?;
        loop {
            match frames.next_event() {
                Ok(Some(event)) => return Some((Ok(event), Some((body, frames)))),
                Ok(None) => {}
                Err(error) => return Some((Err(error), None)),
            }
            match body.frame().await? {
                Ok(frame) => frames.push(frame.data_ref().map_or(&[], |data| &data[..])),
                Err(error) => return Some((Err(unreachable(&error)), None)),
            }
        }
    })
    .boxed()
}

/// An answer, or the error that it tells of.
async fn checked(response: http::Response<Incoming>) -> Result<http::Response<Incoming>, ApiError> {
    if response.status().as_u16() < StatusCode::BAD_REQUEST.as_u16() {
        return Ok(response);
    }
    let code = response.status().as_u16();
    let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
    let body = collect(response.into_body(), MAX_OBJECT_BYTES).await?;
    let mut error = ApiError::from_status(code, &body);
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let (Some(seconds), true) = (seconds, error.details.is_null()) {
        error.details = serde_json::json!({"retryAfterSeconds": seconds});
    }
    Err(error)
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("the API server did not answer within {} seconds", limit.as_secs());
        Err(ApiError::new(Reason::Timeout, message))
    })
}

/// The whole of a body, as long as it is not larger than the limit.
async fn collect(body: Incoming, limit: usize) -> Result<Bytes, ApiError> {
    let mut body = Limited::new(body, limit);
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| match e.downcast_ref::<LengthLimitError>() {
            Some(_) => ApiError::internal(format!("the server's answer is larger than {limit} bytes")),
            None => unreachable(e.as_ref()),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        match &mut rest {
            None if first.is_empty() => first = data,
            None => {
                let mut joined = BytesMut::with_capacity((first.len() + data.len()) * 2);
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                rest = Some(joined);
            }
            Some(joined) => joined.extend_from_slice(&data),
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// The error of a server that cannot be reached, with the whole chain of causes: the innermost says most.
fn unreachable(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let mut message = format!("cannot reach the API server: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    ApiError::new(Reason::ServiceUnavailable, message)
}
