#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use serde_json::{Value, json};

use super::{decide::Plan, *};
use crate::testing::{Running, eventually, object};

fn cron(spec: Value, status: Value) -> CronJob {
    let mut whole = json!({"schedule": "*/10 * * * *",
        "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": []}}}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(
        json!({"metadata": {"name": "c", "namespace": "x", "uid": "cron", "creationTimestamp": "2026-01-01T00:05:00Z"},
        "spec": whole, "status": status}),
    )
}

fn job(name: &str, condition: &str) -> Arc<Job> {
    let conditions = if condition.is_empty() { json!([]) } else { json!([{"type": condition, "status": "True"}]) };
    Arc::new(object(json!({
        "metadata": {"name": name, "namespace": "x", "uid": name,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "cron", "controller": true}]},
        "spec": {"template": {}},
        "status": {"conditions": conditions, "startTime": format!("2026-01-01T00:00:0{}Z", name.len()),
            "completionTime": (condition == "Complete").then_some("2026-01-01T00:00:09Z")},
    })))
}

fn told(plan: &Plan) -> String {
    let mut parts: Vec<String> = plan.events.iter().map(|(_, reason, _)| (*reason).to_owned()).collect();
    parts.extend(plan.delete.iter().map(|job| format!("-{}", name(&job.metadata))));
    parts.extend(plan.create.iter().map(|(job, due)| format!("+{} {due}", name(&job.metadata))));
    parts.join(" ")
}

#[test]
fn what_a_cron_job_does_next() {
    let ran = |name: &str| json!({"active": [{"name": name, "uid": name}], "lastScheduleTime": "2026-01-01T00:10:00Z"});
    let cases: &[(&str, Value, Value, &str, Vec<Arc<Job>>, &str)] = &[
        ("it is not time yet", json!({}), json!({}), "00:09:59", vec![], ""),
        ("it is time", json!({}), json!({}), "00:10:00", vec![], "+c-29453770 2026-01-01T00:10:00Z"),
        ("it is long since time", json!({}), json!({}), "00:45:00", vec![], "+c-29453800 2026-01-01T00:40:00Z"),
        ("it was done", json!({}), ran("a"), "00:15:00", vec![job("a", "")], ""),
        ("it is suspended", json!({"suspend": true}), json!({}), "00:15:00", vec![], ""),
        ("too late", json!({"startingDeadlineSeconds": 60}), json!({}), "00:15:00", vec![], ""),
        (
            "just in time",
            json!({"startingDeadlineSeconds": 60}),
            json!({}),
            "00:10:59",
            vec![],
            "+c-29453770 2026-01-01T00:10:00Z",
        ),
        (
            "one runs, and that is no matter",
            json!({}),
            ran("a"),
            "00:20:00",
            vec![job("a", "")],
            "+c-29453780 2026-01-01T00:20:00Z",
        ),
        (
            "one runs, and no other may",
            json!({"concurrencyPolicy": "Forbid"}),
            ran("a"),
            "00:20:00",
            vec![job("a", "")],
            "JobAlreadyActive",
        ),
        (
            "one runs, and the next replaces it",
            json!({"concurrencyPolicy": "Replace"}),
            ran("a"),
            "00:20:00",
            vec![job("a", "")],
            "-a +c-29453780 2026-01-01T00:20:00Z",
        ),
        ("one has ended", json!({}), ran("a"), "00:15:00", vec![job("a", "Complete")], "SawCompletedJob"),
        ("one is gone", json!({}), ran("a"), "00:15:00", vec![], "MissingJob"),
        (
            "history",
            json!({"successfulJobsHistoryLimit": 1}),
            ran("z"),
            "00:15:00",
            vec![job("z", ""), job("aa", "Complete"), job("aaa", "Complete"), job("a", "Failed"), job("b", "Failed")],
            "-aa -a",
        ),
        ("no schedule", json!({"schedule": "x"}), json!({}), "00:15:00", vec![], "UnparseableSchedule"),
        ("no zone", json!({"timeZone": "Nowhere"}), json!({}), "00:15:00", vec![], "UnknownTimeZone"),
        (
            "asleep for days",
            json!({"schedule": "* * * * *"}),
            json!({}),
            "23:59:30",
            vec![],
            "TooManyMissedTimes +c-29455199 2026-01-01T23:59:00Z",
        ),
    ];
    for (what, spec, status, now, jobs, expected) in cases {
        let now = format!("2026-01-01T{now}Z").parse().unwrap();
        let plan = decide::decide(&cron(spec.clone(), status.clone()), jobs, now);
        assert_eq!(told(&plan), *expected, "{what}");
    }
}

#[test]
fn the_next_look_is_at_the_next_time() {
    let zone = json!({"schedule": "0 9 * * *", "timeZone": "Europe/Berlin"});
    let plan = decide::decide(&cron(zone, json!({})), &[], "2026-01-01T06:00:00Z".parse().unwrap());
    assert_eq!(plan.again.map(|again| again.as_secs()), Some(2 * 3600));
    let plan = decide::decide(&cron(json!({}), json!({})), &[], "2026-01-01T00:10:00Z".parse().unwrap());
    let made = plan.create.unwrap().0;
    assert_eq!(made.metadata.labels.unwrap()["a"], "b");
    assert_eq!(
        made.metadata.annotations.unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T00:10:00Z"
    );
}

#[tokio::test]
async fn a_job_is_made_at_its_time_and_only_once() {
    let cluster = Running::start(run);
    let mut new = cron(json!({"schedule": "@every 1s", "successfulJobsHistoryLimit": 2}), Value::Null);
    new.status = None;
    new.metadata.creation_timestamp = Some(object(json!(Timestamp::now().to_string())));
    cluster.client.create(&new).await.unwrap();
    let jobs = async || cluster.client.list::<Job>(None, &Default::default()).await.unwrap().items;
    eventually(async || jobs().await.len() == 1).await;
    let cron: CronJob = cluster.client.get("x", "c").await.unwrap();
    let first = &jobs().await[0];
    assert_eq!(controller_of(&first.metadata).unwrap().uid, uid(&cron.metadata));
    eventually(async || {
        let cron: CronJob = cluster.client.get("x", "c").await.unwrap();
        cron.status
            .is_some_and(|status| status.active.unwrap_or_default().len() == 1 && status.last_schedule_time.is_some())
    })
    .await;
    let done = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}], "completionTime": "2026-01-01T00:00:00Z"}});
    let form = skiff_api::request::ContentType::MergePatch;
    cluster.client.patch::<Job>("x", name(&first.metadata), Some("status"), form, &done).await.unwrap();
    eventually(async || {
        let cron: CronJob = cluster.client.get("x", "c").await.unwrap();
        let status = cron.status.unwrap();
        let runs = status.active.unwrap_or_default();
        !runs.iter().any(|run| run.name == first.metadata.name) && status.last_successful_time.is_some()
    })
    .await;
}
