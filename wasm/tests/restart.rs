//! What a restarted runtime knows, and that there is one runtime a folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use k8s_cri::v1 as cri;
use skiff_wasm::{Config, RuntimeError};
use support::{HELLO, Node, SPIN, command, container, get};

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_no_container() {
    let mut node = Node::new().await;
    node.import("hello", HELLO);
    node.import("done", &command("", ""));
    let (web, _) = node.pod("web", container("hello", Some(8080))).await;
    let (done, _) = node.pod("done", container("done", None)).await;
    node.ended(&done).await;

    // What a killed runtime leaves: its folder as it is at this moment.
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-r").arg(node.root()).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let mut after = Node::at(copy.path()).await;
    let status = after.status(&web).await;
    assert_eq!(status.state, i32::from(cri::ContainerState::ContainerExited));
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    assert!(status.message.contains("restarted"), "{}", status.message);
    assert_eq!(after.status(&done).await.exit_code, 0);
    let items =
        after.client.list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }).await.unwrap().into_inner().items;
    assert_eq!(items.len(), 2);
    assert!(items.iter().all(|item| item.state == i32::from(cri::PodSandboxState::SandboxNotready)));

    // The old attempt is cleaned away and the next one runs, from images and compiled code that are still there.
    for item in items {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: item.id };
        after.client.remove_pod_sandbox(request).await.unwrap();
    }
    node.stop().await;
    let (_, ip) = after.pod("web", container("hello", Some(8080))).await;
    assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_runtime_ends_its_guests_and_says_so() {
    let mut node = Node::new().await;
    node.import("spin", &command("", SPIN));
    let (spin, _) = node.pod("spin", container("spin", None)).await;
    let took = node.stop().await;
    assert!(took.as_millis() < 1500, "{took:?}");
    let mut after = Node::at(&node.dir).await;
    let status = after.status(&spin).await;
    assert_eq!(status.exit_code, 137);
    assert_eq!(status.message, "the Wasm runtime was stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_runtime_a_folder() {
    let node = Node::new().await;
    let socket = node.dir.join("other.sock");
    let config = Config { socket, root: node.root(), registries: None, exit_on_stdin_close: false };
    let error = skiff_wasm::run(config, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RuntimeError::InUse { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_for_the_network_once_there_is_a_range() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::at(dir.path()).await;
    let network = async |node: &mut Node| {
        let status = node.client.status(cri::StatusRequest { verbose: true }).await.unwrap().into_inner();
        let conditions = status.status.unwrap().conditions;
        conditions.into_iter().find(|condition| condition.r#type == "NetworkReady").unwrap().status
    };
    assert!(!network(&mut node).await);
    let request = cri::RunPodSandboxRequest {
        config: Some(support::sandbox_config("a", dir.path())),
        runtime_handler: "wasm".into(),
    };
    assert!(node.client.run_pod_sandbox(request).await.unwrap_err().message().contains("no pod range"));
    let config = cri::RuntimeConfig { network_config: Some(cri::NetworkConfig { pod_cidr: "127.71.0.0/24".into() }) };
    let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(config) };
    node.client.update_runtime_config(request).await.unwrap();
    assert!(network(&mut node).await);
    node.stop().await;
    assert!(network(&mut Node::at(dir.path()).await).await);
}
