//! One task a pod: observes, decides, lets actions run side by side, reports the status. All that happens to a pod
//! passes through its worker one after the other.

mod attend;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use skiff_api::request::ContentType;
use skiff_client::EventType;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    admission, decide,
    execute::{Finished, Job, Outcome},
    memory,
    model::{Action, DesiredPod, Ended, ImageState, ObservedPod, RunState, Seen, Subject, VolumeState},
    observe, patch, restart, status,
};
use crate::{PodNetwork, context::Context, probes::Verdict, runtime::Cri, volumes::setup::Volumes};

/// What a worker is told.
#[derive(Debug)]
pub enum Input {
    /// A newer version of the object.
    Pod(Arc<Pod>),
    /// The object is gone.
    Gone,
    /// The mirror of a static pod came, changed or went.
    Mirror(Option<Arc<Pod>>),
    /// Something happened in the runtime.
    Heard,
    /// What the volumes are made of changed.
    Sources,
    /// The node wants the pod to end.
    End(Box<Ended>),
}

/// How many inputs wait for a busy worker. A queue has room for half of them from its start, in each of thousands of
/// workers, so what is large in one is boxed.
const INBOX: usize = 64;
/// How long a failed stop, removal or report is left alone.
const COOL_DOWN: Duration = Duration::from_secs(1);

/// The exit code of a container that was ended by SIGKILL.
const KILLED: i32 = 137;
/// How long after an end its reason may change.
const REASON_COMES_WITHIN: SignedDuration = SignedDuration::from_secs(3);

/// The task of one pod.
pub struct Worker {
    ctx: Arc<Context>,
    desired: DesiredPod,
    observed: ObservedPod,
    volumes: Arc<Mutex<Volumes>>,
    running: FuturesUnordered<BoxFuture<'static, Finished>>,
    wake_at: Option<Timestamp>,
    probes: BTreeMap<String, (String, CancellationToken)>,
    verdicts: (mpsc::Sender<Box<Verdict>>, mpsc::Receiver<Box<Verdict>>),
    inbox: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    crash_told: BTreeMap<String, String>,
    /// The status that was written last, as JSON.
    reported: Option<Vec<u8>>,
    watching: bool,
    first_look: bool,
    is_new: bool,
    going: CancellationToken,
    cancel: CancellationToken,
}

/// What is known of a pod when its worker begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The API has it.
    Api,
    /// The API no longer has it.
    Gone,
    /// A file of the node describes it.
    File,
}

/// The worker of a pod, and the way to tell it things. It ends when the pod is gone and nothing of it is left, or
/// with `cancel`.
pub fn worker(
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    origin: Origin,
    cancel: &CancellationToken,
) -> (mpsc::Sender<Input>, impl Future<Output = ()> + Send + 'static) {
    let inbox = mpsc::channel(INBOX);
    let sender = inbox.0.clone();
    let mut desired = DesiredPod::new(pod, origin == Origin::Gone, ctx.host_ips.clone());
    desired.is_static = origin == Origin::File;
    let folder = ctx.pod_dir(desired.uid());
    // What an earlier agent left of a pod that goes now is to be taken away too.
    let left = desired.deleting() && folder.exists();
    let volumes = Volumes::new(&folder, ctx.client.clone());
    let worker = Worker {
        reported: serde_json::to_vec(desired.api_status()).ok(),
        observed: ObservedPod {
            runtime_name: ctx.runtime(&desired.pod).map(|runtime| runtime.name.clone()).unwrap_or_default(),
            first_seen: Some(ctx.now()),
            volumes: if left { VolumeState::Ready } else { VolumeState::Absent },
            ..ObservedPod::default()
        },
        volumes: Arc::new(Mutex::new(volumes)),
        running: FuturesUnordered::new(),
        wake_at: None,
        probes: BTreeMap::new(),
        verdicts: mpsc::channel(INBOX),
        inbox,
        crash_told: BTreeMap::new(),
        watching: false,
        first_look: true,
        is_new: true,
        going: cancel.child_token(),
        cancel: cancel.child_token(),
        desired,
        ctx,
    };
    (sender, worker.run())
}

impl Worker {
    async fn run(mut self) {
        loop {
            self.wake_at = None;
            if self.observe().await && self.step() {
                break;
            }
            if !self.wait().await {
                break;
            }
        }
        self.cancel.cancel();
    }

