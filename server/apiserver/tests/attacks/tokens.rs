//! Forged, stolen and stale tokens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jiff::Timestamp;
use rcgen::KeyPair;
use serde_json::{Value, json};
use skiff_apiserver::tokens::{ISSUER, jws::SigningKey};

use crate::site::{Site, TREASURE};

const LINE: &str = "GET /api/v1/namespaces/one/secrets/s";

fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

fn payload(token: &str) -> Value {
    serde_json::from_slice(&BASE64.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// A token of other claims, signed with a key.
fn signed(key: &SigningKey, claims: &Value, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims.clone();
    change(&mut claims);
    key.sign(&claims).unwrap()
}

/// What a client with a bad token is told, whatever is wrong with it.
async fn is_told_nothing(site: &Site, what: &str, token: &str) {
    let (code, body) = site.with_token(LINE, token).await;
    assert_eq!(code, 401, "{what}: {body}");
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["message"], "Unauthorized", "{what}");
    assert!(!body.contains(TREASURE) && !body.contains("robot") && !body.contains(token), "{what}: {body}");
}

#[tokio::test]
async fn no_token_is_anonymous_and_may_next_to_nothing() {
    let site = Site::start().await;
    for (line, expected) in [
        (LINE, 403),
        ("GET /api/v1/namespaces", 403),
        ("GET /api", 403),
        ("GET /openid/v1/jwks", 403),
        ("GET /metrics", 403),
        ("GET /healthz", 403),
        ("GET /.well-known/openid-configuration", 200),
    ] {
        let (code, body) = site.ask(None, line, "", "").await;
        assert_eq!(code, expected, "{line}: {body}");
        assert!(!body.contains(TREASURE));
    }
    site.still_serves().await;
}

#[tokio::test]
async fn forged_tokens_are_401() {
    let site = Site::start().await;
    let good = site.token("one").await;
    assert_eq!(site.with_token(LINE, &good).await.0, 200);
    let claims = payload(&good);
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let none = |alg: &str| format!("{}.{body}.", part(&json!({"alg": alg, "typ": "JWT"})));
    let other = SigningKey::from_pem(&KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let kid = site.key.id();
    // Key confusion: the public key, which everybody has, as the secret of a symmetric algorithm.
    let public = site.key.jwk().to_string();
    let confused = {
        let head = part(&json!({"alg": "HS256", "kid": kid}));
        let message = format!("{head}.{body}");
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
        format!("{message}.{}", BASE64.encode(ring::hmac::sign(&secret, message.as_bytes())))
    };
    let mut tampered = claims.clone();
    tampered["sub"] = "system:serviceaccount:kube-system:namespace-controller".into();
    let forged = [
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("alg none with the signature", format!("{}{signature}", none("none"))),
        ("no alg", format!("{}.{body}.{signature}", part(&json!({"kid": kid})))),
        ("key confusion", confused),
        ("another key", other.sign(&claims).unwrap()),
        ("a key of its own in the header", {
            let head = part(&json!({"alg": "ES256", "jwk": other.jwk()}));
            let theirs = other.sign(&claims).unwrap();
            format!("{head}.{body}.{}", theirs.rsplit('.').next().unwrap())
        }),
        ("another payload", format!("{header}.{}.{signature}", part(&tampered))),
        ("no signature", format!("{header}.{body}.")),
        ("an empty signature's zeros", format!("{header}.{body}.{}", BASE64.encode([0_u8; 64]))),
        ("two parts", format!("{header}.{body}")),
        ("four parts", format!("{good}.{signature}")),
        ("critical extension", format!("{}.{body}.{signature}", part(&json!({"alg": "ES256", "crit": ["x"]})))),
        ("nonsense", "x".repeat(4000)),
        ("too long", format!("{header}.{}.{signature}", "A".repeat(20_000))),
    ];
    for (what, token) in forged {
        is_told_nothing(&site, what, &token).await;
    }
    site.still_serves().await;
}

#[tokio::test]
async fn genuine_tokens_that_do_not_hold_are_401() {
    let site = Site::start().await;
    let claims = payload(&site.token("one").await);
    let now = Timestamp::now().as_second();
    let key = &site.key;
    let set =
        |path: &'static str, value: Value| signed(key, &claims, |claims| *claims.pointer_mut(path).unwrap() = value);
    let stale = [
        ("expired", set("/exp", json!(now - 3600))),
        ("not yet", set("/nbf", json!(now + 3600))),
        ("another audience", set("/aud", json!(["vault"]))),
        ("another issuer", set("/iss", json!("https://example.com"))),
        ("another account of the same name", set("/kubernetes.io/serviceaccount/uid", json!("x"))),
        ("a subject that is not its account", set("/sub", json!("system:serviceaccount:two:robot"))),
        ("an account that is not there", {
            signed(key, &claims, |claims| {
                claims["sub"] = "system:serviceaccount:one:ghost".into();
                claims["kubernetes.io"]["serviceaccount"]["name"] = "ghost".into();
            })
        }),
        ("without an end", {
            signed(key, &claims, |claims| drop(claims.as_object_mut().unwrap().shift_remove("exp")))
        }),
    ];
    for (what, token) in stale {
        is_told_nothing(&site, what, &token).await;
    }
    assert_eq!(claims["iss"], ISSUER);
    site.still_serves().await;
}

#[tokio::test]
async fn an_account_has_its_own_namespace_alone() {
    let site = Site::start().await;
    let token = site.token("one").await;
    assert_eq!(site.with_token(LINE, &token).await.0, 200);
    for line in ["GET /api/v1/namespaces/two/secrets/s", "GET /api/v1/secrets", "GET /api/v1/namespaces/two/pods/p/log"]
    {
        let (code, body) = site.with_token(line, &token).await;
        assert_eq!(code, 403, "{line}: {body}");
        assert!(!body.contains(TREASURE), "{body}");
    }
}

#[tokio::test]
async fn a_token_is_dead_once_its_pod_is_deleted() {
    let site = Site::start().await;
    let pod = site.ask_inside("GET", "/api/v1/namespaces/one/pods/p", String::new()).await;
    let bound = json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p",
        "uid": pod["metadata"]["uid"]}}});
    let issued = site.make("/api/v1/namespaces/one/serviceaccounts/robot/token", bound).await;
    let token = issued["status"]["token"].as_str().unwrap();
    assert_eq!(site.with_token(LINE, token).await.0, 200);
    site.ask_inside("DELETE", "/api/v1/namespaces/one/pods/p?gracePeriodSeconds=0", String::new()).await;
    is_told_nothing(&site, "bound to a pod that is gone", token).await;
}

#[tokio::test]
async fn nobody_acts_as_another_without_the_right_to() {
    let site = Site::start().await;
    let token = site.token("two").await;
    let auth = format!("authorization: Bearer {token}\r\n");
    let tries = [
        "impersonate-user: system:admin\r\nimpersonate-group: system:masters\r\n",
        "Impersonate-User: system:serviceaccount:one:robot\r\n",
        "impersonate-group: system:masters\r\n",
        "impersonate-uid: 1\r\nimpersonate-user: x\r\n",
        "impersonate-extra-scopes: all\r\nimpersonate-user: x\r\n",
    ];
    for headers in tries {
        let (code, body) = site.ask(None, LINE, &format!("{auth}{headers}"), "").await;
        assert!([403, 500].contains(&code), "{headers}: {code} {body}");
        assert!(!body.contains(TREASURE), "{body}");
    }
    // The headers of a front proxy are nobody's but a front proxy's.
    let proxied = "x-remote-user: system:admin\r\nx-remote-group: system:masters\r\n";
    assert_eq!(site.ask(None, LINE, &format!("{auth}{proxied}"), "").await.0, 403);
    assert_eq!(site.ask(None, LINE, proxied, "").await.0, 403);
}
