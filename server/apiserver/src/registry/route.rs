//! Which resource, which verb, and who answers.

use skiff_api::{
    kinds::ResourceDef,
    request::{Request, Verb},
    status::{ApiError, Reason},
    user::UserInfo,
    warn,
};

use super::{Answer, Answered, Registry, call::Call, create, delete, options, patch, read, sub, update, watch};
use crate::strategy::Part;

/// 405: the resource is there, but cannot be asked this.
pub(super) fn method_not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

/// Whether a resource, or a subresource of it, takes a verb; 404 where there is no such subresource.
fn check_verb(def: &ResourceDef, request: &Request) -> Result<(), ApiError> {
    let verbs = match &request.subresource {
        None => &def.verbs,
        Some(name) => {
            let found = def.subresources.iter().find(|subresource| subresource.name == *name);
            &found.ok_or_else(ApiError::no_such_path)?.verbs
        }
    };
    let taken = verbs.iter().any(|verb| verb == request.verb.as_str());
    if taken { Ok(()) } else { Err(method_not_allowed()) }
}

/// Whether a request says in which namespace, where it must, and on which object.
fn check_place(def: &ResourceDef, request: &Request) -> Result<(), ApiError> {
    let on_one = matches!(request.verb, Verb::Get | Verb::Update | Verb::Patch | Verb::Delete);
    if on_one && request.name.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request("name is required"));
    }
    let needs_namespace = def.namespaced && (on_one || request.verb == Verb::Create);
    if needs_namespace && request.namespace.as_deref().unwrap_or_default().is_empty() {
        return Err(method_not_allowed());
    }
    if !def.namespaced && request.namespace.is_some() {
        return Err(ApiError::no_such_path());
    }
    Ok(())
}

/// Answers a request that its user may make.
pub(super) async fn answer(registry: &Registry, user: &UserInfo, request: &Request) -> Result<Answered, ApiError> {
    let def = registry.find(&request.resource).ok_or_else(ApiError::no_such_path)?;
    check_verb(&def, request)?;
    check_place(&def, request)?;
    let dry_run = options::check(request)?;
    let call = Call::new(registry, user, def, request, dry_run);
    call.warn(warn::of_resource(&call.def).map(str::to_owned));
    let answer = match request.subresource.as_deref() {
        None if !call.def.stored => sub::unstored(&call).await?,
        None => on_resource(&call).await?,
        Some(name) => on_subresource(&call, name).await?,
    };
    Ok(Answered { answer, warnings: call.take_warnings() })
}

/// A request on a stored resource itself.
async fn on_resource(call: &Call<'_>) -> Result<Answer, ApiError> {
    match call.request.verb {
        Verb::Get => read::get(call).await,
        Verb::List => read::list(call).await,
        Verb::Watch => watch::watch(call).await,
        Verb::Create => create::create(call).await,
        Verb::Update => update::put(call, Part::Main).await,
        Verb::Patch => patch::patch(call, Part::Main).await,
        Verb::Delete => delete::delete(call).await,
        Verb::DeleteCollection => delete::delete_collection(call).await,
    }
}

/// A request on a subresource: a part of the object, or an action.
async fn on_subresource(call: &Call<'_>, name: &str) -> Result<Answer, ApiError> {
    let Some(part) = Part::of_subresource(name) else { return sub::action(call, name).await };
    match call.request.verb {
        Verb::Get => read::get(call).await,
        Verb::Update => update::put(call, part).await,
        Verb::Patch => patch::patch(call, part).await,
        _ => Err(method_not_allowed()),
    }
}