    /// Looks at the runtime; false if it does not answer, which is tried again.
    async fn observe(&mut self) -> bool {
        let Some(cri) = self.cri() else { return true };
        match observe::observe(&*cri, self.desired.uid()).await {
            Ok(mut found) => {
                if self.first_look && !self.desired.gone {
                    observe::recall_lost(&self.desired, &mut found, self.ctx.now());
                }
                self.keep_recalled(&mut found);
                self.observed.sandboxes = found.sandboxes;
                self.observed.containers = found.containers;
                if std::mem::take(&mut self.first_look) {
                    memory::adopt(&self.desired, &mut self.observed);
                }
                true
            }
            Err(e) => {
                tracing::debug!(pod = self.desired.name(), error = %e, "the runtime does not answer");
                self.wake_at = self.ctx.now().checked_add(SignedDuration::from_secs(1)).ok();
                false
            }
        }
    }

    /// Recalled containers have no id; they stay until a real one takes their place or the pod goes.
    fn keep_recalled(&self, found: &mut observe::Found) {
        if self.desired.deleting() {
            found.containers.retain(|_, all| all.iter().any(|seen| !seen.id.is_empty()));
            return;
        }
        for (name, all) in &self.observed.containers {
            if let [only] = all.as_slice()
                && only.id.is_empty()
                && !found.containers.contains_key(name)
            {
                found.containers.insert(name.clone(), all.clone());
            }
        }
    }

    fn cri(&self) -> Option<Arc<dyn Cri>> {
        self.ctx.runtime(&self.desired.pod).map(|runtime| Arc::clone(&runtime.cri))
    }

