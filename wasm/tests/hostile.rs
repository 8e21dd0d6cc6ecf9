//! Guests and clients that mean harm: they fail alone, neighbours answer, and nothing grows without bound.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Instant;

use k8s_cri::v1 as cri;
use support::{Call, DEADLINE, GUEST, HELLO, Node, calls, command, container, get, handler, mounted};
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

/// Held by tests that look at what this process uses, so that they do not see one another.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// What the tests beside may use meanwhile.
const OTHERS_DESCRIPTORS: usize = 500;
const OTHERS_MIB: u64 = 512;

/// Descriptors of this process, of which a pod may take some.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_never_closed() {
    let _alone = ALONE.lock().await;
    let mut node = Node::new().await;
    let once = String::from_utf8(calls(&[Call::Open(3, "file", 1, 2)])).unwrap();
    let again = once.replace("(export \"_start\")", "(export \"_start\") (loop $again");
    let again = again.strip_suffix("))").unwrap().to_owned() + "(br $again))))";
    node.import("greedy", again.as_bytes());
    node.import("hello", HELLO);
    let (_, neighbour) = node.pod("calm", container("hello", Some(8080))).await;
    let folder = node.dir.join("volume");
    std::fs::create_dir(&folder).unwrap();
    let before = descriptors();
    let (greedy, _) = node.pod("greedy", mounted("greedy", &[(&folder, "/data", false)])).await;
    let ended = node.ended(&greedy).await;
    assert_eq!(ended.exit_code, 134, "{}", ended.message);
    assert!(descriptors() < before + OTHERS_DESCRIPTORS, "what it had open is closed");
    assert!(get(&neighbour, 8080, "/").await.starts_with("HTTP/1.1 200"));
}

/// The error numbers of preview 1 that refuse: access, invalid, exists, loop, no entry, not capable, permitted, read-only.
const REFUSALS: [&str; 8] = ["02", "20", "28", "32", "44", "63", "69", "76"];

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_out_of_a_volume() {
    let mut node = Node::new().await;
    let (data, fixed) = (node.dir.join("data"), node.dir.join("fixed"));
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::create_dir(&fixed).unwrap();
    std::fs::write(data.join("own"), "own").unwrap();
    std::fs::write(fixed.join("kept"), "kept").unwrap();
    std::fs::write(node.dir.join("secret"), "secret").unwrap();
    // Links that another, or an image, left in the volume.
    for (target, name) in [("../secret", "out"), ("/etc/passwd", "absolute"), ("/proc/self/root", "proc"), ("..", "up")]
    {
        std::os::unix::fs::symlink(target, data.join(name)).unwrap();
    }
    let refused = [
        Call::Open(3, "../secret", 0, 2),
        Call::Open(3, "/etc/passwd", 0, 2),
        Call::Open(3, "sub/../../secret", 0, 2),
        Call::Open(3, "out", 0, 2),
        Call::Open(3, "absolute", 0, 2),
        Call::Open(3, "proc/etc/passwd", 0, 2),
        Call::Open(3, "up/secret", 0, 2),
        Call::Open(3, "up/new", 1, 64),
        Call::Symlink("/etc/passwd", 3, "made"),
        Call::Link(3, "../secret", 3, "stolen"),
        Call::Link(3, "out", 3, "../linked"),
        Call::Rename(3, "../secret", 3, "stolen"),
        Call::Rename(3, "own", 3, "../moved"),
        Call::Rename(3, "own", 3, "up/moved"),
        Call::Unlink(3, "../secret"),
        Call::Unlink(3, "up/secret"),
        Call::Mkdir(3, "../folder"),
        // Over the border of a mount that is read-only.
        Call::Open(4, "kept", 0, 64),
        Call::Open(4, "kept", 8, 64),
        Call::Open(4, "new", 1, 64),
        Call::Link(4, "kept", 3, "writable"),
        Call::Rename(4, "kept", 3, "taken"),
        Call::Rename(3, "own", 4, "placed"),
        Call::Link(3, "own", 4, "placed"),
        Call::Symlink("kept", 4, "placed"),
        Call::Unlink(4, "kept"),
        Call::Mkdir(4, "folder"),
    ];
    let allowed = [
        Call::Open(3, "own", 0, 2),
        Call::Open(4, "kept", 0, 2),
        Call::Open(3, "sub/../own", 0, 2),
        Call::Rename(3, "own", 3, "sub/own"),
        Call::Symlink("sub/own", 3, "good"),
        Call::Open(3, "good", 0, 66),
    ];
    node.import("escape", &calls(&[refused.as_slice(), &allowed].concat()));
    let folders = [(data.as_path(), "/data", false), (fixed.as_path(), "/fixed", true)];
    let (escape, _) = node.pod("escape", mounted("escape", &folders)).await;
    assert_eq!(node.ended(&escape).await.exit_code, 0);
    let log = node.log(&escape).await;
    assert_eq!(log.len(), refused.len() + allowed.len(), "{log:?}");
    let told = log.iter().map(|line| line.trim_start_matches("stdout F "));
    for (error, call) in told.clone().zip(&refused) {
        assert!(REFUSALS.contains(&error), "{call:?} gives {error}");
    }
    for (error, call) in told.skip(refused.len()).zip(&allowed) {
        assert_eq!(error, "00", "{call:?}");
    }
    let mut left: Vec<_> = std::fs::read_dir(&node.dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["data", "fixed", "import.wasm", "logs", "root", "run", "secret"]);
    assert_eq!(std::fs::read_dir(&fixed).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(fixed.join("kept")).unwrap(), "kept");
}

