//! What a Kubernetes object is, and everything that can be said of one without I/O.
//!
//! Every function of this crate is a pure function of its arguments: no sockets, no files, no clock, no runtime.
//! The server's registry, the client and the agent are shells around it.
//!
//! - [`mod@apply`]: server-side apply and who manages which field.
//! - [`claims`]: the claims that a pod's volumes are. [`local_path`]: what control plane and nodes say of local volumes.
//! - [`kinds`]: the table of resources, made from the recorded discovery of Kubernetes 1.36.
//! - [`convert`]: one stored object in several versions.
//! - [`decode`]: from the body of a request to an object.
//! - [`defaults`]: the values of fields that a client leaves out.
//! - [`discovery`]: what `/api` and `/apis` answer.
//! - [`names`]: what names may look like.
//! - [`validate`]: what is wrong with an object.
//! - [`openapi`]: the API described for clients.
//! - [`schema`]: what fields a kind has.
//! - [`object`]: an object as JSON, with access to its metadata.
//! - [`warn`]: what clients are warned of. [`go`]: values as Go prints them.
//! - [`wire`]: the stored form, which is the wire form, and the small head that selectors read.
//! - [`request`]: what a request asks for, parsed from and printed as a URL.
//! - [`patch`]: JSON patch, merge patch, strategic merge patch.
//! - [`protobuf`]: objects as `application/vnd.kubernetes.protobuf`.
//! - [`quantity`]: amounts of resources.
//! - [`quota`]: what objects count for, and whether there is room for them.
//! - [`status`]: errors as Kubernetes words them.
//! - [`selector`]: label and field selectors.
//! - [`scale`]: the `Scale` of a workload.
//! - [`table`]: what `kubectl get` shows.
//! - [`user`]: who asks.

pub mod apply;
pub mod claims;
pub mod convert;
pub mod cron;
mod data;
pub mod decode;
pub mod defaults;
pub mod discovery;
pub mod go;
pub mod kinds;
pub mod local_path;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod request;
#[cfg(test)]
mod robust_tests;
pub mod scale;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod user;
pub mod validate;
pub mod warn;
pub mod wire;
