//! Which API servers there are, where several share a datastore: each keeps a Lease, as Kubernetes' do, and the
//! endpoints of the Service `kubernetes` are those whose Leases hold. Pods reach a server by it, and nodes learn from it
//! where to open their tunnels.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{EndpointAddress, Endpoints},
        discovery::v1::{Endpoint, EndpointConditions, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, MicroTime, ObjectMeta},
};
use serde_json::json;
use skiff_api::{
    request::{ContentType, Options},
    status::ApiError,
};
use skiff_client::Client;
use tokio_util::sync::CancellationToken;

/// Where the Leases are.
const NAMESPACE: &str = "kube-system";
/// The label of the API servers' Leases, and its value (KEP-1965).
const LABEL: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
/// How long a Lease holds.
const HOLDS: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// How long a Lease that no longer holds is kept.
const FORGET: Duration = Duration::from_secs(3600);
/// The Service, its Endpoints and its EndpointSlice.
const SERVICE: (&str, &str) = ("default", "kubernetes");

/// Keeps this server among the endpoints, and takes lost ones out, until cancelled.
pub(crate) async fn run(client: Client, own: Ipv4Addr, cancel: CancellationToken) {
    loop {
        if let Some(Err(error)) = cancel.run_until_cancelled(pass(&client, own)).await {
            tracing::warn!(%error, "the API servers' endpoints could not be looked after");
        }
        if cancel.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_none() {
            return;
        }
    }
}

async fn pass(client: &Client, own: Ipv4Addr) -> Result<(), ApiError> {
    renew(client, own).await?;
    let selector = Some(format!("{}={}", LABEL.0, LABEL.1));
    let options = Options { label_selector: selector, ..Options::default() };
    let leases = client.list::<Lease>(Some(NAMESPACE), &options).await?.items;
    let now = Timestamp::now();
    for lease in leases.iter().filter(|lease| silent(lease, now).is_none_or(|silent| silent > FORGET)) {
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        client.delete::<Lease>(NAMESPACE, name, &DeleteOptions::default()).await?;
    }
    publish(client, &alive(&leases, own, now)).await
}

fn lease_name(own: Ipv4Addr) -> String {
    format!("apiserver-{}", own.to_string().replace('.', "-"))
}

async fn renew(client: &Client, own: Ipv4Addr) -> Result<(), ApiError> {
    let spec = LeaseSpec {
        holder_identity: Some(own.to_string()),
        lease_duration_seconds: i32::try_from(HOLDS.as_secs()).ok(),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let (name, patch) = (lease_name(own), json!({"spec": spec}));
    match client.patch::<Lease>(NAMESPACE, &name, None, ContentType::MergePatch, &patch).await {
        Err(error) if error.is_not_found() => {}
        other => return other.map(drop),
    }
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into()),
        ..ObjectMeta::default()
    };
    client.create(&Lease { metadata, spec: Some(spec) }).await.map(drop)
}

/// For how long nothing has been heard of a server; `None` where never anything was.
fn silent(lease: &Lease, now: Timestamp) -> Option<Duration> {
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?.0;
    Some(Duration::try_from(now.duration_since(renewed)).unwrap_or_default())
}

/// The servers that are there.
fn alive(leases: &[Lease], own: Ipv4Addr, now: Timestamp) -> BTreeSet<Ipv4Addr> {
    let holds = |lease: &&Lease| silent(lease, now).is_some_and(|silent| silent < HOLDS);
    let address = |lease: &Lease| lease.spec.as_ref()?.holder_identity.as_ref()?.parse().ok();
    leases.iter().filter(holds).filter_map(address).chain([own]).collect()
}

/// Writes who is there, where that is not what is written. Two that write at once see a conflict, and look again.
async fn publish(client: &Client, servers: &BTreeSet<Ipv4Addr>) -> Result<(), ApiError> {
    let mut slice = client.get::<EndpointSlice>(SERVICE.0, SERVICE.1).await?;
    let there = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    if there.filter_map(|text| text.parse().ok()).collect::<BTreeSet<Ipv4Addr>>() == *servers {
        return Ok(());
    }
    let endpoint = |address: &Ipv4Addr| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    slice.endpoints = Some(servers.iter().map(endpoint).collect());
    client.update(&slice).await?;
    let mut endpoints = client.get::<Endpoints>(SERVICE.0, SERVICE.1).await?;
    let address = |address: &Ipv4Addr| EndpointAddress { ip: address.to_string(), ..EndpointAddress::default() };
    if let Some(subset) = endpoints.subsets.iter_mut().flatten().next() {
        subset.addresses = Some(servers.iter().map(address).collect());
        client.update(&endpoints).await?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::ToSpan as _;
    use skiff_client::fake::FakeApi;

    use super::*;

    #[tokio::test]
    async fn servers_come_and_go() {
        let client = FakeApi::new().client();
        let metadata = json!({"name": SERVICE.1, "namespace": SERVICE.0});
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": metadata, "addressType": "IPv4", "ports": [{"port": 6443}],
            "endpoints": [{"addresses": ["10.0.0.9"]}],
        }))
        .unwrap();
        let endpoints: Endpoints = serde_json::from_value(json!({
            "metadata": metadata, "subsets": [{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 6443}]}],
        }))
        .unwrap();
        client.create(&slice).await.unwrap();
        client.create(&endpoints).await.unwrap();
        let (one, two): (Ipv4Addr, Ipv4Addr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        pass(&client, one).await.unwrap();
        pass(&client, two).await.unwrap();
        let written = client.get::<Endpoints>(SERVICE.0, SERVICE.1).await.unwrap().subsets.unwrap();
        let ips: Vec<String> = written[0].addresses.iter().flatten().map(|address| address.ip.clone()).collect();
        assert_eq!(ips, ["10.0.0.1", "10.0.0.2"]);

        let leases = client.list::<Lease>(Some(NAMESPACE), &Options::default()).await.unwrap().items;
        let at = |seconds: i64| alive(&leases, one, Timestamp::now() + seconds.seconds()).len();
        assert_eq!((at(0), at(29), at(31)), (2, 2, 1), "a silent one is taken out, and nobody takes out himself");
    }
}
