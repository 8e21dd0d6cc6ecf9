//! Runs a guest's future, counts the CPU time that it takes, and holds it to its container's share.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use tokio::time::Sleep;

use super::{guest::Usage, ticker::Ticker};

/// Longest pause at once, so that a limit that is raised takes effect soon.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// A guest's future under its container's CPU limit.
pub(crate) struct Metered<F> {
    inner: Pin<Box<F>>,
    usage: Arc<Usage>,
    ticker: Arc<Ticker>,
    /// Until when the guest rests, having used more than its share.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Metered<F> {
    pub(crate) fn new(inner: F, usage: Arc<Usage>, ticker: Arc<Ticker>) -> Self {
        Self { inner: Box::pin(inner), usage, ticker, pause: None }
    }

    /// Polls the guest; what CPU time that took.
    fn poll_guest(&mut self, cx: &mut Context<'_>) -> (Poll<F::Output>, u64) {
        let before = thread_cpu_ns();
        let _running = self.ticker.running();
        let poll = self.inner.as_mut().poll(cx);
        (poll, thread_cpu_ns().saturating_sub(before))
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if let Some(pause) = &mut this.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.pause = None;
        }
        let (poll, used) = this.poll_guest(cx);
        this.usage.cpu_ns.fetch_add(used, Ordering::Relaxed);
        if let Some(pause) = pause_after(used, this.usage.cpu_limit_ns.load(Ordering::Relaxed))
            && poll.is_pending()
        {
            let mut sleep = Box::pin(tokio::time::sleep(pause));
            if sleep.as_mut().poll(cx).is_pending() {
                this.pause = Some(sleep);
            }
        }
        poll
    }
}

/// How long a guest rests after `used` nanoseconds of CPU when it may have `limit` in each second (0: any).
fn pause_after(used: u64, limit: u64) -> Option<Duration> {
    const SECOND: u128 = 1_000_000_000;
    if limit == 0 || used == 0 {
        return None;
    }
    let due = u128::from(used) * SECOND / u128::from(limit);
    let rest = due.saturating_sub(u128::from(used));
    let rest = Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX)).min(MAX_PAUSE);
    (rest >= Duration::from_millis(1)).then_some(rest)
}

/// CPU time of this thread so far.
fn thread_cpu_ns() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return 0 };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(micros).unwrap_or(0).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_in_proportion() {
        let ms = |n: u64| n * 1_000_000;
        for (used, limit, rest) in [
            (ms(10), 0, None),
            (0, ms(100), None),
            (ms(10), ms(1000), None),
            (ms(10), ms(500), Some(10)),
            (ms(10), ms(100), Some(90)),
            (ms(10), ms(1), Some(500)),
            (ms(10), ms(4000), None),
        ] {
            assert_eq!(pause_after(used, limit), rest.map(Duration::from_millis), "{used} of {limit}");
        }
    }
}
