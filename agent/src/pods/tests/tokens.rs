//! A pod's token is renewed in place while the pod runs: the worker against an API server in memory, on a clock of the
//! test's own.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::shell::{Node, OnePod, READY, TOKEN_SECONDS, pod, start_on, until};
use crate::{context::Clock, runtime::fake::FakeCri};

/// The clock that the test's timers have.
fn clock() -> Clock {
    let (start, began) = (Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1_000), Instant::now());
    Arc::new(move || start + SignedDuration::try_from(began.elapsed()).unwrap())
}

fn pod_with_a_token() -> Value {
    let mut pod = pod("Always");
    let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}});
    pod["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": [token]}}]);
    pod
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("pods/u/volumes/kubernetes.io~projected/v/token")
}

/// What a reader of the file finds, who must find one token, whole, at any time.
fn read(node: &Node) -> String {
    let token = std::fs::read_to_string(file(node.dir.path())).unwrap();
    assert!(token.starts_with("token-"), "{token:?}");
    token
}

async fn start() -> Node {
    let node = start_on(OnePod::at(pod_with_a_token(), clock()), FakeCri::new(None));
    until("ready", || node.api.text(READY) == "true").await;
    node
}

/// Reads every second until the file holds another token; gives that, and after how many seconds it came.
async fn changed(node: &Node, from: &str) -> (String, i64) {
    for second in 0..TOKEN_SECONDS {
        let token = read(node);
        if token != from {
            return (token, second);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{from} has ended and was not renewed");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_in_place_before_it_ends() {
    let node = start().await;
    let first = read(&node);
    assert_eq!(first, "token-1");
    let (second, after) = changed(&node, &first).await;
    // At 80% of its life, and up to ten seconds earlier.
    assert!((470..=481).contains(&after), "{after} s");
    let (third, after) = changed(&node, &second).await;
    assert!((470..=481).contains(&after), "{after} s");
    assert_eq!((second.as_str(), third.as_str()), ("token-2", "token-3"));
    assert_eq!(node.api.text("/status/containerStatuses/0/restartCount"), "0", "the pod was let be");
    node.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_renewed_is_kept_and_asked_for_with_patience() {
    let node = start().await;
    *node.api.tokens.lock() = (1, false);
    tokio::time::sleep(Duration::from_secs(550)).await;
    assert_eq!(read(&node), "token-1");
    let (asked, _) = *node.api.tokens.lock();
    // Due at 470 to 480 s, then every ten seconds.
    assert!((7..=11).contains(&asked), "asked {asked} times");
    *node.api.tokens.lock() = (asked, true);
    let (_, after) = changed(&node, "token-1").await;
    assert!(after <= 11, "{after} s");
    node.cancel.cancel();
}
