//! Snapshots of a running server: when somebody asks, and on a schedule. Never two at once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};
use skiff_api::{
    cron::Schedule,
    status::{ApiError, Reason},
};
use skiff_apiserver::front::actions::Action;
use skiff_client::recorder::{EventRecorder, EventType};
use tokio_util::sync::CancellationToken;

use super::{
    Saved, SnapshotError, Source, explain,
    folder::{self, ON_DEMAND, SCHEDULED},
    save,
    save::Request,
};
use crate::{
    seal::Stretch,
    token::{self, Live},
};

/// Where the API server takes requests for snapshots: `POST`, with `?name=` for another name than `on-demand`.
pub const PATH: &str = "/skiff/v1/snapshots";

/// The longest time between two looks at the clock: it may be set, and the machine may sleep.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What a server is told about snapshots.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where they are kept.
    pub folder: PathBuf,
    /// When one is made by itself, in cron's form and this machine's time zone; empty for never.
    pub schedule: String,
    /// How many scheduled ones are kept.
    pub retention: usize,
    /// The name of this host.
    pub node: String,
}

/// What tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// See the module.
pub struct Snapshots {
    source: Source,
    token: Live,
    config: Config,
    schedule: Option<Schedule>,
    clock: Clock,
    /// Held while one is being made.
    turn: tokio::sync::Mutex<()>,
}

/// What the schedule is to do now.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing for as long.
    Wait(Duration),
    /// It is time.
    Save,
    /// There is no further time.
    End,
}

/// Whether it is time. `due` is when the next one is to be made, and is brought up to date where the clock has been
/// set back. However late it is, it is one snapshot.
fn decide(schedule: &Schedule, due: &mut Option<Timestamp>, now: Timestamp, zone: &TimeZone) -> Next {
    let next = schedule.next_after(now, zone);
    let earliest = due.iter().copied().chain(next).min();
    *due = earliest;
    match earliest {
        None => Next::End,
        Some(at) if at <= now => Next::Save,
        Some(at) => {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or(LOOK_EVERY);
            Next::Wait(wait.min(LOOK_EVERY))
        }
    }
}

impl Snapshots {
    /// Fails where the schedule is none.
    pub fn new(source: Source, token: Live, config: Config, clock: Clock) -> Result<Arc<Self>, SnapshotError> {
        let given = config.schedule.trim();
        let parsed = (!given.is_empty()).then(|| Schedule::parse(given)).transpose();
        let schedule =
            parsed.map_err(|error| SnapshotError::Schedule { given: given.to_owned(), problem: error.to_string() })?;
        Ok(Arc::new(Self { source, token, config, schedule, clock, turn: tokio::sync::Mutex::new(()) }))
    }

    /// Makes one; where one is being made already, that is all.
    pub async fn save(&self, name: &str) -> Result<Saved, SnapshotError> {
        let _turn = self.turn.try_lock().map_err(|_| SnapshotError::Busy)?;
        let request = Request {
            folder: self.config.folder.clone(),
            name: name.to_owned(),
            node: self.config.node.clone(),
            created: (self.clock)(),
            secret: self.token.get().secret().to_owned(),
            stretch: Stretch::new(token::random()?),
        };
        save(&self.source, &request).await
    }

    /// Keeps others from making one, for tests.
    #[cfg(test)]
    pub(super) async fn hold_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Makes snapshots on schedule until it is cancelled. What was due while no server ran is not made up for.
    pub async fn follow_schedule(self: Arc<Self>, recorder: EventRecorder, cancel: CancellationToken) {
        folder::clean(&self.config.folder);
        let Some(schedule) = &self.schedule else { return };
        let zone = TimeZone::system();
        let mut due = schedule.next_after((self.clock)(), &zone);
        loop {
            match decide(schedule, &mut due, (self.clock)(), &zone) {
                Next::End => return,
                Next::Wait(wait) => {
                    if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                        return;
                    }
                }
                Next::Save => {
                    due = None;
                    let Some(done) = cancel.run_until_cancelled(self.save_scheduled()).await else { return };
                    report(&recorder, &done);
                }
            }
        }
    }

    async fn save_scheduled(&self) -> Result<Saved, SnapshotError> {
        let saved = self.save(SCHEDULED).await?;
        let (folder, node, keep) = (self.config.folder.clone(), self.config.node.clone(), self.config.retention);
        let prune = move || folder::prune(&folder, Some(SCHEDULED), Some(&node), keep);
        let removed = tokio::task::spawn_blocking(prune).await.unwrap_or(Err(SnapshotError::GivenUp))?;
        removed.iter().for_each(|one| tracing::info!(path = %one.path.display(), "removed an old snapshot"));
        Ok(saved)
    }
}

