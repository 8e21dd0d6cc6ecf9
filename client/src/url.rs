//! A request as the method and the path of a URL.

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use skiff_api::request::{Options, Request, Verb};

/// What is not escaped: the unreserved characters of RFC 3986, section 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is not escaped within a path segment: also the colon, which RBAC names are full of.
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b':').remove(b'@');

/// The HTTP method, and the path with its query, that say the same as a request.
pub fn method_and_path(request: &Request) -> (Method, String) {
    let mut path = collection_path(request);
    for part in [&request.name, &request.subresource].into_iter().flatten() {
        path.push('/');
        path.extend(utf8_percent_encode(part, ESCAPED_IN_PATH));
    }
    if let Some(rest) = &request.subpath {
        path.push('/');
        path.push_str(rest);
    }
    let query = query(request);
    if !query.is_empty() {
        path.push('?');
        path.push_str(&query);
    }
    (method(request.verb), path)
}

fn method(verb: Verb) -> Method {
    match verb {
        Verb::Get | Verb::List | Verb::Watch => Method::GET,
        Verb::Create => Method::POST,
        Verb::Update => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete | Verb::DeleteCollection => Method::DELETE,
    }
}

fn collection_path(request: &Request) -> String {
    let resource = &request.resource;
    let mut path = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    if let Some(namespace) = &request.namespace {
        path.push_str("/namespaces/");
        path.extend(utf8_percent_encode(namespace, ESCAPED_IN_PATH));
    }
    path.push('/');
    path.push_str(&resource.resource);
    path
}

fn query(request: &Request) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    if request.verb == Verb::Watch {
        pairs.push(("watch", "true".to_owned()));
    }
    push_options(&mut pairs, &request.options);
    let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    pairs.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect::<Vec<_>>().join("&")
}

fn push_options<'a>(pairs: &mut Vec<(&'a str, String)>, o: &'a Options) {
    let texts = [
        ("labelSelector", &o.label_selector),
        ("fieldSelector", &o.field_selector),
        ("continue", &o.continue_token),
        ("resourceVersion", &o.resource_version),
        ("resourceVersionMatch", &o.resource_version_match),
        ("fieldManager", &o.field_manager),
        ("fieldValidation", &o.field_validation),
        ("propagationPolicy", &o.propagation_policy),
    ];
    pairs.extend(texts.iter().filter_map(|(k, v)| Some((*k, v.as_ref()?.clone()))));
    let numbers = [("limit", o.limit), ("timeoutSeconds", o.timeout_seconds)];
    pairs.extend(numbers.iter().filter_map(|(k, v)| Some((*k, v.as_ref()?.to_string()))));
    let flags =
        [("sendInitialEvents", o.send_initial_events), ("force", o.force), ("orphanDependents", o.orphan_dependents)];
    pairs.extend(flags.iter().filter_map(|(k, v)| Some((*k, v.as_ref()?.to_string()))));
    if o.allow_watch_bookmarks {
        pairs.push(("allowWatchBookmarks", "true".to_owned()));
    }
    pairs.extend(o.grace_period_seconds.map(|seconds| ("gracePeriodSeconds", seconds.to_string())));
    pairs.extend(o.dry_run.iter().map(|value| ("dryRun", value.clone())));
    pairs.extend(o.other.iter().map(|(k, v)| (k.as_str(), v.clone())));
}
