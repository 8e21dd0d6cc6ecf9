//! Requests on resources: the body within limits, the registry, the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use hyper::body::{Body as HttpBody, Incoming};
use skiff_api::{
    kinds::{GroupVersionKind, ResourceDef},
    protobuf,
    request::{ContentType, Request, Verb},
    status::{ApiError, Reason},
    user::UserInfo,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Call, Front, access,
    answer::{self, Context},
    body::{self, Body},
    connect,
    limits::{MAX_BODY_BYTES, MAX_MANAGER_CHARS, REQUEST_TIMEOUT, SMALL_BODY_BYTES},
    metrics::{Label, Running},
    negotiate::{Offer, RESOURCE_OFFER, WATCH_OFFER, negotiate},
    respond::{Reply, add_warnings, reply},
    shares::Share,
    timed_out, watch,
};
use crate::registry::{Answer, Answered};

/// Answers a request on a resource.
pub async fn answer(
    front: &Front,
    user: &Arc<UserInfo>,
    call: &mut Call,
    request: Request,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let def = front.catalog.resource(&request.resource);
    let connects = connect::is_connect(&request);
    call.label = Label::resource(&request, def.as_deref(), connects);
    if connects {
        return connect::answer(front, user, call, request, body).await;
    }
    if request.verb == Verb::Watch {
        return watch_reply(front, user, call, request, def).await;
    }
    let _turn = front.turn(user).await?;
    let answering = once(front, user, call, request, def, body);
    tokio::time::timeout(REQUEST_TIMEOUT, answering).await.map_err(|_| timed_out())?
}

/// Who a write without a `fieldManager` is by: the program, as its User-Agent begins (Kubernetes' `managerOrUserAgent`).
/// An apply must say it itself.
fn name_manager(request: &mut Request, headers: &HeaderMap) {
    if request.options.field_manager.is_none() && request.content_type != ContentType::ApplyPatch {
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let program = agent.and_then(|agent| agent.split('/').next()).filter(|program| !program.is_empty());
        request.options.field_manager = program.map(|program| program.chars().take(MAX_MANAGER_CHARS).collect());
    }
}

async fn once(
    front: &Front,
    user: &Arc<UserInfo>,
    call: &Call,
    mut request: Request,
    def: Option<Arc<ResourceDef>>,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let headers = &call.parts.headers;
    let offer = RESOURCE_OFFER.whole_protobuf(offers_protobuf(headers, def.as_deref()));
    // What is only answered and never stored has no metadata and no table.
    let offer = Offer { shapes: def.as_ref().is_none_or(|def| def.stored), ..offer };
    let form = negotiate(headers, call.parts.uri.query(), offer)?;
    let context = Context::new(&request, def, form)?;
    if request.verb == Verb::Get || request.verb == Verb::List {
        let answered = front.dispatch.dispatch(user, request).await?;
        return answer::encode(answered, &context);
    }
    let _room = room(front, user, &request, &body).await?;
    request.body = body::read(body).await?;
    if is_protobuf(headers, &request) {
        request.body = protobuf_body(&request, context.def.as_deref())?;
        request.content_type = ContentType::Json;
    } else {
        request.content_type = content_type(headers, &request)?;
    }
    name_manager(&mut request, headers);
    let answered = front.dispatch.dispatch(user, request).await?;
    answer::encode(answered, &context)
}

/// Room for a body that is not small. Nobody may have it who may not make the request.
async fn room(
    front: &Front,
    user: &UserInfo,
    request: &Request,
    body: &Incoming,
) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    let size = body.size_hint().exact().unwrap_or(MAX_BODY_BYTES as u64);
    if size <= SMALL_BODY_BYTES as u64 {
        return Ok(None);
    }
    if size > MAX_BODY_BYTES as u64 {
        return Err(body::too_large());
    }
    access::check(&*front.authorizer, access::attributes(user, request.verb.as_str(), request))?;
    let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
    let permit = Arc::clone(&front.slots.bodies_kib).acquire_many_owned(kib).await;
    permit.map(Some).map_err(ApiError::internal)
}

/// Whether the objects of a resource may be answered as protobuf: custom resources have no such form. Who does not
/// name protobuf never gets it, so that the table is not even read where no client uses it.
fn offers_protobuf(headers: &HeaderMap, def: Option<&ResourceDef>) -> bool {
    let named = |value: &HeaderValue| value.to_str().is_ok_and(|accept| accept.contains("protobuf"));
    headers.get_all(header::ACCEPT).iter().any(named)
        && def.is_some_and(|def| protobuf::has_form(&def.gvk.api_version(), &def.gvk.kind))
}

