//! The election against an API in memory: who leads, and that nobody else does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use skiff_client::fake::FakeApi;

use super::*;

/// Longer than any test waits: a Lease ends only by being given up.
const CALM: Timing = Timing {
    lease: Duration::from_secs(600),
    renew_deadline: Duration::from_secs(400),
    retry: Duration::from_millis(10),
};

/// Counts how many lead.
#[derive(Clone, Default)]
struct Led {
    now: Arc<AtomicUsize>,
    terms: Arc<AtomicUsize>,
    /// How many led at once at most.
    most: Arc<AtomicUsize>,
}

impl Led {
    async fn lead(self, cancel: CancellationToken) {
        let leaders = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(leaders, Ordering::SeqCst);
        self.terms.fetch_add(1, Ordering::SeqCst);
        cancel.cancelled().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    async fn until_term(&self, term: usize) {
        let begun = async {
            while self.terms.load(Ordering::SeqCst) < term {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), begun).await.unwrap_or_else(|_| panic!("nobody leads for the {term}th time"));
    }
}

fn stand(api: &Arc<FakeApi>, name: &str, led: &Led) -> (CancellationToken, JoinHandle<()>) {
    let (cancel, led) = (CancellationToken::new(), led.clone());
    let election = Election::new(api.client(), "kube-scheduler", name, CALM);
    (cancel.clone(), tokio::spawn(election.run(move |cancel| led.clone().lead(cancel), cancel)))
}

#[tokio::test]
async fn one_leads_and_another_follows_when_it_ends() {
    let (api, led) = (FakeApi::new(), Led::default());
    let candidates = [stand(&api, "a", &led), stand(&api, "b", &led)];
    led.until_term(1).await;
    let client = api.client();
    let holder = || async { record_of(&client.get::<Lease>(NAMESPACE, "kube-scheduler").await.unwrap()).holder };
    let first = holder().await;
    let [a, b] = candidates;
    let (ends, stays) = if first == "a" { (a, b) } else { (b, a) };
    ends.0.cancel();
    ends.1.await.unwrap();
    led.until_term(2).await;
    assert_ne!(holder().await, first);
    stays.0.cancel();
    stays.1.await.unwrap();
    assert_eq!(holder().await, "", "who ends gives up the Lease");
    assert_eq!(led.most.load(Ordering::SeqCst), 1, "never two at once");
}