/// Says how a scheduled snapshot went: in the log, and as an event that an administrator sees.
fn report(recorder: &EventRecorder, done: &Result<Saved, SnapshotError>) {
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Namespace".to_owned()),
        name: Some("kube-system".to_owned()),
        namespace: Some("kube-system".to_owned()),
        ..ObjectReference::default()
    };
    match done {
        Ok(saved) => {
            let message = format!("Saved {} objects in {}", saved.header.objects, saved.path.display());
            tracing::info!("{message}");
            recorder.event_about(about, EventType::Normal, "SnapshotSaved", message);
        }
        Err(error) => {
            let message = format!("The scheduled snapshot failed: {}", explain(error));
            tracing::error!("{message}");
            recorder.event_about(about, EventType::Warning, "SnapshotFailed", message);
        }
    }
}

/// What is told of a snapshot.
pub fn describe(saved: &Saved) -> Value {
    json!({"path": saved.path, "header": saved.header})
}

/// Only what an operator's flags and names can lead to is told as their mistake.
fn api_error(error: &SnapshotError) -> ApiError {
    let message = explain(error);
    match error {
        SnapshotError::Name { .. } => ApiError::bad_request(message),
        SnapshotError::Busy => ApiError::new(Reason::Conflict, message),
        error if error.is_full() => ApiError { code: 507, ..ApiError::new(Reason::Unknown, message) },
        _ => ApiError::internal(message),
    }
}

#[async_trait]
impl Action for Snapshots {
    async fn run(&self, query: &str) -> Result<Value, ApiError> {
        let name = query.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap_or(ON_DEMAND);
        let saved = self.save(name).await.map_err(|error| api_error(&error))?;
        Ok(describe(&saved))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn it_waits_in_short_steps_and_saves_once_when_it_is_time() {
        let schedule = Schedule::parse("0 */12 * * *").unwrap();
        let zone = TimeZone::UTC;
        let mut due = schedule.next_after(at("2026-11-27T11:00:00Z"), &zone);
        let decide = |due: &mut _, now: &str| decide(&schedule, due, at(now), &zone);
        assert_eq!(decide(&mut due, "2026-11-27T11:00:00Z"), Next::Wait(LOOK_EVERY));
        assert_eq!(decide(&mut due, "2026-11-27T11:59:58Z"), Next::Wait(Duration::from_secs(2)));
        assert_eq!(decide(&mut due, "2026-11-27T12:00:00Z"), Next::Save);
    }

    #[test]
    fn after_a_long_sleep_it_is_one_snapshot() {
        let schedule = Schedule::parse("* * * * *").unwrap();
        let zone = TimeZone::UTC;
        let mut due = Some(at("2026-11-27T11:00:00Z"));
        assert_eq!(decide(&schedule, &mut due, at("2026-11-29T08:30:10Z"), &zone), Next::Save);
        due = None;
        let next = decide(&schedule, &mut due, at("2026-11-29T08:30:12Z"), &zone);
        assert_eq!((next, due), (Next::Wait(LOOK_EVERY), Some(at("2026-11-29T08:31:00Z"))));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_hold_it_up() {
        let schedule = Schedule::parse("@hourly").unwrap();
        let mut due = Some(at("2036-01-01T00:00:00Z"));
        decide(&schedule, &mut due, at("2026-11-27T11:59:50Z"), &TimeZone::UTC);
        assert_eq!(due, Some(at("2026-11-27T12:00:00Z")));
        let never = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(decide(&never, &mut None, at("2026-11-27T11:59:50Z"), &TimeZone::UTC), Next::End);
    }

    #[test]
    fn errors_are_the_operators_the_moments_or_the_disks() {
        assert_eq!(api_error(&SnapshotError::Name { name: "/".to_owned() }).code, 400);
        assert_eq!(api_error(&SnapshotError::Busy).code, 409);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = SnapshotError::File { action: "writing", path: "/x".into(), source: full };
        assert_eq!(api_error(&full).code, 507);
        assert_eq!(api_error(&SnapshotError::GivenUp).code, 500);
    }
}
