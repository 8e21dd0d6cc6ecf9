//! How long it takes to know who asks, whether they may, and what admission says: what every request pays beside its
//! own work. In `/metrics` under Kubernetes' names.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::admission::Operation;

/// The upper bounds of the histograms in microseconds: finer than Kubernetes', for which all of this is one bucket.
const BUCKETS_MICROS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 1_000, 10_000, 100_000];

/// One histogram.
#[derive(Debug, Default)]
pub struct Span {
    buckets: [AtomicU64; BUCKETS_MICROS.len()],
    count: AtomicU64,
    sum_nanos: AtomicU64,
}

impl Span {
    fn add(&self, took: Duration) {
        let micros = took.as_micros();
        if let Some(bucket) = BUCKETS_MICROS.iter().position(|bound| micros < u128::from(*bound)) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn write(&self, out: &mut String, family: &str, labels: &str) {
        let count = self.count.load(Relaxed);
        if count == 0 {
            return;
        }
        let mut sum = 0;
        for (bound, bucket) in BUCKETS_MICROS.iter().zip(&self.buckets) {
            sum += bucket.load(Relaxed);
            let bound = Duration::from_micros(*bound).as_secs_f64();
            _ = writeln!(out, "{family}_bucket{{{labels},le=\"{bound}\"}} {sum}");
        }
        let seconds = Duration::from_nanos(self.sum_nanos.load(Relaxed)).as_secs_f64();
        _ = write!(
            out,
            "{family}_bucket{{{labels},le=\"+Inf\"}} {count}\n{family}_sum{{{labels}}} {seconds}\n\
             {family}_count{{{labels}}} {count}\n"
        );
    }
}

/// What was done, by whether it went well.
#[derive(Debug, Default)]
struct Verdicts {
    well: Span,
    refused: Span,
}

impl Verdicts {
    fn add<T, E>(&self, began: Instant, result: &Result<T, E>) {
        let span = if result.is_ok() { &self.well } else { &self.refused };
        span.add(began.elapsed());
    }
}

/// The two steps of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The object is changed.
    Admit,
    /// The write is refused or let pass; quotas are charged.
    Validate,
}

/// All of them. One a server.
#[derive(Debug, Default)]
pub struct Spans {
    authentication: Verdicts,
    authorization: Verdicts,
    /// By operation and step.
    admission: [[Verdicts; 2]; 3],
}

const OPERATIONS: [(Operation, &str); 3] =
    [(Operation::Create, "CREATE"), (Operation::Update, "UPDATE"), (Operation::Delete, "DELETE")];
const STEPS: [(Step, &str); 2] = [(Step::Admit, "admit"), (Step::Validate, "validate")];

impl Spans {
    /// Takes in how long it took to know who asks.
    pub fn authenticated<T, E>(&self, began: Instant, result: &Result<T, E>) {
        self.authentication.add(began, result);
    }

    /// Takes in how long it took to know whether they may.
    pub fn authorized<T, E>(&self, began: Instant, result: &Result<T, E>) {
        self.authorization.add(began, result);
    }

    /// Takes in how long a step of admission took.
    pub fn admitted<T, E>(&self, operation: Operation, step: Step, began: Instant, result: &Result<T, E>) {
        self.admission[operation as usize][step as usize].add(began, result);
    }

    /// Adds all of them to `/metrics`.
    pub fn write(&self, out: &mut String) {
        let mut family = |name: &str, help: &str, all: &[(&Span, String)]| {
            _ = write!(out, "# HELP {name} {help}\n# TYPE {name} histogram\n");
            all.iter().for_each(|(span, labels)| span.write(out, name, labels));
        };
        family(
            "authentication_duration_seconds",
            "[ALPHA] Authentication duration in seconds broken out by result.",
            &[
                (&self.authentication.well, "result=\"success\"".to_owned()),
                (&self.authentication.refused, "result=\"failure\"".to_owned()),
            ],
        );
        family(
            "authorization_duration_seconds",
            "[ALPHA] Authorization duration in seconds broken out by result.",
            &[
                (&self.authorization.well, "result=\"allowed\"".to_owned()),
                (&self.authorization.refused, "result=\"denied\"".to_owned()),
            ],
        );
        let mut steps = Vec::new();
        for (operation, word) in OPERATIONS {
            for (step, kind) in STEPS {
                let verdicts = &self.admission[operation as usize][step as usize];
                for (span, rejected) in [(&verdicts.well, false), (&verdicts.refused, true)] {
                    steps.push((span, format!("operation=\"{word}\",rejected=\"{rejected}\",type=\"{kind}\"")));
                }
            }
        }
        family(
            "apiserver_admission_step_admission_duration_seconds",
            "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and \
             step type (validate or admit).",
            &steps,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_in_is_told() {
        let spans = Spans::default();
        spans.authenticated(Instant::now(), &Ok::<_, ()>(()));
        spans.authorized(Instant::now(), &Err::<(), _>(()));
        spans.admitted(Operation::Update, Step::Validate, Instant::now(), &Ok::<_, ()>(()));
        let mut text = String::new();
        spans.write(&mut text);
        for line in [
            "authentication_duration_seconds_count{result=\"success\"} 1",
            "authorization_duration_seconds_bucket{result=\"denied\",le=\"+Inf\"} 1",
            "apiserver_admission_step_admission_duration_seconds_count{operation=\"UPDATE\",rejected=\"false\",type=\"validate\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("operation=\"CREATE\""), "{text}");
    }
}
