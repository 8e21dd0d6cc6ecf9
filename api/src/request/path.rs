//! From a method and a URL to a request, and back.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{ContentType, GroupVersionResource, Options, Request, Verb, query};
use crate::{
    selector::FieldSelector,
    status::{ApiError, Reason},
};

/// What is escaped in a path segment: all but the unreserved characters of RFC 3986 and `:`, which names of RBAC
/// objects have.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// What is escaped in the path handed on to a proxied server, which is already escaped: what no URL may hold.
const SUBPATH: &AsciiSet =
    &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'?').add(b'#').add(b'`');

/// Subresources whose query is their own and not that of an object's verb.
const OWN_QUERY: [&str; 5] = ["proxy", "log", "exec", "attach", "portforward"];

/// What a URL asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "made once a request and moved on at once")]
pub enum Parsed {
    /// A verb on a resource.
    Resource(Request),
    /// A path that is no resource, decoded, e.g. `/healthz`, `/apis/apps/v1` or `/openapi/v3`.
    Path(String),
}

impl Request {
    /// Parses a method, a path (still percent-encoded) and a query (without its question mark).
    ///
    /// A path with an empty segment, `.` or `..`, or with an encoded slash inside of a segment is a 400, as is a query
    /// value of the wrong type; a method that the path does not take is a 405. The deprecated `/watch/` prefix becomes
    /// a watch with a field selector.
    pub fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Parsed, ApiError> {
        let segments = Segments::split(path)?;
        let Some(mut location) = Location::of(&segments)? else {
            return Ok(Parsed::Path(segments.decoded_path(path)));
        };
        let pairs = query::pairs(query.unwrap_or_default())?;
        let has_own_query = location.subresource.as_deref().is_some_and(|name| OWN_QUERY.contains(&name));
        let (mut options, is_watch) = if has_own_query {
            (Options { other: pairs, ..Options::default() }, false)
        } else {
            query::options(pairs)?
        };
        let verb = location.verb(method, is_watch)?;
        if verb == Verb::Get && is_watch {
            options.other.push(("watch".to_owned(), "true".to_owned()));
        }
        if matches!(verb, Verb::List | Verb::Watch) {
            location.name = pin_name(&mut options, location.name.take())?;
        }
        Ok(Parsed::Resource(Self {
            verb,
            resource: location.resource,
            namespace: location.namespace,
            name: location.name,
            subresource: location.subresource,
            subpath: location.subpath,
            options,
            content_type: ContentType::default(),
            body: Bytes::new(),
        }))
    }

    /// The HTTP method and the path with its query, as [`Request::parse`] reads them.
    pub fn to_method_and_uri(&self) -> (&'static str, String) {
        let method = match self.verb {
            Verb::Get | Verb::List | Verb::Watch => "GET",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete | Verb::DeleteCollection => "DELETE",
        };
        let mut uri = self.path();
        let query = query::print(&self.options, self.verb == Verb::Watch, self.unpinned_name());
        if !query.is_empty() {
            uri.push('?');
            uri.push_str(&query);
        }
        (method, uri)
    }

    /// The name that a list or watch is of and that its field selector does not tell yet.
    fn unpinned_name(&self) -> Option<&str> {
        let is_collection = matches!(self.verb, Verb::List | Verb::Watch);
        let name = self.name.as_deref().filter(|_| is_collection)?;
        let text = self.options.field_selector.as_deref().unwrap_or_default();
        let is_pinned = FieldSelector::parse(text).is_ok_and(|s| s.pinned("metadata.name") == Some(name));
        (!is_pinned).then_some(name)
    }

    fn path(&self) -> String {
        let GroupVersionResource { group, version, resource } = &self.resource;
        let mut path = if group.is_empty() { "/api".to_owned() } else { "/apis".to_owned() };
        let mut push = |segment: &str| {
            path.push('/');
            path.extend(utf8_percent_encode(segment, SEGMENT));
        };
        if !group.is_empty() {
            push(group);
        }
        push(version);
        if let Some(namespace) = &self.namespace {
            push("namespaces");
            push(namespace);
        }
        push(resource);
        if !matches!(self.verb, Verb::List | Verb::Watch | Verb::DeleteCollection) {
            self.name.iter().chain(&self.subresource).for_each(|segment| push(segment));
        }
        if let Some(subpath) = &self.subpath {
            path.push('/');
            path.extend(utf8_percent_encode(subpath, SUBPATH));
        }
        path
    }
}

/// Makes name and field selector of a list or watch tell the same: a name from the path goes into the selector, a
/// name that the selector pins becomes the request's.
fn pin_name(options: &mut Options, name: Option<String>) -> Result<Option<String>, ApiError> {
    let text = options.field_selector.clone().unwrap_or_default();
    let Some(name) = name else {
        // A selector that cannot be read is refused later, by those who know which fields there are.
        let selector = FieldSelector::parse(&text).unwrap_or_default();
        let is_segment = |name: &&str| !matches!(*name, "" | "." | "..") && !name.contains(['/', '%']);
        return Ok(selector.pinned("metadata.name").filter(is_segment).map(str::to_owned));
    };
    let pin = FieldSelector::equals("metadata.name", &name).to_string();
    let selector = FieldSelector::parse(&text).map_err(ApiError::bad_request)?;
    match selector.pinned("metadata.name") {
        Some(pinned) if pinned == name => {}
        Some(_) => {
            let message = format!("field metadata.name=\"{text}\" does not match the requested name {name:?}");
            return Err(ApiError::bad_request(message));
        }
        None if text.is_empty() => options.field_selector = Some(pin),
        None => options.field_selector = Some(format!("{text},{pin}")),
    }
    Ok(Some(name))
}

