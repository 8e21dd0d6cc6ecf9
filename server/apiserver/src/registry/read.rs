//! `get` and `list`.

use std::sync::Arc;

use skiff_api::{selector::Selector, status::ApiError, wire::Entry};
use skiff_client::List;
use skiff_store::{
    StoreError,
    cache::{ListQuery, Page},
};

use super::{
    Answer,
    call::Call,
    forms,
    list_options::{self, At},
    store_errors,
    tokens::Token,
};

/// What a client is told whose list took too long to read.
const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
    new list without the continue parameter, or use the continue token in this response to retrieve the remainder of \
    the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
    modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// The newest version of an object.
pub(super) async fn get(call: &Call<'_>) -> Result<Answer, ApiError> {
    Ok(Answer::Object { status: 200, entry: call.present(entry(call).await?)? })
}

/// The entry that a get asks for: the newest one, which every `resourceVersion` allows.
async fn entry(call: &Call<'_>) -> Result<Arc<Entry>, ApiError> {
    let asked = call.request.options.resource_version.as_deref().unwrap_or_default();
    let asked = list_options::revision(asked)?;
    let newest = call.registry.cacher.revision();
    if let Some(asked) = asked.filter(|asked| *asked > newest) {
        return Err(store_errors::too_large(asked, newest));
    }
    call.fetch(call.name()).await?.ok_or_else(|| call.not_found(call.name()))
}

/// What a list or watch selects by.
pub(super) fn selector(call: &Call<'_>) -> Result<Selector, ApiError> {
    let options = &call.request.options;
    let fields =
        options.field_selector.as_deref().map(|text| forms::stored_field_selector(text, &call.def)).transpose()?;
    let stored = call.registry.kinds.stored_as(&call.def.storage).unwrap_or(&call.def);
    Selector::parse(options.label_selector.as_deref(), fields.as_deref(), &stored.selectable)
}

/// In which namespace a list or watch looks; `None` for all.
pub(super) fn namespace(call: &Call<'_>) -> Option<String> {
    let namespace = call.namespace();
    (!namespace.is_empty()).then(|| namespace.to_owned())
}

/// A page of objects.
pub(super) async fn list(call: &Call<'_>) -> Result<Answer, ApiError> {
    let query = list_query(call)?;
    let continues = query.start_after.is_some();
    let page = match call.registry.cacher.list(&call.def.storage, &query).await {
        Ok(page) => page,
        Err(StoreError::Compacted { .. }) if continues => return Err(expired(&query)),
        Err(error) => return Err(store_errors::to_api(&error)),
    };
    let counts = query.selector.is_everything();
    to_answer(call, page, counts)
}

/// A list's options as a question to the cache.
fn list_query(call: &Call<'_>) -> Result<ListQuery, ApiError> {
    let options = &call.request.options;
    let at = list_options::list_at(options)?;
    let token = match options.continue_token.as_deref() {
        None | Some("") => None,
        Some(text) => Some(Token::decode(text)?),
    };
    if token.is_some() && !matches!(options.resource_version.as_deref(), None | Some("" | "0")) {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    let newest = call.registry.cacher.revision();
    let revision = match (&token, at) {
        (Some(token), _) => token.revision,
        (None, At::Newest) => None,
        (None, At::Exact(revision)) => Some(revision),
        (None, At::NotOlderThan(revision)) if revision > newest => {
            return Err(store_errors::too_large(revision, newest));
        }
        (None, At::NotOlderThan(_)) => None,
    };
    Ok(ListQuery {
        namespace: namespace(call),
        selector: selector(call)?,
        limit: options.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or_default(),
        start_after: token.map(|token| token.after),
        revision,
    })
}

/// 410 with a token that goes on with whatever is newest.
fn expired(query: &ListQuery) -> ApiError {
    let after = query.start_after.clone();
    let token = after.map(|after| Token { revision: None, after }.encode());
    ApiError { continue_token: token, ..ApiError::expired(EXPIRED) }
}

/// A page as the answer to a list.
fn to_answer(call: &Call<'_>, page: Page, counts: bool) -> Result<Answer, ApiError> {
    let last = page.entries.last().filter(|_| page.more);
    let continue_token = last.map(|last| {
        let after = (last.head.namespace.clone(), last.head.name.clone());
        Token { revision: Some(page.revision), after }.encode()
    });
    let remaining = page.remaining.filter(|_| counts && page.more);
    let presenter = forms::Presenter::new(&call.def);
    let entries = page.entries.into_iter().map(|entry| presenter.present(entry)).collect::<Result<_, _>>()?;
    let list = List { resource_version: page.revision, entries, continue_token };
    Ok(Answer::List { list, remaining })
}
