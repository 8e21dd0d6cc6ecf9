//! In which form a client wants its answer: the `Accept` header as Kubernetes reads it.

use std::cmp::Reverse;

use http::{HeaderMap, header};
use skiff_api::status::{ApiError, Reason};

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// What an answer is turned into before it is written (`as=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The objects themselves.
    #[default]
    Whole,
    /// A `Table` for people, of `meta.k8s.io/v1`, or of `v1beta1` where the flag is set.
    Table {
        /// Whether the old version was asked for.
        beta: bool,
    },
    /// `PartialObjectMetadata` or its list.
    Partial {
        /// Whether the old version was asked for.
        beta: bool,
    },
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// How it is written.
    pub encoding: Encoding,
    /// What it is turned into.
    pub shape: Shape,
    /// Whether it is indented.
    pub pretty: bool,
    /// Whether it may be compressed.
    pub gzip: bool,
}

impl Encoding {
    /// The media type of an answer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What the endpoint can answer with.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The encodings, the first being that of clients that do not say.
    pub encodings: &'a [Encoding],
    /// Whether `as=Table` and `as=PartialObjectMetadata` are there.
    pub shapes: bool,
    /// Whether the objects themselves have a form in protobuf; their partial form always has, a table never.
    pub whole_protobuf: bool,
}

/// What resources are answered in.
pub const RESOURCE_OFFER: Offer<'static> =
    Offer { encodings: &[Encoding::Json, Encoding::Yaml, Encoding::Protobuf], shapes: true, whole_protobuf: true };
/// What watches are answered in.
pub const WATCH_OFFER: Offer<'static> =
    Offer { encodings: &[Encoding::Json, Encoding::Protobuf], shapes: true, whole_protobuf: true };
/// What documents are answered in.
pub const PLAIN_OFFER: Offer<'static> =
    Offer { encodings: &[Encoding::Json, Encoding::Yaml], shapes: false, whole_protobuf: false };
/// What errors and discovery are answered in.
pub const META_OFFER: Offer<'static> =
    Offer { encodings: &[Encoding::Json, Encoding::Yaml, Encoding::Protobuf], shapes: false, whole_protobuf: true };

impl Offer<'_> {
    /// The same for objects of which it is known whether they have a form in protobuf.
    pub fn whole_protobuf(self, whole_protobuf: bool) -> Self {
        Self { whole_protobuf, ..self }
    }

    fn has(self, encoding: Encoding, shape: Shape) -> bool {
        match (encoding, shape) {
            (Encoding::Protobuf, Shape::Whole) => self.whole_protobuf,
            (Encoding::Protobuf, Shape::Table { .. }) => false,
            _ => true,
        }
    }
}

/// One entry of an `Accept` header.
#[derive(Debug)]
pub struct Clause<'a> {
    /// `application` of `application/json`.
    pub kind: &'a str,
    /// `json` of `application/json`.
    pub sub: &'a str,
    /// The parameters but `q`, in order.
    pub params: Vec<(&'a str, &'a str)>,
    /// `q` in thousandths.
    quality: u32,
}

/// The entries of all `Accept` headers, the most wanted first.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut list: Vec<Clause<'_>> = values.flat_map(|value| value.split(',')).filter_map(clause).collect();
    // The sort is stable: of equal quality, the first named is the most wanted.
    list.sort_by_key(|clause| Reverse(clause.quality));
    list
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, sub) = match parts.next()? {
        "" => return None,
        "*" => ("*", "*"),
        media => media.split_once('/')?,
    };
    let mut clause = Clause { kind, sub, params: Vec::new(), quality: 1000 };
    for param in parts {
        let (name, value) = param.split_once('=').unwrap_or((param, ""));
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        if name == "q" {
            clause.quality = quality(value);
        } else {
            clause.params.push((name, value));
        }
    }
    Some(clause)
}

/// A quality value in thousandths; what is none counts as 1.
fn quality(value: &str) -> u32 {
    let Some(number) = value.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)) else { return 1000 };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    let thousandths = (number * 1000.0) as u32;
    thousandths
}

