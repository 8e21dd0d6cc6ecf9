//! Files of requests and answers: read, played, and written again.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use skiff_api::{kinds::GroupVersionKind, protobuf};

use crate::server::{ADMIN, Server};

/// Headers of an answer that say something.
const TELLING: [&str; 4] = ["content-type", "location", "retry-after", "warning"];

/// Metadata that differs from run to run, or says who wrote when.
const NOISE: [&str; 4] = ["uid", "resourceVersion", "creationTimestamp", "managedFields"];

/// How a UID and times look.
const UID: &str = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
const TIME: &str = "0000-00-00T00:00:00Z";
const MICRO_TIME: &str = "0000-00-00T00:00:00.000000Z";

/// What stands before a version in a text.
const VERSIONS: [&str; 4] =
    ["\"resourceVersion\":\"", "\\\"resourceVersion\\\":\\\"", ", current: ", "the ResourceVersion in record ("];

/// A value that is shorter than this is written on one line.
const LINE_CHARS: usize = 100;

/// One request of a file.
struct Step<'a> {
    method: &'a str,
    uri: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    show: Vec<&'a str>,
    body: String,
}

/// Plays a file; gives it with the answers that came.
pub(crate) async fn play(server: &Server, text: &str) -> String {
    let (title, rest) = text.split_once(">>> ").expect("a request");
    let mut out = title.to_owned();
    let mut last = Value::Null;
    for section in rest.split("\n>>> ") {
        // What stands after an answer and before the next request is a remark on that request.
        let (asked, answered) = section.split_once("\n<<<").unwrap_or((section.trim_end(), ""));
        let remark = answered.rsplit_once("\n\n# ").map(|(_, remark)| remark.trim_end().to_owned());
        let step = parse(asked);
        let reply = server.send(request(&step, &last)).await;
        out.push_str(&format!(">>> {}\n{}", asked.trim_end(), show(&step, &reply, &mut last)));
        out.push('\n');
        if let Some(remark) = remark {
            out.push_str(&format!("# {remark}\n"));
        }
    }
    out.trim_end().to_owned() + "\n"
}

fn parse(asked: &str) -> Step<'_> {
    let mut lines = asked.lines();
    let (method, uri) = lines.next().and_then(|line| line.split_once(' ')).expect("a method and a path");
    let mut step = Step { method, uri, headers: Vec::new(), show: Vec::new(), body: String::new() };
    for line in lines.by_ref() {
        match line.split_once(": ") {
            Some(("show", fields)) => step.show = fields.split(", ").collect(),
            Some((name, value)) => step.headers.push((name, value)),
            None => break,
        }
    }
    step.body = lines.collect::<Vec<_>>().join("\n");
    step
}

/// Puts fields of the last answer where a request names them.
fn fill(text: &str, last: &Value) -> String {
    let mut filled = text.to_owned();
    while let Some((front, rest)) = filled.split_once("{{") {
        let (path, back) = rest.split_once("}}").expect("the end of a name");
        let value = at(last, path);
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        filled = format!("{front}{value}{back}");
    }
    filled
}

fn at(value: &Value, path: &str) -> Value {
    let step = |value: Value, name: &str| match name.parse::<usize>() {
        Ok(index) if value.is_array() => value[index].clone(),
        _ => value[name].clone(),
    };
    path.split('.').fold(value.clone(), step)
}

fn request(step: &Step<'_>, last: &Value) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(step.method).uri(fill(step.uri, last)).header("host", "localhost");
    if !step.headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", format!("Bearer {ADMIN}"));
    }
    let given = |name: &str| step.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let content_type = given("content-type").unwrap_or("application/json");
    if given("user-agent").is_none() {
        request = request.header("user-agent", "golden/1");
    }
    request = request.header("content-type", content_type);
    for (name, value) in step.headers.iter().filter(|(name, _)| *name != "content-type") {
        request = request.header(*name, *value);
    }
    let body = fill(&step.body, last);
    let body =
        if content_type == protobuf::MEDIA_TYPE { protobuf::encode(body.as_bytes()).unwrap() } else { body.into() };
    request.body(Full::new(body.into())).unwrap()
}

