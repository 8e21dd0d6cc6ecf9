//! kube: typed and untyped objects, discovery, reflectors, a controller with a finalizer, and its events.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service},
    events::v1::Event as StoredEvent,
};
use kube::{
    Api, Client, Error, Resource as _, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::{GroupVersionKind, PartialObjectMeta},
    discovery::{Discovery, Scope, verbs},
    runtime::{
        Controller, WatchStreamExt as _,
        controller::Action,
        events::{Event, EventType, Recorder},
        finalizer::{Event as Finalized, finalizer},
        reflector::{self, ObjectRef, Store},
        wait::{await_condition, conditions},
        watcher,
    },
};
use serde_json::json;

use crate::PATIENCE;

fn config_map(name: &str, labels: &[(&str, &str)], value: &str) -> ConfigMap {
    let pairs = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>())
    };
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels: pairs(labels), ..ObjectMeta::default() };
    ConfigMap { metadata, data: pairs(&[("key", value)]), ..ConfigMap::default() }
}

fn key_of(map: &ConfigMap) -> &str {
    map.data.as_ref().and_then(|data| data.get("key")).map_or("", String::as_str)
}

/// Waits until a condition holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Does it all.
pub(crate) async fn walk(client: &Client) {
    finds_what_there_is(client).await;
    writes_and_is_refused(client).await;
    reflects(client, watcher::Config::default()).await;
    reflects(client, watcher::Config::default().streaming_lists()).await;
    reflects_metadata(client).await;
    controls(client).await;
}

/// Discovery, plain and aggregated, says the same.
async fn finds_what_there_is(client: &Client) {
    let plain = Discovery::new(client.clone()).run().await.expect("discovery");
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.expect("aggregated discovery");
    let names = |discovery: &Discovery| {
        let mut names = Vec::new();
        for group in discovery.groups() {
            names.extend(group.resources_by_stability().into_iter().map(|(resource, capabilities)| {
                (group.name().to_owned(), resource.version, resource.plural, capabilities.scope == Scope::Namespaced)
            }));
        }
        names.sort();
        names
    };
    assert_eq!(names(&plain), names(&aggregated));
    let gvk = GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, capabilities) = aggregated.resolve_gvk(&gvk).expect("deployments");
    assert!(capabilities.supports_operation(verbs::WATCH) && capabilities.scope == Scope::Namespaced);
    let untyped: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    assert!(untyped.list(&ListParams::default()).await.expect("a list").items.is_empty());
    let version = client.apiserver_version().await.expect("a version");
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
}

fn deployment() -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    }))
    .expect("a deployment")
}

fn code_of<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.reason),
        other => panic!("not refused: {other:?}"),
    }
}

/// Every verb on typed objects, subresources, and errors that say what they are.
async fn writes_and_is_refused(client: &Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let made = deployments.create(&PostParams::default(), &deployment()).await.expect("a deployment");
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let again = deployments.create(&PostParams::default(), &deployment()).await;
    assert_eq!(code_of(again), (409, "AlreadyExists".to_owned()));
    let mut stale = made.clone();
    let patch = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"minReadySeconds": 5}});
    let made = deployments.patch("web", &PatchParams::apply("rust"), &Patch::Apply(&patch)).await.expect("an apply");
    assert_eq!(made.spec.as_ref().expect("a spec").min_ready_seconds, Some(5));
    let taken = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"minReadySeconds": 6}});
    let refused = deployments.patch("web", &PatchParams::apply("other"), &Patch::Apply(&taken)).await;
    assert_eq!(code_of(refused), (409, "Conflict".to_owned()));
    stale.spec.as_mut().expect("a spec").paused = Some(true);
    let refused = deployments.replace("web", &PostParams::default(), &stale).await;
    assert_eq!(code_of(refused), (409, "Conflict".to_owned()));
    let merge = json!({"spec": {"paused": true}});
    let made = deployments.patch("web", &PatchParams::default(), &Patch::Merge(&merge)).await.expect("a patch");
    assert_eq!(made.spec.expect("a spec").paused, Some(true));
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}});
    let patch = Patch::Strategic(&strategic);
    let made = deployments.patch("web", &PatchParams::default(), &patch).await.expect("a patch");
    assert_eq!(made.spec.expect("a spec").template.spec.expect("a pod").containers[0].image.as_deref(), Some("j"));
    let scaled = json!({"spec": {"replicas": 0}});
    let scale = deployments.patch_scale("web", &PatchParams::default(), &Patch::Merge(&scaled)).await.expect("a scale");
    assert_eq!(scale.spec.expect("a spec").replicas, None, "0 is not printed");
    let unknown = PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..<_>::default() };
    let refused = deployments.patch("web", &unknown, &Patch::Merge(&json!({"spec": {"nonsense": 1}}))).await;
    assert_eq!(code_of(refused).0, 422);
    let bad: Service = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"ports": []}})).expect("it");
    let refused = Api::<Service>::default_namespaced(client.clone()).create(&PostParams::default(), &bad).await;
    assert_eq!(code_of(refused), (422, "Invalid".to_owned()));
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    assert!(pods.get_opt("none").await.expect("no error").is_none());
    assert_eq!(code_of(pods.logs("none", &<_>::default()).await), (404, "NotFound".to_owned()));
    let uid = made_uid(&deployments).await;
    deployments.delete("web", &DeleteParams::foreground()).await.expect("a delete");
    let gone = await_condition(deployments.clone(), "web", conditions::is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone).await.expect("it goes").expect("a watch");
}

async fn made_uid(deployments: &Api<Deployment>) -> String {
    deployments.get("web").await.expect("the deployment").uid().expect("a uid")
}

