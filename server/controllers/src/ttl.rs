//! Jobs that have finished are deleted after the time that they ask for.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::DeleteOptions};
use skiff_api::status::ApiError;
use skiff_client::{Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{elapsed, is_deleting, seconds, uid},
    pods::delete_options,
};

/// The controller's identity.
pub const NAME: &str = "ttl-after-finished-controller";

struct Finished {
    context: Context,
    jobs: Arc<Informer<Job>>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let jobs = context.informers.of::<Job>();
    let cancel = context.cancel.clone();
    let controller = Finished { context, jobs: Arc::clone(&jobs) };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(
            &jobs,
            |job| if time_left(job, Timestamp::UNIX_EPOCH).is_some() { vec![Key::of(job)] } else { Vec::new() },
        )
        .run(1)
        .await;
}

/// How long a job may still stay; `None` for as long as nobody deletes it.
pub fn time_left(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let end = conditions.find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    let since = end.last_transition_time.as_ref().map_or(now, |time| time.0);
    (!is_deleting(&job.metadata)).then(|| seconds(ttl).saturating_sub(elapsed(since, now)))
}

#[async_trait]
impl Controller for Finished {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else { return Ok(None) };
        match time_left(&job, Timestamp::now()) {
            None => return Ok(None),
            Some(left) if !left.is_zero() => return Ok(Some(left)),
            Some(_) => {}
        }
        // Its time may have been changed at the last moment.
        let fresh = match self.context.client.get::<Job>(&key.namespace, &key.name).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        if time_left(&fresh, Timestamp::now()).is_none_or(|left| !left.is_zero()) {
            self.jobs.observe(fresh);
            return Ok(None);
        }
        let options =
            DeleteOptions { propagation_policy: Some("Foreground".to_owned()), ..delete_options(uid(&fresh.metadata)) };
        match self.context.client.delete::<Job>(&key.namespace, &key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Running, eventually, object};

    fn job(name: &str, ttl: Value, condition: &str, at: &str) -> Job {
        object(json!({
            "metadata": {"name": name, "namespace": "x"},
            "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
            "status": {"conditions": [{"type": condition, "status": "True", "lastTransitionTime": at}]},
        }))
    }

    #[test]
    fn only_what_has_finished_and_asks_for_it_has_an_end() {
        let (at, now) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z".parse().unwrap());
        let left = |ttl, condition| time_left(&job("j", ttl, condition, at), now).map(|left| left.as_secs());
        assert_eq!(left(json!(100), "Complete"), Some(40));
        assert_eq!(left(json!(30), "Failed"), Some(0));
        assert_eq!(left(json!(null), "Complete"), None);
        assert_eq!(left(json!(30), "Suspended"), None);
    }

    #[tokio::test]
    async fn a_finished_job_goes_with_its_pods_and_others_stay() {
        let cluster = Running::start(run);
        let at = "2026-01-01T00:00:00Z";
        for job in [
            job("old", json!(0), "Complete", at),
            job("runs", json!(0), "Suspended", at),
            job("kept", json!(null), "Complete", at),
        ] {
            cluster.client.create(&job).await.unwrap();
        }
        eventually(async || {
            let jobs = cluster.client.list::<Job>(None, &Default::default()).await.unwrap().items;
            let gone = |name: &str| {
                jobs.iter()
                    .find(|job| job.metadata.name.as_deref() == Some(name))
                    .is_none_or(|job| is_deleting(&job.metadata))
            };
            gone("old") && !gone("runs") && !gone("kept")
        })
        .await;
        let deletion =
            cluster.api.take_requests().into_iter().find(|r| r.verb == skiff_api::request::Verb::Delete).unwrap();
        let body: Value = serde_json::from_slice(&deletion.body).unwrap();
        assert_eq!(body["propagationPolicy"], "Foreground");
    }
}
