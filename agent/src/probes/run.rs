//! Keeps the probes of one running container going.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    check::check,
    core::{Counter, Timing},
};
use crate::runtime::Cri;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Until it has succeeded, the others do not run.
    Startup,
    /// Whether the pod gets traffic.
    Readiness,
    /// Whether the container is restarted.
    Liveness,
}

impl ProbeKind {
    /// The word at the beginning of events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The container's name.
    pub container: String,
    /// Its id.
    pub id: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// The settled result, if it changed.
    pub settled: Option<bool>,
    /// What failed in this try.
    pub failure: Option<String>,
}

/// A running container and the way to it.
#[derive(Clone)]
pub struct Target {
    /// The runtime.
    pub cri: Arc<dyn Cri>,
    /// The container's spec.
    pub container: Container,
    /// The container's id.
    pub id: String,
    /// The pod's address.
    pub pod_ip: Option<IpAddr>,
}

/// Runs the startup probe, then the readiness and liveness probes, until cancelled.
pub async fn watch_container(target: Target, verdicts: mpsc::Sender<Box<Verdict>>, cancel: CancellationToken) {
    let probes = async {
        if let Some(probe) = &target.container.startup_probe
            && !run(&target, probe, ProbeKind::Startup, &verdicts).await
        {
            return;
        }
        let readiness = async {
            if let Some(probe) = &target.container.readiness_probe {
                run(&target, probe, ProbeKind::Readiness, &verdicts).await;
            }
        };
        let liveness = async {
            if let Some(probe) = &target.container.liveness_probe {
                run(&target, probe, ProbeKind::Liveness, &verdicts).await;
            }
        };
        tokio::join!(readiness, liveness);
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = probes => {}
    }
}

/// Tries until a startup probe has succeeded (true), or a startup or liveness probe has failed for good (false).
async fn run(target: &Target, probe: &Probe, kind: ProbeKind, verdicts: &mpsc::Sender<Box<Verdict>>) -> bool {
    let timing = Timing::of(probe);
    let mut counter = Counter::default();
    sleep(timing.initial_delay).await;
    loop {
        let result = check(&*target.cri, probe, &target.container, &target.id, target.pod_ip, timing.timeout).await;
        let settled = counter.observe(result.is_ok(), &timing);
        let (container, id) = (target.container.name.clone(), target.id.clone());
        let verdict = Verdict { container, id, kind, settled, failure: result.err() };
        if (verdict.settled.is_some() || verdict.failure.is_some()) && verdicts.send(Box::new(verdict)).await.is_err() {
            return false;
        }
        match (kind, settled) {
            (ProbeKind::Startup, Some(true)) => return true,
            (ProbeKind::Startup | ProbeKind::Liveness, Some(false)) => return false,
            _ => sleep(timing.period).await,
        }
    }
}
