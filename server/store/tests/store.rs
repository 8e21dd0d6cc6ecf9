//! The suite of the store, run on every implementation.
//!
//! It covers what Kubernetes' own storage tests (`apiserver/pkg/storage/testing`) ask of a store. What those ask of
//! more than keys and values is asked elsewhere: labels, fields, bookmarks and unreadable objects of the watch cache
//! (`tests/cache.rs`); preconditions on UIDs, updates that change nothing, `resourceVersionMatch` and continue tokens
//! of the registry (`server/apiserver/tests/registry`). There is no time to live of a key.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod etcd_server;
mod suite;

/// Each behaviour on a place, by name.
macro_rules! on {
    ($place:expr; $($behaviour:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $behaviour() {
            crate::suite::$behaviour(&$place).await;
        })*
    };
}

/// Each behaviour on each implementation, by name.
macro_rules! on_all {
    ($($behaviour:ident),* $(,)?) => {
        mod memory {
            on!(crate::suite::Place::memory(); $($behaviour),*);
        }
        mod sqlite {
            on!(crate::suite::Place::sqlite(); $($behaviour),*);
        }
        mod etcd {
            on!(crate::suite::Place::etcd().await; $($behaviour),*);
        }
    };
}

on_all!(
    create_gives_growing_revisions,
    create_of_what_is_there_is_refused_with_it,
    get_of_what_is_not_there_is_none,
    update_needs_the_revision_it_expects,
    delete_needs_the_revision_it_expects,
    recreated_key_has_a_new_create_revision,
    one_of_many_swaps_wins,
    range_has_only_the_prefix_in_order,
    range_pages_cover_everything_once,
    range_at_an_old_revision,
    range_at_a_future_revision_is_refused,
    range_at_a_compacted_revision_is_refused,
    paging_while_writing_is_consistent,
    watch_from_now_sees_each_change,
    watch_from_an_old_revision_sees_what_came_since,
    watch_from_a_future_revision_is_refused,
    watch_from_a_compacted_revision_is_refused,
    watch_of_a_delete_has_the_last_object,
    watch_has_no_gap_under_concurrent_writers,
    slow_watcher_misses_nothing,
    heartbeats_are_seen_at_once,
    heartbeats_and_synced_writes_share_one_order,
    heartbeats_show_in_pages_and_counts,
    compaction_keeps_what_is_current,
    size_grows_with_content,
    close_ends_watches_and_refuses_writes,
    restore_replaces_everything_at_greater_revisions,
    restore_never_gives_a_revision_again,
    restore_ends_watches_and_refuses_what_was_before,
    restore_refuses_keys_that_do_not_ascend,
);

/// etcd has no transaction of that size.
mod in_one_transaction {
    mod memory {
        on!(crate::suite::Place::memory(); failed_restore_leaves_what_was_there);
    }
    mod sqlite {
        on!(crate::suite::Place::sqlite(); failed_restore_leaves_what_was_there);
    }
}

mod further {
    on_all!(
        deleting_what_is_absent_changes_nothing,
        refused_writes_are_no_events,
        watch_of_a_recreated_key_sees_both_lives,
        a_watch_that_is_dropped_disturbs_no_other,
        a_watch_goes_on_through_a_compaction,
        an_error_is_the_last_thing_a_watch_says,
        pages_of_a_compacted_revision_can_go_on_at_the_newest,
        reads_have_what_was_acknowledged_before,
        keys_and_values_are_kept_as_they_are,
    );
}

mod sqlite_only;
