//! The environment of a container: services, `envFrom`, `env`, in this order, later ones over earlier ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVar, EnvVarSource, Secret, Service};

use super::{
    expand::expand,
    fields::{FieldRefError, Fields},
};

/// What a container's environment is made of, fetched beforehand.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The config maps that are there, by name.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// The secrets that are there, by name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// The services of the pod's namespace, and those that every pod is told of.
    pub services: Vec<Arc<Service>>,
}

/// The environment cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A config map or secret is not there.
    #[error("{kind} {name:?} not found")]
    Missing {
        /// `configmap` or `secret`
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key is not there.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field cannot be read.
    #[error(transparent)]
    Field(#[from] FieldRefError),
}

/// The names of the config maps and the secrets that a container's environment refers to.
pub fn references(container: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|reference| reference.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
    }
    (maps, secrets)
}

/// The environment, in an order that lets `$(NAME)` refer to what stands before.
pub fn resolve(
    container: &Container,
    sources: &Sources,
    fields: &Fields<'_>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Environment::default();
    let links = fields.desired.spec().enable_service_links != Some(false);
    for service in &sources.services {
        service_variables(service, fields.desired.namespace(), links, &mut env);
    }
    for from in container.env_from.iter().flatten() {
        take_all(from, sources, &mut env)?;
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = value(var, container, sources, fields, &env)? {
            env.set(&var.name, value);
        }
    }
    Ok(env.list)
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Environment {
    list: Vec<(String, String)>,
    at: BTreeMap<String, usize>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        match self.at.get(name).and_then(|at| self.list.get_mut(*at)) {
            Some(entry) => entry.1 = value,
            None => {
                self.at.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.at.get(name).and_then(|at| self.list.get(*at)).map(|(_, value)| value.as_str())
    }
}

/// Expands `$(NAME)` in a container's command or arguments.
pub fn expand_all(words: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    let lookup = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    words.into_iter().flatten().map(|word| expand(word, lookup)).collect()
}

/// Expands `$(NAME)` in one text, e.g. `subPathExpr`.
pub fn expand_one(text: &str, env: &[(String, String)]) -> String {
    expand(text, |name| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()))
}

fn take_all(from: &EnvFromSource, sources: &Sources, env: &mut Environment) -> Result<(), EnvError> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    if let Some(reference) = &from.config_map_ref {
        match sources.config_maps.get(&reference.name) {
            Some(map) => {
                map.data.iter().flatten().for_each(|(key, value)| env.set(&format!("{prefix}{key}"), value.clone()));
            }
            None if reference.optional == Some(true) => {}
            None => return Err(EnvError::Missing { kind: "configmap", name: reference.name.clone() }),
        }
    }
    if let Some(reference) = &from.secret_ref {
        match sources.secrets.get(&reference.name) {
            Some(secret) => secret.data.iter().flatten().for_each(|(key, value)| {
                env.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }),
            None if reference.optional == Some(true) => {}
            None => return Err(EnvError::Missing { kind: "secret", name: reference.name.clone() }),
        }
    }
    Ok(())
}

fn value(
    var: &EnvVar,
    container: &Container,
    sources: &Sources,
    fields: &Fields<'_>,
    env: &Environment,
) -> Result<Option<String>, EnvError> {
    let Some(source) = &var.value_from else {
        return Ok(Some(expand(var.value.as_deref().unwrap_or_default(), |name| env.get(name))));
    };
    match source {
        EnvVarSource { field_ref: Some(reference), .. } => Ok(Some(fields.field(&reference.field_path)?)),
        EnvVarSource { resource_field_ref: Some(reference), .. } => {
            Ok(Some(fields.resource(reference, &container.name)?))
        }
        EnvVarSource { config_map_key_ref: Some(key), .. } => {
            let map = sources.config_maps.get(&key.name);
            let value = map.and_then(|map| map.data.as_ref()?.get(&key.key).cloned());
            found(value, map.is_some(), key.optional, ("configmap", "ConfigMap"), (&key.name, &key.key), fields)
        }
        EnvVarSource { secret_key_ref: Some(key), .. } => {
            let secret = sources.secrets.get(&key.name);
            let bytes = secret.and_then(|secret| secret.data.as_ref()?.get(&key.key));
            let value = bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
            found(value, secret.is_some(), key.optional, ("secret", "Secret"), (&key.name, &key.key), fields)
        }
        _ => Ok(None),
    }
}

/// A value that may be missing: nothing where it is optional, else an error that says what is missing.
fn found(
    value: Option<String>,
    object_there: bool,
    optional: Option<bool>,
    (kind, title): (&'static str, &'static str),
    (name, key): (&str, &str),
    fields: &Fields<'_>,
) -> Result<Option<String>, EnvError> {
    let (name, key) = (name.to_owned(), key.to_owned());
    match value {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None if !object_there => Err(EnvError::Missing { kind, name }),
        None => Err(EnvError::Key { kind: title, namespace: fields.desired.namespace().to_owned(), name, key }),
    }
}

/// The variables that tell of a service (`NAME_SERVICE_HOST` and so on). `kubernetes` in `default` is told to every
/// pod, the others only where service links are on.
fn service_variables(service: &Service, namespace: &str, links: bool, env: &mut Environment) {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let own = service.metadata.namespace.as_deref().unwrap_or_default();
    let master = own == "default" && name == "kubernetes";
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    if address.is_empty() || address == "None" || !(master || (links && own == namespace)) {
        return;
    }
    let prefix: String = name.to_uppercase().replace('-', "_");
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let Some(first) = ports.first() else { return };
    env.set(&format!("{prefix}_SERVICE_HOST"), address.to_owned());
    env.set(&format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name = name.to_uppercase().replace('-', "_");
            env.set(&format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string());
        }
    }
    for (at, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{}:{}", protocol.to_lowercase(), address, port.port);
        if at == 0 {
            env.set(&format!("{prefix}_PORT"), url.clone());
        }
        let stem = format!("{prefix}_PORT_{}_{protocol}", port.port);
        env.set(&stem, url);
        env.set(&format!("{stem}_PROTO"), protocol.to_lowercase());
        env.set(&format!("{stem}_PORT"), port.port.to_string());
        env.set(&format!("{stem}_ADDR"), address.to_owned());
    }
}
