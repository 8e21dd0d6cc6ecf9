//! `delete` and `deletecollection`: what [`super::decide`] decided is done.

use std::sync::Arc;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use skiff_api::{
    object::Object,
    request::Request,
    status::{ApiError, FieldError, Reason},
    wire::Entry,
};
use skiff_client::List;
use skiff_store::cache::ListQuery;

use super::{
    Answer, admit,
    call::{Call, Swap, json as json_answer},
    config::{COLLECTION_CONCURRENCY, MAX_SWAPS},
    decide::{self, DeleteDecision, DeleteOptions, DeleteRules, Propagation},
    forms,
    options::{self, META_GROUP},
    read, store_errors, update,
};
use crate::admission::Operation;

/// How a deletion ended.
pub(super) enum Deleted {
    /// The object is gone; this was its last version.
    Gone(Object, Option<Arc<Entry>>),
    /// The object is still there, in this form.
    Going(Object, Option<Arc<Entry>>),
}

/// `DeleteOptions` as they were sent: in the body, or else in the query.
struct Sent {
    options: DeleteOptions,
    dry_run: bool,
}

/// Reads the options of a deletion.
fn options_of(request: &Request, dry_run: bool) -> Result<Sent, ApiError> {
    if !request.body.iter().all(u8::is_ascii_whitespace) {
        let body = forms::options_body(request)?;
        return parse_options(&body);
    }
    let query = &request.options;
    let mut body = json!({});
    if let Some(seconds) = query.grace_period_seconds {
        body["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(policy) = &query.propagation_policy {
        body["propagationPolicy"] = policy.as_str().into();
    }
    if let Some(orphan) = query.orphan_dependents {
        body["orphanDependents"] = orphan.into();
    }
    let sent = parse_options(&body)?;
    Ok(Sent { dry_run, ..sent })
}

/// Reads a `DeleteOptions` object.
fn parse_options(body: &Value) -> Result<Sent, ApiError> {
    let dry_run = options::strings(body.get("dryRun"));
    let mut errors: Vec<FieldError> = options::dry_run_errors(&dry_run).into_iter().collect();
    let orphan = body.get("orphanDependents").and_then(Value::as_bool);
    let policy = body.get("propagationPolicy").and_then(Value::as_str);
    if let (Some(policy), Some(_)) = (policy, orphan) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid("propagationPolicy", policy, why));
    }
    let propagation = match (policy, orphan) {
        (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
        (None, None) => None,
        (Some(other), _) => {
            let words = ["Background", "Foreground", "Orphan", "nil"];
            errors.push(FieldError::not_supported("propagationPolicy", other, &words));
            None
        }
    };
    if !errors.is_empty() {
        return Err(ApiError::invalid(META_GROUP, "DeleteOptions", "", &errors));
    }
    let condition = |name: &str| body.get("preconditions")?.get(name)?.as_str().map(str::to_owned);
    let options = DeleteOptions {
        grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation,
        uid: condition("uid"),
        resource_version: condition("resourceVersion"),
    };
    Ok(Sent { options, dry_run: !dry_run.is_empty() })
}

/// Deletes the object in the URL.
pub(super) async fn delete(call: &Call<'_>) -> Result<Answer, ApiError> {
    let sent = options_of(call.request, call.dry_run)?;
    let deleted = delete_object(call, call.name(), &sent.options, sent.dry_run).await?;
    to_answer(call, deleted)
}

