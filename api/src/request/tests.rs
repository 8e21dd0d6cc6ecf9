#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::selector::FieldSelector;

fn parse(method: &str, uri: &str) -> Parsed {
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    Request::parse(method, path, query).unwrap_or_else(|error| panic!("{method} {uri}: {error}"))
}

fn code(method: &str, uri: &str) -> u16 {
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    Request::parse(method, path, query).unwrap_err().code
}

/// `verb group/version/resource namespace name subresource subpath`, with a dash for what is not there.
fn line(method: &str, uri: &str) -> String {
    let Parsed::Resource(r) = parse(method, uri) else { return "path".to_owned() };
    let show = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
    let gvr = format!("{}/{}/{}", r.resource.group, r.resource.version, r.resource.resource);
    let rest = [&r.namespace, &r.name, &r.subresource, &r.subpath].map(show).join(" ");
    format!("{} {gvr} {rest}", r.verb.as_str())
}

#[test]
fn paths_lead_where_request_info_says() {
    for (method, uri, expected) in [
        ("GET", "/api/v1/pods", "list /v1/pods - - - -"),
        ("GET", "/api/v1/namespaces/d/pods", "list /v1/pods d - - -"),
        ("GET", "/api/v1/namespaces/d/pods/", "list /v1/pods d - - -"),
        ("GET", "/api/v1/namespaces/d/pods/x", "get /v1/pods d x - -"),
        ("HEAD", "/api/v1/namespaces/d/pods/x", "get /v1/pods d x - -"),
        ("GET", "/api/v1/pods?watch=1", "watch /v1/pods - - - -"),
        ("GET", "/api/v1/pods?watch=", "watch /v1/pods - - - -"),
        ("GET", "/api/v1/pods?watch=False", "list /v1/pods - - - -"),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx&watch=true", "watch /v1/pods - x - -"),
        ("GET", "/api/v1/watch/namespaces/d/pods/x", "watch /v1/pods d x - -"),
        ("GET", "/api/v1/watch/pods", "watch /v1/pods - - - -"),
        ("GET", "/api/v1/namespaces/d/pods/x?watch=true", "get /v1/pods d x - -"),
        ("GET", "/api/v1/namespaces", "list /v1/namespaces - - - -"),
        ("GET", "/api/v1/namespaces/d", "get /v1/namespaces - d - -"),
        ("PUT", "/api/v1/namespaces/d/status", "update /v1/namespaces - d status -"),
        ("PUT", "/api/v1/namespaces/d/finalize", "update /v1/namespaces - d finalize -"),
        ("POST", "/apis/apps/v1/namespaces/d/deployments", "create apps/v1/deployments d - - -"),
        ("PATCH", "/apis/apps/v1/namespaces/d/deployments/w/scale", "patch apps/v1/deployments d w scale -"),
        ("DELETE", "/apis/apps/v1/namespaces/d/deployments", "deletecollection apps/v1/deployments d - - -"),
        ("DELETE", "/api/v1/nodes/n", "delete /v1/nodes - n - -"),
        ("POST", "/api/v1/namespaces/d/pods/x/eviction", "create /v1/pods d x eviction -"),
        (
            "GET",
            "/api/v1/namespaces/d/services/http:s:80/proxy/a%2Fb//c/?limit=x",
            "get /v1/services d http:s:80 proxy a%2Fb//c/",
        ),
        ("GET", "/api/v1/nodes/n/proxy", "get /v1/nodes - n proxy -"),
        ("GET", "/api/v1/nodes/n/proxy/", "get /v1/nodes - n proxy "),
        (
            "GET",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io/v1/clusterroles - system:node - -",
        ),
        ("GET", "/api/v1", "path"),
        ("GET", "/apis/apps/v1/", "path"),
        ("GET", "/healthz/ping", "path"),
    ] {
        assert_eq!(line(method, uri), expected, "{method} {uri}");
    }
    assert_eq!(parse("GET", "/"), Parsed::Path("/".to_owned()));
    assert_eq!(parse("GET", "/openapi/v3/"), Parsed::Path("/openapi/v3/".to_owned()));
}

#[test]
fn what_is_refused() {
    for (method, uri, expected) in [
        ("GET", "api/v1/pods", 400),
        ("GET", "/api/v1//pods", 400),
        ("GET", "/api/v1/namespaces/d/pods/..", 400),
        ("GET", "/api/v1/namespaces/d/pods/%2e%2e", 400),
        ("GET", "/api/v1/namespaces/d/pods/a%2Fb", 400),
        ("GET", "/api/v1/namespaces/d/pods/a%zz", 400),
        ("GET", "/api/v1/namespaces/d/pods/a%ff", 400),
        ("GET", "/api/v1/namespaces/d/pods/x/log/y", 404),
        ("GET", "/api/v1/watch", 404),
        ("PUT", "/api/v1/namespaces/d/pods", 405),
        ("POST", "/api/v1/namespaces/d/pods/x", 405),
        ("OPTIONS", "/api/v1/pods", 405),
        ("GET", "/api/v1/watch/namespaces/d/pods/x?fieldSelector=metadata.name%3Dy", 400),
    ] {
        assert_eq!(code(method, uri), expected, "{method} {uri}");
    }
    let error = Request::parse("GET", "/api/v1/pods", Some("limit=abc")).unwrap_err();
    assert_eq!(error.message, "strconv.ParseInt: parsing \"abc\": invalid syntax");
    let error = Request::parse("GET", "/api/v1/pods", Some("timeoutSeconds=99999999999999999999")).unwrap_err();
    assert_eq!(error.message, "strconv.ParseInt: parsing \"99999999999999999999\": value out of range");
}

