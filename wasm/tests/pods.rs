//! HTTP components as pods, over the real socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_cri::v1 as cri;
use support::{GUEST, HELLO, HOG, Node, SPIN, container, get, handler, limited};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_from_import_to_removal() {
    let mut node = Node::new().await;
    node.import("hello", HELLO);
    let sandbox = node.sandbox("web").await;
    let ip = node.ip(&sandbox.0).await;
    assert!(ip.starts_with("127."), "{ip}");
    let mut config = container("hello:latest", Some(8080));
    config.envs = vec![cri::KeyValue { key: "GREETING".into(), value: "Ahoy".into() }];
    let id = node.create(&sandbox, config).await.unwrap();
    assert_eq!(node.status(&id).await.state, i32::from(cri::ContainerState::ContainerCreated));
    node.start(&id).await.unwrap();

    let answer = get(&ip, 8080, "/deck").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Ahoy from") && answer.contains("/deck"), "{answer}");
    assert!(node.log(&id).await.iter().any(|line| line.starts_with("stdout F ") && line.contains("/deck")));
    let status = node.status(&id).await;
    assert_eq!(status.image.unwrap().image, "docker.io/library/hello:latest");
    assert!(status.image_ref.starts_with("docker.io/library/hello@sha256:"), "{}", status.image_ref);
    assert!(status.started_at >= status.created_at);

    node.stop_container(&id, 5).await;
    let status = node.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(tokio::net::TcpStream::connect((ip.as_str(), 8080)).await.is_err());
    for _ in 0..2 {
        node.stop_container(&id, 5).await;
        let request = cri::RemoveContainerRequest { container_id: id.clone() };
        node.client.remove_container(request).await.unwrap();
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.0.clone() };
        node.client.stop_pod_sandbox(request).await.unwrap();
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.0.clone() };
        node.client.remove_pod_sandbox(request).await.unwrap();
    }
    let request = cri::ContainerStatusRequest { container_id: id, verbose: false };
    assert_eq!(node.client.container_status(request).await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_port_on_two_addresses_but_once_on_one() {
    let mut node = Node::new().await;
    node.import("hello", HELLO);
    let (_, one) = node.pod("one", container("hello", Some(8080))).await;
    let (_, two) = node.pod("two", container("hello", Some(8080))).await;
    assert_ne!(one, two);
    for ip in [one, two] {
        assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
    }
    let sandbox = node.sandbox("three").await;
    let first = node.create(&sandbox, container("hello", Some(8080))).await.unwrap();
    node.start(&first).await.unwrap();
    let mut config = container("hello", Some(8080));
    config.metadata = Some(cri::ContainerMetadata { name: "other".into(), attempt: 0 });
    let second = node.create(&sandbox, config).await.unwrap();
    let error = node.start(&second).await.unwrap_err();
    assert!(error.message().contains("another container of the pod"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_request_fails_alone() {
    let mut node = Node::new().await;
    node.import("trap", &handler("unreachable"));
    node.import("silent", &handler(""));
    let (trap, ip) = node.pod("trap", container("trap", Some(8080))).await;
    for _ in 0..3 {
        assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 500"));
    }
    assert_eq!(node.status(&trap).await.state, i32::from(cri::ContainerState::ContainerRunning));
    let log = node.log(&trap).await.join("\n");
    assert!(log.contains("stderr F request failed: wasm trap: wasm `unreachable` instruction executed"), "{log}");
    let (_, ip) = node.pod("silent", container("silent", Some(8080))).await;
    assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 500"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spinning_pod_does_not_hold_up_others_and_ends_by_force() {
    let mut node = Node::new().await;
    node.import("spin", &handler(SPIN));
    node.import("hello", HELLO);
    let (spin, ip) = node.pod("spin", container("spin", Some(8080))).await;
    let (_, neighbour) = node.pod("calm", container("hello", Some(8080))).await;
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let ip = ip.clone();
            tokio::spawn(async move { get(&ip, 8080, "/").await })
        })
        .collect();
    let began = Instant::now();
    for _ in 0..5 {
        assert!(get(&neighbour, 8080, "/").await.starts_with("HTTP/1.1 200"));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let request = cri::ContainerStatsRequest { container_id: spin.clone() };
    let stats = node.client.container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value >= 65536);

    node.stop_container(&spin, 1).await;
    assert_eq!(node.status(&spin).await.exit_code, 137);
    for task in stuck {
        assert!(!task.await.unwrap().starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_let_finish() {
    let mut node = Node::new().await;
    // Some hundred milliseconds of work, then a trap: the answer is 500, and it comes.
    let work = "(loop $again (local.set 2 (i64.add (local.get 2) (i64.const 1)))
        (br_if $again (i64.lt_u (local.get 2) (i64.const 1500000000)))) unreachable";
    node.import("slow", &handler(work));
    let (slow, ip) = node.pod("slow", container("slow", Some(8080))).await;
    let request = tokio::spawn(async move { get(&ip, 8080, "/").await });
    let deadline = Instant::now() + support::DEADLINE;
    loop {
        let request = cri::ContainerStatsRequest { container_id: slow.clone() };
        let stats = node.client.container_stats(request).await.unwrap().into_inner().stats.unwrap();
        if stats.memory.unwrap().working_set_bytes.unwrap().value > 0 {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    node.stop_container(&slow, 30).await;
    assert_eq!(node.status(&slow).await.exit_code, 0);
    assert!(request.await.unwrap().starts_with("HTTP/1.1 500"));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_memory_than_the_limit_is_oomkilled() {
    let mut node = Node::new().await;
    node.import("hog", &handler(HOG));
    let (hog, ip) = node.pod("hog", limited("hog", Some(8080), 4 << 20)).await;
    assert!(!get(&ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
    let status = node.ended(&hog).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_a_containers_life() {
    let mut node = Node::new().await;
    node.import("hello", HELLO);
    let mut events = node.client.get_container_events(cri::GetEventsRequest {}).await.unwrap().into_inner();
    let (id, _) = node.pod("web", container("hello", Some(8080))).await;
    node.stop_container(&id, 5).await;
    let request = cri::RemoveContainerRequest { container_id: id.clone() };
    node.client.remove_container(request).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = tokio::time::timeout(support::DEADLINE, events.next()).await.unwrap().unwrap().unwrap();
        if event.container_id == id {
            assert!(event.pod_sandbox_status.is_some());
            seen.push(event.container_event_type);
        }
    }
    assert_eq!(seen, [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_quickly() {
    const PODS: usize = 200;
    let mut node = Node::new().await;
    node.import("hello", HELLO);
    let (_, first) = node.pod("first", container("hello", Some(8080))).await;
    get(&first, 8080, "/").await;
    let (memory, began) = (resident_kb(), Instant::now());
    let mut ips = Vec::new();
    let mut slowest = Duration::ZERO;
    for n in 0..PODS {
        let one = Instant::now();
        ips.push(node.pod(&format!("pod-{n}"), container("hello", Some(8080))).await.1);
        slowest = slowest.max(one.elapsed());
    }
    let took = began.elapsed();
    let per_pod = (resident_kb() - memory) / PODS as i64;
    println!("{PODS} pods in {took:?}, slowest {slowest:?}, {per_pod} kB a pod (test client included)");
    for ip in &ips {
        assert!(get(ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
    }
    println!("after a request each: {} kB a pod", (resident_kb() - memory) / PODS as i64);
    assert!(took < Duration::from_secs(20), "{took:?}");
    let mut to_answer = Vec::new();
    for n in 0..21 {
        let one = Instant::now();
        let (_, ip) = node.pod(&format!("timed-{n}"), container("hello", Some(8080))).await;
        assert!(get(&ip, 8080, "/").await.starts_with("HTTP/1.1 200"));
        to_answer.push(one.elapsed());
    }
    to_answer.sort();
    println!("from nothing to the first answer: median {:?}, slowest {:?}", to_answer[10], to_answer[20]);
    let took = node.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

fn resident_kb() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A server that answers with its client's address; how many connections it has taken.
async fn who_asks() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = taken.clone();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let (reading, mut writing) = stream.into_split();
                let mut lines = tokio::io::BufReader::new(reading).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let text = peer.ip().to_string();
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    if line.is_empty() && writing.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (at, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn outgoing_requests_come_from_the_pods_address_over_kept_connections() {
    let mut node = Node::new().await;
    node.import("guest", GUEST);
    let (_, ip) = node.pod("asks", container("guest", Some(8080))).await;
    let (at, taken) = who_asks().await;
    for _ in 0..5 {
        let answer = get(&ip, 8080, &format!("/fetch?{at}/")).await;
        assert!(answer.contains(&format!("200 to its end: {ip}")), "{answer}");
    }
    assert!(taken.load(Ordering::Relaxed) < 5, "instances share connections");
    // Nobody is there: told, and nothing else happens.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = get(&ip, 8080, &format!("/fetch?{closed}/")).await;
    assert!(answer.contains("failed: ") && answer.contains("ConnectionRefused"), "{answer}");
}
