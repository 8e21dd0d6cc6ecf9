//! Create, update and patch.

use serde_json::{Value, json};
use skiff_api::request::ContentType;

use crate::cluster::{Cluster, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_new_object_has_what_the_server_gives() {
    let cluster = Cluster::start().await;
    let made = cluster.must(&format!("POST {MAPS}"), config_map("a", "1")).await;
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().map(str::len), Some(36));
    assert_eq!(made["metadata"]["creationTimestamp"].as_str().map(str::len), Some("2026-01-01T00:00:00Z".len()));
    assert_eq!(made["metadata"].get("generation"), None);
    assert_eq!(cluster.ask(&format!("GET {MAPS}/a")).await, (200, made));
}

#[tokio::test]
async fn creates_that_are_refused() {
    let cluster = Cluster::start().await;
    cluster.must(&format!("POST {MAPS}"), config_map("a", "1")).await;
    let in_other = json!({"metadata": {"name": "b", "namespace": "other"}});
    let versioned = json!({"metadata": {"name": "b", "resourceVersion": "7"}});
    let cases: [(&str, Value, u16, &str); 8] = [
        ("POST /api/v1/namespaces/default/configmaps", config_map("a", "1"), 409, "configmaps \"a\" already exists"),
        ("POST /api/v1/namespaces/none/configmaps", config_map("a", "1"), 404, "namespaces \"none\" not found"),
        (
            "POST /api/v1/namespaces/default/configmaps",
            in_other,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "POST /api/v1/namespaces/default/configmaps",
            versioned,
            400,
            "resourceVersion should not be set on objects to be created",
        ),
        ("POST /api/v1/namespaces/default/widgets", json!({}), 404, "the server could not find the requested resource"),
        (
            "POST /api/v1/componentstatuses",
            json!({}),
            405,
            "the server does not allow this method on the requested resource",
        ),
        (
            "POST /api/v1/namespaces/default/configmaps?dryRun=Some",
            config_map("b", "1"),
            422,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"",
        ),
        (
            "POST /api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            json!({"metadata": {"name": "b"}, "x": 1}),
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"x\"",
        ),
    ];
    for (line, body, code, message) in cases {
        assert_eq!(cluster.refused(line, body).await, (code, message.to_owned()), "{line}");
    }
}

#[tokio::test]
async fn names_are_generated() {
    let cluster = Cluster::start().await;
    for _ in 0..20 {
        let made = cluster.must(&format!("POST {MAPS}"), json!({"metadata": {"generateName": "web-"}})).await;
        let name = made["metadata"]["name"].as_str().unwrap();
        let suffix = name.strip_prefix("web-").unwrap();
        assert_eq!(suffix.len(), 5);
        assert!(suffix.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)), "{name}");
    }
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let cluster = Cluster::start().await;
    let made = cluster.must(&format!("POST {MAPS}?dryRun=All"), config_map("a", "1")).await;
    assert!(made["metadata"]["uid"].is_string());
    assert_eq!(cluster.ask(&format!("GET {MAPS}/a")).await.0, 404);
    let there = cluster.must(&format!("POST {MAPS}"), config_map("a", "1")).await;
    let (_, changed) = cluster.merge(&format!("{MAPS}/a?dryRun=All"), json!({"data": {"key": "2"}})).await;
    assert_eq!(changed["data"]["key"], "2");
    let (_, gone) = cluster.ask(&format!("DELETE {MAPS}/a?dryRun=All")).await;
    assert_eq!(gone["status"], "Success");
    assert_eq!(cluster.ask(&format!("GET {MAPS}/a")).await, (200, there));
}

#[tokio::test]
async fn updates_and_their_versions() {
    let cluster = Cluster::start().await;
    let first = cluster.must(&format!("POST {MAPS}"), config_map("a", "1")).await;
    let line = format!("PUT {MAPS}/a");
    let second = cluster.must(&line, config_map("a", "2")).await;
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"], "an update keeps what it does not name");
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let same = cluster.must(&line, second.clone()).await;
    assert_eq!(same, second, "what changes nothing is not written");
    let message = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
        changes to the latest version and try again";
    assert_eq!(cluster.refused(&line, first.clone()).await, (409, message.to_owned()));
    let mut other = second.clone();
    other["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
    let (code, message) = cluster.refused(&line, other).await;
    assert_eq!((code, message.contains("Precondition failed: UID in precondition")), (409, true), "{message}");
    assert_eq!(
        cluster.refused(&line, config_map("b", "2")).await,
        (400, "the name of the object (b) does not match the name on the URL (a)".to_owned())
    );
    assert_eq!(
        cluster.refused(&format!("PUT {MAPS}/none"), config_map("none", "1")).await,
        (404, "configmaps \"none\" not found".to_owned())
    );
}

#[tokio::test]
async fn leases_are_updated_by_version_and_may_be_made_so() {
    let cluster = Cluster::start().await;
    let line = "PUT /apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let lease = |holder: &str| json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": holder}});
    let (status, made) = cluster.put(line, lease("a")).await;
    assert_eq!(status, 201);
    let (code, message) = cluster.refused(line, lease("b")).await;
    assert_eq!(code, 422);
    assert!(
        message.ends_with("metadata.resourceVersion: Invalid value: 0: must be specified for an update"),
        "{message}"
    );
    let mut next = made;
    next["spec"]["holderIdentity"] = json!("b");
    assert_eq!(cluster.put(line, next).await.0, 200);
}

