//! One HTTP GET of a probe or a hook: no redirects to other hosts, any certificate, a bounded body.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls::{ClientConfig, crypto::ring};
use rustls_pki_types::ServerName;
use skiff_client::https::AnyServer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// How much of an answer's body is read.
const MAX_BODY_BYTES: usize = 10 * 1024;

/// The number of a port that is given as a number or as a container port's name.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).map_err(|_| format!("invalid port number: {number}")),
        IntOrString::String(name) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            let named = ports.iter().find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
            let number = named.or_else(|| name.parse().ok()).ok_or_else(|| format!("couldn't find port: {name:?}"))?;
            u16::try_from(number).map_err(|_| format!("invalid port number: {number}"))
        }
    }
}

/// Prints an address and a port as URLs and Go's errors have them.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The words of Go's `net` for why a connection failed.
pub fn dial_error(target: &str, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {target}: {why}")
}

/// Carries out a GET; the status, or what failed in the words of a kubelet.
pub async fn get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: Option<IpAddr>,
    user_agent: &str,
    within: Duration,
) -> Result<u16, String> {
    let port = port(&action.port, container)?;
    let host = action.host.clone().filter(|host| !host.is_empty()).or(pod_ip.map(|ip| ip.to_string()));
    let host = host.ok_or("the pod has no address yet")?;
    let tls = action.scheme.as_deref() == Some("HTTPS");
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let target = authority(&host, port);
    let url = format!("{}://{target}{path}", if tls { "https" } else { "http" });
    let request = request(action, &path, &target, user_agent)?;
    let exchange = async {
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| dial_error(&target, &e))?;
        if !tls {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(any_certificate()?));
        exchange(connector.connect(name, stream).await.map_err(|e| e.to_string())?, request).await
    };
    match tokio::time::timeout(within, exchange).await {
        Ok(answer) => answer.map_err(|e| format!("Get {url:?}: {e}")),
        Err(_) => {
            Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
    }
}

fn request(
    action: &HTTPGetAction,
    path: &str,
    target: &str,
    agent: &str,
) -> Result<Request<Empty<bytes::Bytes>>, String> {
    let given = action.http_headers.as_deref().unwrap_or_default();
    let has = |name: &str| given.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    let mut builder = Request::get(path);
    for header in given {
        builder = builder.header(header.name.as_str(), header.value.as_str());
    }
    for (name, value) in
        [(header::HOST, target), (header::USER_AGENT, agent), (header::ACCEPT, "*/*"), (header::CONNECTION, "close")]
    {
        if !has(name.as_str()) {
            builder = builder.header(name, value);
        }
    }
    builder.body(Empty::new()).map_err(|e| e.to_string())
}

async fn exchange<S>(stream: S, request: Request<Empty<bytes::Bytes>>) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |e: hyper::Error| if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status().as_u16();
        // The body is read so that the server does not see a reset; what is beyond the limit does not matter.
        let _body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        Ok(status)
    };
    let connection = async {
        let _ended = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = connection => Err("EOF".to_owned()),
    }
}

/// TLS that takes any certificate: probes ask whether a server answers, not who it is.
fn any_certificate() -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(AnyServer::default())).with_no_client_auth())
}
