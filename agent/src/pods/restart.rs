//! Restart policies, and the back-off between the restarts of a container that keeps failing.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

use super::model::{DesiredPod, Seen, is_sidecar};

/// The first wait after a container crashed twice, or a pull failed.
pub const INITIAL_BACKOFF: SignedDuration = SignedDuration::from_secs(10);

/// The longest wait.
pub const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(300);

/// A container that ran this long before it ended starts with no back-off again.
pub const RESET_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// The back-off of one container: doubles with every restart, is forgotten after [`RESET_AFTER`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    entry: Option<(SignedDuration, Timestamp)>,
}

impl Backoff {
    /// How long to wait after an event (the container's end, a failed pull); zero for the first.
    pub fn wait(&self, event: Timestamp) -> SignedDuration {
        self.live(event).map_or(SignedDuration::ZERO, |(duration, _)| duration)
    }

    /// When the next try is due after an event.
    pub fn due(&self, event: Timestamp) -> Timestamp {
        event.checked_add(self.wait(event)).unwrap_or(event)
    }

    /// A try is made after an event: the next wait is twice as long.
    pub fn advance(&mut self, event: Timestamp, now: Timestamp) {
        let next = self.live(event).map_or(INITIAL_BACKOFF, |(duration, _)| (duration * 2).min(MAX_BACKOFF));
        self.entry = Some((next, now));
    }

    fn live(&self, event: Timestamp) -> Option<(SignedDuration, Timestamp)> {
        self.entry.filter(|(_, updated)| event.duration_since(*updated) <= RESET_AFTER)
    }
}

/// Prints a duration as Go does, in whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: SignedDuration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// The message of `CrashLoopBackOff`, in status and event.
pub fn crash_message(desired: &DesiredPod, container: &str, wait: SignedDuration) -> String {
    let wait = go_duration(wait);
    format!("back-off {wait} restarting failed container={container} pod={}", desired.full_name())
}

/// Whether a container that ended with this code is to be started again: its own rules and policy first
/// (KEP-5307), then the pod's policy.
pub fn restarts(desired: &DesiredPod, container: &Container, exit_code: i32) -> bool {
    if is_sidecar(container) {
        return true;
    }
    if rule_restarts(container, exit_code) {
        return true;
    }
    let policy = container.restart_policy.as_deref().unwrap_or(desired.restart_policy());
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Whether an init container that failed is to be run again: `Always` means "on failure" here.
pub fn init_restarts(desired: &DesiredPod, container: &Container, exit_code: i32) -> bool {
    rule_restarts(container, exit_code)
        || container.restart_policy.as_deref().unwrap_or(desired.restart_policy()) != "Never"
}

fn rule_restarts(container: &Container, exit_code: i32) -> bool {
    container.restart_policy_rules.iter().flatten().any(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        rule.action == "Restart" && if codes.operator == "NotIn" { !listed } else { listed }
    })
}

/// When a container that ended may be started again, if it is in back-off now.
pub fn backing_off(backoff: &Backoff, ended: &Seen, now: Timestamp) -> Option<(Timestamp, SignedDuration)> {
    let event = ended.finished_at.unwrap_or(now);
    let due = backoff.due(event);
    (due > now).then(|| (due, backoff.wait(event)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn waits_double_up_to_five_minutes_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let mut waits = vec![];
        let mut now = 1000;
        for _ in 0..8 {
            let wait = backoff.wait(at(now)).as_secs();
            waits.push(wait);
            now += wait;
            backoff.advance(at(now - wait), at(now));
            now += 1;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.wait(at(now + 700)), SignedDuration::ZERO);
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        assert_eq!(go_duration(SignedDuration::from_secs(10)), "10s");
        assert_eq!(go_duration(SignedDuration::from_secs(80)), "1m20s");
        assert_eq!(go_duration(SignedDuration::from_secs(300)), "5m0s");
    }
}