#[test]
fn query_values() {
    let uri = "/api/v1/pods?labelSelector=a%3Db+c&labelSelector=z&limit=-5&dryRun=All&dryRun=x&pretty=true&allowWatchBookmarks=0";
    let Parsed::Resource(request) = parse("GET", uri) else { panic!("no resource") };
    assert_eq!(request.options.label_selector.as_deref(), Some("a=b c"));
    assert_eq!(request.options.limit, Some(0));
    assert_eq!(request.options.dry_run, ["All", "x"]);
    assert_eq!(request.options.other, [("pretty".to_owned(), "true".to_owned())]);
    assert!(!request.options.allow_watch_bookmarks);
}

#[test]
fn a_namespace_is_authorized_in_itself() {
    let Parsed::Resource(request) = parse("GET", "/api/v1/namespaces/d") else { panic!("no resource") };
    assert_eq!((request.namespace.as_deref(), request.authorization_namespace()), (None, "d"));
}

fn options() -> impl Strategy<Value = Options> {
    let text = || proptest::option::of(".{0,12}");
    let flag = || proptest::option::of(any::<bool>());
    let first = (text(), text(), proptest::option::of(0..i64::MAX.unsigned_abs()), text(), flag(), flag());
    let second = (any::<bool>(), flag(), proptest::collection::vec(".{0,5}", 0..3), proptest::option::of(any::<i64>()));
    let other = proptest::collection::vec(("x.{0,5}", ".{0,8}"), 0..3);
    (first, second, other).prop_map(
        |((labels, token, limit, manager, initial, force), (bookmarks, orphan, dry_run, grace), other)| Options {
            label_selector: labels,
            continue_token: token,
            limit,
            timeout_seconds: limit,
            field_manager: manager.clone(),
            field_validation: manager.clone(),
            resource_version: manager,
            send_initial_events: initial,
            force,
            allow_watch_bookmarks: bookmarks,
            orphan_dependents: orphan,
            dry_run,
            grace_period_seconds: grace,
            other,
            ..Options::default()
        },
    )
}

/// Requests as a client can make them; names are any text that a path can carry.
fn requests() -> impl Strategy<Value = Request> {
    let segment = || "[^/\0]{1,12}".prop_filter("no dots", |text| !matches!(text.as_str(), "." | ".."));
    let verbs = proptest::sample::select(vec![
        Verb::Get,
        Verb::List,
        Verb::Watch,
        Verb::Create,
        Verb::Update,
        Verb::Patch,
        Verb::Delete,
        Verb::DeleteCollection,
    ]);
    let group = "(|[a-z]{1,8}\\.k8s\\.io)";
    let parts = (group, "v[0-9]", "[a-z]{3,10}s", proptest::option::of("[a-z]{1,8}"), segment());
    let sub = proptest::option::of(proptest::sample::select(vec!["status", "scale", "proxy", "exec"]));
    (verbs, parts, sub, "[a-z/%25]{0,8}", options()).prop_map(
        |(verb, (group, version, resource, ns, name), sub, subpath, options)| {
            let gvr = GroupVersionResource::new(&group, &version, &resource);
            let mut request = Request::new(verb, gvr, ns.as_deref().unwrap_or_default(), "");
            let own_query = sub.is_some_and(|sub| matches!(sub, "proxy" | "exec"));
            match verb {
                Verb::List | Verb::Watch | Verb::DeleteCollection => request.options = options,
                Verb::Create if sub.is_none() => request.options = options,
                _ => {
                    request.name = Some(name);
                    request.subresource = sub.map(str::to_owned);
                    request.subpath = (sub == Some("proxy")).then_some(subpath);
                    let own = Options { other: options.other.clone(), ..Options::default() };
                    request.options = if own_query { own } else { options };
                }
            }
            request
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed(request in requests()) {
        let (method, uri) = request.to_method_and_uri();
        prop_assert_eq!(parse(method, &uri), Parsed::Resource(request));
    }

    #[test]
    fn a_pinned_name_survives(name in "[a-z,=]{1,9}", watch in any::<bool>()) {
        let gvr = GroupVersionResource::new("", "v1", "pods");
        let request = if watch { Request::watch(gvr, "d") } else { Request::list(gvr, "d") };
        let request = request.field_selector(FieldSelector::equals("metadata.name", &name));
        let (method, uri) = request.to_method_and_uri();
        prop_assert_eq!(parse(method, &uri), Parsed::Resource(request));
    }

    #[test]
    fn any_url_is_read_without_panic(path in "/(api|apis/g)/v1/.{0,30}", query in ".{0,30}") {
        let _ = Request::parse("GET", &path, Some(&query));
    }
}
