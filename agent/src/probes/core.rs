//! The thresholds of a probe, apart from any clock or socket.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// Times and thresholds of a probe, with the API's defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Before the first try.
    pub initial_delay: Duration,
    /// Between tries.
    pub period: Duration,
    /// How long a try may take.
    pub timeout: Duration,
    /// Successes in a row that make a success.
    pub success_threshold: u32,
    /// Failures in a row that make a failure.
    pub failure_threshold: u32,
}

impl Timing {
    /// The timing of a probe.
    pub fn of(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        let seconds = |value, default| Duration::from_secs(number(value, default).into());
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: number(probe.success_threshold, 1),
            failure_threshold: number(probe.failure_threshold, 3),
        }
    }
}

/// Results in a row, and the last one that met its threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    last: Option<bool>,
    in_a_row: u32,
    settled: Option<bool>,
}

impl Counter {
    /// Takes in a result; answers with the settled one if it changed by this.
    pub fn observe(&mut self, success: bool, timing: &Timing) -> Option<bool> {
        self.in_a_row = if self.last == Some(success) { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { timing.success_threshold } else { timing.failure_threshold };
        if self.in_a_row < threshold || self.settled == Some(success) {
            return None;
        }
        self.settled = Some(success);
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_counts_once_its_threshold_is_met() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let timing = Timing::of(&probe);
        let mut counter = Counter::default();
        let settled: Vec<_> = [true, false, true, true, true, false, false, true, false, false, false, false]
            .into_iter()
            .map(|result| counter.observe(result, &timing))
            .collect();
        let mut wanted = vec![None; 12];
        wanted[3] = Some(true);
        wanted[10] = Some(false);
        assert_eq!(settled, wanted);
    }
}
