//! `fieldRef` and `resourceFieldRef`: what a container may learn of its own pod.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};

use super::model::DesiredPod;
use crate::quantity;

/// What fields are read from.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The pod.
    pub desired: &'a DesiredPod,
    /// The pod's addresses.
    pub pod_ips: &'a [IpAddr],
    /// What the node can give: the limit of a container that has none.
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// A field cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldRefError {
    /// No such field.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// No such resource.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// No such container.
    #[error("container {0} not found")]
    Container(String),
    /// The divisor is no quantity.
    #[error("invalid divisor {0}")]
    Divisor(String),
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// A map as downward API files hold it: a line `key="value"` each, in order.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

impl Fields<'_> {
    /// The value of a `fieldRef`.
    pub fn field(&self, path: &str) -> Result<String, FieldRefError> {
        let Pod { metadata, .. } = &*self.desired.pod;
        let spec = self.desired.spec();
        let at = |map: &Option<BTreeMap<String, String>>, key: &str| {
            map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
        };
        if let Some(key) = subscript(path, "metadata.labels") {
            return Ok(at(&metadata.labels, key));
        }
        if let Some(key) = subscript(path, "metadata.annotations") {
            return Ok(at(&metadata.annotations, key));
        }
        let host_network = spec.host_network == Some(true);
        let pod_ips = if host_network { &self.desired.host_ips } else { self.pod_ips };
        let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
        Ok(match path {
            "metadata.name" => self.desired.name().to_owned(),
            "metadata.namespace" => self.desired.namespace().to_owned(),
            "metadata.uid" => self.desired.uid().to_owned(),
            "metadata.labels" => lines(metadata.labels.as_ref()),
            "metadata.annotations" => lines(metadata.annotations.as_ref()),
            "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
            "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
            "status.hostIP" => first(&self.desired.host_ips),
            "status.hostIPs" => joined(&self.desired.host_ips),
            "status.podIP" => first(pod_ips),
            "status.podIPs" => joined(pod_ips),
            _ => return Err(FieldRefError::Field(path.to_owned())),
        })
    }

    /// The value of a `resourceFieldRef`, read by the container named `own` unless the reference names another.
    pub fn resource(&self, reference: &ResourceFieldSelector, own: &str) -> Result<String, FieldRefError> {
        let name = reference.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(own);
        let container = self.desired.container(name).ok_or_else(|| FieldRefError::Container(name.to_owned()))?;
        let unsupported = || FieldRefError::Resource(reference.resource.clone());
        let (kind, resource) = reference.resource.split_once('.').ok_or_else(unsupported)?;
        let value = match kind {
            "limits" => self.limit(container, resource),
            "requests" => self.request(container, resource),
            _ => return Err(unsupported()),
        };
        let divisor = reference.divisor.as_ref().map_or("1", |divisor| divisor.0.as_str());
        let divisor = if divisor == "0" || divisor.is_empty() { "1" } else { divisor };
        let by =
            quantity::milli(divisor).filter(|by| *by > 0).ok_or_else(|| FieldRefError::Divisor(divisor.to_owned()))?;
        let value = value.unwrap_or_default();
        Ok((value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)).to_string())
    }

    fn limit(&self, container: &Container, resource: &str) -> Option<i128> {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let own = limits.and_then(|limits| limits.get(resource));
        own.or_else(|| self.allocatable.get(resource)).and_then(|value| quantity::milli(&value.0))
    }

    fn request(&self, container: &Container, resource: &str) -> Option<i128> {
        let resources = container.resources.as_ref()?;
        let of = |list: &Option<BTreeMap<String, Quantity>>| list.as_ref().and_then(|list| list.get(resource)).cloned();
        of(&resources.requests).or_else(|| of(&resources.limits)).and_then(|value| quantity::milli(&value.0))
    }
}
