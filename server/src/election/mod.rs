//! Which of several servers runs the scheduler and the controllers: the one that holds their Lease in
//! `kube-system`. [`decide`] says who; this reads and writes the Lease, and starts and stops what is led.

mod decide;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use skiff_api::status::ApiError;
use skiff_client::Client;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use decide::{Candidate, Record, Step};

pub(crate) use decide::Timing;

const NAMESPACE: &str = "kube-system";

/// How long the Lease is tried to be given up at the end; another takes it over without that, only later.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(400);

/// One Lease and who stands for it.
pub(crate) struct Election {
    client: Client,
    /// The Lease's name.
    name: &'static str,
    timing: Timing,
    candidate: Candidate,
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lease: Duration::from_secs(seconds),
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

fn write_into(lease: &mut Lease, record: Record) {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(record.holder);
    spec.lease_duration_seconds = i32::try_from(record.lease.as_secs()).ok();
    spec.acquire_time = record.acquired.map(MicroTime);
    spec.renew_time = record.renewed.map(MicroTime);
    spec.lease_transitions = Some(record.transitions);
}

impl Election {
    /// An election for a Lease. `identity` is this process's alone.
    pub(crate) fn new(client: Client, name: &'static str, identity: &str, timing: Timing) -> Self {
        Self { client, name, timing, candidate: Candidate::new(identity.to_owned(), timing) }
    }

    async fn read(&self) -> Result<Option<Lease>, ApiError> {
        match self.client.get::<Lease>(NAMESPACE, self.name).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One try to get or to keep the Lease.
    async fn attempt(&mut self) -> Result<(), ApiError> {
        let found = self.read().await?;
        let decided = Instant::now();
        let record = found.as_ref().map(record_of);
        let Step::Write(record) = self.candidate.decide(record.as_ref(), decided, Timestamp::now()) else {
            return Ok(());
        };
        let metadata = ObjectMeta {
            name: Some(self.name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        };
        let (mut lease, is_new) = match found {
            Some(lease) => (lease, false),
            None => (Lease { metadata, spec: None }, true),
        };
        write_into(&mut lease, record);
        if is_new {
            self.client.create(&lease).await?
        } else {
            self.client.update(&lease).await?
        };
        self.candidate.written(decided);
        Ok(())
    }

    /// Tries in time; what goes wrong is tried again.
    async fn try_once(&mut self) {
        let (limit, name) = (self.timing.renew_deadline / 2, self.name);
        match timeout(limit, self.attempt()).await {
            Ok(Ok(())) => {}
            // Another was quicker.
            Ok(Err(error)) if error.code == 409 => {}
            Ok(Err(error)) => tracing::warn!(lease = name, %error, "the Lease could not be renewed"),
            Err(_) => tracing::warn!(lease = name, "the Lease could not be renewed in time"),
        }
    }

    async fn release(&mut self) {
        let give_up = async {
            let Some(mut lease) = self.read().await? else { return Ok(()) };
            let Some(record) = self.candidate.release(&record_of(&lease), Timestamp::now()) else { return Ok(()) };
            write_into(&mut lease, record);
            self.client.update(&lease).await.map(drop)
        };
        if !matches!(timeout(RELEASE_TIMEOUT, give_up).await, Ok(Ok::<(), ApiError>(()))) {
            tracing::info!(lease = self.name, "the Lease was not given up; another server takes it when it ends");
        }
    }

    /// Leads whenever it can until cancelled. `lead` runs until its token is cancelled; it is waited for before
    /// another may lead, unless it takes longer than the Lease holds.
    pub(crate) async fn run<F, Led>(mut self, lead: F, cancel: CancellationToken)
    where
        F: Fn(CancellationToken) -> Led,
        Led: Future<Output = ()> + Send + 'static,
    {
        while !cancel.is_cancelled() {
            self.try_once().await;
            if self.candidate.leads(Instant::now()) {
                tracing::info!(lease = self.name, "this server leads");
                let term = cancel.child_token();
                self.keep(tokio::spawn(lead(term.clone())), &term).await;
                tracing::info!(lease = self.name, "this server no longer leads");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(self.timing.retry) => {}
            }
        }
    }

    /// Runs what is led for as long as the Lease is renewed.
    async fn keep(&mut self, mut led: JoinHandle<()>, term: &CancellationToken) {
        loop {
            let renewal = async {
                tokio::time::sleep(self.timing.retry).await;
                self.try_once().await;
            };
            tokio::select! {
                ended = &mut led => {
                    if let Err(error) = ended {
                        tracing::error!(lease = self.name, %error, "what this server led has ended by itself");
                    }
                    break;
                }
                () = renewal => {}
            }
            if !self.candidate.leads(Instant::now()) {
                term.cancel();
                // Whether it ended well is no matter: it has ended.
                let _ = led.await;
                return;
            }
        }
        self.release().await;
    }
}