/// Resident memory of this process, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_host_memory_that_are_hoarded() {
    let _alone = ALONE.lock().await;
    let mut node = Node::new().await;
    node.import("guest", GUEST);
    node.import("hello", HELLO);
    let (guest, ip) = node.pod("greedy", container("guest", Some(8080))).await;
    let (_, neighbour) = node.pod("calm", container("hello", Some(8080))).await;
    let (descriptors_before, memory_before) = (descriptors(), resident_mib());
    for path in ["/sockets", "/hoard"] {
        let (ip, paths) = (&ip, (0..8).map(|_| path));
        let answers = futures::future::join_all(paths.map(|path| get(ip, 8080, path)));
        let (answers, calm) = tokio::join!(answers, get(&neighbour, 8080, "/"));
        assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 500")), "{path}: {answers:?}");
        assert!(calm.starts_with("HTTP/1.1 200"), "{calm}");
        assert!(resident_mib() < memory_before + 512 + OTHERS_MIB, "{path}: {} MiB", resident_mib());
    }
    assert!(descriptors() < descriptors_before + OTHERS_DESCRIPTORS, "{}", descriptors());
    assert_eq!(node.status(&guest).await.state, i32::from(cri::ContainerState::ContainerRunning));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_without_end() {
    let _alone = ALONE.lock().await;
    let mut node = Node::new().await;
    node.import("guest", GUEST);
    node.import("hello", HELLO);
    let (_, ip) = node.pod("greedy", container("guest", Some(8080))).await;
    let (_, neighbour) = node.pod("calm", container("hello", Some(8080))).await;
    let memory_before = resident_mib();
    let mut open = Vec::new();
    for n in 0..40 {
        let mut stream = TcpStream::connect((ip.as_str(), 8080)).await.unwrap();
        let path = if n % 2 == 0 { "/endless" } else { "/read" };
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        open.push(stream);
    }
    // Bodies come as fast as they are taken, and slowly, and no client takes an answer.
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    for (n, stream) in open.iter_mut().enumerate() {
        let piece = if n % 4 == 1 { "1\r\nx\r\n" } else { chunk.as_str() };
        for _ in 0..100 {
            let written = tokio::time::timeout(std::time::Duration::from_millis(5), stream.write_all(piece.as_bytes()));
            if written.await.is_err() {
                break;
            }
        }
    }
    for _ in 0..10 {
        assert!(get(&neighbour, 8080, "/").await.starts_with("HTTP/1.1 200"));
    }
    assert!(resident_mib() < memory_before + 256 + OTHERS_MIB, "{} MiB", resident_mib());
    drop(open);
    for (bytes, status) in [(20_000, "200"), (1_000_000, "500")] {
        let answer = get(&ip, 8080, &format!("/headers?{bytes}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{bytes}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outgoing_requests_without_end() {
    let _alone = ALONE.lock().await;
    let mut node = Node::new().await;
    node.import("guest", GUEST);
    // A server that accepts and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap();
    let (_, ip) = node.pod("greedy", container("guest", Some(8080))).await;
    let before = descriptors();
    let began = futures::future::join_all((0..8).map(|_| get(&ip, 8080, "/sleep?0"))).await;
    assert!(began.iter().all(|answer| answer.ends_with("slept\n\r\n0\r\n\r\n")), "{began:?}");
    let path = format!("/begin?{at}/");
    let begun = futures::future::join_all((0..8).map(|_| get(&ip, 8080, &path))).await;
    assert!(begun.iter().all(|answer| answer.contains("begun")), "{begun:?}");
    // As many as a pod may have under way, seen from either end.
    assert!(descriptors() < before + 2 * 256 + OTHERS_DESCRIPTORS, "{}", descriptors());
    assert!(get(&ip, 8080, "/sleep?0").await.contains("slept"));
}