/// Does what the deletion of one object takes.
pub(super) async fn delete_object(
    call: &Call<'_>,
    name: &str,
    options: &DeleteOptions,
    dry_run: bool,
) -> Result<Deleted, ApiError> {
    let lifetime = decide::lifetime(&call.def);
    let rules = DeleteRules { lifetime, orphans_by_default: call.rules.orphans_by_default };
    for _ in 0..MAX_SWAPS {
        let entry = call.fetch(name).await?.ok_or_else(|| call.not_found(name))?;
        let old = call.parse(&entry)?;
        let write = call.write(Operation::Delete, name, Some(&old));
        admit::validate_uncounted(call.registry, &write, &old)?;
        let new = match decide::decide_delete(&old, options, rules, call.now) {
            DeleteDecision::Refuse(why) => return Err(call.conflict(name, &why)),
            DeleteDecision::Pending => return Ok(Deleted::Going(old, Some(entry))),
            DeleteDecision::Remove => None,
            DeleteDecision::Mark(object) => Some(object),
        };
        if dry_run {
            return Ok(new.map_or_else(|| Deleted::Gone(old, None), |object| Deleted::Going(object, None)));
        }
        match (call.swap(name, Some((&entry, &old)), new.as_ref(), call.context()).await?, new) {
            (Swap::Lost, _) => {}
            (Swap::Done(entry), Some(object)) => return Ok(Deleted::Going(object, Some(entry))),
            (Swap::Done(entry), None) => return Ok(Deleted::Gone(old, Some(entry))),
        }
    }
    Err(call.conflict(name, update::MODIFIED))
}

/// What a client is told of a deletion: the object while it is there, and afterwards for the kinds that do so; else
/// that it is gone.
fn to_answer(call: &Call<'_>, deleted: Deleted) -> Result<Answer, ApiError> {
    let (object, entry) = match deleted {
        Deleted::Gone(object, _) if !call.rules.returns_deleted => return Ok(success(call, &object)),
        Deleted::Gone(object, entry) | Deleted::Going(object, entry) => (object, entry),
    };
    match entry {
        Some(entry) => Ok(Answer::Object { status: 200, entry: call.present(entry)? }),
        None => Ok(json_answer(200, &object)),
    }
}

/// A `Status` that says that an object is gone.
fn success(call: &Call<'_>, object: &Object) -> Answer {
    let mut details = json!({"name": object.name()});
    if !call.def.gvk.group.is_empty() {
        details["group"] = call.def.gvk.group.as_str().into();
    }
    details["kind"] = call.def.resource.as_str().into();
    details["uid"] = object.uid().into();
    let mut status = Object::default();
    status.set_at(&["kind"], "Status");
    status.set_at(&["apiVersion"], "v1");
    status.set_at(&["metadata"], json!({}));
    status.set_at(&["status"], "Success");
    status.set_at(&["details"], details);
    json_answer(200, &status)
}

/// Deletes every object that the options select; those that are gone meanwhile are no failure.
pub(super) async fn delete_collection(call: &Call<'_>) -> Result<Answer, ApiError> {
    let sent = options_of(call.request, call.dry_run)?;
    let query = ListQuery { namespace: read::namespace(call), selector: read::selector(call)?, ..ListQuery::default() };
    let page = call.registry.cacher.list(&call.def.storage, &query).await;
    let page = page.map_err(|error| store_errors::to_api(&error))?;
    let (revision, entries) = (page.revision, page.entries);
    let deletions = stream::iter(entries.clone()).map(|entry| delete_one(call, entry, &sent));
    let results: Vec<Result<(), ApiError>> = deletions.buffer_unordered(COLLECTION_CONCURRENCY).collect().await;
    if let Some(error) = results.into_iter().filter_map(Result::err).find(|error| error.reason != Reason::NotFound) {
        return Err(error);
    }
    let presenter = forms::Presenter::new(&call.def);
    let entries = entries.into_iter().map(|entry| presenter.present(entry)).collect::<Result<_, _>>()?;
    Ok(Answer::List { list: List { resource_version: revision, entries, continue_token: None }, remaining: None })
}

/// Deletes one object of a collection.
async fn delete_one(call: &Call<'_>, entry: Arc<Entry>, sent: &Sent) -> Result<(), ApiError> {
    let mut request = call.request.clone();
    request.namespace = (!entry.head.namespace.is_empty()).then(|| entry.head.namespace.clone());
    let one = Call::new(call.registry, call.user, call.def.clone(), &request, call.dry_run);
    delete_object(&one, &entry.head.name, &sent.options, sent.dry_run).await.map(|_| ())
}
