//! A client that speaks protobuf alone, as Go's clients of built-in kinds do: what it sends and understands is written
//! down here from the original's `.proto` files, so that server and test share nothing.

mod messages;

use std::collections::BTreeMap;

use http::{Request, header};
use http_body_util::BodyExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, api::PostParams, client::Body};
use prost::Message;

use self::messages::{
    AccessReview, AccessReviewSpec, ConfigMap, DeleteOptions, List, ObjectMeta, Partial, ResourceAttributes,
    ResourceList, Scale, ScaleSpec, Status, TypeMeta, Unknown, WatchEvent,
};
use crate::PATIENCE;

const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

/// An answer: its status, and the object in it with its kind.
struct Answer {
    code: u16,
    kind: String,
    raw: Vec<u8>,
}

impl Answer {
    fn read<T: Message + Default>(&self, code: u16, kind: &str) -> T {
        assert_eq!((self.code, self.kind.as_str()), (code, kind), "{:?}", Status::decode(&self.raw[..]));
        T::decode(&self.raw[..]).expect("the object")
    }

    /// The `Status` of a refusal: its reason, and its message.
    fn refusal(&self, code: u16) -> (String, String) {
        let status: Status = self.read(code, "Status");
        assert_eq!((status.status.as_deref(), status.code), (Some("Failure"), Some(i32::from(code))));
        (status.reason.unwrap_or_default(), status.message.unwrap_or_default())
    }
}

/// What is behind the magic number.
fn envelope(bytes: &[u8]) -> (String, Vec<u8>) {
    let unknown = bytes.strip_prefix(MAGIC).expect("the magic number");
    let unknown = Unknown::decode(unknown).expect("an envelope");
    assert_eq!((unknown.content_encoding.as_str(), unknown.content_type.as_str()), ("", ""));
    (unknown.type_meta.expect("a kind").kind, unknown.raw)
}

fn enveloped(api_version: &str, kind: &str, object: &impl Message) -> Vec<u8> {
    let type_meta = Some(TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() });
    let unknown = Unknown { type_meta, raw: object.encode_to_vec(), ..Unknown::default() };
    [MAGIC, &unknown.encode_to_vec()].concat()
}

/// Sends and takes protobuf, nothing else.
struct Speaker(Client);

impl Speaker {
    async fn send(&self, method: &str, path: &str, accept: &str, body: Vec<u8>) -> http::Response<Body> {
        let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        let request = request.header(header::CONTENT_TYPE, MEDIA_TYPE).body(Body::from(body)).expect("a request");
        self.0.send(request).await.expect("an answer")
    }

    async fn ask(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        self.ask_for(MEDIA_TYPE, method, path, body).await
    }

    async fn ask_for(&self, accept: &str, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let answer = self.send(method, path, accept, body).await;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], MEDIA_TYPE, "{method} {path}");
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        let (kind, raw) = envelope(&bytes);
        Answer { code, kind, raw }
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, value: &str) -> ConfigMap {
    let labels = BTreeMap::from([("by".to_owned(), "protobuf".to_owned())]);
    ConfigMap {
        metadata: Some(ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() }),
        data: BTreeMap::from([("key".to_owned(), value.to_owned())]),
        binary_data: BTreeMap::from([("raw".to_owned(), vec![0, 255, 254])]),
        immutable: Some(false),
    }
}

fn sent(name: &str, value: &str) -> Vec<u8> {
    enveloped("v1", "ConfigMap", &config_map(name, value))
}

/// Does it all.
pub(crate) async fn walk(client: &Client) {
    let speaker = Speaker(client.clone());
    finds_its_way(&speaker).await;
    writes(&speaker).await;
    lists(&speaker).await;
    watches(&speaker).await;
    is_refused(&speaker).await;
    reviews_and_scales(&speaker).await;
}

async fn finds_its_way(speaker: &Speaker) {
    let list: ResourceList = speaker.ask("GET", "/apis/apps/v1", vec![]).await.read(200, "APIResourceList");
    assert_eq!(list.group_version.as_deref(), Some("apps/v1"));
    let found = list.resources.iter().find(|resource| resource.name.as_deref() == Some("deployments"));
    let found = found.expect("deployments");
    assert_eq!((found.kind.as_deref(), found.namespaced), (Some("Deployment"), Some(true)));
    assert_eq!(speaker.ask("GET", "/apis", vec![]).await.kind, "APIGroupList");
}

