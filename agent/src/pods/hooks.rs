//! Post-start and pre-stop hooks.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::{
    probes::{check::exec, http},
    runtime::Cri,
};

/// What HTTP hooks call themselves.
const USER_AGENT: &str = "kube-lifecycle/1.36";
/// How long a post-start hook may take: it blocks nothing but its own container.
pub const POST_START_LIMIT: Duration = Duration::from_secs(3600);

/// Runs a hook.
pub async fn run(
    cri: &dyn Cri,
    hook: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: Option<IpAddr>,
    within: Duration,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        return exec(cri, container_id, action.command.clone().unwrap_or_default(), within).await;
    }
    if let Some(action) = &hook.sleep {
        let seconds = Duration::from_secs(action.seconds.try_into().unwrap_or(0));
        tokio::time::sleep(seconds.min(within)).await;
        return Ok(());
    }
    if let Some(action) = &hook.http_get {
        let status = http::get(action, container, pod_ip, USER_AGENT, within).await?;
        return if status < 400 { Ok(()) } else { Err(format!("HTTP hook failed with statuscode: {status}")) };
    }
    Ok(())
}
