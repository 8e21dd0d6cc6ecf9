//! Carries out one probe.

use std::{net::IpAddr, time::Duration};

use k8s_cri::v1::ExecSyncRequest;
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::net::TcpStream;

use super::{
    grpc,
    http::{self, authority, dial_error},
};
use crate::runtime::Cri;

/// What probes call themselves.
const USER_AGENT: &str = "kube-probe/1.36";
/// How much of a command's output an event carries.
const MAX_OUTPUT_BYTES: usize = 10 * 1024;

/// Whether a probe succeeds; what failed, in the words of a kubelet.
pub async fn check(
    cri: &dyn Cri,
    probe: &Probe,
    container: &Container,
    container_id: &str,
    pod_ip: Option<IpAddr>,
    within: Duration,
) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        return exec(cri, container_id, action.command.clone().unwrap_or_default(), within).await;
    }
    if let Some(action) = &probe.http_get {
        let status = http::get(action, container, pod_ip, USER_AGENT, within).await?;
        return match status {
            200..400 => Ok(()),
            _ => Err(format!("HTTP probe failed with statuscode: {status}")),
        };
    }
    let ip = || pod_ip.map(|ip| ip.to_string());
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.clone().filter(|host| !host.is_empty()).or_else(ip);
        let target = authority(&host.ok_or("the pod has no address yet")?, http::port(&action.port, container)?);
        return match tokio::time::timeout(within, TcpStream::connect(&target)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(dial_error(&target, &e)),
            Err(_) => Err(format!("dial tcp {target}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        let target = authority(&ip().ok_or("the pod has no address yet")?, port);
        return grpc::check(&target, action.service.as_deref().unwrap_or_default(), within).await;
    }
    Err("missing probe handler".to_owned())
}

/// Runs a command in a container; its output is the failure's text.
pub async fn exec(cri: &dyn Cri, container_id: &str, cmd: Vec<String>, within: Duration) -> Result<(), String> {
    let timeout = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
    let request = ExecSyncRequest { container_id: container_id.to_owned(), cmd, timeout };
    let answer = match tokio::time::timeout(within, cri.exec_sync(request)).await {
        Ok(answer) => answer.map_err(|e| e.to_string())?,
        Err(_) => return Err(format!("command timed out after {}s", within.as_secs())),
    };
    if answer.exit_code == 0 {
        return Ok(());
    }
    let mut output = answer.stdout;
    output.extend_from_slice(&answer.stderr);
    output.truncate(MAX_OUTPUT_BYTES);
    Err(String::from_utf8_lossy(&output).into_owned())
}