impl Clause<'_> {
    /// Whether a media type is one of those that this entry names.
    pub fn matches(&self, media_type: &str) -> bool {
        let Some((kind, sub)) = media_type.split_once('/') else { return false };
        (self.kind == "*" || self.kind.eq_ignore_ascii_case(kind))
            && (self.sub == "*" || self.sub.eq_ignore_ascii_case(sub))
    }

    /// The value of a parameter; empty where it is absent.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
    }

    /// What the parameters ask the answer to be turned into; `None` where the endpoint cannot.
    fn shape(&self, offer: Offer<'_>) -> Option<Shape> {
        let wanted = self.param("as");
        if wanted.is_empty() {
            return Some(Shape::Whole);
        }
        let version = self.param("v");
        if !offer.shapes || self.param("g") != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") {
            return None;
        }
        let beta = version == "v1beta1";
        match wanted {
            "Table" => Some(Shape::Table { beta }),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Shape::Partial { beta }),
            _ => None,
        }
    }
}

/// 406, worded as Kubernetes does.
fn not_acceptable(offer: Offer<'_>) -> ApiError {
    let types: Vec<&str> = offer.encodings.iter().map(|encoding| encoding.media_type()).collect();
    ApiError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {}", types.join(", ")))
}

/// The form of the answer to a request with these headers and query; 406 where there is none.
pub fn negotiate(headers: &HeaderMap, query: Option<&str>, offer: Offer<'_>) -> Result<Form, ApiError> {
    let mut form = Form { pretty: pretty(headers, query), gzip: takes_gzip(headers), ..Form::default() };
    if !headers.contains_key(header::ACCEPT) {
        return Ok(form);
    }
    let list = clauses(headers);
    if list.is_empty() {
        return Ok(form);
    }
    for clause in &list {
        for encoding in offer.encodings {
            if !clause.matches(encoding.media_type()) {
                continue;
            }
            if let Some(shape) = clause.shape(offer).filter(|shape| offer.has(*encoding, *shape)) {
                (form.encoding, form.shape) = (*encoding, shape);
                return Ok(form);
            }
        }
    }
    Err(not_acceptable(offer))
}

/// Whether the client wants compressed answers.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.next() != Some("q=0")
    })
}

/// Whether the answer is for people: `?pretty`, or a client that people use by hand.
fn pretty(headers: &HeaderMap, query: Option<&str>) -> bool {
    let asked = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("pretty="));
    if let Some(value) = asked.filter(|value| !value.is_empty()) {
        return matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn form(accept: &str) -> Result<(Encoding, Shape), String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let offer = Offer { encodings: &[Encoding::Json, Encoding::Yaml], shapes: true, whole_protobuf: false };
        negotiate(&headers, None, offer).map(|form| (form.encoding, form.shape)).map_err(|error| error.message)
    }

    #[test]
    fn the_most_wanted_form_that_there_is() {
        let table = Shape::Table { beta: false };
        for (accept, expected) in [
            ("*/*", (Encoding::Json, Shape::Whole)),
            ("application/*", (Encoding::Json, Shape::Whole)),
            ("application/yaml", (Encoding::Yaml, Shape::Whole)),
            ("application/json;q=0.5, application/yaml", (Encoding::Yaml, Shape::Whole)),
            ("application/vnd.kubernetes.protobuf,application/json", (Encoding::Json, Shape::Whole)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", (Encoding::Json, table)),
            ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", (Encoding::Json, Shape::Whole)),
            ("application/json;stream=watch", (Encoding::Json, Shape::Whole)),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                 application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                (Encoding::Json, Shape::Partial { beta: false }),
            ),
        ] {
            assert_eq!(form(accept), Ok(expected), "{accept}");
        }
    }

    #[test]
    fn protobuf_where_the_objects_have_it() {
        let choose = |accept: &str, whole: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            let form = negotiate(&headers, None, RESOURCE_OFFER.whole_protobuf(whole)).unwrap();
            (form.encoding, form.shape)
        };
        let both = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(choose(both, true), (Encoding::Protobuf, Shape::Whole));
        assert_eq!(choose(both, false), (Encoding::Json, Shape::Whole));
        assert_eq!(choose("*/*", true), (Encoding::Json, Shape::Whole));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(choose(partial, false), (Encoding::Protobuf, Shape::Partial { beta: false }));
        let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/yaml";
        assert_eq!(choose(table, true), (Encoding::Yaml, Shape::Whole));
    }

    #[test]
    fn a_form_that_there_is_not() {
        let error = "only the following media types are accepted: application/json, application/yaml";
        for accept in ["text/html", "application/json;as=Table;v=v9;g=meta.k8s.io", "application/json;as=Nonsense"] {
            assert_eq!(form(accept), Err(error.to_owned()), "{accept}");
        }
    }

    #[test]
    fn compression_is_for_those_who_ask() {
        for (value, expected) in [("gzip", true), ("br, gzip;q=1.0", true), ("gzip;q=0", false), ("identity", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(takes_gzip(&headers), expected, "{value}");
        }
    }
}
