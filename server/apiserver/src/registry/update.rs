//! `update`, and the loop that every change of an object goes through.

use skiff_api::{
    object::Object,
    status::{ApiError, FieldError},
    warn,
    wire::Entry,
};

use super::{
    Answer, admit,
    call::{Call, Swap, Written},
    claims,
    config::MAX_SWAPS,
    create, decide, forms, grants, meta,
};
use crate::{admission::Operation, strategy, strategy::Part};

/// What a client is told whose object is no longer the newest.
pub(super) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// What an object is to become.
pub(super) struct Proposal {
    pub(super) object: Object,
    /// Whether it is meant for exactly the version that its `metadata.resourceVersion` names.
    pub(super) pinned: bool,
}

/// Makes the new version from the one that is there; asked again for every version that it meets.
pub(super) type Make<'a> = &'a (dyn Fn(&Object) -> Result<Proposal, ApiError> + Send + Sync);

/// Replaces an object, or a part of it, with what is in the body.
pub(super) async fn put(call: &Call<'_>, part: Part) -> Result<Answer, ApiError> {
    let sent = forms::decode(call)?;
    let version = sent.str_at(&["metadata", "resourceVersion"]).unwrap_or_default().to_owned();
    if version.is_empty()
        && !call.rules.unconditional_update
        && part == Part::Main
        && call.fetch(call.name()).await?.is_some()
    {
        let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
        create::refuse_invalid(call, call.name(), &[error])?;
    }
    let make = |_: &Object| Ok(Proposal { object: sent.clone(), pinned: !version.is_empty() });
    if let Some(written) = change(call, call.name(), part, &make).await? {
        return written.answer(call, 200);
    }
    if part != Part::Main || !call.rules.create_on_update {
        return Err(call.not_found(call.name()));
    }
    let mut object = sent.clone();
    meta::check_name(&mut object, call.name())?;
    create::create_object(call, object).await?.answer(call, 201)
}

/// Changes an object; `None` where there is none of that name.
pub(super) async fn change(
    call: &Call<'_>,
    name: &str,
    part: Part,
    make: Make<'_>,
) -> Result<Option<Written>, ApiError> {
    let mut turn = None;
    for _ in 0..MAX_SWAPS {
        let Some(entry) = call.fetch(name).await? else { return Ok(None) };
        let old = call.parse(&entry)?;
        let proposal = make(&old)?;
        let pinned = proposal.pinned;
        match attempt(call, name, part, (&entry, &old), proposal).await? {
            Some(written) => return Ok(Some(written)),
            None if pinned => return Err(call.conflict(name, MODIFIED)),
            None => {}
        }
        if turn.is_none() {
            turn = call.registry.queues.turn(&call.def.storage.key(call.namespace(), name)).await;
        }
    }
    Err(call.conflict(name, MODIFIED))
}

/// Refuses a version that is not the one that is there.
fn check_version(call: &Call<'_>, name: &str, proposal: &Proposal, entry: &Entry) -> Result<(), ApiError> {
    let given = proposal.object.str_at(&["metadata", "resourceVersion"]).unwrap_or_default();
    if !proposal.pinned || given == entry.resource_version.to_string() {
        return Ok(());
    }
    if given.parse::<u64>().is_err() {
        let error = FieldError::invalid("metadata.resourceVersion", given, "must be an unsigned integer");
        create::refuse_invalid(call, name, &[error])?;
    }
    Err(call.conflict(name, MODIFIED))
}

/// Refuses an object that is another one of the same name.
fn check_uid(call: &Call<'_>, name: &str, object: &Object, old: &Object) -> Result<(), ApiError> {
    let (given, there) = (object.uid(), old.uid());
    if given.is_empty() || given == there {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {there}");
    Err(call.conflict(name, &why))
}

/// One try to change an object; `None` where another write came first.
async fn attempt(
    call: &Call<'_>,
    name: &str,
    part: Part,
    (entry, old): (&std::sync::Arc<Entry>, &Object),
    proposal: Proposal,
) -> Result<Option<Written>, ApiError> {
    check_version(call, name, &proposal, entry)?;
    let mut object = proposal.object;
    meta::check_name(&mut object, name)?;
    meta::place(&call.def, &mut object, call.namespace())?;
    check_uid(call, name, &object, old)?;
    call.warn(meta::dedup_owners(&mut object));
    meta::keep(&mut object, old);
    object.set_at(&["metadata", "resourceVersion"], entry.resource_version.to_string());
    let write = call.write(Operation::Update, name, Some(old));
    admit::mutate(call, &write, &mut object)?;
    grants::check(call, &object, Some(old))?;
    let mut cx = call.context();
    strategy::prepare_update(&call.def, &mut cx, &mut object, old, part);
    let mut errors = std::mem::take(&mut cx.errors);
    forms::add_errors(&mut errors, forms::validate_update(call, &object, old, part));
    errors.extend(strategy::validate_update(&object, old));
    create::refuse_invalid(call, name, &errors)?;
    if part == Part::Main {
        call.warn(warn::of_write(&call.def, &object, Some(old)));
    }
    let _turn = admit::validate(call, &write, &object).await?;
    forms::track(call, &mut object, Some(old))?;
    if object == *old {
        return Ok(Some(Written::Stored(entry.clone())));
    }
    if call.dry_run {
        return Ok(Some(Written::Dry(object)));
    }
    // Where the write fails the claims stay with the Service's uid, for another write of it.
    if claims::secure(call.registry, &object, &mut cx.holds).await?.is_none() {
        return Ok(None);
    }
    let ends = decide::update_ends(&object, old, decide::lifetime(&call.def));
    let new = (!ends).then_some(&object);
    match call.swap(name, Some((entry, old)), new, cx).await? {
        Swap::Lost => Ok(None),
        // The version that the update made was never stored; it is what the client sees last.
        Swap::Done(_) if ends => Ok(Some(Written::Dry(object))),
        Swap::Done(entry) => Ok(Some(Written::Stored(entry))),
    }
}
