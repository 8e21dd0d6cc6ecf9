//! A component that answers HTTP: it says which pod it is, what `GREETING` holds and which path was asked for.

use wasip2::{
    exports::http::incoming_handler::Guest,
    http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam},
};

struct Hello;

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| format!("(no {name})"));
        let (pod, greeting) = (variable("POD_NAME"), variable("GREETING"));
        println!("{pod} answers {path}");
        answer(out, &format!("{greeting} from {pod}, you asked for {path}\n"));
    }
}

/// Sends a plain text as the whole response. A client that went away is no reason to trap.
fn answer(out: ResponseOutparam, text: &str) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"text/plain; charset=utf-8".to_vec()]);
    let response = OutgoingResponse::new(headers);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        let _ = stream.blocking_write_and_flush(text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}

wasip2::http::proxy::export!(Hello);
