//! Jobs: a Job selects its pods by its own UID, unless its author wants to select by hand.

use serde_json::Value;
use skiff_api::object::Object;

use super::{Context, Strategy};

/// The label that carries the Job's UID, and the older form of it.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];

/// The label that carries the Job's name, and the older form of it.
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// The strategy of Jobs.
pub(super) struct Jobs;

/// Sets a string where there is none.
fn set_if_absent(object: &mut Object, path: &[&str], value: &str) {
    if object.at(path).is_none() {
        object.set_at(path, value);
    }
}

impl Strategy for Jobs {
    fn prepare_create(&self, _: &mut Context<'_>, job: &mut Object) {
        if job.at(&["spec", "manualSelector"]).and_then(Value::as_bool).unwrap_or_default() {
            return;
        }
        let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
        for (labels, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
            for label in labels {
                set_if_absent(job, &["spec", "template", "metadata", "labels", label], value);
            }
        }
        set_if_absent(job, &["spec", "selector", "matchLabels", UID_LABELS[0]], &uid);
    }
}
