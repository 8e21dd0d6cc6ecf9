//! Requests of all kinds that no client sends: each is answered, none with what a server's fault is answered with, and
//! the server neither grows nor ends.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use skiff_api::kinds::Kinds;

use crate::server::{ADMIN, Server};

/// How many requests are sent; `SKIFF_STORM_REQUESTS` sends more.
const REQUESTS: u32 = 400;
/// How long an answer may take to begin.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long the body of an answer is read: those of watches do not end.
const BODY_DEADLINE: Duration = Duration::from_millis(300);
/// How much the process may grow, with all that the requests leave in the store.
const MAX_GROWTH_KIB: u64 = 300 << 10;

/// A request as parts, which print well where one is answered as it should not be.
#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn pick(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(words).prop_map(str::to_owned)
}

/// A segment of a path: a name that may be there, or what should not be.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => pick(&["a", "b", "default", "kube-system", "admin", "edit"]),
        1 => pick(&["", ".", "..", "%2e%2e", "%2F", "%00", "%ff", "%", "a%20b", "UPPER", "a.b.c", "-", "*", "~"]),
        1 => "[a-z%0-9.:@!$&'()+,;=-]{1,12}",
    ]
}

fn subresource() -> impl Strategy<Value = String> {
    pick(&[
        "status", "scale", "binding", "eviction", "log", "token", "approval", "finalize", "resize", "proxy", "nonsense",
    ])
}

fn path() -> impl Strategy<Value = String> {
    let defs: Vec<(String, bool)> = Kinds::builtin()
        .iter()
        .map(|def| {
            let (group, version) = (&def.gvk.group, &def.gvk.version);
            let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            (format!("{root}|{}", def.resource), def.namespaced)
        })
        .collect();
    let of_kind = (proptest::sample::select(defs), proptest::collection::vec(segment(), 2), 0..5_u8, subresource());
    let of_kind = of_kind.prop_map(|((kind, namespaced), names, depth, sub)| {
        let (root, plural) = kind.split_once('|').unwrap();
        let place = if namespaced && depth > 0 { format!("/namespaces/{}", names[0]) } else { String::new() };
        match depth {
            0 | 1 => format!("{root}{place}/{plural}"),
            2 | 3 => format!("{root}{place}/{plural}/{}", names[1]),
            _ => format!("{root}{place}/{plural}/{}/{sub}", names[1]),
        }
    });
    let other = pick(&[
        "/",
        "/version",
        "/healthz",
        "/readyz",
        "/livez/ping",
        "/metrics",
        "/api",
        "/apis",
        "/apis/apps",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/apis/apps/v1",
        "/.well-known/openid-configuration",
        "/logs",
        "/api/v1/watch/pods",
    ]);
    let junk = proptest::collection::vec(segment(), 0..8).prop_map(|segments| format!("/{}", segments.join("/")));
    prop_oneof![8 => of_kind, 1 => other, 1 => junk]
}

/// Names of parameters, and values that some of them take.
const PARAMETERS: &[&str] = &[
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "labelSelector",
    "fieldSelector",
    "watch",
    "sendInitialEvents",
    "allowWatchBookmarks",
    "timeoutSeconds",
    "timeout",
    "dryRun",
    "fieldManager",
    "force",
    "fieldValidation",
    "propagationPolicy",
    "orphanDependents",
    "gracePeriodSeconds",
    "pretty",
    "includeObject",
    "container",
    "follow",
    "tailLines",
    "nonsense",
    "",
    "preconditions",
    "hash",
    "verbose",
    "exclude",
];
const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "-1",
    "true",
    "false",
    "99999999999999999999",
    "All",
    "Strict",
    "Exact",
    "NotOlderThan",
    "Foreground",
    "a%3Db",
    "a%20in%20(b,c)",
    "!a",
    "metadata.name%3Da",
    "spec.nodeName!%3Dx",
    "%ff",
    "%",
    "a,b",
    "eyJ2IjoibWV0YSJ9",
    "None",
    "Object",
    "%00",
    "1.5",
    "+",
    "..",
];

fn query() -> impl Strategy<Value = String> {
    let pair = (pick(PARAMETERS), prop_oneof![4 => pick(VALUES), 1 => "[a-z0-9%=,()!-]{0,20}"]);
    let pair = pair.prop_map(|(name, value)| format!("{name}={value}"));
    prop_oneof![
        3 => Just(String::new()),
        4 => proptest::collection::vec(pair, 1..5).prop_map(|pairs| format!("?{}", pairs.join("&"))),
    ]
}

