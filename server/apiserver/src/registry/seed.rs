//! Objects that the server itself puts into a fresh cluster: the same store and pools, but no admission and no limit
//! on what may be set, since the objects are skiff's own.

use serde_json::Value;
use skiff_api::{
    object::Object,
    request::{GroupVersionResource, Request, Verb},
    status::ApiError,
    user::UserInfo,
};

use super::{
    Registry,
    call::{Call, Swap},
    create, forms, meta, store_errors,
    update::{self, Proposal},
};
use crate::{authz::MASTERS, strategy, strategy::Part};

/// The user by whom the server itself writes.
const SELF: &str = "system:apiserver";

/// The server itself as a user.
pub(super) fn itself() -> UserInfo {
    UserInfo { name: SELF.to_owned(), groups: vec![MASTERS.to_owned()], ..UserInfo::default() }
}

impl Registry {
    /// Makes sure that an object is there; one of that name is left as it is. Says whether it was made.
    pub async fn seed(&self, gvr: &GroupVersionResource, object: &Object) -> Result<bool, ApiError> {
        let def = self.find(gvr).ok_or_else(ApiError::no_such_path)?;
        if self.cacher.peek(&def.storage, object.namespace(), object.name()).is_some() {
            return Ok(false);
        }
        let (user, request) = (itself(), Request::new(Verb::Create, gvr.clone(), object.namespace(), object.name()));
        let call = Call::new(self, &user, def, &request, false);
        let mut object = object.clone();
        object.set_at(&["apiVersion"], call.def.gvk.api_version());
        object.set_at(&["kind"], call.def.gvk.kind.as_str());
        let status = object.at(&["status"]).cloned();
        meta::fill_new(&mut object, self.now(), (self.config.random)());
        let mut cx = call.context();
        strategy::prepare_create(&call.def, &mut cx, &mut object);
        forms::apply_defaults(&call, &mut object);
        if let Some(status) = status {
            object.set_at(&["status"], status);
        }
        let errors = std::mem::take(&mut cx.errors);
        create::refuse_invalid(&call, object.name(), &errors)?;
        let name = object.name().to_owned();
        Ok(matches!(call.swap(&name, None, Some(&object), cx).await?, Swap::Done(_)))
    }

    /// Makes sure that an object is there and that some of its fields are as given.
    pub async fn seed_fields(
        &self,
        gvr: &GroupVersionResource,
        object: &Object,
        fields: &[&str],
    ) -> Result<(), ApiError> {
        self.seed_made(gvr, &|| object.clone(), fields).await
    }

    /// The same of an object that is made from others, by several writers: it is made after the version that it
    /// replaces has been read, so that none makes it from less than that version was made from.
    pub(crate) async fn seed_made(
        &self,
        gvr: &GroupVersionResource,
        made: &(dyn Fn() -> Object + Send + Sync),
        fields: &[&str],
    ) -> Result<(), ApiError> {
        let object = made();
        if self.seed(gvr, &object).await? {
            return Ok(());
        }
        let def = self.find(gvr).ok_or_else(ApiError::no_such_path)?;
        let (user, request) = (itself(), Request::new(Verb::Update, gvr.clone(), object.namespace(), object.name()));
        let call = Call::new(self, &user, def, &request, false);
        let make = |there: &Object| {
            let (mut there, object) = (there.clone(), made());
            for field in fields {
                if let Some(value) = object.at(&[field]) {
                    there.set_at(&[field], value.clone());
                }
            }
            Ok(Proposal { object: there, pinned: false })
        };
        update::change(&call, object.name(), Part::Whole, &make).await.map(|_| ())
    }

    /// The rules of ClusterRoles that aggregate others, written into them as clients read them.
    pub async fn write_aggregated_rules(&self) -> Result<(), ApiError> {
        let storage = crate::authz::rbac::storage("clusterroles");
        let entries = self.cacher.list(&storage, &skiff_store::cache::ListQuery::default()).await;
        let entries = entries.map_err(|error| store_errors::to_api(&error))?.entries;
        let roles: Vec<Object> = entries.iter().filter_map(|entry| entry.object().ok()).collect();
        let gvr = GroupVersionResource::new(crate::authz::rbac::GROUP, "v1", "clusterroles");
        for (name, rules) in crate::authz::rbac::aggregated_rules(&roles) {
            let mut wanted = Object::default();
            wanted.set_at(&["metadata", "name"], name.as_str());
            wanted.set_at(&["rules"], Value::Array(rules));
            let there = roles.iter().find(|role| role.name() == name);
            let is_so = there.and_then(|role| role.at(&["rules"])) == wanted.at(&["rules"]);
            if !is_so {
                self.seed_fields(&gvr, &wanted, &["rules"]).await?;
            }
        }
        Ok(())
    }

    /// The time.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        (self.config.now)()
    }
}
