//! Paths and headers that say one thing to one reader and another to the next.

use crate::site::{Site, TREASURE, split};

#[tokio::test]
async fn no_path_leads_around_authorization() {
    let site = Site::start().await;
    let token = site.token("one").await;
    let tricks = [
        "/api/v1/namespaces/one/../two/secrets/s",
        "/api/v1/namespaces/one/%2e%2e/two/secrets/s",
        "/api/v1/namespaces/one%2f..%2ftwo/secrets/s",
        "/api/v1/namespaces/one/secrets/..%2f..%2ftwo%2fsecrets%2fs",
        "/api/v1/namespaces/one/secrets/%2e%2e/%2e%2e/two/secrets/s",
        "//api/v1/namespaces/two/secrets/s",
        "/api//v1/namespaces/two/secrets/s",
        "/api/v1/namespaces//secrets/s",
        "/api/v1/namespaces/two/secrets/s/",
        "/api/v1/namespaces/two/secrets/./s",
        "/API/v1/namespaces/two/secrets/s",
        "/healthz/../api/v1/namespaces/two/secrets/s",
        "/.well-known/../api/v1/namespaces/two/secrets/s",
        "/.well-known/openid-configuration/../../api/v1/secrets",
        "/apis/../api/v1/secrets",
        "/api/v1/watch/namespaces/two/secrets",
        "/api/v1/namespaces/two/secrets/s?namespace=one",
        "/api/v1/namespaces/one/secrets?namespace=two&fieldSelector=metadata.namespace%3Dtwo",
        "/api/v1/namespaces/one%00/secrets/s",
        "/api/v1/namespaces/two;/secrets/s",
        "/api/v1/namespaces/two/secrets/s%3f",
        "/api/v1/namespaces/two/secrets/s%23x",
        "http://other/api/v1/namespaces/two/secrets/s",
        "*",
    ];
    let of_two = site.ask_inside("GET", "/api/v1/namespaces/two/secrets/s", String::new()).await;
    let uid = of_two["metadata"]["uid"].as_str().unwrap();
    for path in tricks {
        for headers in ["", "authorization"] {
            let headers = if headers.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
            let (code, body) = site.ask(None, &format!("GET {path}"), &headers, "").await;
            assert!(!body.contains(uid), "{path} leads to the other's secret: {body}");
            if headers.is_empty() {
                assert!(!body.contains(TREASURE), "{path}: {body}");
            }
            assert!((200..500).contains(&code), "{path}: {code} {body}");
        }
    }
    site.still_serves().await;
}

#[tokio::test]
async fn no_header_smuggles_a_second_request() {
    let site = Site::start().await;
    let token = site.token("two").await;
    let inner = "GET /api/v1/namespaces/one/secrets/s HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let head = format!(
        "POST /api/v1/namespaces/two/configmaps HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
    );
    let attempts = [
        format!("{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("{head}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{inner}"),
        format!("{head}content-length: 0\r\ncontent-length: {}\r\n\r\n{inner}", inner.len()),
        format!("{head}content-length: +4\r\n\r\nabcd{inner}"),
        format!("{head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("{head}transfer-encoding : chunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("{head}x: a\r\n folded: b\r\ncontent-length: 0\r\n\r\n{inner}"),
        format!("{head}x: a\nimpersonate-user: system:admin\r\ncontent-length: 0\r\n\r\n"),
        format!("{head}bad name: x\r\ncontent-length: 0\r\n\r\n{inner}"),
    ];
    for attempt in attempts {
        let answer = site.raw(None, attempt.as_bytes()).await;
        assert!(!answer.contains(TREASURE), "{attempt}\n{answer}");
        // Whatever a server takes a second request to be, it is nobody's: it has no credentials.
        for one in answer.split("HTTP/1.1 ").skip(1) {
            assert!(!one.starts_with("200"), "{attempt}\n{answer}");
        }
    }
    site.still_serves().await;
}

#[tokio::test]
async fn two_authorizations_are_not_tried_one_after_the_other() {
    let site = Site::start().await;
    let (one, two) = (site.token("one").await, site.token("two").await);
    let both = format!("authorization: Bearer {two}\r\nauthorization: Bearer {one}\r\n");
    let (code, body) = site.ask(None, "GET /api/v1/namespaces/one/secrets/s", &both, "").await;
    assert!([401, 403].contains(&code), "{code} {body}");
    let odd = format!("authorization: Basic YTpi\r\nx-authorization: Bearer {one}\r\n");
    assert_eq!(
        split(
            &site
                .raw(
                    None,
                    format!("GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{odd}\r\n").as_bytes()
                )
                .await
        )
        .0,
        403
    );
}
