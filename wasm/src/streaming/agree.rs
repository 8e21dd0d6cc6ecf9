//! Which protocol a session speaks: what the client offers against what is spoken here.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{channels::Plan, mux::Headers, status, tickets::Ticket, websocket};

/// Where SPDY's clients say which protocols they speak over it.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What clients of exec and attach speak over SPDY, best first.
const REMOTE_OVER_SPDY: [&str; 3] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];
/// The same over WebSocket.
const REMOTE_OVER_WEBSOCKET: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Port-forward over SPDY.
const FORWARD_OVER_SPDY: [&str; 1] = ["portforward.k8s.io"];
/// Port-forward over WebSocket: SPDY within it, or channels.
const FORWARD_OVER_WEBSOCKET: [&str; 2] = [TUNNEL, "v4.channel.k8s.io"];
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Spdy,
    Channels,
    /// SPDY within a WebSocket.
    Tunnel,
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) carrier: Carrier,
    pub(super) protocol: &'static str,
    /// How the end of a command is told.
    pub(super) status: status::Form,
    /// The answer to a WebSocket's key.
    accept: Option<String>,
}

/// The terms of a session that a client asks for by these headers; or why there are none.
pub(super) fn agree(headers: &HeaderMap, forward: bool) -> Result<Terms, String> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case("websocket") {
        let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
        let key = key.ok_or("the WebSocket's key is missing\n")?;
        let ours = if forward { &FORWARD_OVER_WEBSOCKET } else { &REMOTE_OVER_WEBSOCKET };
        let protocol = choose(headers, &header::SEC_WEBSOCKET_PROTOCOL, ours)?;
        let carrier = if protocol == TUNNEL { Carrier::Tunnel } else { Carrier::Channels };
        return Ok(Terms::new(carrier, protocol, Some(websocket::accept_key(key))));
    }
    if upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        let ours: &[&str] = if forward { &FORWARD_OVER_SPDY } else { &REMOTE_OVER_SPDY };
        return Ok(Terms::new(Carrier::Spdy, choose(headers, &STREAM_PROTOCOL, ours)?, None));
    }
    Err("the request must upgrade to SPDY/3.1 or websocket\n".into())
}

/// The first of `ours` that the client offers in the header.
fn choose(headers: &HeaderMap, name: &HeaderName, ours: &[&'static str]) -> Result<&'static str, String> {
    let offers: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let chosen = ours.iter().find(|protocol| offers.contains(protocol)).copied();
    chosen.ok_or_else(|| format!("unable to negotiate protocol: client supports {offers:?}, server accepts {ours:?}\n"))
}

impl Terms {
    fn new(carrier: Carrier, protocol: &'static str, accept: Option<String>) -> Self {
        let status = match protocol.split('.').next() {
            Some("v2" | "v3") => status::Form::Text,
            _ => status::Form::Json,
        };
        Self { carrier, protocol, status, accept }
    }

    /// The headers that tell the client what was agreed on.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        match self.accept.as_deref().and_then(|accept| HeaderValue::from_str(accept).ok()) {
            Some(accept) => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
            }
            None => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(self.protocol));
            }
        }
        headers
    }

    /// The streams that a conversation over channels has from its beginning. Those of a command are numbered 0 to 4,
    /// those of a port `n` are 2n (data) and 2n+1 (errors), and each begins with the port.
    pub(super) fn plan(&self, ticket: &Ticket) -> Plan {
        let named = |kind: &str| vec![("streamtype".to_owned(), kind.to_owned())];
        let Ticket::PortForward { ports, .. } = ticket else {
            let kinds = ["stdin", "stdout", "stderr", "error", "resize"];
            // A message without content tells the client that it is heard.
            return Plan { streams: kinds.map(named).to_vec(), greetings: vec![(1, Bytes::new())] };
        };
        let mut plan = Plan { streams: Vec::new(), greetings: Vec::new() };
        for (channel, port) in (0..=u8::MAX).step_by(2).zip(ports) {
            let of = |kind: &str| -> Headers {
                let pairs = [("port", port.to_string()), ("requestid", channel.to_string())];
                named(kind).into_iter().chain(pairs.map(|(name, value)| (name.to_owned(), value))).collect()
            };
            plan.streams.extend([of("data"), of("error")]);
            let bytes = Bytes::copy_from_slice(&port.to_le_bytes());
            plan.greetings.extend([(channel, bytes.clone()), (channel | 1, bytes)]);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn protocols_are_agreed_on() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let websocket = ("upgrade", "WebSocket");
        let spdy = ("upgrade", "SPDY/3.1");
        let offer = |name| move |value| (name, value);
        let (over_websocket, over_spdy) = (offer("sec-websocket-protocol"), offer("x-stream-protocol-version"));
        for (asked, forward, carrier, protocol) in [
            (&[websocket, key, over_websocket("v5.channel.k8s.io")][..], false, Carrier::Channels, "v5.channel.k8s.io"),
            (&[websocket, key, over_websocket("x, v4.channel.k8s.io")], false, Carrier::Channels, "v4.channel.k8s.io"),
            (&[websocket, key, over_websocket(TUNNEL)], true, Carrier::Tunnel, TUNNEL),
            (&[websocket, key, over_websocket("v4.channel.k8s.io")], true, Carrier::Channels, "v4.channel.k8s.io"),
            (
                &[spdy, over_spdy("v2.channel.k8s.io"), over_spdy("v4.channel.k8s.io")],
                false,
                Carrier::Spdy,
                "v4.channel.k8s.io",
            ),
            (&[spdy, over_spdy("v3.channel.k8s.io")], false, Carrier::Spdy, "v3.channel.k8s.io"),
            (&[spdy, over_spdy("portforward.k8s.io")], true, Carrier::Spdy, "portforward.k8s.io"),
        ] {
            let terms = agree(&headers(asked), forward).unwrap();
            assert_eq!((terms.carrier, terms.protocol), (carrier, protocol), "{asked:?}");
            assert_eq!(terms.status == status::Form::Text, protocol.starts_with("v3"), "{asked:?}");
        }
        for (asked, why) in [
            (&[][..], "must upgrade"),
            (&[websocket], "key is missing"),
            (&[websocket, key], "unable to negotiate"),
            (&[spdy, over_spdy("v1.channel.k8s.io")], "server accepts [\"v4.channel.k8s.io\""),
        ] {
            assert!(agree(&headers(asked), false).unwrap_err().contains(why), "{asked:?}");
        }
    }

    #[test]
    fn ports_are_channels() {
        let terms = Terms::new(Carrier::Channels, "v4.channel.k8s.io", None);
        let plan = terms.plan(&Ticket::PortForward { sandbox: String::new(), ports: vec![80, 8080] });
        let greetings: Vec<(u8, Vec<u8>)> = plan.greetings.iter().map(|(n, bytes)| (*n, bytes.to_vec())).collect();
        assert_eq!(greetings, [(0, vec![80, 0]), (1, vec![80, 0]), (2, vec![0x90, 0x1f]), (3, vec![0x90, 0x1f])]);
        assert_eq!(plan.streams.len(), 4);
        assert_eq!(plan.streams[3][0].1, "error");
        assert_eq!(plan.streams[2][1], ("port".to_owned(), "8080".to_owned()));
    }
}
