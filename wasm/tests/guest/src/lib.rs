//! A component for tests that does over HTTP what it is asked by the path: good things and bad ones.

use wasip2::{
    clocks::monotonic_clock,
    exports::http::incoming_handler::Guest,
    http::{
        outgoing_handler,
        types::{
            Fields, FutureIncomingResponse, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest,
            OutgoingResponse, ResponseOutparam, Scheme,
        },
    },
    io::streams::{InputStream, StreamError},
    sockets::{network::IpAddressFamily, tcp_create_socket},
};

/// Bytes that are read or written at once.
const PIECE_BYTES: usize = 4096;

struct Asked;

impl Guest for Asked {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        match path {
            // Reads the request to its end.
            "/read" => answer(out, &read(request)),
            // Answers without end.
            "/endless" => endless(out),
            // Answers with so many bytes of headers.
            "/headers" => headers(out, query.parse().unwrap_or(1)),
            // Waits so many milliseconds.
            "/sleep" => {
                monotonic_clock::subscribe_duration(query.parse().unwrap_or(0) * 1_000_000).block();
                answer(out, "slept\n");
            }
            // Answers with what another server answers.
            "/fetch" => answer(out, &fetch(query)),
            // Begins requests without waiting for their answers.
            "/begin" => begin(out, query),
            // Makes sockets and never closes them.
            "/sockets" => {
                let mut held = Vec::new();
                while let Ok(socket) = tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4) {
                    held.push(socket);
                }
                answer(out, &held.len().to_string());
            }
            // Holds headers in the host's memory without end.
            "/hoard" => {
                let mut held = Vec::new();
                loop {
                    held.push(filled(30_000));
                }
            }
            _ => answer(out, "what?\n"),
        }
    }
}

/// Sends a plain text as the whole response. A client that went away is no reason to trap.
fn answer(out: ResponseOutparam, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        for piece in text.as_bytes().chunks(PIECE_BYTES) {
            let _ = stream.blocking_write_and_flush(piece);
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

fn endless(out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        while stream.blocking_write_and_flush(&[b'x'; PIECE_BYTES]).is_ok() {}
    }
}

/// Headers of so many bytes.
fn filled(bytes: usize) -> Fields {
    let fields = Fields::new();
    let mut made = 0;
    while made < bytes && fields.append("x-much", &[b'x'; 1000]).is_ok() {
        made += 1000;
    }
    fields
}

fn headers(out: ResponseOutparam, bytes: usize) {
    let response = OutgoingResponse::new(filled(bytes));
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    let _ = OutgoingBody::finish(body, None);
}

fn read(request: IncomingRequest) -> String {
    let Ok(body) = request.consume() else { return "no body\n".into() };
    let Ok(stream) = body.stream() else { return "no stream\n".into() };
    let mut count = 0;
    let ended = each_piece(&stream, |piece| count += piece.len());
    drop(stream);
    drop(body);
    format!("{count} bytes, {ended}\n")
}

fn each_piece(stream: &InputStream, mut take: impl FnMut(&[u8])) -> &'static str {
    loop {
        match stream.blocking_read(PIECE_BYTES as u64) {
            Ok(piece) => take(&piece),
            Err(StreamError::Closed) => return "to its end",
            Err(StreamError::LastOperationFailed(_)) => return "broken off",
        }
    }
}

fn send(url: &str) -> Result<FutureIncomingResponse, String> {
    let (authority, path) = url.split_once('/').unwrap_or((url, ""));
    let request = OutgoingRequest::new(Fields::new());
    let set = request
        .set_method(&Method::Get)
        .and_then(|()| request.set_scheme(Some(&Scheme::Http)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(&format!("/{path}"))));
    set.map_err(|()| "a part of the request is refused".to_owned())?;
    outgoing_handler::handle(request, None).map_err(|error| error.to_string())
}

fn fetch(url: &str) -> String {
    fn go(url: &str) -> Result<String, String> {
        let future = send(url)?;
        future.subscribe().block();
        let response = future.get().ok_or("no answer")?.map_err(|()| "taken")?.map_err(|error| error.to_string())?;
        let body: IncomingBody = response.consume().map_err(|()| "no body")?;
        let stream = body.stream().map_err(|()| "no stream")?;
        let mut text = Vec::new();
        let ended = each_piece(&stream, |piece| text.extend_from_slice(piece));
        Ok(format!("{} {ended}: {}", response.status(), String::from_utf8_lossy(&text)))
    }
    go(url).unwrap_or_else(|error| format!("failed: {error}"))
}

/// Says that it has begun, and goes on beginning until that is refused.
fn begin(out: ResponseOutparam, url: &str) {
    answer(out, "begun\n");
    let mut held = Vec::new();
    while let Ok(future) = send(url) {
        held.push(future);
    }
}

wasip2::http::proxy::export!(Asked);