async fn writes(speaker: &Speaker) {
    let made: ConfigMap = speaker.ask("POST", MAPS, sent("a", "1")).await.read(201, "ConfigMap");
    let metadata = made.metadata.clone().expect("metadata");
    assert!(metadata.uid.is_some() && metadata.creation_timestamp.and_then(|time| time.seconds) > Some(1_700_000_000));
    assert_eq!((&made.binary_data, made.immutable), (&config_map("a", "1").binary_data, Some(false)));
    let mut changed = made.clone();
    changed.data.insert("key".to_owned(), "2".to_owned());
    let changed = enveloped("v1", "ConfigMap", &changed);
    let path = format!("{MAPS}/a");
    let again: ConfigMap = speaker.ask("PUT", &path, changed.clone()).await.read(200, "ConfigMap");
    assert_eq!(again.data["key"], "2");
    let (reason, _) = speaker.ask("PUT", &path, changed).await.refusal(409);
    assert_eq!(reason, "Conflict");
    let read: ConfigMap = speaker.ask("GET", &path, vec![]).await.read(200, "ConfigMap");
    assert_eq!(read, again);
    let options = DeleteOptions { grace_period_seconds: Some(0), propagation_policy: Some("Background".to_owned()) };
    let gone: Status =
        speaker.ask("DELETE", &path, enveloped("v1", "DeleteOptions", &options)).await.read(200, "Status");
    assert_eq!(gone.status.as_deref(), Some("Success"));
    assert_eq!(gone.details.expect("details").name.as_deref(), Some("a"));
}

async fn lists(speaker: &Speaker) {
    for name in ["l1", "l2", "l3"] {
        let _made: ConfigMap = speaker.ask("POST", MAPS, sent(name, "1")).await.read(201, "ConfigMap");
    }
    let path = format!("{MAPS}?labelSelector=by%3Dprotobuf&limit=2");
    let page: List<ConfigMap> = speaker.ask("GET", &path, vec![]).await.read(200, "ConfigMapList");
    let metadata = page.metadata.expect("metadata");
    assert_eq!(page.items.len(), 2);
    let next = format!("{path}&continue={}", metadata.r#continue.expect("more"));
    let page: List<ConfigMap> = speaker.ask("GET", &next, vec![]).await.read(200, "ConfigMapList");
    assert_eq!(page.items[0].metadata.as_ref().and_then(|metadata| metadata.name.as_deref()), Some("l3"));
    let partial = format!("{MEDIA_TYPE};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let page = speaker.ask_for(&partial, "GET", &path, vec![]).await;
    let page: List<Partial> = page.read(200, "PartialObjectMetadataList");
    assert_eq!(page.items[1].metadata.as_ref().expect("metadata").labels["by"], "protobuf");
    // There are no tables in protobuf: the original says so in JSON, since no form that was asked for is left.
    let table = format!("{MEDIA_TYPE};as=Table;g=meta.k8s.io;v=v1");
    let refused = speaker.send("GET", MAPS, &table, vec![]).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()[header::CONTENT_TYPE]),
        (406, &"application/json".parse().expect("a value"))
    );
    let everything: Answer = speaker.ask("DELETE", &format!("{MAPS}?labelSelector=by%3Dprotobuf"), vec![]).await;
    assert_eq!((everything.code, everything.kind.as_str()), (200, "ConfigMapList"));
}

/// A watch that is read on.
struct Watching {
    body: Body,
    buffer: Vec<u8>,
}

impl Watching {
    /// The next event: its type, its object's kind, the object.
    async fn next(&mut self) -> (String, String, Vec<u8>) {
        let event = tokio::time::timeout(PATIENCE, self.event()).await.expect("an event in time");
        let (kind, raw) = envelope(&event.object.and_then(|object| object.raw).expect("an object"));
        (event.r#type.expect("a type"), kind, raw)
    }

    async fn event(&mut self) -> WatchEvent {
        loop {
            if let Some((length, rest)) = self.buffer.split_first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).expect("a length");
                if let Some(frame) = rest.get(..length) {
                    let event = WatchEvent::decode(frame).expect("an event");
                    self.buffer.drain(..4 + length);
                    return event;
                }
            }
            let frame = self.body.frame().await.expect("the watch goes on").expect("bytes");
            self.buffer.extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    async fn next_map(&mut self) -> (String, ConfigMap) {
        let (what, kind, raw) = self.next().await;
        assert_eq!(kind, "ConfigMap");
        (what, ConfigMap::decode(&raw[..]).expect("a config map"))
    }
}

async fn watches(speaker: &Speaker) {
    let path = format!("{MAPS}?watch=1&labelSelector=by%3Dprotobuf&allowWatchBookmarks=true&sendInitialEvents=true");
    let path = format!("{path}&resourceVersionMatch=NotOlderThan");
    let _made: ConfigMap = speaker.ask("POST", MAPS, sent("w", "1")).await.read(201, "ConfigMap");
    // Go's clients ask for the object's form; the stream's own is meant with it.
    let answer = speaker.send("GET", &path, MEDIA_TYPE, vec![]).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], format!("{MEDIA_TYPE};stream=watch"));
    let mut watching = Watching { body: answer.into_body(), buffer: vec![] };
    let (what, map) = watching.next_map().await;
    assert_eq!((what.as_str(), map.data["key"].as_str()), ("ADDED", "1"));
    let (what, map) = watching.next_map().await;
    let metadata = map.metadata.expect("metadata");
    assert_eq!((what.as_str(), metadata.name, map.data.len()), ("BOOKMARK", None, 0));
    assert_eq!(metadata.annotations["k8s.io/initial-events-end"], "true");
    let _changed: ConfigMap = speaker.ask("PUT", &format!("{MAPS}/w"), sent("w", "2")).await.read(200, "ConfigMap");
    let _gone: Status = speaker.ask("DELETE", &format!("{MAPS}/w"), vec![]).await.read(200, "Status");
    for expected in ["MODIFIED", "DELETED"] {
        let (what, map) = watching.next_map().await;
        assert_eq!((what.as_str(), map.data["key"].as_str()), (expected, "2"));
    }
}