#[tokio::test]
async fn patches_of_three_forms() {
    let cluster = Cluster::start().await;
    cluster.must(&format!("POST {MAPS}"), config_map("a", "1")).await;
    let line = format!("PATCH {MAPS}/a");
    let json_patch =
        json!([{"op": "test", "path": "/data/key", "value": "1"}, {"op": "add", "path": "/data/x", "value": "y"}]);
    let cases = [
        (ContentType::JsonPatch, json_patch, json!({"key": "1", "x": "y"})),
        (ContentType::MergePatch, json!({"data": {"key": null}}), json!({"x": "y"})),
        (ContentType::StrategicMergePatch, json!({"data": {"z": "w"}}), json!({"x": "y", "z": "w"})),
    ];
    for (form, patch, expected) in cases {
        let (status, object) = cluster.send(&line, form, patch).await;
        assert_eq!((status, &object["data"]), (200, &expected), "{form:?}");
    }
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"key": "3"}});
    assert_eq!(cluster.merge(&format!("{MAPS}/a"), stale).await.0, 409);
    assert_eq!(cluster.merge(&format!("{MAPS}/none"), json!({})).await.0, 404);
    assert_eq!(cluster.send(&line, ContentType::Json, json!({})).await.0, 415);
}

#[tokio::test]
async fn status_and_spec_have_doors_of_their_own() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": template}, "status": {"replicas": 9}});
    let made = cluster.must(&format!("POST {path}"), deployment).await;
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&json!({}), &json!(1)));
    let both = json!({"spec": {"replicas": 3}, "status": {"replicas": 9}});
    let (_, spec) = cluster.merge(&format!("{path}/d"), both.clone()).await;
    assert_eq!((&spec["spec"]["replicas"], &spec["status"]), (&json!(3), &json!({})));
    assert_eq!(spec["metadata"]["generation"], 2);
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 9}});
    let (_, status) = cluster.merge(&format!("{path}/d/status"), both).await;
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(3), &json!(9)));
    assert_eq!(status["metadata"]["generation"], 2);
}

#[tokio::test]
async fn scale_is_one_number_of_an_object() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/replicasets";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"metadata": {"name": "r"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": template}});
    cluster.must(&format!("POST {path}"), set).await;
    let (_, scale) = cluster.ask(&format!("GET {path}/r/scale")).await;
    assert_eq!((&scale["kind"], &scale["spec"]), (&json!("Scale"), &json!({"replicas": 2})));
    assert_eq!(scale["status"], json!({"replicas": 0, "selector": "a=b"}));
    let (_, patched) = cluster.merge(&format!("{path}/r/scale"), json!({"spec": {"replicas": 4}})).await;
    assert_eq!(patched["spec"]["replicas"], 4);
    let mut stale = scale;
    stale["spec"]["replicas"] = json!(7);
    assert_eq!(cluster.put(&format!("PUT {path}/r/scale"), stale).await.0, 409);
    let (_, set) = cluster.ask(&format!("GET {path}/r")).await;
    assert_eq!((&set["spec"]["replicas"], &set["metadata"]["generation"]), (&json!(4), &json!(2)));
}

#[tokio::test]
async fn string_data_becomes_data() {
    let cluster = Cluster::start().await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "hello"}});
    let made = cluster.must("POST /api/v1/namespaces/default/secrets", secret).await;
    assert_eq!((&made["data"], made.get("stringData")), (&json!({"a": "aGVsbG8="}), None));
    assert_eq!(made["type"], "Opaque");
}

#[tokio::test]
async fn a_job_selects_its_own_pods() {
    let cluster = Cluster::start().await;
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}});
    let made = cluster.must("POST /apis/batch/v1/namespaces/default/jobs", job).await;
    let uid = &made["metadata"]["uid"];
    assert_eq!(&made["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["controller-uid"], &labels["job-name"]), (uid, &json!("j")));
}

#[tokio::test]
async fn an_apply_makes_owns_and_conflicts() {
    let cluster = Cluster::start().await;
    let line = |manager: &str, more: &str| format!("PATCH {MAPS}/a?fieldManager={manager}{more}");
    let wanted = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": value}});
    let apply = ContentType::ApplyPatch;
    let (code, status) = cluster.send(&format!("PATCH {MAPS}/a"), apply, wanted("1")).await;
    assert_eq!(
        (code, &status["message"]),
        (
            422,
            &json!(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: \
        Required value: is required for apply patch"
            )
        )
    );
    let (code, made) = cluster.send(&line("one", ""), apply, wanted("1")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:key": {}}}));
    let (code, again) = cluster.send(&line("one", ""), apply, wanted("1")).await;
    assert_eq!((code, &again), (200, &made), "applying the same again writes nothing");
    assert_eq!(cluster.send(&line("two", ""), apply, wanted("2")).await.0, 409);
    let (code, taken) = cluster.send(&line("two", "&force=true"), apply, wanted("2")).await;
    assert_eq!((code, &taken["data"]["key"]), (200, &json!("2")));
    let (_, merged) = cluster.merge(&format!("{MAPS}/a?fieldManager=three"), json!({"data": {"x": "y"}})).await;
    let managers = merged["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["manager"] == "three" && m["operation"] == "Update"), "{managers:?}");
}
