//! `watch`.

use std::time::Duration;

use futures::{StreamExt, stream};
use skiff_api::status::ApiError;
use skiff_client::WatchEvent;
use skiff_store::{
    StoreError,
    cache::{CacheEvent, WatchQuery},
};

use super::{Answer, call::Call, config::WATCH_TIMEOUT, forms, list_options, read, store_errors};

/// The changes of a resource. A revision that is no longer kept is told as the stream's only item.
pub(super) async fn watch(call: &Call<'_>) -> Result<Answer, ApiError> {
    let options = &call.request.options;
    let from = list_options::watch_from(options)?;
    let newest = call.registry.cacher.revision();
    if from.at_least > newest {
        return Err(store_errors::too_large(from.at_least, newest));
    }
    let query = WatchQuery {
        namespace: read::namespace(call),
        selector: read::selector(call)?,
        after: if from.newest { Some(newest) } else { from.after },
        mark_initial_end: from.mark_initial_end,
        bookmarks: options.allow_watch_bookmarks,
        timeout: Some(options.timeout_seconds.filter(|s| *s > 0).map_or(WATCH_TIMEOUT, Duration::from_secs)),
    };
    let events = match call.registry.cacher.watch(&call.def.storage, query).await {
        Ok(events) => events,
        Err(error @ StoreError::Compacted { .. }) => {
            return Ok(Answer::Watch(stream::iter([Err(store_errors::to_api(&error))]).boxed()));
        }
        Err(error) => return Err(store_errors::to_api(&error)),
    };
    let presenter = forms::Presenter::new(&call.def);
    let told = events.map(move |event| match event {
        Ok(event) => present(event, &presenter),
        Err(error) => Err(store_errors::to_api(&error)),
    });
    Ok(Answer::Watch(told.boxed()))
}

/// An event in the version that was asked for.
fn present(event: CacheEvent, presenter: &forms::Presenter) -> Result<WatchEvent, ApiError> {
    Ok(match event {
        CacheEvent::Added(entry) => WatchEvent::Added(presenter.present(entry)?),
        CacheEvent::Modified(entry) => WatchEvent::Modified(presenter.present(entry)?),
        CacheEvent::Deleted(entry) => WatchEvent::Deleted(presenter.present(entry)?),
        CacheEvent::Bookmark { revision, initial_end } => {
            WatchEvent::Bookmark { resource_version: revision, initial_events_end: initial_end }
        }
    })
}
