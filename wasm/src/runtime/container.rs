//! A container: what it was made from, where it is in its life, and how it is told to end.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use k8s_cri::v1::{ContainerConfig, LinuxContainerResources};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

use super::records::{ContainerRecord, ImageNames, Life, Phase};
use crate::{
    disk,
    engine::{guest::Usage, program::Program},
    images::Entry,
    log::LogFile,
    run::{Exit, Preopen, Signals},
};

/// Commands that may run in a container at once, beside its own.
const MAX_EXECS: usize = 32;

/// A container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) created_at: i64,
    pub(crate) config: ContainerConfig,
    pub(crate) log_path: PathBuf,
    pub(crate) image: ImageNames,
    pub(crate) usage: Arc<Usage>,
    pub(crate) signals: Signals,
    life: Mutex<Life>,
    resources: Mutex<Option<LinuxContainerResources>>,
    /// What it runs; given up when it ends.
    ready: Mutex<Option<Ready>>,
    log: Mutex<Option<Arc<LogFile>>>,
    /// The folders that its guests see, once it was started.
    preopens: Mutex<Vec<Preopen>>,
    /// Where its program's input is given, while it takes any.
    stdin: Mutex<Option<mpsc::Sender<Bytes>>>,
    /// Turns of commands that are run in it.
    pub(crate) execs: Semaphore,
    ended: watch::Sender<bool>,
    pub(crate) cpu_sample: Mutex<CpuSample>,
}

/// What a container needs to be started.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) program: Arc<Program>,
    pub(crate) image: Entry,
}

/// The CPU time at some moment, to tell a rate by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuSample {
    pub(crate) at_ns: i64,
    pub(crate) cpu_ns: u64,
    /// The rate over the interval before.
    pub(crate) nano_cores: u64,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, ready: Ready) -> Self {
        let container = Self::restored(record);
        *container.ready.lock() = Some(ready);
        container
    }

    /// A container of a former runtime.
    pub(crate) fn restored(record: ContainerRecord) -> Self {
        let ContainerRecord { id, sandbox, created_at, config, log_path, image, life } = record;
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone());
        let container = Self {
            id,
            sandbox,
            created_at,
            config,
            log_path,
            image,
            usage: Arc::default(),
            signals: Signals::default(),
            life: Mutex::new(life),
            resources: Mutex::default(),
            ready: Mutex::default(),
            log: Mutex::default(),
            preopens: Mutex::default(),
            stdin: Mutex::default(),
            execs: Semaphore::new(MAX_EXECS),
            ended: watch::Sender::new(true),
            cpu_sample: Mutex::default(),
        };
        container.set_resources(resources.unwrap_or_default());
        container
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        ContainerRecord {
            id: self.id.clone(),
            sandbox: self.sandbox.clone(),
            created_at: self.created_at,
            config: self.config.clone(),
            log_path: self.log_path.clone(),
            image: self.image.clone(),
            life: self.life(),
        }
    }

    /// The name that only one container has at a time.
    pub(crate) fn name(&self) -> String {
        container_name(&self.sandbox, &self.config)
    }

    pub(crate) fn life(&self) -> Life {
        self.life.lock().clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.life.lock().phase == Phase::Running
    }

    pub(crate) fn ready(&self) -> Option<Ready> {
        self.ready.lock().clone()
    }

    pub(crate) fn log(&self) -> Option<Arc<LogFile>> {
        self.log.lock().clone()
    }

    pub(crate) fn preopens(&self) -> Vec<Preopen> {
        self.preopens.lock().clone()
    }

    pub(crate) fn set_preopens(&self, preopens: Vec<Preopen>) {
        *self.preopens.lock() = preopens;
    }

    /// Where its input is given, while it takes any.
    pub(crate) fn stdin(&self) -> Option<mpsc::Sender<Bytes>> {
        self.stdin.lock().clone()
    }

    /// Ends its input, once nobody gives any more.
    pub(crate) fn end_stdin(&self) {
        self.stdin.lock().take();
    }

    /// Goes from created to running; `false` when it was not created.
    pub(crate) fn begin(&self, log: Arc<LogFile>, stdin: Option<mpsc::Sender<Bytes>>) -> bool {
        let mut life = self.life.lock();
        if life.phase != Phase::Created {
            return false;
        }
        life.phase = Phase::Running;
        life.started_at = disk::now_ns();
        *self.log.lock() = Some(log);
        *self.stdin.lock() = stdin;
        self.ended.send_replace(false);
        true
    }

    /// Ends the container's life; `false` when it had ended before.
    pub(crate) fn finish(&self, exit: Exit) -> bool {
        {
            let mut life = self.life.lock();
            if life.phase == Phase::Exited {
                return false;
            }
            life.phase = Phase::Exited;
            life.finished_at = disk::now_ns();
            life.exit_code = exit.code;
            life.reason = exit.reason.to_owned();
            life.message = exit.message;
        }
        self.ready.lock().take();
        self.end_stdin();
        if let Some(log) = self.log.lock().take() {
            log.detach_all();
        }
        true
    }

    /// Says that nothing of the container runs any more.
    pub(crate) fn set_ended(&self) {
        self.ended.send_replace(true);
    }

    /// Waits until nothing of the container runs.
    pub(crate) async fn ended(&self) {
        // The sender lives as long as this container.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(crate) fn resources(&self) -> Option<LinuxContainerResources> {
        self.resources.lock().clone()
    }

    /// Sets limits, also of a running container. What a request leaves out (0) stays as it is.
    pub(crate) fn set_resources(&self, new: LinuxContainerResources) {
        let mut resources = self.resources.lock();
        let merged = match resources.take() {
            None => new,
            Some(old) => merge(old, &new),
        };
        let memory = u64::try_from(merged.memory_limit_in_bytes).unwrap_or(0);
        self.usage.set_limits(memory, cpu_millis(&merged));
        *resources = Some(merged);
    }
}

pub(crate) fn container_name(sandbox: &str, config: &ContainerConfig) -> String {
    let metadata = config.metadata.clone().unwrap_or_default();
    format!("container {}_{sandbox}_{}", metadata.name, metadata.attempt)
}

/// Thousandths of a CPU that the quota allows; 0 where there is none.
fn cpu_millis(resources: &LinuxContainerResources) -> u64 {
    let quota = u64::try_from(resources.cpu_quota).unwrap_or(0);
    let period = u64::try_from(resources.cpu_period).unwrap_or(0);
    if quota == 0 || period == 0 { 0 } else { (quota.saturating_mul(1000) / period).max(1) }
}

fn merge(mut old: LinuxContainerResources, new: &LinuxContainerResources) -> LinuxContainerResources {
    let pick = |old: &mut i64, new: i64| {
        if new != 0 {
            *old = new;
        }
    };
    pick(&mut old.cpu_period, new.cpu_period);
    pick(&mut old.cpu_quota, new.cpu_quota);
    pick(&mut old.cpu_shares, new.cpu_shares);
    pick(&mut old.memory_limit_in_bytes, new.memory_limit_in_bytes);
    pick(&mut old.oom_score_adj, new.oom_score_adj);
    old
}
