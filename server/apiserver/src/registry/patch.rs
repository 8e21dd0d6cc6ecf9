//! `patch`: the new version is made from the one that is there, again for every version that it meets.

use skiff_api::{
    object::Object,
    request::ContentType,
    status::{ApiError, Reason},
};

use super::{
    Answer,
    call::Call,
    create, forms, meta,
    update::{self, Proposal},
};
use crate::strategy::Part;

/// Whether a patch says which version it is for.
fn names_version(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("resourceVersion")
}

/// Patches an object or a part of it.
pub(super) async fn patch(call: &Call<'_>, part: Part) -> Result<Answer, ApiError> {
    let content_type = call.request.content_type;
    if matches!(content_type, ContentType::Json | ContentType::Yaml) {
        return Err(unsupported());
    }
    let mentions_version = names_version(&call.request.body);
    let make = |old: &Object| {
        let object = forms::patched(call, old)?;
        let changed = object.at(&["metadata", "resourceVersion"]) != old.at(&["metadata", "resourceVersion"]);
        let named = object.str_at(&["metadata", "resourceVersion"]).is_some_and(|version| !version.is_empty());
        Ok(Proposal { object, pinned: named && (mentions_version || changed) })
    };
    if let Some(written) = update::change(call, call.name(), part, &make).await? {
        return written.answer(call, 200);
    }
    if content_type != ContentType::ApplyPatch || part != Part::Main {
        return Err(call.not_found(call.name()));
    }
    let mut object = forms::applied_new(call)?;
    if !object.uid().is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            object.uid()
        );
        return Err(call.conflict(call.name(), &why));
    }
    meta::check_name(&mut object, call.name())?;
    create::create_object(call, object).await?.answer(call, 201)
}

/// 415: the body is no patch.
fn unsupported() -> ApiError {
    ApiError::new(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
         application/strategic-merge-patch+json",
    )
}
