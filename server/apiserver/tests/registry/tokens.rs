//! Tokens of ServiceAccounts: asked for, checked, and dead with what they are bound to.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};
use skiff_apiserver::tokens::{
    ISSUER, Tokens, TokensConfig,
    claims::{Claims, Reference},
    jws::SigningKey,
};

use crate::cluster::{Cluster, pod, user};

pub(crate) fn new_key() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap())
}

/// A cluster that issues tokens, with the account `robot` in `default`.
pub(crate) async fn issuing() -> (Cluster, Arc<SigningKey>) {
    let (cluster, key) = (Cluster::start().await, new_key());
    let tokens = Tokens::new(TokensConfig::new(Arc::clone(&key)), Arc::clone(cluster.registry.cacher()));
    cluster.registry.set_identity(Arc::new(tokens));
    cluster.must("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    (cluster, key)
}

const TOKEN: &str = "POST /api/v1/namespaces/default/serviceaccounts/robot/token";

/// A token with a spec; what it says.
pub(crate) async fn ask(cluster: &Cluster, spec: Value) -> (String, Value, Value) {
    let answer = cluster.must(TOKEN, json!({"spec": spec})).await;
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let claims = serde_json::from_slice(&BASE64.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    (token, claims, answer)
}

/// What a TokenReview says of a token.
pub(crate) async fn review(cluster: &Cluster, token: &str, audiences: Value) -> Value {
    let body = json!({"spec": {"token": token, "audiences": audiences}});
    cluster.must("POST /apis/authentication.k8s.io/v1/tokenreviews", body).await["status"].clone()
}

async fn robot_pod(cluster: &Cluster) -> Value {
    let mut robot = pod("p");
    robot["spec"]["serviceAccountName"] = "robot".into();
    cluster.must("POST /api/v1/namespaces/default/pods", robot).await
}

#[tokio::test]
async fn a_token_says_whose_it_is() {
    let (cluster, _) = issuing().await;
    let (token, claims, answer) = ask(&cluster, json!({"expirationSeconds": 7200})).await;
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], json!([ISSUER]));
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7200);
    assert_eq!(claims["nbf"], claims["iat"]);
    let own = &claims["kubernetes.io"];
    assert_eq!((&own["namespace"], &own["serviceaccount"]["name"]), (&json!("default"), &json!("robot")));
    let status = review(&cluster, &token, json!(null)).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!([ISSUER]));
    assert_eq!(
        status["user"]["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let id = format!("JTI={}", claims["jti"].as_str().unwrap());
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/credential-id"], json!([id]));
}

#[tokio::test]
async fn what_cannot_be_asked_for() {
    let (cluster, _) = issuing().await;
    let cases = [
        (
            json!({"expirationSeconds": 60}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 60: may not \
             specify a duration less than 10 minutes",
        ),
        (
            json!({"expirationSeconds": 1_i64 << 33}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 8589934592: may \
             not specify a duration larger than 2^32 seconds",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}}),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}),
            404,
            "pods \"none\" not found",
        ),
    ];
    for (spec, code, message) in cases {
        assert_eq!(cluster.refused(TOKEN, json!({"spec": spec})).await, (code, message.to_owned()));
    }
    cluster.must("POST /api/v1/namespaces/default/pods", pod("other")).await;
    let bound = json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "other"}}});
    let (code, message) = cluster.refused(TOKEN, bound).await;
    assert_eq!((code, message.contains("different serviceaccount name")), (400, true), "{message}");
}

#[tokio::test]
async fn a_bound_token_dies_with_its_pod() {
    let (cluster, _) = issuing().await;
    let made = robot_pod(&cluster).await;
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let bound = |uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}});
    let (code, message) = cluster.refused(TOKEN, json!({"spec": bound("another")})).await;
    assert_eq!((code, message.contains("does not match the UID in record")), (409, true), "{message}");
    let (token, claims, _) = ask(&cluster, bound(uid)).await;
    assert_eq!(claims["kubernetes.io"]["pod"], json!({"name": "p", "uid": uid}));
    let status = review(&cluster, &token, json!(null)).await;
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-uid"], json!([uid]));
    cluster.ask("DELETE /api/v1/namespaces/default/pods/p?gracePeriodSeconds=0").await;
    let dead = json!({"user": {}, "error": "service account token has been invalidated"});
    assert_eq!(review(&cluster, &token, json!(null)).await, dead);
    // Another pod of the same name is not the one that the token was for.
    robot_pod(&cluster).await;
    let error = review(&cluster, &token, json!(null)).await["error"].clone();
    assert!(error.as_str().unwrap().contains("does not match service account pod ref claim"), "{error}");
}

#[tokio::test]
async fn a_token_dies_with_its_account() {
    let (cluster, _) = issuing().await;
    let (token, ..) = ask(&cluster, json!({})).await;
    cluster.ask("DELETE /api/v1/namespaces/default/serviceaccounts/robot").await;
    let error = review(&cluster, &token, json!(null)).await["error"].clone();
    assert_eq!(error, "serviceaccounts \"robot\" not found");
    cluster.must("POST /api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    let error = review(&cluster, &token, json!(null)).await["error"].clone();
    assert!(error.as_str().unwrap().contains("does not match claim"), "{error}");
}

#[tokio::test]
async fn programs_that_may_not_know_that_tokens_end_get_a_year() {
    let (cluster, _) = issuing().await;
    robot_pod(&cluster).await;
    let spec = json!({"expirationSeconds": 3607, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}});
    let (_, claims, answer) = ask(&cluster, spec).await;
    let begins = claims["iat"].as_i64().unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - begins, 365 * 24 * 3600);
    assert_eq!(claims["kubernetes.io"]["warnafter"].as_i64().unwrap() - begins, 3607);
    let end: jiff::Timestamp = answer["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(end.as_second() - begins, 3607, "who renews it is told the shorter time");
}

