//! Commands as pods: exit codes, logs, and what cannot run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use support::{HOG, Node, SPIN, command, container, limited};
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_logs() {
    let mut node = Node::new().await;
    let print = "(call $write (i32.const 1) (i32.const 4)) (call $write (i32.const 2) (i32.const 3))";
    for (name, body, code, reason, message) in [
        ("fine", print.to_owned(), 0, "Completed", ""),
        ("three", format!("{print} (call $exit (i32.const 3))"), 3, "Error", ""),
        ("trap", format!("{print} unreachable"), 134, "Error", "wasm trap: wasm `unreachable` instruction executed"),
    ] {
        node.import(name, &command("out\\n", &body));
        let (id, _) = node.pod(name, container(name, None)).await;
        let status = node.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}: {}", status.message);
        assert!(status.message.starts_with(message), "{name}: {}", status.message);
        assert!(status.finished_at >= status.started_at && status.started_at > 0);
        let log = node.log(&id).await;
        assert_eq!(log.first().map(String::as_str), Some("stdout F out"), "{name}: {log:?}");
        assert!(log.contains(&"stderr F out".to_owned()), "{name}: {log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_command_ends_at_once_when_stopped() {
    let mut node = Node::new().await;
    node.import("spin", &command("", SPIN));
    let (gentle, _) = node.pod("gentle", container("spin", None)).await;
    let (forced, _) = node.pod("forced", container("spin", None)).await;
    let began = std::time::Instant::now();
    node.stop_container(&gentle, 30).await;
    node.stop_container(&forced, 0).await;
    assert!(began.elapsed().as_secs() < 5);
    assert_eq!(node.status(&gentle).await.exit_code, 143);
    assert_eq!(node.status(&forced).await.exit_code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_memory_than_the_limit_is_oomkilled() {
    let mut node = Node::new().await;
    node.import("hog", &command("", HOG));
    let (hog, _) = node.pod("hog", limited("hog", None, 4 << 20)).await;
    let status = node.ended(&hog).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{}", status.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_said_at_creation() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox("pod").await;
    let import = r#"(component (import "foo:bar/baz@1.0.0" (instance (export "f" (func)))))"#;
    node.import("import", import.as_bytes());
    node.import("empty", b"(component)");
    node.import("library", b"(module (func (export \"f\")))");
    node.import("foreign", b"(module (import \"env\" \"f\" (func)) (func (export \"_start\")))");
    let file = node.dir.join("bad.wasm");
    std::fs::write(&file, b"\0asm\x0d\0\x01\0and then nonsense").unwrap();
    node.store().import(&file, Some("bad")).unwrap();
    for (image, message) in [
        ("import", "component imports \"foo:bar/baz@1.0.0\", which skiff does not offer"),
        ("empty", "there is nothing to run"),
        ("bad", "component does not compile"),
        ("library", "there is nothing to run; it exports f"),
        ("foreign", "component imports \"env::f\", which skiff does not offer"),
    ] {
        let error = node.create(&sandbox, container(image, None)).await.unwrap_err();
        assert!(error.message().contains(message), "{image}: {error}");
    }
    let error = node.create(&sandbox, container("absent", None)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound, "{error}");
}

/// A pod that listens at port 8080 of any address, for one connection, and prints what comes.
async fn listening(node: &mut Node, name: &str) -> (String, String) {
    let mut config = container("tools", None);
    config.command = ["nc", "-l", "8080"].map(str::to_owned).to_vec();
    node.pod(name, config).await
}

async fn say(ip: &str, text: &str) {
    let deadline = std::time::Instant::now() + support::DEADLINE;
    let mut stream = loop {
        match tokio::net::TcpStream::connect((ip, 8080)).await {
            Ok(stream) => break stream,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{ip}: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    stream.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn any_address_is_the_pods_own() {
    let mut node = Node::new().await;
    node.import("tools", include_bytes!("../tools/tools.wasm"));
    // Both could not listen at the same port of all addresses.
    let (one, first) = listening(&mut node, "one").await;
    let (two, second) = listening(&mut node, "two").await;
    say(&first, "to the first\n").await;
    say(&second, "to the second\n").await;
    for (id, said) in [(one, "stdout F to the first"), (two, "stdout F to the second")] {
        assert_eq!(node.ended(&id).await.exit_code, 0);
        assert_eq!(node.log(&id).await, [said]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_connects_to_sees_its_address() {
    let mut node = Node::new().await;
    node.import("tools", include_bytes!("../tools/tools.wasm"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config = container("tools", None);
    config.command = ["nc", "127.0.0.1", &port.to_string()].map(str::to_owned).to_vec();
    let (_, ip) = node.pod("client", config).await;
    let (_, from) = tokio::time::timeout(support::DEADLINE, listener.accept()).await.unwrap().unwrap();
    assert_eq!(from.ip().to_string(), ip);
}
