//! Behaviours of the API server, one readable file each: requests go in over HTTPS, answers come out.
//!
//! A file of `cases/` is a title and steps. A step is a request and the answer that it gets:
//!
//! ```text
//! >>> POST /api/v1/namespaces/default/configmaps?fieldValidation=Strict
//! content-type: application/json        (headers, as many as needed)
//! show: message, details.causes         (which fields of the answer are shown; all without it)
//!
//! {"metadata": {"name": "a"}}           (the body)
//! <<< 201
//! warning: 299 - "..."                  (headers that say something)
//! {...}                                 (the answer; what differs from run to run is `<uid>`, `<time>`, `<version>`)
//! ```
//!
//! `{{metadata.resourceVersion}}` in a request is that field of the last answer. With `UPDATE_EXPECT=1` the answers
//! are written anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod kubectl;
mod script;
mod server;
mod storm;

use std::path::Path;

use server::Server;

async fn run(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases").join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let server = Server::start().await;
    let played = script::play(&server, &text).await;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, played).unwrap();
        return;
    }
    let differs = text.lines().zip(played.lines()).position(|(wanted, got)| wanted != got);
    let at = differs.unwrap_or_else(|| text.lines().count().min(played.lines().count()));
    assert!(text == played, "{} differs from line {} on; the answers were:\n{played}", path.display(), at + 1);
}

/// A test for each file; a file without one is found by `every_file_has_a_test`.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $name() {
            run(stringify!($name)).await;
        })*

        #[test]
        fn every_file_has_a_test() {
            let known = [$(stringify!($name)),*];
            for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases")).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                assert!(known.contains(&name.as_str()), "no test plays {}", path.display());
            }
        }
    };
}

cases!(
    admission_of_namespaces_and_accounts,
    admission_of_nodes_and_certificates,
    admission_of_pods,
    admission_of_storage_and_ingress,
    apply_conflicts,
    apply_upgrades_client_side_apply,
    apply_what_is_refused,
    binding,
    bodies_that_are_none,
    certificate_approval,
    custom_resource_definitions,
    delete_collection,
    deprecated_use_is_warned_of,
    dry_run,
    ephemeral_containers,
    eviction,
    field_validation,
    field_validation_of_patches,
    finalize_and_status,
    forms_of_answers,
    generate_name,
    list_in_pages,
    metadata_rules,
    one_object_of_two_versions,
    openapi,
    patch_forms,
    patches_that_are_none,
    pod_resize,
    pod_spec_is_fixed,
    preconditions,
    protobuf,
    queries_that_conflict,
    resource_versions,
    scale,
    services,
    tables,
    validation_of_admission,
    validation_of_pods,
    validation_of_small_kinds,
    watch,
    watch_streaming_list,
);