#[tokio::test]
async fn audiences_are_kept_apart() {
    let (cluster, _) = issuing().await;
    let (token, ..) = ask(&cluster, json!({"audiences": ["vault", "other"]})).await;
    assert_eq!(review(&cluster, &token, json!(["vault"])).await["audiences"], json!(["vault"]));
    let error = review(&cluster, &token, json!(null)).await["error"].clone();
    assert!(error.as_str().unwrap().contains("is invalid for the target audiences"), "{error}");
}

#[tokio::test]
async fn tokens_in_secrets_live_as_long_as_their_secret() {
    let (cluster, key) = issuing().await;
    let (_, account) = cluster.ask("GET /api/v1/namespaces/default/serviceaccounts/robot").await;
    let uid = account["metadata"]["uid"].as_str().unwrap().to_owned();
    let account = Reference { name: "robot".to_owned(), uid };
    let token = key.sign(&Claims::legacy_json("default", &account, "s")).unwrap();
    let error = |status: Value| status["error"].as_str().unwrap_or_default().to_owned();
    assert_eq!(error(review(&cluster, &token, json!(null)).await), "service account token has been invalidated");
    let secret = |token: &str| json!({"metadata": {"name": "s"}, "stringData": {"token": token}});
    cluster.must("POST /api/v1/namespaces/default/secrets", secret("another")).await;
    assert_eq!(error(review(&cluster, &token, json!(null)).await), "token does not match server's copy");
    cluster.must("PUT /api/v1/namespaces/default/secrets/s", secret(&token)).await;
    assert_eq!(review(&cluster, &token, json!(null)).await["authenticated"], true);
    let mut marked = secret(&token);
    marked["metadata"]["labels"] = json!({"kubernetes.io/legacy-token-invalid-since": "2026-01-01"});
    cluster.must("PUT /api/v1/namespaces/default/secrets/s", marked).await;
    let refused = error(review(&cluster, &token, json!(null)).await);
    let told = "the token in secret default/s for service account default/robot has been marked invalid.";
    assert!(refused.starts_with(told), "{refused}");
    cluster.ask("DELETE /api/v1/namespaces/default/secrets/s").await;
    assert_eq!(error(review(&cluster, &token, json!(null)).await), "service account token has been invalidated");
}

#[tokio::test]
async fn bootstrap_tokens_work_until_they_end() {
    let (cluster, _) = issuing().await;
    let secret = |id: &str, data: Value| {
        json!({"metadata": {"name": format!("bootstrap-token-{id}")},
        "type": "bootstrap.kubernetes.io/token", "stringData": data})
    };
    let data = |id: &str, end: &str, usage: &str, groups: &str| {
        json!({"token-id": id, "expiration": end,
        "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": usage, "auth-extra-groups": groups})
    };
    let cases = [
        ("aaaaaa", "2999-01-01T00:00:00Z", "true", "system:bootstrappers:workers", true),
        ("bbbbbb", "2000-01-01T00:00:00Z", "true", "", false),
        ("cccccc", "2999-01-01T00:00:00Z", "false", "", false),
        ("dddddd", "nonsense", "true", "", false),
        ("eeeeee", "2999-01-01T00:00:00Z", "true", "system:masters", false),
    ];
    for (id, end, usage, groups, good) in cases {
        cluster.must("POST /api/v1/namespaces/kube-system/secrets", secret(id, data(id, end, usage, groups))).await;
        let status = review(&cluster, &format!("{id}.0123456789abcdef"), json!(null)).await;
        assert_eq!(status["authenticated"] == true, good, "{id}: {status}");
        let wrong = review(&cluster, &format!("{id}.0123456789abcdeX"), json!(null)).await;
        assert_eq!(wrong, json!({"user": {}}));
    }
    let status = review(&cluster, "aaaaaa.0123456789abcdef", json!(null)).await;
    assert_eq!(status["user"]["username"], "system:bootstrap:aaaaaa");
    assert_eq!(
        status["user"]["groups"],
        json!(["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"])
    );
}

#[tokio::test]
async fn pods_find_their_token_in_a_volume() {
    let (cluster, _) = issuing().await;
    let made = robot_pod(&cluster).await;
    let volume = &made["spec"]["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == "kube-api-access-".len() + 5, "{name}");
    assert_eq!(
        volume["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]})
    );
    let mount = json!([{"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    assert_eq!(made["spec"]["containers"][0]["volumeMounts"], mount);
    let mut without = pod("without");
    without["spec"]["automountServiceAccountToken"] = false.into();
    let made = cluster.must("POST /api/v1/namespaces/default/pods", without).await;
    assert!(made["spec"].get("volumes").is_none(), "{made}");
}

#[tokio::test]
async fn a_review_needs_the_right_to_ask() {
    let (cluster, _) = issuing().await;
    let ann = cluster.by(user("ann", &["system:authenticated"]));
    let body = json!({"spec": {"token": "x"}});
    assert_eq!(ann.refused("POST /apis/authentication.k8s.io/v1/tokenreviews", body).await.0, 403);
    let (code, message) = cluster.refused("POST /apis/authentication.k8s.io/v1/tokenreviews", json!({})).await;
    assert_eq!((code, message.as_str()), (400, "token is required for TokenReview in authentication"));
}
