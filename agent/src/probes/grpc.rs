//! A probe by the gRPC health protocol (`grpc.health.v1.Health/Check`), its two small messages by hand.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::http::dial_error;

/// The largest answer that is read.
const MAX_BODY_BYTES: usize = 4096;
/// The longest service name that is asked for.
const MAX_SERVICE_BYTES: usize = 127;
/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: u8 = 1;

/// Whether the service says that it serves.
pub(super) async fn check(target: &str, service: &str, within: Duration) -> Result<(), String> {
    let timeout = format!(
        "timeout: failed to connect service {target:?} within {}s: context deadline exceeded",
        within.as_secs()
    );
    tokio::time::timeout(within, exchange(target, service)).await.unwrap_or(Err(timeout))
}

async fn exchange(target: &str, service: &str) -> Result<(), String> {
    let stream = TcpStream::connect(target).await.map_err(|e| dial_error(target, &e))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://{target}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(frame(service)?))
        .map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let head = response.headers().get("grpc-status").cloned();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await.map_err(|e| e.to_string())?;
        let code = head.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned());
        Ok::<_, String>((code, body.to_bytes()))
    }
    .await;
    connection.abort();
    let (code, body) = answer?;
    match code.as_ref().map_or("0", |code| code.to_str().unwrap_or_default()) {
        "0" if body.get(5..7) == Some(&[0x08, SERVING]) => Ok(()),
        "0" => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
        "12" => Err(format!(
            "this server does not implement the grpc health protocol (grpc.health.v1.Health), service {service:?}"
        )),
        other => Err(format!("service {service:?} answered with gRPC status {other}")),
    }
}

/// A `HealthCheckRequest { service }` in its frame.
fn frame(service: &str) -> Result<Bytes, String> {
    let length = u8::try_from(service.len()).ok().filter(|n| usize::from(*n) <= MAX_SERVICE_BYTES);
    let length = length.ok_or("the service's name is too long")?;
    let mut frame = BytesMut::new();
    let size = if length == 0 { 0 } else { u32::from(length) + 2 };
    frame.put_u8(0);
    frame.put_u32(size);
    if length > 0 {
        frame.put_u8(0x0a);
        frame.put_u8(length);
        frame.put_slice(service.as_bytes());
    }
    Ok(frame.freeze())
}
