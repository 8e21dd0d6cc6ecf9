//! What a worker has an eye on besides the runtime: probes, tokens that run out, objects that volumes are made of.

use std::sync::Arc;

use skiff_client::Kind;

use super::{Input, Worker};
use crate::{
    pods::model::{Action, RunState, Subject, VolumeState},
    probes::{self, run::Target},
    volumes::{setup::references, sources::Followed},
};

impl Worker {
    /// Starts the probes of containers that run, ends those of containers that do not.
    pub(super) fn keep_probes(&mut self) {
        let (observed, deleting) = (&self.observed, self.desired.deleting());
        self.probes.retain(|name, (id, cancel)| {
            let keep =
                !deleting && observed.is_running(name) && observed.newest(name).is_some_and(|seen| seen.id == *id);
            if !keep {
                cancel.cancel();
            }
            keep
        });
        if deleting {
            return;
        }
        let Some(cri) = self.cri() else { return };
        for container in self.desired.all_containers() {
            let probed = container.startup_probe.is_some()
                || container.readiness_probe.is_some()
                || container.liveness_probe.is_some();
            let busy = observed.is_busy(&Subject::Container(container.name.clone()));
            let seen = observed.newest(&container.name).filter(|seen| seen.state == RunState::Running);
            let Some(seen) = seen.filter(|_| probed && !busy && !self.probes.contains_key(&container.name)) else {
                continue;
            };
            let cancel = self.cancel.child_token();
            let pod_ip = match self.desired.spec().host_network {
                Some(true) => self.desired.host_ips.first().copied(),
                _ => observed.ready_sandbox().and_then(|sandbox| sandbox.ips.first().copied()),
            };
            let target = Target { cri: Arc::clone(&cri), container: container.clone(), id: seen.id.clone(), pod_ip };
            tokio::spawn(probes::watch_container(target, self.verdicts.0.clone(), cancel.clone()));
            self.probes.insert(container.name.clone(), (seen.id.clone(), cancel));
        }
    }

    pub(super) fn renew_tokens(&mut self) {
        let Ok(volumes) = self.volumes.try_lock() else { return };
        let Some(at) = volumes.renew_at() else { return };
        drop(volumes);
        if at > self.ctx.now() {
            self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
        } else if self.observed.volumes == VolumeState::Ready
            && !self.observed.is_busy(&Subject::Volumes)
            && !self.desired.deleting()
        {
            self.launch(Action::MountVolumes);
        }
    }

    /// Follows the objects that the volumes are made of, so that a change reaches the files.
    pub(super) fn watch_sources(&mut self) {
        if std::mem::replace(&mut self.watching, true) {
            return;
        }
        let (maps, secrets) = references(self.desired.spec().volumes.as_deref().unwrap_or_default());
        let namespace = self.desired.namespace().to_owned();
        for name in maps {
            self.follow(self.ctx.sources.config_maps.follow(&namespace, &name));
        }
        for name in secrets {
            self.follow(self.ctx.sources.secrets.follow(&namespace, &name));
        }
    }

    fn follow<K: Kind>(&self, source: Arc<Followed<K>>) {
        let (inbox, cancel) = (self.inbox.0.clone(), self.cancel.clone());
        tokio::spawn(async move {
            let mut changes = source.informer.subscribe();
            source.informer.synced().await;
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    change = changes.next() => if change.is_none() || inbox.send(Input::Sources).await.is_err() { return },
                }
            }
        });
    }
}