/// Whether a body is protobuf. A patch never is.
fn is_protobuf(headers: &HeaderMap, request: &Request) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    request.verb != Verb::Patch && !request.body.is_empty() && media.eq_ignore_ascii_case(protobuf::MEDIA_TYPE)
}

/// A protobuf body as JSON. What the body does not say of its kind is what the path calls for.
fn protobuf_body(request: &Request, def: Option<&ResourceDef>) -> Result<Bytes, ApiError> {
    let sub = request.subresource.as_deref();
    let sub_kind = def.and_then(|def| def.subresources.iter().find(|known| Some(known.name.as_str()) == sub));
    let kind = sub_kind.map(|known| &known.kind).or(def.map(|def| &def.gvk)).cloned();
    let kind = match request.verb {
        Verb::Delete | Verb::DeleteCollection => GroupVersionKind::new("", "v1", "DeleteOptions"),
        _ => kind.unwrap_or_else(|| GroupVersionKind::new("", "", "")),
    };
    protobuf::decode_to_json(&request.body, &kind).map_err(|why| {
        let kind = &kind.kind;
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why}"))
    })
}

/// The form of a body from its `Content-Type`; 415 where the verb does not take it.
fn content_type(headers: &HeaderMap, request: &Request) -> Result<ContentType, ApiError> {
    use ContentType::{ApplyPatch, Json, JsonPatch, MergePatch, StrategicMergePatch, Yaml};
    let accepted: &[ContentType] = match request.verb {
        Verb::Patch => &[JsonPatch, MergePatch, StrategicMergePatch, ApplyPatch],
        _ => &[Json, Yaml],
    };
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let media = given.map(|value| value.split(';').next().unwrap_or_default().trim());
    let form = match media {
        None | Some("" | "*/*") if request.verb != Verb::Patch => Some(Json),
        None => None,
        Some(word) => ContentType::parse(word),
    };
    if let Some(form) = form.filter(|form| accepted.contains(form)) {
        return Ok(form);
    }
    // A delete without a body may say what it likes about it.
    if request.body.is_empty() && request.verb != Verb::Patch {
        return Ok(Json);
    }
    let mut names: Vec<&str> = accepted.iter().map(|form| form.as_str()).collect();
    if request.verb != Verb::Patch {
        names.push(protobuf::MEDIA_TYPE);
    }
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        names.join(", ")
    );
    Err(ApiError::new(Reason::UnsupportedMediaType, message))
}

async fn watch_reply(
    front: &Front,
    user: &UserInfo,
    call: &Call,
    mut request: Request,
    def: Option<Arc<ResourceDef>>,
) -> Result<Reply, ApiError> {
    let offer = WATCH_OFFER.whole_protobuf(offers_protobuf(&call.parts.headers, def.as_deref()));
    let form = negotiate(&call.parts.headers, call.parts.uri.query(), offer)?;
    let context = Context::new(&request, def, form)?;
    let share = front.watch_share(user)?;
    let turn = front.long_running_turn()?;
    let running = front.metrics.running(&call.label);
    #[allow(clippy::cast_possible_truncation, reason = "any 64 of the random bits")]
    let lasts = watch::duration(request.options.timeout_seconds, uuid::Uuid::new_v4().as_u128() as u64);
    request.options.timeout_seconds = Some(lasts.as_secs());
    let beginning = tokio::time::timeout(REQUEST_TIMEOUT, front.dispatch.dispatch(user, request));
    let Answered { answer, warnings } = beginning.await.map_err(|_| timed_out())??;
    let events = match answer {
        Answer::Watch(events) => events,
        other => return answer::encode(Answered { answer: other, warnings }, &context),
    };
    let media_type = watch::media_type(form.encoding);
    let frames = watch::Frames::new(events, context, lasts + watch::GRACE, front.shutdown().clone());
    let held = Held { inner: frames, _turn: turn, _share: share, _running: running };
    let mut reply = reply(200, media_type, Body::Stream(Box::pin(held)));
    add_warnings(reply.headers_mut(), &warnings);
    Ok(reply)
}

/// A stream with what it holds of the server's limits.
pub struct Held<S> {
    /// The stream.
    pub inner: S,
    /// Its place among the long-running requests.
    pub _turn: OwnedSemaphorePermit,
    /// Its place among those of its user.
    pub _share: Option<Share>,
    /// Its place in the metrics.
    pub _running: Running,
}

impl<S: futures::Stream<Item = std::io::Result<Bytes>> + Unpin> futures::Stream for Held<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::pin::Pin::new(&mut self.inner).poll_next(cx)
    }
}
