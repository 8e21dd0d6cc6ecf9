//! The messages, as far as the test reads them, with the original's numbers of their fields.

use std::collections::BTreeMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeMeta {
    #[prost(string, tag = "1")]
    pub(crate) api_version: String,
    #[prost(string, tag = "2")]
    pub(crate) kind: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Unknown {
    #[prost(message, optional, tag = "1")]
    pub(crate) type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) raw: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(crate) content_encoding: String,
    #[prost(string, tag = "4")]
    pub(crate) content_type: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Time {
    #[prost(int64, optional, tag = "1")]
    pub(crate) seconds: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ObjectMeta {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) generate_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(crate) namespace: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(crate) uid: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub(crate) resource_version: Option<String>,
    #[prost(int64, optional, tag = "7")]
    pub(crate) generation: Option<i64>,
    #[prost(message, optional, tag = "8")]
    pub(crate) creation_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListMeta {
    #[prost(string, optional, tag = "2")]
    pub(crate) resource_version: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(crate) r#continue: Option<String>,
    #[prost(int64, optional, tag = "4")]
    pub(crate) remaining_item_count: Option<i64>,
}

/// Any object, its metadata alone.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Partial {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<ObjectMeta>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct List<T: Message + Default + std::fmt::Debug> {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<ListMeta>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) items: Vec<T>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConfigMap {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) data: BTreeMap<String, String>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(crate) binary_data: BTreeMap<String, Vec<u8>>,
    #[prost(bool, optional, tag = "4")]
    pub(crate) immutable: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(string, optional, tag = "2")]
    pub(crate) status: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(crate) message: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(crate) reason: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub(crate) details: Option<StatusDetails>,
    #[prost(int32, optional, tag = "6")]
    pub(crate) code: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusDetails {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(crate) kind: Option<String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) causes: Vec<StatusCause>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusCause {
    #[prost(string, optional, tag = "1")]
    pub(crate) reason: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) message: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(crate) field: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchEvent {
    #[prost(string, optional, tag = "1")]
    pub(crate) r#type: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(crate) object: Option<RawExtension>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RawExtension {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(crate) raw: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteOptions {
    #[prost(int64, optional, tag = "1")]
    pub(crate) grace_period_seconds: Option<i64>,
    #[prost(string, optional, tag = "4")]
    pub(crate) propagation_policy: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Scale {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    pub(crate) spec: Option<ScaleSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ScaleSpec {
    #[prost(int32, optional, tag = "1")]
    pub(crate) replicas: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AccessReview {
    #[prost(message, optional, tag = "2")]
    pub(crate) spec: Option<AccessReviewSpec>,
    #[prost(message, optional, tag = "3")]
    pub(crate) status: Option<AccessReviewStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AccessReviewSpec {
    #[prost(message, optional, tag = "1")]
    pub(crate) resource_attributes: Option<ResourceAttributes>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResourceAttributes {
    #[prost(string, optional, tag = "1")]
    pub(crate) namespace: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) verb: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(crate) resource: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AccessReviewStatus {
    #[prost(bool, optional, tag = "1")]
    pub(crate) allowed: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResourceList {
    #[prost(string, optional, tag = "1")]
    pub(crate) group_version: Option<String>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Resource {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(bool, optional, tag = "2")]
    pub(crate) namespaced: Option<bool>,
    #[prost(string, optional, tag = "3")]
    pub(crate) kind: Option<String>,
}
