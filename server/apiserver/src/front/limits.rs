//! What a client may take of the server. Every queue, buffer and wait of the front is bounded here.

use std::time::Duration;

/// The largest request body: 3 MiB, as Kubernetes (`MaxRequestBodyBytes`).
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Bodies up to this size are read before the request is authorized; larger ones only after.
pub const SMALL_BODY_BYTES: usize = 16 * 1024;
/// The memory that request bodies above [`SMALL_BODY_BYTES`] may take together.
pub const MAX_BODIES_KIB: usize = 64 * 1024;
/// Request line and headers together.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Header lines of a request.
pub const MAX_HEADERS: usize = 100;
/// The longest path and query.
pub const MAX_URI_BYTES: usize = 32 * 1024;
/// Connections at a time; the next one waits in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 4096;
/// HTTP/2 streams of one connection at a time.
pub const MAX_STREAMS: u32 = 250;
/// What a client may send ahead on one HTTP/2 stream.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What a client may send ahead on one HTTP/2 connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What is buffered for a client that reads slowly, for each HTTP/2 stream.
pub const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Requests being worked on at a time, long-running ones aside (Kubernetes: 400 reads and 200 writes).
pub const MAX_IN_FLIGHT: usize = 600;
/// How long a request waits for its turn before it is told 429.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(15);
/// Watches, logs and tunnels at a time.
pub const MAX_LONG_RUNNING: usize = 50_000;
/// Watches of one user at a time; administrators are not held to it.
pub const MAX_WATCHES_OF_USER: usize = 10_000;
/// How long a request may take, long-running ones aside (`--request-timeout`).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the headers of an HTTP/1.1 request may take, and how long such a connection may idle between requests.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// How often an HTTP/2 connection is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long an HTTP/2 ping may be without an answer.
pub const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long requests may take to end once the server is told to stop.
pub const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);
/// How long to wait after the process ran out of file descriptors.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);
/// The size at which pieces of a list or of a watch are put together into one write.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Answers above this size are compressed for clients that ask for it, as Kubernetes does.
pub const GZIP_ABOVE_BYTES: u64 = 128 * 1024;
/// The shortest time after which a watch without `timeoutSeconds` ends (`--min-request-timeout`); the longest is twice that.
pub const MIN_WATCH: Duration = Duration::from_secs(1800);
/// All `Warning` headers of one answer together.
pub const MAX_WARNINGS_BYTES: usize = 4096;
/// How long connecting to a node, pod or Service endpoint may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a node's error text is passed on.
pub const MAX_NODE_ERROR_BYTES: usize = 50_000;
/// Values of impersonation headers in one request.
pub const MAX_IMPERSONATED_VALUES: usize = 256;

/// The longest name of a field manager (`metav1/validation`), also where it is taken from the `User-Agent`.
pub const MAX_MANAGER_CHARS: usize = 128;
