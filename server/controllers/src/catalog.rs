//! The resources that objects are stored in: the built-in ones and those of CustomResourceDefinitions.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use skiff_api::{
    kinds::{Kinds, ResourceDef},
    request::GroupVersionResource,
};
use skiff_client::{Informer, Informers};

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Known {
    /// Group, version and plural name.
    pub resource: GroupVersionResource,
    /// The kind of its objects.
    pub kind: String,
    /// Whether they live in namespaces.
    pub namespaced: bool,
}

/// All resources.
#[derive(Clone)]
pub struct Catalog {
    custom: Arc<Informer<CustomResourceDefinition>>,
}

impl Catalog {
    /// The catalog that follows the CustomResourceDefinitions.
    pub fn new(informers: &Informers) -> Self {
        Self { custom: informers.of() }
    }

    /// The informer of custom resources, to be told when the catalog changes.
    pub fn custom(&self) -> &Arc<Informer<CustomResourceDefinition>> {
        &self.custom
    }

    /// Every resource whose objects can be owned, but for Events: they come and go by themselves.
    pub fn all(&self) -> Vec<Known> {
        self.whole().into_iter().filter(|known| known.kind != "Event").collect()
    }

    /// Every resource whose objects can be listed and deleted, once.
    pub fn whole(&self) -> Vec<Known> {
        let usable = |def: &&Arc<ResourceDef>| {
            ["list", "delete", "watch"].iter().all(|verb| def.verbs.iter().any(|known| known == verb))
        };
        let builtin = Kinds::builtin().stored().filter(usable).map(|def| Known {
            resource: GroupVersionResource::new(&def.gvk.group, &def.gvk.version, &def.resource),
            kind: def.gvk.kind.clone(),
            namespaced: def.namespaced,
        });
        builtin.chain(self.custom.list().iter().filter_map(|definition| of_definition(definition))).collect()
    }

    /// The resource of an owner reference: any version of its group and kind.
    pub fn of_owner(&self, api_version: &str, kind: &str) -> Option<Known> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.all().into_iter().find(|known| known.resource.group == group && known.kind == kind)
    }
}

/// The resource of a definition that is served.
fn of_definition(definition: &CustomResourceDefinition) -> Option<Known> {
    let conditions = definition.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Established" && condition.status == "True")?;
    let spec = &definition.spec;
    let version = spec.versions.iter().find(|version| version.served && version.storage);
    let version = version.or_else(|| spec.versions.iter().find(|version| version.served))?;
    Some(Known {
        resource: GroupVersionResource::new(&spec.group, &version.name, &spec.names.plural),
        kind: spec.names.kind.clone(),
        namespaced: spec.scope == "Namespaced",
    })
}
