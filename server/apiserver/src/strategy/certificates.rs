//! CertificateSigningRequests: who asks is who is authenticated, and approval has a subresource of its own.

use serde_json::{Value, json};
use skiff_api::object::Object;

use super::{Context, Part, Strategy};

/// The conditions that only `approval` sets.
const APPROVALS: [&str; 2] = ["Approved", "Denied"];

/// What of a request's spec says who asks.
const IDENTITY: [&str; 4] = ["username", "uid", "groups", "extra"];

/// The strategy of CertificateSigningRequests.
pub(super) struct Requests;

/// The conditions of a request for which `keep` holds.
fn conditions(request: &Object, keep: impl Fn(&Value) -> bool) -> Vec<Value> {
    let all = request.at(&["status", "conditions"]).and_then(Value::as_array);
    all.into_iter().flatten().filter(|condition| keep(condition)).cloned().collect()
}

/// The conditions of a status with the approvals that were there. A status that has more or fewer of them is not
/// believed at all.
fn with_approvals_of(old: &Object, request: &Object) -> Vec<Value> {
    let mut all = conditions(request, |_| true);
    for kind in APPROVALS {
        let is_kind = |condition: &Value| condition["type"] == kind;
        let there = conditions(old, is_kind);
        if all.iter().filter(|condition| is_kind(condition)).count() != there.len() {
            return conditions(old, |_| true);
        }
        let given = all.iter_mut().filter(|condition| is_kind(condition));
        given.zip(there).for_each(|(given, there)| *given = there);
    }
    all
}

/// Gives every condition that is new the time at which it was set.
fn date_conditions(cx: &Context<'_>, request: &mut Object) {
    let mut all = conditions(request, |_| true);
    for condition in all.iter_mut().filter_map(Value::as_object_mut) {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition.get(field).is_none_or(Value::is_null) {
                condition.insert(field.to_owned(), crate::registry::meta::time(cx.now).into());
            }
        }
    }
    if !all.is_empty() {
        request.set_at(&["status", "conditions"], all);
    }
}

impl Strategy for Requests {
    fn prepare_create(&self, cx: &mut Context<'_>, request: &mut Object) {
        for field in IDENTITY {
            request.remove_at(&["spec", field]);
        }
        let user = cx.user;
        let texts = [("username", &user.name), ("uid", &user.uid)];
        for (field, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
            request.set_at(&["spec", field], value.as_str());
        }
        if !user.groups.is_empty() {
            request.set_at(&["spec", "groups"], json!(user.groups));
        }
        if !user.extra.is_empty() {
            request.set_at(&["spec", "extra"], json!(user.extra));
        }
    }

    fn prepare_update(&self, cx: &mut Context<'_>, request: &mut Object, old: &Object, part: Part) {
        match part {
            Part::Main => {
                if let Some(spec) = old.at(&["spec"]) {
                    request.set_at(&["spec"], spec.clone());
                }
            }
            Part::Status => {
                match with_approvals_of(old, request) {
                    all if all.is_empty() => drop(request.remove_at(&["status", "conditions"])),
                    all => request.set_at(&["status", "conditions"], all),
                }
                date_conditions(cx, request);
            }
            Part::Only(_) | Part::Resize | Part::Whole => date_conditions(cx, request),
        }
    }
}
