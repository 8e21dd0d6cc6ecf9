//! Commands in containers, attaching to them and reaching their ports, over CRI and its streams.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::path::Path;

use k8s_cri::v1 as cri;
use support::{
    HELLO, Node, SPIN, command, container, mounts,
    stream::{Channel, Message, WebSocket},
};

async fn exec_sync(node: &mut Node, id: &str, cmd: &[&str]) -> Result<cri::ExecSyncResponse, tonic::Status> {
    let cmd = cmd.iter().map(|arg| (*arg).to_owned()).collect();
    let request = cri::ExecSyncRequest { container_id: id.into(), cmd, timeout: 30 };
    node.client.exec_sync(request).await.map(tonic::Response::into_inner)
}

async fn exec(node: &mut Node, id: &str, cmd: &[&str], tty: bool) -> WebSocket {
    let cmd = cmd.iter().map(|arg| (*arg).to_owned()).collect();
    let request = cri::ExecRequest { container_id: id.into(), cmd, tty, stdin: true, stdout: true, stderr: !tty };
    let url = node.client.exec(request).await.unwrap().into_inner().url;
    WebSocket::open(&url, "v5.channel.k8s.io").await
}

/// An HTTP container with a folder at `/data`.
async fn with_folder(node: &mut Node, readonly: bool) -> (String, std::path::PathBuf) {
    node.import("hello", HELLO);
    let folder = node.dir.join("volume");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    std::fs::write(folder.join("file"), "content\n").unwrap();
    let mut config = container("hello", Some(8080));
    config.envs = vec![cri::KeyValue { key: "GREETING".into(), value: "Ahoy".into() }];
    // A single file too, as a ConfigMap's `subPath` gives it.
    let file = folder.join("file");
    config.mounts = mounts(&[(&folder, "/data", readonly), (&file, "/etc/app/conf", true)]);
    let name = if readonly { "readonly" } else { "writable" };
    (node.pod(name, config).await.0, folder)
}

/// In one runtime, since each compiles the tools anew.
#[tokio::test(flavor = "multi_thread")]
async fn commands_in_a_container() {
    let mut node = Node::new().await;
    let (readonly, _) = with_folder(&mut node, true).await;
    let answer = exec_sync(&mut node, &readonly, &["mkdir", "/data/new"]).await.unwrap();
    assert_eq!(answer.exit_code, 1, "the volume is read-only");
    node.stop_container(&readonly, 5).await;
    let error = exec_sync(&mut node, &readonly, &["true"]).await.unwrap_err();
    assert!(error.message().contains("is not running"), "{error}");
    let (id, folder) = with_folder(&mut node, false).await;
    tools_see_what_the_container_sees(&mut node, &id, &folder).await;
    a_component_of_a_volume_is_a_command(&mut node, &id, &folder).await;
    a_command_that_takes_too_long_is_ended(&mut node, &id, &folder).await;
    streams_carry_input_output_and_the_end(&mut node, &id, &folder).await;
    a_terminal_edits_echoes_and_interrupts(&mut node, &id, &folder).await;
    a_client_that_goes_away_ends_its_command(&mut node, &id, &folder).await;
    a_token_is_good_once(&mut node, &id, &folder).await;
}

async fn tools_see_what_the_container_sees(node: &mut Node, id: &str, folder: &Path) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    for (cmd, code, stdout) in [
        (&["ls", "/data"][..], 0, "file\nsub\n"),
        (&["/bin/cat", "/data/file"], 0, "content\n"),
        (&["cat", "/etc/app/conf"], 0, "content\n"),
        (&["hostname"], 0, "writable\n"),
        (&["printenv", "GREETING"], 0, "Ahoy\n"),
        (&["test", "-d", "/data/none"], 1, ""),
        (&["false"], 1, ""),
        (&["echo", "a", "b"], 0, "a b\n"),
        (&["wc", "-l", "/data/file"], 0, "1 /data/file\n"),
    ] {
        let answer = exec_sync(node, id, cmd).await.unwrap();
        assert_eq!((answer.exit_code, text(answer.stdout)), (code, stdout.to_owned()), "{cmd:?}");
    }
    let answer = exec_sync(node, id, &["cat", "/data/none"]).await.unwrap();
    assert_eq!((answer.exit_code, answer.stdout.len()), (1, 0));
    assert!(text(answer.stderr).starts_with("cat: /data/none: "));
    assert_eq!(exec_sync(node, id, &["mkdir", "/data/new"]).await.unwrap().exit_code, 0);
    assert!(folder.join("new").is_dir());
    for (cmd, why) in [
        (&["sh", "-c", "true"][..], "executable file not found"),
        (&["import"], "it serves HTTP and is no command"),
        (&["/data/file"], "exec format error"),
    ] {
        let error = exec_sync(node, id, cmd).await.unwrap_err();
        assert!(error.message().contains(why), "{cmd:?}: {error}");
    }
}

async fn a_component_of_a_volume_is_a_command(node: &mut Node, id: &str, folder: &Path) {
    let greets = command("hi\\n", "(call $write (i32.const 1) (i32.const 3)) (call $exit (i32.const 7))");
    std::fs::write(folder.join("tool.wasm"), wat::parse_bytes(&greets).unwrap()).unwrap();
    for _ in 0..2 {
        let answer = exec_sync(node, id, &["/data/tool.wasm"]).await.unwrap();
        assert_eq!((answer.exit_code, answer.stdout.as_slice()), (7, &b"hi\n"[..]));
    }
}

