//! Clients in Rust in front of a cluster: `clients KUBECONFIG kube` has reflectors and a controller, `clients KUBECONFIG
//! protobuf` speaks protobuf alone. They panic where the cluster does not do what Kubernetes does.

mod controller;
mod protobuf;

use std::time::Duration;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How long a condition may take to come true on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(kubeconfig), Some(which)) = (args.next(), args.next()) else { panic!("usage: clients KUBECONFIG NAME") };
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    let client = Client::try_from(config).expect("a client");
    match which.as_str() {
        "kube" => controller::walk(&client).await,
        "protobuf" => protobuf::walk(&client).await,
        other => panic!("no client is called {other}"),
    }
    println!("walked");
}