    /// One turn: probes, report, actions. True once nothing is left to do, ever.
    fn step(&mut self) -> bool {
        let now = self.ctx.now();
        if std::mem::take(&mut self.is_new) {
            self.admit();
        }
        self.keep_probes();
        self.report(now);
        self.tell_crashes(now);
        for action in decide(&self.desired, &self.observed, now) {
            match action {
                Action::WakeAt(at) => self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at))),
                Action::ExceedDeadline => self.exceed_deadline(),
                action => self.launch(action),
            }
        }
        self.look_again(now);
        self.flip_pull_reasons(now);
        self.renew_tokens();
        self.is_over()
    }

    /// A runtime learns after a container's end that memory ran out, and tells nobody: it is asked again.
    fn look_again(&mut self, now: Timestamp) {
        let late = |seen: &Seen| {
            let end = seen.finished_at.filter(|_| seen.state == RunState::Exited && seen.exit_code == KILLED);
            end.is_some_and(|end| now.duration_since(end).abs() < REASON_COMES_WITHIN)
        };
        if self.observed.containers.values().filter_map(|all| all.last()).any(late) {
            let soon = now.checked_add(SignedDuration::from_secs(1)).unwrap_or(now);
            self.wake_at = Some(self.wake_at.map_or(soon, |wake| wake.min(soon)));
        }
    }

    /// Lets the pod in, unless the node is full or runs short. What has started is let be.
    fn admit(&mut self) {
        let desired = &self.desired;
        let started = desired.api_status().start_time.is_some() || !self.observed.sandboxes.is_empty();
        // What the operator put on the node itself is let in whatever is short.
        if desired.deleting() || desired.is_static || started {
            return;
        }
        let is_oci = |pod: &Pod| self.ctx.runtime(pod).is_some_and(|runtime| runtime.network != PodNetwork::AnyIp);
        let oci_pods = is_oci(&desired.pod).then(|| {
            let others = self.ctx.pods.list();
            others.iter().filter(|other| is_oci(other) && admission::is_before(other, &desired.pod)).count()
        });
        let conditions = *self.ctx.conditions.borrow();
        let allowed = &self.ctx.allowed_unsafe_sysctls;
        if let Some(refused) = admission::refuse(desired, oci_pods, conditions, allowed) {
            self.ctx.event(&desired.pod, None, EventType::Warning, &refused.reason, refused.message.clone());
            self.observed.ended = Some(refused);
        }
    }

    fn is_over(&self) -> bool {
        let observed = &self.observed;
        self.desired.gone
            && self.running.is_empty()
            && observed.sandboxes.is_empty()
            && observed.containers.values().all(Vec::is_empty)
            && observed.volumes == VolumeState::Absent
    }

    fn launch(&mut self, action: Action) {
        let subject = action.subject();
        self.observed.busy.extend(subject.clone());
        let job = Job {
            ctx: Arc::clone(&self.ctx),
            desired: self.desired.clone(),
            cri: self.cri(),
            pod_ips: self.pod_ips(),
            attempt: self.observed.sandbox().map_or(0, |sandbox| sandbox.attempt),
            replaced: self.observed.sandbox().map(|sandbox| sandbox.id.clone()),
            volumes: Arc::clone(&self.volumes),
            going: self.going.clone(),
        };
        self.running.push(async move { (subject, job.run(action).await) }.boxed());
    }

    fn pod_ips(&self) -> Vec<std::net::IpAddr> {
        self.observed.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    fn exceed_deadline(&mut self) {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        self.ctx.event(&self.desired.pod, None, EventType::Normal, "DeadlineExceeded", &*message);
        self.observed.ended = Some(Ended { reason: "DeadlineExceeded".to_owned(), message, grace_seconds: None });
        self.wake_at = Some(self.ctx.now());
    }

    /// Waits for whatever comes first and takes it in; false when the worker is to end.
    async fn wait(&mut self) -> bool {
        let delay = self.wake_at.map(|at| at.duration_since(self.ctx.now()).max(SignedDuration::from_millis(1)));
        let delay = delay.and_then(|delay| Duration::try_from(delay).ok()).unwrap_or(Duration::MAX);
        tokio::select! {
            () = self.cancel.cancelled() => return false,
            () = tokio::time::sleep(delay) => {}
            Some(finished) = self.running.next(), if !self.running.is_empty() => self.finish(finished),
            Some(verdict) = self.verdicts.1.recv() => self.judge(&verdict),
            Some(input) = self.inbox.1.recv() => self.take(input),
        }
        // What else is there already is taken in the same turn.
        while let Some(input) = self.inbox.1.recv().now_or_never().flatten() {
            self.take(input);
        }
        true
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Pod(pod) => {
                let version = |pod: &Pod| pod.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
                if version(&pod) >= version(&self.desired.pod) {
                    self.desired.set_pod(pod);
                }
            }
            Input::Gone => self.desired.gone = true,
            Input::Mirror(mirror) => self.mirrored(mirror),
            Input::Heard => {}
            Input::End(ended) => {
                if !self.desired.deleting() && self.observed.ended.is_none() {
                    self.observed.ended = Some(*ended);
                    self.wake_at = Some(self.ctx.now());
                }
            }
            Input::Sources => {
                if self.observed.volumes != VolumeState::Absent && !self.observed.is_busy(&Subject::Volumes) {
                    self.launch(Action::MountVolumes);
                }
            }
        }
        if self.desired.deleting() {
            self.going.cancel();
        }
    }

    fn finish(&mut self, (subject, outcome): Finished) {
        let now = self.ctx.now();
        memory::remember(&self.desired, &mut self.observed, &outcome, now);
        match outcome {
            Outcome::Retry(message) => {
                tracing::warn!(pod = self.desired.name(), %message, "an action failed; it is tried again");
                return self.cool_down(subject);
            }
            Outcome::Reported(Ok(pod)) => {
                let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                let name = pod.metadata.name.clone().unwrap_or_default();
                self.ctx.pods.observe(*pod);
                // The informer's copy is the one that is kept; without one the pod is gone, and that will be told.
                if let Some(pod) = self.ctx.pods.get(&namespace, &name) {
                    self.take(if self.desired.is_static { Input::Mirror(Some(pod)) } else { Input::Pod(pod) });
                }
            }
            Outcome::Reported(Err(e)) if e.code == 404 && self.desired.is_static => self.mirrored(None),
            Outcome::Reported(Err(e)) if e.code == 404 => self.desired.gone = true,
            Outcome::Reported(Err(e)) => {
                tracing::debug!(pod = self.desired.name(), error = %e, "the status could not be written");
                self.reported = None;
                return self.cool_down(subject);
            }
            Outcome::Deleted => self.desired.gone = true,
            Outcome::Mounted(Ok(())) => self.watch_sources(),
            _ => {}
        }
        if let Some(subject) = subject {
            self.observed.busy.remove(&subject);
        }
    }

    /// A new mirror knows nothing of the pod yet.
    fn mirrored(&mut self, mirror: Option<Arc<Pod>>) {
        let uid = |mirror: &Option<Arc<Pod>>| mirror.as_ref().and_then(|mirror| mirror.metadata.uid.clone());
        if uid(&mirror) != uid(&self.desired.mirror) {
            self.reported = None;
        }
        let version = |pod: &Option<Arc<Pod>>| {
            pod.as_ref().and_then(|pod| pod.metadata.resource_version.as_deref()?.parse::<u64>().ok())
        };
        if mirror.is_none() || version(&mirror) >= version(&self.desired.mirror) {
            self.desired.mirror = mirror;
        }
    }

    /// Leaves a subject alone for a while: it stays busy.
    fn cool_down(&mut self, subject: Option<Subject>) {
        self.running.push(
            async move {
                tokio::time::sleep(COOL_DOWN).await;
                (subject, Outcome::Done)
            }
            .boxed(),
        );
    }

    /// Writes the status if it is not the one that was written last. The object is busy meanwhile, so that it is not
    /// deleted before its last status is told.
    fn report(&mut self, now: Timestamp) {
        if self.desired.gone || self.observed.is_busy(&Subject::Object) {
            return;
        }
        // Without a mirror there is nobody to tell.
        let Some(pod) = self.desired.object().cloned() else { return };
        let wanted = status(&self.desired, &self.observed, now);
        let Ok(json) = serde_json::to_vec(&wanted) else { return };
        if self.reported.as_ref() == Some(&json) {
            return;
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let Ok(patch) = patch::of(uid, self.desired.api_status(), &wanted) else { return };
        self.reported = Some(json);
        self.observed.busy.insert(Subject::Object);
        let client = self.ctx.client.clone();
        let write = async move {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let form = ContentType::StrategicMergePatch;
            let written = client.patch::<Pod>(namespace, name, Some("status"), form, &patch).await;
            (Some(Subject::Object), Outcome::Reported(written.map(Box::new)))
        };
        self.running.push(write.boxed());
    }

    /// After `ErrImagePull` was told comes the back-off.
    fn flip_pull_reasons(&mut self, now: Timestamp) {
        for (name, memory) in &mut self.observed.memory {
            let Some(failed_at) = memory.pull_failed_at else { continue };
            let ImageState::Failed { reason, message } = &mut memory.image else { continue };
            if reason != "ErrImagePull" || memory.pull_backoff.due(failed_at) <= now {
                continue;
            }
            let image = self.desired.container(name).and_then(|c| c.image.clone()).unwrap_or_default();
            *message = format!("Back-off pulling image {image:?}: ErrImagePull: {message}");
            *reason = "ImagePullBackOff".to_owned();
            let pod = &self.desired.pod;
            self.ctx.event(pod, Some(name), EventType::Normal, "BackOff", format!("Back-off pulling image {image:?}"));
            self.ctx.event(pod, Some(name), EventType::Warning, "Failed", "Error: ImagePullBackOff");
        }
    }

    /// One event for each end of a container that is followed by a wait.
    fn tell_crashes(&mut self, now: Timestamp) {
        if self.desired.deleting() || super::decide::is_over(&self.desired, &self.observed) {
            return;
        }
        for container in self.desired.all_containers() {
            let name = &container.name;
            let Some(ended) = self.observed.newest(name).filter(|seen| seen.state == RunState::Exited) else {
                continue;
            };
            let backoff = &self.observed.memory_of(name).crash_backoff;
            let again = restart::restarts(&self.desired, container, ended.exit_code);
            let waits = again && restart::backing_off(backoff, ended, now).is_some();
            if waits && self.crash_told.get(name) != Some(&ended.id) {
                self.crash_told.insert(name.clone(), ended.id.clone());
                let message =
                    format!("Back-off restarting failed container {name} in pod {}", self.desired.full_name());
                self.ctx.event(&self.desired.pod, Some(name), EventType::Warning, "BackOff", message);
            }
        }
    }

    fn judge(&mut self, verdict: &Verdict) {
        if let Some(failure) = &verdict.failure {
            let message = format!("{} probe failed: {failure}", verdict.kind.as_str());
            self.ctx.event(&self.desired.pod, Some(&verdict.container), EventType::Warning, "Unhealthy", message);
        }
        memory::probed(&self.desired, &mut self.observed, verdict);
    }
}