const MEDIA_TYPES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "*/*",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "text/html",
    ";;q=,",
    "",
    "application/json;stream=watch",
    "application/json;q=2, application/yaml;q=-1",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let odd = prop_oneof![pick(&["", "gzip", "*", "1", "a, b", "\"", "=?"]), "[ -~]{0,30}"];
    let other = ("[a-z]{1}", odd).prop_map(|(which, value)| {
        let names = [
            "accept-encoding",
            "user-agent",
            "if-none-match",
            "impersonate-user",
            "audit-id",
            "range",
            "traceparent",
            "expect-ct",
            "x-forwarded-for",
            "origin",
            "cookie",
            "accept-language",
        ];
        (names[usize::from(which.as_bytes()[0]) % names.len()], value)
    });
    let media = (pick(MEDIA_TYPES), pick(MEDIA_TYPES), proptest::collection::vec(other, 0..3));
    media.prop_map(|(accept, content_type, mut headers)| {
        headers.extend([("accept", accept), ("content-type", content_type)]);
        headers
    })
}

/// Values of a few fields that many kinds have, and of any other.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[a-z0-9./-]{0,12}".prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let name = pick(&[
            "name",
            "labels",
            "spec",
            "containers",
            "image",
            "replicas",
            "selector",
            "matchLabels",
            "template",
            "metadata",
            "ports",
            "rules",
            "data",
            "status",
            "type",
            "value",
            "key",
            "$patch",
            "op",
            "path",
            "conditions",
            "env",
        ]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    (pick(&["a", "b", "No Name", ""]), value(), value()).prop_map(|(name, metadata, spec)| {
        let mut object = json!({"metadata": {"name": name}});
        if let (Value::Object(fields), Some(known)) = (metadata, object["metadata"].as_object_mut()) {
            for (name, value) in fields {
                known.entry(name).or_insert(value);
            }
        }
        if let Value::Object(fields) = spec {
            fields.into_iter().for_each(|(name, value)| {
                if name != "metadata" {
                    object[name] = value;
                }
            });
        }
        object
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        2 => Just(Vec::new()),
        5 => object().prop_map(|object| object.to_string().into_bytes()),
        2 => value().prop_map(|value| value.to_string().into_bytes()),
        2 => (object(), any::<u16>()).prop_map(|(object, at)| {
            let mut text = object.to_string().into_bytes();
            text.truncate(usize::from(at) % (text.len() + 1));
            text
        }),
        1 => bytes(),
        1 => bytes().prop_map(|bytes| [b"k8s\0".as_slice(), &bytes].concat()),
        1 => "[a-z:\\[\\]{}&*!|>' \n-]{0,60}".prop_map(String::into_bytes),
        1 => (1..4_000_usize, pick(&["[", "{\"a\":", "- ", "{a: ", "&a [*a,"]))
            .prop_map(|(times, text)| text.repeat(times).into_bytes()),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let method = proptest::sample::select(vec![
        "GET", "GET", "POST", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW",
    ]);
    (method, path(), query(), headers(), body()).prop_map(|(method, path, query, headers, body)| Asked {
        method,
        path: format!("{path}{query}"),
        headers,
        body,
    })
}

fn request(asked: &Asked) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(asked.method).uri(&asked.path).header("host", "localhost");
    request = request.header("authorization", format!("Bearer {ADMIN}"));
    for (name, value) in &asked.headers {
        request = request.header(*name, value);
    }
    // What is no HTTP at all the library does not send; `front/bad_input.rs` does.
    request.body(Full::new(Bytes::from(asked.body.clone()))).ok()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_request_is_answered() {
    let server = Server::start().await;
    let count = std::env::var("SKIFF_STORM_REQUESTS").ok().and_then(|count| count.parse().ok()).unwrap_or(REQUESTS);
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = asked();
    let before = resident_kib();
    let mut connection = server.connect().await;
    for _ in 0..count {
        let asked = strategy.new_tree(&mut runner).unwrap().current();
        let Some(request) = request(&asked) else { continue };
        if connection.ready().await.is_err() {
            connection = server.connect().await;
            connection.ready().await.unwrap();
        }
        let reply = tokio::time::timeout(DEADLINE, connection.send_request(request)).await;
        let Ok(Ok(reply)) = reply else { panic!("no answer to {asked:?}: {reply:?}") };
        let status = reply.status();
        let body = tokio::time::timeout(BODY_DEADLINE, reply.into_body().collect()).await;
        let body = body.map(|body| body.map(http_body_util::Collected::to_bytes).unwrap_or_default());
        let said = String::from_utf8_lossy(body.as_deref().unwrap_or_default()).into_owned();
        let sent = String::from_utf8_lossy(&asked.body);
        assert!(status != StatusCode::INTERNAL_SERVER_ERROR, "{asked:?}\n{sent:.500}\n{said}");
        if body.is_err() {
            // A watch: its connection is of no more use.
            connection = server.connect().await;
        }
    }
    let list = Request::get("/api/v1/namespaces").header("host", "localhost");
    let list = list.header("authorization", format!("Bearer {ADMIN}")).body(Full::default()).unwrap();
    assert_eq!(server.send(list).await.status(), 200);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "the process grew by {grown} KiB");
}
