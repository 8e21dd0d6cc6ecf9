//! Names and URLs, from the pod's address.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use wasip2::{
    http::{
        outgoing_handler,
        types::{Fields, IncomingResponse, Method, OutgoingRequest, Scheme},
    },
    io::streams::StreamError,
    io::streams::{InputStream, OutputStream},
    sockets::{
        instance_network::instance_network,
        ip_name_lookup::resolve_addresses,
        network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress},
        tcp_create_socket::create_tcp_socket,
    },
};

use crate::{Outcome, print};

/// Bytes that are read at a time.
const CHUNK_BYTES: u64 = 64 * 1024;
/// How often a redirection is followed.
const MAX_REDIRECTS: usize = 5;

pub(crate) fn nslookup(args: &[String]) -> Outcome {
    let name = args.first().ok_or("which name?")?;
    let failed = |error| format!("can't resolve {name:?}: {error:?}");
    let addresses = resolve_addresses(&instance_network(), name).map_err(failed)?;
    print(&format!("Name:\t{name}"))?;
    loop {
        addresses.subscribe().block();
        let Some(address) = addresses.resolve_next_address().map_err(failed)? else { return Ok(0) };
        print(&format!("Address: {}", text(address)))?;
    }
}

/// `nc HOST PORT` connects, `nc -l PORT` waits for one connection; what is sent there comes out here, and the input goes
/// there before.
pub(crate) fn nc(args: &[String]) -> Outcome {
    let (first, port) = match args {
        [first, port] => (first.as_str(), port.parse().map_err(|_| "which port?")?),
        _ => return Err("usage: nc HOST PORT, or nc -l PORT".into()),
    };
    let failed = |error: ErrorCode| format!("{first} {port}: {error:?}");
    let (input, output) = if first == "-l" { accept(port) } else { connect(first, port) }.map_err(failed)?;
    let mut bytes = vec![];
    io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    for chunk in bytes.chunks(4096) {
        output.blocking_write_and_flush(chunk).map_err(|error| error.to_string())?;
    }
    drop(output);
    while let Ok(bytes) = input.blocking_read(CHUNK_BYTES) {
        io::stdout().write_all(&bytes).map_err(|error| error.to_string())?;
    }
    Ok(0)
}

fn accept(port: u16) -> Result<(InputStream, OutputStream), ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    let any = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (0, 0, 0, 0) });
    socket.start_bind(&instance_network(), any)?;
    socket.finish_bind()?;
    socket.start_listen()?;
    socket.finish_listen()?;
    socket.subscribe().block();
    let (connection, input, output) = socket.accept()?;
    // Streams must go before their socket, and live as long as this program.
    std::mem::forget((socket, connection));
    Ok((input, output))
}

fn connect(host: &str, port: u16) -> Result<(InputStream, OutputStream), ErrorCode> {
    let network = instance_network();
    let addresses = resolve_addresses(&network, host)?;
    addresses.subscribe().block();
    let Some(IpAddress::Ipv4(address)) = addresses.resolve_next_address()? else { return Err(ErrorCode::NameUnresolvable) };
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&network, IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }))?;
    socket.subscribe().block();
    let streams = socket.finish_connect()?;
    std::mem::forget(socket);
    Ok(streams)
}

fn text(address: IpAddress) -> String {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string(),
    }
}

/// What `wget` is asked to do.
struct Wanted {
    url: String,
    file: Option<String>,
    quiet: bool,
    spider: bool,
}

pub(crate) fn wget(args: &[String]) -> Outcome {
    let wanted = parse(args)?;
    let response = follow(&wanted.url)?;
    if wanted.spider {
        return Ok(0);
    }
    let last = wanted.url.rsplit('/').next().filter(|name| !name.is_empty() && !wanted.url.ends_with(&format!("//{name}")));
    let file = wanted.file.clone().unwrap_or_else(|| last.unwrap_or("index.html").to_owned());
    let mut out: Box<dyn Write> = match file.as_str() {
        "-" => Box::new(io::stdout()),
        path => Box::new(File::create(path).map_err(|error| format!("{path}: {error}"))?),
    };
    copy(&response, &mut *out)?;
    if !wanted.quiet && file != "-" {
        eprintln!("'{file}' saved");
    }
    Ok(0)
}

fn parse(args: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted { url: String::new(), file: None, quiet: false, spider: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--spider" => wanted.spider = true,
            long if long.starts_with("--") => {}
            "-T" | "-t" => drop(args.next()),
            short if short.starts_with('-') => {
                wanted.quiet |= short.split('O').next().is_some_and(|letters| letters.contains('q'));
                if let Some((_, file)) = short.split_once('O') {
                    let mut next = || args.next().cloned().unwrap_or_default();
                    wanted.file = Some(if file.is_empty() { next() } else { file.to_owned() });
                }
            }
            url => wanted.url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") },
        }
    }
    if wanted.url.is_empty() { Err("which URL?".into()) } else { Ok(wanted) }
}

/// Gets a URL, also where it sends elsewhere.
fn follow(url: &str) -> Result<IncomingResponse, String> {
    let mut url = url.to_owned();
    for _ in 0..MAX_REDIRECTS {
        let response = get(&url)?;
        match response.status() {
            200..=299 => return Ok(response),
            301 | 302 | 303 | 307 | 308 => {
                let to = response.headers().get("location").into_iter().next().unwrap_or_default();
                let to = String::from_utf8_lossy(&to).into_owned();
                let origin = url.split('/').take(3).collect::<Vec<_>>().join("/");
                url = if to.contains("://") { to } else { format!("{origin}/{}", to.trim_start_matches('/')) };
            }
            status => return Err(format!("server returned error: HTTP {status}")),
        }
    }
    Err("too many redirections".into())
}

fn get(url: &str) -> Result<IncomingResponse, String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => return Err(format!("unknown scheme {other:?}")),
    };
    let headers = Fields::new();
    let _ = headers.set("user-agent", &[b"skiff-wget".to_vec()]);
    let request = OutgoingRequest::new(headers);
    let set = request
        .set_method(&Method::Get)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(path)));
    set.map_err(|()| format!("bad URL {url:?}"))?;
    let failed = |error| format!("can't connect to {authority}: {error:?}");
    let response = outgoing_handler::handle(request, None).map_err(failed)?;
    response.subscribe().block();
    match response.get() {
        Some(Ok(Ok(response))) => Ok(response),
        Some(Ok(Err(error))) => Err(failed(error)),
        _ => Err("no answer".into()),
    }
}

fn copy(response: &IncomingResponse, out: &mut dyn Write) -> Result<(), String> {
    let body = response.consume().map_err(|()| "no body")?;
    let stream = body.stream().map_err(|()| "no body")?;
    loop {
        match stream.blocking_read(CHUNK_BYTES) {
            Ok(bytes) => out.write_all(&bytes).map_err(|error| error.to_string())?,
            Err(StreamError::Closed) => return out.flush().map_err(|error| error.to_string()),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}