async fn a_command_that_takes_too_long_is_ended(node: &mut Node, id: &str, folder: &Path) {
    std::fs::write(folder.join("spin.wasm"), wat::parse_bytes(&command("", SPIN)).unwrap()).unwrap();
    let request = cri::ExecSyncRequest { container_id: id.into(), cmd: vec!["/data/spin.wasm".into()], timeout: 1 };
    let error = node.client.exec_sync(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
    // Its turn and its CPU are free again.
    assert_eq!(exec_sync(node, id, &["true"]).await.unwrap().exit_code, 0);
}

async fn streams_carry_input_output_and_the_end(node: &mut Node, id: &str, _: &Path) {
    let mut cat = exec(node, id, &["cat"], false).await;
    cat.send(Channel::STDIN, b"over and ").await;
    cat.send(Channel::STDIN, b"out").await;
    cat.end(Channel::STDIN).await;
    let messages = cat.rest().await;
    assert_eq!(Message::of(&messages, Channel::STDOUT), "over and out");
    assert!(Message::of(&messages, Channel::ERROR).contains(r#""status":"Success""#), "{messages:?}");

    let messages = exec(node, id, &["cat", "/none"], false).await.rest().await;
    assert!(Message::of(&messages, Channel::STDERR).starts_with("cat: /none"), "{messages:?}");
    let status = Message::of(&messages, Channel::ERROR);
    assert!(status.contains(r#""reason":"NonZeroExitCode""#) && status.contains(r#""message":"1""#), "{status}");

    let messages = exec(node, id, &["bash"], false).await.rest().await;
    assert!(Message::of(&messages, Channel::ERROR).contains("executable file not found"), "{messages:?}");
}

async fn a_terminal_edits_echoes_and_interrupts(node: &mut Node, id: &str, _: &Path) {
    let mut cat = exec(node, id, &["cat"], true).await;
    cat.send(Channel::STDIN, b"lime\x7f\x7fne\r\x04").await;
    let messages = cat.rest().await;
    let shown = Message::of(&messages, Channel::STDOUT);
    assert_eq!(shown, "lime\x08 \x08\x08 \x08ne\r\nline\r\n");
    let mut cat = exec(node, id, &["cat"], true).await;
    cat.send(Channel::STDIN, b"\x03").await;
    assert!(Message::of(&cat.rest().await, Channel::ERROR).contains(r#""message":"130""#));
}

async fn a_client_that_goes_away_ends_its_command(node: &mut Node, id: &str, folder: &Path) {
    std::fs::write(folder.join("spin.wasm"), wat::parse_bytes(&command("", SPIN)).unwrap()).unwrap();
    drop(exec(node, id, &["/data/spin.wasm"], false).await);
    let used = |stats: cri::ContainerStats| stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value;
    let deadline = std::time::Instant::now() + support::DEADLINE;
    let mut before = u64::MAX;
    loop {
        let request = cri::ContainerStatsRequest { container_id: id.into() };
        let now = used(node.client.container_stats(request).await.unwrap().into_inner().stats.unwrap());
        if now == before {
            return;
        }
        before = now;
        assert!(std::time::Instant::now() < deadline, "it still spins");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}

async fn a_token_is_good_once(node: &mut Node, id: &str, _: &Path) {
    let cmd = vec!["true".to_owned()];
    let request =
        cri::ExecRequest { container_id: id.into(), cmd, tty: false, stdin: false, stdout: true, stderr: true };
    let url = node.client.exec(request).await.unwrap().into_inner().url;
    WebSocket::open(&url, "v4.channel.k8s.io").await.rest().await;
    assert!(WebSocket::try_open(&url, "v4.channel.k8s.io").await.unwrap_err().starts_with("HTTP/1.1 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attached_to_a_container_with_input() {
    let mut node = Node::new().await;
    node.import("tools", include_bytes!("../tools/tools.wasm"));
    let mut config = container("tools", None);
    config.command = vec!["cat".into()];
    (config.stdin, config.stdin_once) = (true, true);
    let (id, _) = node.pod("cat", config).await;
    let request = cri::AttachRequest { container_id: id.clone(), stdin: true, tty: false, stdout: true, stderr: true };
    let url = node.client.attach(request).await.unwrap().into_inner().url;
    let mut attached = WebSocket::open(&url, "v5.channel.k8s.io").await;
    attached.send(Channel::STDIN, b"hello there\n").await;
    attached.end(Channel::STDIN).await;
    let messages = attached.rest().await;
    assert_eq!(Message::of(&messages, Channel::STDOUT), "hello there\n");
    assert!(Message::of(&messages, Channel::ERROR).contains("Success"));
    assert_eq!(node.ended(&id).await.exit_code, 0);
    assert_eq!(node.log(&id).await, ["stdout F hello there"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded() {
    let mut node = Node::new().await;
    node.import("hello", HELLO);
    let sandbox = node.sandbox("web").await;
    let id = node.create(&sandbox, container("hello", Some(8080))).await.unwrap();
    node.start(&id).await.unwrap();
    let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.0.clone(), port: vec![8080, 1] };
    let url = node.client.port_forward(request).await.unwrap().into_inner().url;
    let mut forward = WebSocket::open(&url, "v4.channel.k8s.io").await;
    forward.send(Channel(0), b"GET /far HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let (mut answer, mut refused) = (Vec::new(), Vec::new());
    while !(String::from_utf8_lossy(&answer).contains("/far") && refused.len() > 2) {
        let message = forward.next().await.expect("more of the answer");
        match message.channel {
            Channel(0) => answer.extend(message.bytes),
            Channel(3) => refused.extend(message.bytes),
            _ => {}
        }
    }
    assert!(answer.starts_with(&[0x90, 0x1f]), "the port comes first");
    assert!(String::from_utf8_lossy(&refused).contains("error forwarding port 1 to the pod"), "{refused:?}");
}