fn show(step: &Step<'_>, reply: &Response<Bytes>, last: &mut Value) -> String {
    let mut out = format!("<<< {}\n", reply.status().as_u16());
    for name in TELLING {
        for value in reply.headers().get_all(name) {
            let value = value.to_str().unwrap();
            if value != "application/json" {
                out.push_str(&format!("{name}: {value}\n"));
            }
        }
    }
    let kind = reply.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let values = values(&kind, reply.body());
    let Some(values) = values else {
        let text = String::from_utf8_lossy(reply.body());
        return format!("{out}{}\n", text.trim_end());
    };
    for value in values {
        *last = value.clone();
        out.push_str(&print(&step.show, value));
    }
    out
}

/// The values of an answer: one, or one a frame of a watch. `None` where it is no JSON.
fn values(kind: &str, body: &[u8]) -> Option<Vec<Value>> {
    let none = GroupVersionKind::new("", "", "");
    match kind {
        protobuf::MEDIA_TYPE => Some(vec![Value::Object(protobuf::decode(body, &none).unwrap().0)]),
        protobuf::WATCH_MEDIA_TYPE => Some(frames(body)),
        _ => serde_json::Deserializer::from_slice(body).into_iter().collect::<Result<_, _>>().ok(),
    }
}

/// The frames of a watch in protobuf.
fn frames(mut body: &[u8]) -> Vec<Value> {
    let none = GroupVersionKind::new("", "", "");
    let mut all = Vec::new();
    while let Some((len, rest)) = body.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*len)).unwrap());
        let word = std::str::from_utf8(&frame[2..2 + usize::from(frame[1])]).unwrap();
        let magic = frame.windows(4).position(|window| window == b"k8s\0").unwrap();
        all.push(json!({"type": word, "object": protobuf::decode(&frame[magic..], &none).unwrap().0}));
        body = rest;
    }
    all
}

fn print(show: &[&str], mut value: Value) -> String {
    if show.is_empty() {
        quiet(&mut value);
    } else {
        let picked = show.iter().map(|path| ((*path).to_owned(), at(&value, path)));
        value = Value::Object(picked.collect::<Map<String, Value>>());
    }
    mask(&mut value);
    let line = value.to_string();
    let text = if line.len() <= LINE_CHARS { line } else { serde_json::to_string_pretty(&value).unwrap() };
    text + "\n"
}

/// Takes the noise out of the metadata of objects, wherever they stand.
fn quiet(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
                NOISE.iter().for_each(|field| drop(metadata.shift_remove(*field)));
            }
            if map.get("kind") == Some(&json!("Status"))
                && let Some(Value::Object(details)) = map.get_mut("details")
            {
                details.shift_remove("uid");
            }
            map.values_mut().for_each(quiet);
        }
        Value::Array(list) => list.iter_mut().for_each(quiet),
        _ => {}
    }
}

/// Masks what differs from run to run.
fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                let short = name.rsplit('.').next().unwrap_or_default();
                match (short, value.as_str()) {
                    ("resourceVersion" | "continue", Some(text)) if !text.is_empty() => *value = "<version>".into(),
                    _ => mask(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        Value::String(text) => *text = masked(text),
        _ => {}
    }
}

fn masked(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(letter) = rest.chars().next() {
        let shapes = [(UID, "<uid>"), (TIME, "<time>"), (MICRO_TIME, "<time>")];
        let found = shapes.into_iter().find(|(shape, _)| starts_with_shape(rest, shape));
        let (taken, shown) =
            found.map_or((letter.len_utf8(), &rest[..letter.len_utf8()]), |(shape, shown)| (shape.len(), shown));
        out.push_str(shown);
        rest = &rest[taken..];
        let counts = VERSIONS.iter().any(|front| out.ends_with(front));
        if let digits @ 1.. = rest.bytes().take_while(u8::is_ascii_digit).count()
            && counts
        {
            out.push_str("<version>");
            rest = &rest[digits..];
        }
    }
    out
}

/// Whether a text begins with letters of a shape: `x` is a hexadecimal digit, `0` a decimal one.
fn starts_with_shape(text: &str, shape: &str) -> bool {
    text.len() >= shape.len()
        && shape.bytes().zip(text.bytes()).all(|(shape, byte)| match shape {
            b'x' => byte.is_ascii_hexdigit(),
            b'0' => byte.is_ascii_digit(),
            _ => shape == byte,
        })
}