/// The segments of a path, checked and decoded.
struct Segments<'a> {
    raw: Vec<&'a str>,
    decoded: Vec<String>,
}

impl<'a> Segments<'a> {
    /// Splits a path. What follows a `proxy` subresource is another server's, and stays as it is.
    fn split(path: &'a str) -> Result<Self, ApiError> {
        let inner = path.strip_prefix('/').ok_or_else(|| ApiError::bad_request("the path must begin with a slash"))?;
        let raw: Vec<&str> = inner.split('/').collect();
        let own = proxy_at(&raw).map_or(raw.len(), |at| at + 1);
        let mut decoded = Vec::with_capacity(own);
        for (index, segment) in raw[..own].iter().enumerate() {
            let is_last = index + 1 == raw.len();
            if segment.is_empty() && is_last {
                continue;
            }
            decoded.push(decode_segment(segment)?);
        }
        Ok(Self { raw, decoded })
    }

    fn decoded_path(&self, path: &str) -> String {
        let end = if path.ends_with('/') && path.len() > 1 { "/" } else { "" };
        format!("/{}{end}", self.decoded.join("/"))
    }

    /// The part of the path after a number of segments, if there is any, a trailing slash included.
    fn after(&self, count: usize) -> Option<String> {
        (self.raw.len() > count).then(|| self.raw[count..].join("/"))
    }
}

/// Where the `proxy` subresource is in the segments of a path, if it is there.
fn proxy_at(raw: &[&str]) -> Option<usize> {
    let base = match raw {
        ["api", ..] => 2,
        ["apis", ..] => 3,
        _ => return None,
    };
    // resource/name/proxy, in a namespace or not
    let at =
        if raw.get(base) == Some(&"namespaces") && raw.get(base + 2) != Some(&"proxy") { base + 4 } else { base + 2 };
    (raw.get(at) == Some(&"proxy")).then_some(at)
}

fn decode_segment(segment: &str) -> Result<String, ApiError> {
    let refuse = |why: &str| Err(ApiError::bad_request(format!("invalid path segment {segment:?}: {why}")));
    if !escapes_are_whole(segment) {
        return refuse("invalid URL escape");
    }
    let Ok(text) = percent_decode_str(segment).decode_utf8() else { return refuse("not UTF-8") };
    match text.as_ref() {
        "" => refuse("may not be empty"),
        "." | ".." => refuse(&format!("may not be '{text}'")),
        text if text.contains('/') => refuse("may not contain '/'"),
        text if text.contains('\0') => refuse("may not contain a NUL"),
        text => Ok(text.to_owned()),
    }
}

/// Whether every percent sign begins an escape.
pub(super) fn escapes_are_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|after| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

/// Where in the tree of resources a path leads.
struct Location {
    resource: GroupVersionResource,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
    subpath: Option<String>,
    /// Whether the path has the deprecated `/watch/` prefix.
    is_watch: bool,
}

impl Location {
    /// `None` where the path is that of no resource.
    fn of(segments: &Segments<'_>) -> Result<Option<Self>, ApiError> {
        let all: Vec<&str> = segments.decoded.iter().map(String::as_str).collect();
        let (group, version, mut rest) = match all.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(None),
        };
        let is_watch = rest.first() == Some(&"watch");
        if is_watch {
            rest = &rest[1..];
        }
        let (namespace, parts) = split_namespace(group, rest);
        let Some(resource) = parts.first() else { return Err(ApiError::no_such_path()) };
        let own = |index: usize| parts.get(index).map(|part| (*part).to_owned());
        let subresource = own(2);
        let takes_subpath = subresource.as_deref() == Some("proxy");
        if parts.len() > 3 || (is_watch && parts.len() > 2) {
            return Err(ApiError::no_such_path());
        }
        Ok(Some(Self {
            resource: GroupVersionResource {
                group: group.to_owned(),
                version: version.to_owned(),
                resource: (*resource).to_owned(),
            },
            namespace: namespace.map(str::to_owned),
            name: own(1),
            subpath: if takes_subpath { segments.after(all.len()) } else { None },
            subresource,
            is_watch,
        }))
    }

    /// The verb of a method here; 405 where there is none.
    fn verb(&self, method: &str, is_watch: bool) -> Result<Verb, ApiError> {
        let has_name = self.name.is_some();
        let verb = match method {
            "GET" | "HEAD" if self.is_watch => Verb::Watch,
            _ if self.is_watch => return Err(not_allowed()),
            "GET" | "HEAD" if has_name => Verb::Get,
            "GET" | "HEAD" if is_watch => Verb::Watch,
            "GET" | "HEAD" => Verb::List,
            "POST" if !has_name || self.subresource.is_some() => Verb::Create,
            "PUT" if has_name => Verb::Update,
            "PATCH" if has_name => Verb::Patch,
            "DELETE" if has_name => Verb::Delete,
            "DELETE" => Verb::DeleteCollection,
            _ => return Err(not_allowed()),
        };
        Ok(verb)
    }
}

fn not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

/// Splits off `namespaces/{namespace}`, unless the Namespace itself (or its `status` or `finalize`) is meant.
fn split_namespace<'s, 't>(group: &str, rest: &'s [&'t str]) -> (Option<&'t str>, &'s [&'t str]) {
    match rest {
        ["namespaces", _, "status" | "finalize", ..] if group.is_empty() => (None, rest),
        ["namespaces", namespace, parts @ ..] if !parts.is_empty() => (Some(namespace), parts),
        _ => (None, rest),
    }
}