fn values(store: &Store<ConfigMap>) -> Vec<(String, String)> {
    let mut values: Vec<_> = store.state().iter().map(|map| (map.name_any(), key_of(map).to_owned())).collect();
    values.sort();
    values
}

/// A reflector's store becomes what the cluster holds, and follows.
async fn reflects(client: &Client, config: watcher::Config) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let labels: &[(&str, &str)] = &[("by", "reflector")];
    let make = async |name: &str| {
        maps.create(&PostParams::default(), &config_map(name, labels, "1")).await.expect("a config map");
    };
    make("there").await;
    let (store, writer) = reflector::store();
    let stream = watcher(maps.clone(), config.labels("by=reflector")).default_backoff();
    let following = tokio::spawn(reflector::reflector(writer, stream).for_each(|_| async {}));
    tokio::time::timeout(PATIENCE, store.wait_until_ready()).await.expect("it is ready").expect("its writer");
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(values(&store), [pair("there", "1")]);
    make("new").await;
    let change = json!({"data": {"key": "2"}});
    maps.patch("there", &PatchParams::default(), &Patch::Merge(&change)).await.expect("a patch");
    let both = [pair("new", "1"), pair("there", "2")];
    until("the store follows", || values(&store) == both).await;
    assert!(store.get(&ObjectRef::new("new").within("default")).is_some());
    let relabelled = json!({"metadata": {"labels": {"by": "another"}}});
    maps.patch("new", &PatchParams::default(), &Patch::Merge(&relabelled)).await.expect("a patch");
    until("what no longer fits is gone", || values(&store) == both[1..]).await;
    maps.delete("there", &DeleteParams::default()).await.expect("a delete");
    until("what is deleted is gone", || store.is_empty()).await;
    maps.delete("new", &DeleteParams::default()).await.expect("a delete");
    following.abort();
}

/// Metadata alone, for those who need no more.
async fn reflects_metadata(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &config_map("head", &[("by", "head")], "1")).await.expect("a config map");
    let (store, writer) = reflector::store::<PartialObjectMeta<ConfigMap>>();
    let heads: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(client.clone());
    let stream = watcher(heads, watcher::Config::default().labels("by=head")).default_backoff();
    let following = tokio::spawn(reflector::reflector(writer, stream).for_each(|_| async {}));
    tokio::time::timeout(PATIENCE, store.wait_until_ready()).await.expect("it is ready").expect("its writer");
    assert_eq!(store.state()[0].labels()["by"], "head");
    maps.delete("head", &DeleteParams::default()).await.expect("a delete");
    until("it is gone", || store.is_empty()).await;
    following.abort();
}

/// What the controller works with.
struct World {
    client: Client,
    recorder: Recorder,
    cleaned: AtomicUsize,
}

/// Keeps a copy of each parent, and cleans up behind it.
async fn reconcile(
    parent: Arc<ConfigMap>,
    world: Arc<World>,
) -> Result<Action, kube::runtime::finalizer::Error<Error>> {
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client.clone());
    let event = |reason: &str| Event {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: None,
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    finalizer(&maps.clone(), "example.com/tidy", parent, async |found| {
        match found {
            Finalized::Apply(parent) => {
                let name = format!("{}-copy", parent.name_any());
                let mut copy = config_map(&name, &[("by", "copies")], key_of(&parent));
                copy.metadata.owner_references = parent.controller_owner_ref(&()).map(|owner| vec![owner]);
                maps.patch(&name, &PatchParams::apply("copier").force(), &Patch::Apply(&copy)).await?;
                world.recorder.publish(&event("Copied"), &parent.object_ref(&())).await?;
            }
            Finalized::Cleanup(_) => {
                world.cleaned.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Action::await_change())
    })
    .await
}

async fn controls(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let recorder = Recorder::new(client.clone(), "copier".into());
    let world = Arc::new(World { client: client.clone(), recorder, cleaned: AtomicUsize::new(0) });
    let controller = Controller::new(maps.clone(), watcher::Config::default().labels("by=parents"))
        .owns(maps.clone(), watcher::Config::default().labels("by=copies"))
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::clone(&world));
    let running = tokio::spawn(controller.for_each(|_| async {}));

    let is_copy = |value: &'static str| move |found: Option<&ConfigMap>| found.is_some_and(|map| key_of(map) == value);
    let copied = async |value| {
        let found = await_condition(maps.clone(), "p-copy", is_copy(value));
        tokio::time::timeout(PATIENCE, found).await.expect("a copy").expect("a watch").expect("the copy")
    };
    maps.create(&PostParams::default(), &config_map("p", &[("by", "parents")], "1")).await.expect("a parent");
    let copy = copied("1").await;
    // What is deleted is made again, what is changed follows.
    maps.delete("p-copy", &DeleteParams::default()).await.expect("a delete");
    let uid = copy.uid().expect("a uid");
    let gone = await_condition(maps.clone(), "p-copy", conditions::is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone).await.expect("it goes").expect("a watch");
    copied("1").await;
    let change = json!({"data": {"key": "2"}});
    maps.patch("p", &PatchParams::default(), &Patch::Merge(&change)).await.expect("a patch");
    copied("2").await;
    let events: Api<StoredEvent> = Api::default_namespaced(client.clone());
    let about = ListParams::default().fields("regarding.name=p,reason=Copied");
    let told = events.list(&about).await.expect("events");
    assert!(told.items.iter().any(|event| event.reporting_controller.as_deref() == Some("copier")), "{told:?}");

    maps.delete("p", &DeleteParams::default()).await.expect("a delete");
    let left = async |name: &str| maps.get_opt(name).await.expect("an answer").is_some();
    let going = async {
        while left("p").await || left("p-copy").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, going).await.expect("the parent goes, and its copy with it");
    assert!(world.cleaned.load(Ordering::Relaxed) > 0);
    running.abort();
}