async fn is_refused(speaker: &Speaker) {
    let refused =
        async |method: &str, path: &str, body: Vec<u8>, code| speaker.ask(method, path, body).await.refusal(code);
    let (reason, message) = refused("GET", &format!("{MAPS}/none"), vec![], 404).await;
    assert_eq!((reason.as_str(), message.as_str()), ("NotFound", "configmaps \"none\" not found"));
    let answer = speaker.ask("POST", MAPS, sent("No Name", "1")).await;
    let status: Status = answer.read(422, "Status");
    let causes = status.details.expect("details").causes;
    assert_eq!(causes[0].field.as_deref(), Some("metadata.name"));
    assert_eq!(causes[0].reason.as_deref(), Some("FieldValueInvalid"));
    // Bodies that are none, end too early, or are of another kind.
    let whole = sent("b", "1");
    for (body, code) in [
        (b"{}".to_vec(), 400),
        (whole[..whole.len() - 3].to_vec(), 400),
        ([MAGIC, &[0xff; 40]].concat(), 400),
        (enveloped("v1", "Secret", &config_map("b", "1")), 400),
        (enveloped("v2", "ConfigMap", &config_map("b", "1")), 400),
    ] {
        let (reason, _) = refused("POST", MAPS, body, code).await;
        assert_eq!(reason, "BadRequest");
    }
    refused("GET", &format!("{MAPS}/b"), vec![], 404).await;
    let (reason, message) = refused("PATCH", &format!("{MAPS}/b"), whole, 415).await;
    assert_eq!(reason, "UnsupportedMediaType");
    assert!(message.contains("application/merge-patch+json"), "{message}");
}

async fn reviews_and_scales(speaker: &Speaker) {
    let of = |text: &str| Some(text.to_owned());
    let attributes = ResourceAttributes { namespace: of("default"), verb: of("delete"), resource: of("pods") };
    let spec = Some(AccessReviewSpec { resource_attributes: Some(attributes) });
    let review = enveloped("authorization.k8s.io/v1", "SelfSubjectAccessReview", &AccessReview { spec, status: None });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review: AccessReview = speaker.ask("POST", path, review).await.read(201, "SelfSubjectAccessReview");
    assert_eq!(review.status.expect("a status").allowed, Some(true));

    let deployment = serde_json::json!({"metadata": {"name": "scaled"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"app": "scaled"}},
        "template": {"metadata": {"labels": {"app": "scaled"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployment: Deployment = serde_json::from_value(deployment).expect("a deployment");
    let deployments = Api::<Deployment>::default_namespaced(speaker.0.clone());
    deployments.create(&PostParams::default(), &deployment).await.expect("a deployment");
    let path = "/apis/apps/v1/namespaces/default/deployments/scaled/scale";
    let mut scale: Scale = speaker.ask("GET", path, vec![]).await.read(200, "Scale");
    assert_eq!(scale.spec.as_ref().map(|spec| spec.replicas.unwrap_or_default()), Some(0));
    scale.spec = Some(ScaleSpec { replicas: Some(2) });
    // Whatever the controller has written of the Deployment meanwhile.
    scale.metadata.as_mut().expect("metadata").resource_version = None;
    let body = enveloped("autoscaling/v1", "Scale", &scale);
    let scale: Scale = speaker.ask("PUT", path, body).await.read(200, "Scale");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(2));
}
