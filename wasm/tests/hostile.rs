//! Guests and clients that mean harm: they fail alone, neighbours answer, and nothing grows without bound.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Instant;

use k8s_cri::v1 as cri;
use support::{DEADLINE, HELLO, Node, command, container, get, handler};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What an evil component's pod and its neighbour are asked.
async fn beside_a_neighbour(evil: &[u8], requests: usize) {
    let mut node = Node::new().await;
    node.import("evil", evil);
    node.import("hello", HELLO);
    let (evil, ip) = node.pod("evil", container("evil", Some(8080))).await;
    let (_, neighbour) = node.pod("calm", container("hello", Some(8080))).await;
    for _ in 0..requests {
        let (answer, calm) = tokio::join!(get(&ip, 8080, "/"), get(&neighbour, 8080, "/"));
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
        assert!(calm.starts_with("HTTP/1.1 200"), "{calm}");
    }
    assert_eq!(node.status(&evil).await.state, i32::from(cri::ContainerState::ContainerRunning));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_traps() {
    beside_a_neighbour(&handler("unreachable"), 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_recursion() {
    let recursion = handler("(call 0 (local.get 0) (local.get 1))");
    beside_a_neighbour(&recursion, 5).await;
}

/// A command that takes too much of something and must then end by itself, or be refused at its creation.
async fn ends_or_is_refused(wat: &str) -> Option<cri::ContainerStatus> {
    let mut node = Node::new().await;
    node.import("evil", wat.as_bytes());
    node.import("hello", HELLO);
    let (_, neighbour) = node.pod("calm", container("hello", Some(8080))).await;
    let sandbox = node.sandbox("evil").await;
    let ended = match node.create(&sandbox, container("evil", None)).await {
        Ok(id) => {
            node.start(&id).await.unwrap();
            Some(node.ended(&id).await)
        }
        Err(_) => None,
    };
    assert!(get(&neighbour, 8080, "/").await.starts_with("HTTP/1.1 200"));
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_grows_without_end() {
    let grows = r#"(module (table $t 1 funcref) (memory (export "memory") 1)
        (func (export "_start")
          (loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1))))))"#;
    let ended = ends_or_is_refused(grows).await.expect("it is well-formed");
    assert_eq!(ended.exit_code, 0, "the table is refused more, and the guest ends: {}", ended.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_and_a_table_that_are_too_large_from_the_beginning() {
    let table = r#"(module (table 90000000 funcref) (memory (export "memory") 1) (func (export "_start")))"#;
    if let Some(ended) = ends_or_is_refused(table).await {
        assert_ne!(ended.exit_code, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_bytes() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox("pod").await;
    let whole = wat::parse_bytes(&handler("unreachable")).unwrap().into_owned();
    for at in [8, 9, 20, whole.len() / 2, whole.len() - 1] {
        let mut forged = whole.clone();
        forged[at] ^= 0x55;
        let file = node.dir.join("forged.wasm");
        std::fs::write(&file, &forged).unwrap();
        if node.store().import(&file, Some("forged")).is_ok() {
            // Whatever comes of it, the runtime lives.
            if let Ok(id) = node.create(&sandbox, container("forged", Some(8080))).await {
                node.client.remove_container(cri::RemoveContainerRequest { container_id: id }).await.unwrap();
            }
        }
    }
    // Compiled code is no component: what another engine made is not run.
    let file = node.dir.join("native.wasm");
    std::fs::write(&file, [b"\x7fELF".as_slice(), &[0; 200]].concat()).unwrap();
    assert!(node.store().import(&file, Some("native")).is_err());
    node.import("hello", HELLO);
    let (_, ip) = node.pod("after", container("hello", Some(8080))).await;
    assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_too_much_or_nothing() {
    let mut node = Node::new().await;
    node.import("hello", HELLO);
    let (_, ip) = node.pod("web", container("hello", Some(8080))).await;
    // Connections that say nothing.
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect((ip.as_str(), 8080)).await.unwrap());
    }
    // A head without end, and one of very many headers: both are told off and closed.
    for piece in ["x".repeat(1000), "a: b\r\n".repeat(200)] {
        let mut stream = TcpStream::connect((ip.as_str(), 8080)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nlong: ").await.unwrap();
        let mut answer = Vec::new();
        let (mut reading, mut writing) = stream.split();
        let flood = async {
            let began = Instant::now();
            while writing.write_all(piece.as_bytes()).await.is_ok() {
                assert!(began.elapsed() < DEADLINE, "it is never told off");
            }
        };
        // The connection may be reset before the answer is read.
        let _ = tokio::join!(flood, reading.read_to_end(&mut answer));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_log_lines_holds_up_nobody() {
    let mut node = Node::new().await;
    node.import("hello", HELLO);
    let flood = "(loop $again (call $write (i32.const 1) (i32.const 8)) (br $again))";
    node.import("flood", &command("flooded\\n", flood));
    let (flood, _) = node.pod("flood", container("flood", None)).await;
    let (_, neighbour) = node.pod("calm", container("hello", Some(8080))).await;
    for _ in 0..20 {
        assert!(get(&neighbour, 8080, "/").await.starts_with("HTTP/1.1 200"));
    }
    node.stop_container(&flood, 5).await;
    let log = node.log(&flood).await;
    assert!(log.iter().all(|line| line == "stdout F flooded"), "lines are whole");
}
