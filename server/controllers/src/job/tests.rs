#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};
use skiff_api::request::ContentType;

use super::{decide::condition, *};
use crate::{
    meta::{is_deleting, name, phase},
    testing::{Running, eventually, object},
};

const NOW: &str = "2026-01-01T01:00:00Z";

fn job(spec: Value, status: Value) -> Job {
    let mut job: Job = object(json!({
        "metadata": {"name": "j", "namespace": "x", "uid": "job"},
        "spec": {"selector": {"matchLabels": {"job": "j"}},
            "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": status,
    }));
    let mut whole = serde_json::to_value(&job.spec).unwrap();
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    job.spec = Some(object(whole));
    job
}

/// A pod by `PHASE [index=N] [failures=N] [exit=N] [free] [going]`; `free` is one that has been counted.
fn pod(number: usize, text: &str) -> Arc<Pod> {
    let mut words = text.split(' ');
    let phase = words.next().unwrap();
    let words: Vec<&str> = words.collect();
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let mut annotations = serde_json::Map::new();
    for (word, annotation) in [("index", facts::INDEX), ("failures", facts::FAILURES)] {
        value(word).map(|value| annotations.insert(annotation.to_owned(), value.into()));
    }
    let code: i32 = value("exit").map_or(i32::from(phase == "Failed"), |code| code.parse().unwrap());
    let ended = json!({"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:59:55Z"}});
    let is_ended = phase == "Succeeded" || phase == "Failed";
    let finalizers = if words.contains(&"free") { json!([]) } else { json!([TRACKING]) };
    let mut pod: Pod = object(json!({
        "metadata": {"name": format!("p{number}"), "namespace": "x", "uid": format!("p{number}"), "labels": {"job": "j"},
            "annotations": annotations, "finalizers": finalizers, "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job", "controller": true}]},
        "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
        "status": {"phase": phase, "containerStatuses": if is_ended { json!([{"name": "c", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": ended}]) } else { json!([]) }},
    }));
    pod.metadata.deletion_timestamp = words.contains(&"going").then(|| object(json!("2026-01-01T00:59:50Z")));
    Arc::new(pod)
}

fn plan_of(job: &Job, pods: &[&str]) -> Plan {
    let pods: Vec<Arc<Pod>> = pods.iter().enumerate().map(|(number, text)| pod(number, text)).collect();
    let view = View { job, pods: &pods, is_doomed: &|_| false, first_backoff: FIRST_BACKOFF };
    decide(&view, NOW.parse().unwrap())
}

/// A plan in a line: what is made, taken away, ended and let go, the conditions that hold, and what is counted.
fn told(plan: &Plan) -> String {
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| name(&pod.metadata)).collect::<Vec<_>>().join(",");
    let slot = |slot: &facts::Slot| match (slot.index, slot.failures) {
        (None, _) => "+".to_owned(),
        (Some(index), None | Some(0)) => format!("+{index}"),
        (Some(index), Some(failures)) => format!("+{index}({failures})"),
    };
    let mut parts = vec![plan.create.iter().map(slot).collect::<Vec<_>>().join("")];
    for (word, pods) in [("discard", &plan.discard), ("end", &plan.terminate), ("free", &plan.release)] {
        if !pods.is_empty() {
            parts.push(format!("{word}:{}", names(pods)));
        }
    }
    for condition in plan.status.conditions.iter().flatten().filter(|condition| condition.status == "True") {
        parts.push(format!("{}:{}", condition.type_, condition.reason.as_deref().unwrap_or_default()));
    }
    let counts = [plan.status.succeeded, plan.status.failed].map(Option::unwrap_or_default);
    if counts != [0, 0] {
        parts.push(format!("{}/{}", counts[0], counts[1]));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

/// What is the case | spec | status | pods | what is to be done, see [`told`].
const PLAIN: &str = r#"
begins | {"completions": 2, "parallelism": 2} | {} | | ++
runs | {"completions": 2, "parallelism": 2} | {} | Running; Pending |
one has succeeded | {"completions": 2} | {} | Succeeded | + free:p0
it is let go and not counted yet | {"completions": 2} | UNCOUNTED | Succeeded | + free:p0
it is counted | {"completions": 2} | UNCOUNTED | Succeeded free | + 1/0
it is counted though it is gone | {"completions": 2} | UNCOUNTED | | + 1/0
all have succeeded | {"completions": 1} | {} | Succeeded | free:p0 SuccessCriteriaMet:CompletionsReached
and are counted | {"completions": 1} | UNCOUNTED | Succeeded free | REACHED 1/0
over | {"completions": 1} | {"conditions": [{"type": "Complete", "status": "True"}]} | Succeeded; Running free | free:p0 Complete:
waits after a failure | {"completions": 1} | {} | Failed | free:p0
too many failures | {"completions": 1, "backoffLimit": 0} | {} | Failed; Running | end:p1 free:p0 FailureTarget:BackoffLimitExceeded
waits for its pods to end | {"completions": 1, "podReplacementPolicy": "Failed"} | OVER | Running going | FailureTarget:Why
has failed | {"completions": 1} | OVER | Failed free | FailureTarget:Why Failed:Why
one that is deleted has failed and is replaced | {"completions": 1} | {} | Running going | + free:p0
or is replaced later | {"completions": 1, "podReplacementPolicy": "Failed"} | {} | Running going |
suspended | {"completions": 1, "suspend": true} | {} | Running | discard:p0 Suspended:JobSuspended
too many run | {"completions": 3, "parallelism": 1} | {} | Running; Pending | discard:p1
too late | {"completions": 1, "activeDeadlineSeconds": 60} | LONG_AGO | Running | end:p0 FailureTarget:DeadlineExceeded
a queue of work | {"parallelism": 2} | {} | Succeeded; Running | free:p0
a queue that is empty | {"parallelism": 2} | {"succeeded": 2} | | REACHED 2/0
nothing to do | {"completions": 0} | {} | | REACHED
"#;

/// As [`PLAIN`], for a Job of three indexes.
const INDEXED: &str = r#"
begins | {} | {} | | +0+1+2
the free ones | {} | {"completedIndexes": "1"} | Running index=0 | +2 1/0
two of an index | {} | {} | Running index=0; Pending index=0; Running index=7 | discard:p2,p1
all | {} | {"completedIndexes": "0,1"} | Succeeded index=2 | free:p0 SuccessCriteriaMet:CompletionsReached 3/0
enough | ENOUGH | {} | Succeeded index=1; Running index=0 | end:p1 free:p0 SuccessCriteriaMet:SuccessPolicy 1/0
what failed waits, by itself | EACH | {} | Failed index=0 failures=0 | +1+2
an index that has failed | EACH | {} | Failed index=0 failures=1 | +1+2 free:p0
is not begun again | EACH | {"failedIndexes": "0", "completedIndexes": "1"} | Running index=2 | 1/0
and the job fails at the end | EACH | {"failedIndexes": "0", "completedIndexes": "1,2"} | | FailureTarget:FailedIndexes Failed:FailedIndexes 2/0
too many | NONE_MAY_FAIL | {} | Failed index=0; Running index=1 | end:p1 free:p0 FailureTarget:MaxFailedIndexesExceeded
one that was replaced counts | EACH | {} | Failed index=0; Running index=0 failures=1; Running index=1; Running index=2 | free:p0
by policy not at all | POLICY | {} | Failed index=0 failures=1 exit=42 | +1+2
by policy for good | POLICY | {} | Failed index=0 failures=0 exit=43 | +1+2 free:p0
by policy for all | POLICY | {} | Failed index=0 failures=0 exit=44; Running index=1 | end:p1 FailureTarget:PodFailurePolicy
"#;

/// What the words in capitals stand for.
const WORDS: &[(&str, &str)] = &[
    ("UNCOUNTED", r#"{"startTime": "2026-01-01T01:00:00Z", "uncountedTerminatedPods": {"succeeded": ["p0"]}}"#),
    ("OVER", r#"{"conditions": [{"type": "FailureTarget", "status": "True", "reason": "Why"}]}"#),
    ("LONG_AGO", r#"{"startTime": "2026-01-01T00:00:00Z"}"#),
    ("REACHED", "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached"),
    ("ENOUGH", r#"{"successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}}"#),
    ("EACH", r#"{"backoffLimitPerIndex": 1, "backoffLimit": 1000}"#),
    ("NONE_MAY_FAIL", r#"{"backoffLimitPerIndex": 0, "maxFailedIndexes": 0}"#),
    (
        "POLICY",
        r#"{"backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [43]}},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [44]}}]}}"#,
    ),
];

fn check(cases: &str, common: &Value) {
    for case in cases.lines().filter(|line| !line.is_empty()) {
        let parts: Vec<String> = case
            .split('|')
            .map(|part| WORDS.iter().fold(part.trim().to_owned(), |text, (word, meaning)| text.replace(word, meaning)))
            .collect();
        let [what, spec, status, pods, expected] = &parts[..] else { panic!("{case}") };
        let mut whole = common.clone();
        whole.as_object_mut().unwrap().extend(serde_json::from_str::<serde_json::Map<_, _>>(spec).unwrap());
        let pods: Vec<&str> = pods.split("; ").filter(|pod| !pod.is_empty()).collect();
        assert_eq!(told(&plan_of(&job(whole, serde_json::from_str(status).unwrap()), &pods)), *expected, "{what}");
    }
}

#[test]
fn what_a_job_does_next() {
    check(PLAIN, &json!({}));
}

#[test]
fn what_an_indexed_job_does_next() {
    check(INDEXED, &json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3}));
}

#[test]
fn the_delay_after_failures_doubles() {
    let now = NOW.parse().unwrap();
    let left = |failures| facts::backoff_left(failures, Some(now), FIRST_BACKOFF, now).as_secs();
    assert_eq!([0, 1, 2, 3, 7, 40].map(left), [0, 10, 20, 40, 600, 600]);
    let plan = plan_of(&job(json!({"completions": 1}), json!({})), &["Failed"]);
    assert_eq!(plan.again.map(|again| again.as_secs()), Some(5), "it failed five seconds ago");
}

#[test]
fn a_pod_is_told_its_index() {
    let made = pod_of(
        &job(json!({"completionMode": "Indexed"}), json!({})),
        &facts::Slot { index: Some(2), ..Default::default() },
    );
    assert_eq!(made.metadata.generate_name.as_deref(), Some("j-2-"));
    assert_eq!(made.metadata.labels.unwrap()[facts::INDEX], "2");
    let spec = made.spec.unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("j-2"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    assert_eq!(made.metadata.finalizers.unwrap(), [TRACKING]);
}

/// A node that runs pods: each ends with the phase that `outcome` says, once.
async fn run_pods(cluster: &Running, outcome: impl Fn(&Pod) -> &'static str) {
    let pods = cluster.client.list::<Pod>(None, &Default::default()).await.unwrap().items;
    for pod in pods.iter().filter(|pod| phase(pod).is_empty() && !is_deleting(&pod.metadata)) {
        let status = json!({"status": {"phase": outcome(pod), "containerStatuses": [{"name": "c", "ready": false,
            "image": "", "imageID": "", "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "finishedAt": Timestamp::now().to_string()}}}]}});
        let form = ContentType::MergePatch;
        let _ = cluster.client.patch::<Pod>("x", name(&pod.metadata), Some("status"), form, &status).await;
    }
}

async fn finish(cluster: &Running, spec: Value, outcome: impl Fn(&Pod) -> &'static str) -> Job {
    let mut new = job(spec, Value::Null);
    new.status = None;
    cluster.client.create(&new).await.unwrap();
    let get = async || cluster.client.get::<Job>("x", "j").await.unwrap();
    eventually(async || {
        run_pods(cluster, &outcome).await;
        decide::is_finished(&get().await)
    })
    .await;
    get().await
}

fn quick(context: Context) -> impl Future<Output = ()> {
    run_with(context, Duration::from_millis(1))
}

#[tokio::test]
async fn a_job_runs_to_its_end_and_every_pod_is_counted_once() {
    let cluster = Running::start(quick);
    let done = finish(&cluster, json!({"completions": 20, "parallelism": 5}), |_| "Succeeded").await;
    let status = done.status.unwrap();
    assert!(condition(Some(&status), decide::COMPLETE).is_some() && status.completion_time.is_some());
    assert_eq!((status.succeeded, status.failed, status.active), (Some(20), Some(0), Some(0)));
    eventually(async || {
        let pods = cluster.client.list::<Pod>(None, &Default::default()).await.unwrap().items;
        pods.len() == 20 && !pods.iter().any(is_tracked)
    })
    .await;
}

#[tokio::test]
async fn a_job_that_fails_too_often_has_failed() {
    let cluster = Running::start(quick);
    let done = finish(&cluster, json!({"completions": 1, "backoffLimit": 2}), |_| "Failed").await;
    let status = done.status.unwrap();
    let failed = condition(Some(&status), decide::FAILED).unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!((status.succeeded, status.failed), (Some(0), Some(3)));
}

#[tokio::test]
async fn an_indexed_job_tries_each_index_for_itself() {
    let cluster = Running::start(quick);
    let spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4, "backoffLimitPerIndex": 1,
        "backoffLimit": i32::MAX});
    let done = finish(&cluster, spec, |pod| if facts::index_of(pod) == Some(1) { "Failed" } else { "Succeeded" }).await;
    let status = done.status.unwrap();
    assert_eq!(condition(Some(&status), decide::FAILED).unwrap().reason.as_deref(), Some("FailedIndexes"));
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("0,2,3"), Some("1")));
    assert_eq!((status.succeeded, status.failed), (Some(3), Some(2)));
}

#[tokio::test]
async fn pods_of_a_job_that_is_gone_are_let_go() {
    let cluster = Running::start(quick);
    let mut new = job(json!({"completions": 1}), Value::Null);
    new.status = None;
    cluster.client.create(&new).await.unwrap();
    let pods = async || cluster.client.list::<Pod>(None, &Default::default()).await.unwrap().items;
    eventually(async || pods().await.len() == 1).await;
    cluster.api.remove(&skiff_client::client::resource_of::<Job>(), "x", "j");
    eventually(async || !is_tracked(&pods().await[0])).await;
}
