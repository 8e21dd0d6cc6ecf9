//! etcd's members: which one is asked, and which one next when it does not answer.

use std::{future::Future, time::Duration};

use etcd_client::{
    Certificate, Channel, Client, ConnectOptions, Error as EtcdError, Identity, KvClient, MaintenanceClient,
    TlsOptions, WatchClient,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::transport::Endpoint;

use super::{EtcdOptions, EtcdTls, failure, failure::Failure};
use crate::StoreError;

/// The largest answer that is read.
const MESSAGE_BYTES: usize = 256 << 20;

/// How much of an answer may be under way: of one call, and of all calls of a connection.
const WINDOW_BYTES: (u32, u32) = (1 << 20, 4 << 20);

/// How often a connection is asked whether it lives, and how long it may take to say so. etcd refuses to be asked
/// more often than every five seconds.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(4));

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait when no member has done it.
const PAUSE: Duration = Duration::from_millis(50);

/// One member.
pub(super) struct Member {
    url: String,
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    pub(super) maintenance: MaintenanceClient,
}

/// Whether a call may be made again when it is not known what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It changes nothing, or the same once more.
    Harmless,
    /// It could be done twice.
    Never,
}

/// See the module.
pub(super) struct Endpoints {
    members: Vec<Member>,
    /// Who is asked, by place.
    preferred: watch::Sender<usize>,
    attempt: Duration,
    deadline: Duration,
}

fn setting(problem: String) -> StoreError {
    StoreError::Unavailable(problem)
}

fn tls_options(tls: &EtcdTls) -> TlsOptions {
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some((cert, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(cert, key));
    }
    options
}

fn endpoint(url: &str, tls: Option<&EtcdTls>) -> Result<Endpoint, StoreError> {
    let bad = |error: &dyn std::fmt::Display| setting(format!("{url:?} is no address of etcd: {error}"));
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| bad(&error))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES.0)
        .initial_connection_window_size(WINDOW_BYTES.1);
    match (url.split_once("://"), tls) {
        (Some(("http", _)), _) => Ok(endpoint),
        (Some(("https", _)), Some(tls)) => {
            let refused = |error| setting(format!("the certificates for etcd cannot be used: {error}"));
            endpoint.tls_config(tls_options(tls)).map_err(refused)
        }
        (Some(("https", _)), None) => Err(setting(format!("{url} needs to know who signed etcd's certificate"))),
        _ => Err(bad(&"it must begin with http:// or https://")),
    }
}

impl Member {
    async fn new(url: &str, tls: Option<&EtcdTls>) -> Result<Self, StoreError> {
        let channel = Channel::Tonic(endpoint(url, tls)?.connect_lazy());
        // Without a leader there is an error and not an old answer.
        let options = ConnectOptions::new().with_require_leader(true);
        // Nothing is connected yet; this fails only for users with passwords.
        let client = Client::from_channel(channel, Some(options)).await;
        let client = client.map_err(|error| failure::of(&error).into_error())?;
        Ok(Self {
            url: url.to_owned(),
            kv: client.kv_client().max_decoding_message_size(MESSAGE_BYTES),
            watch: client.watch_client().max_decoding_message_size(MESSAGE_BYTES),
            maintenance: client.maintenance_client(),
        })
    }
}

impl Endpoints {
    /// Connects to nobody yet.
    pub(super) async fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        let mut members = Vec::with_capacity(options.endpoints.len());
        for url in &options.endpoints {
            members.push(Member::new(url, options.tls.as_ref()).await?);
        }
        if members.is_empty() {
            return Err(setting("no address of etcd is given".to_owned()));
        }
        let preferred = watch::Sender::new(0);
        Ok(Self { members, preferred, attempt: options.attempt, deadline: options.deadline })
    }

    /// Tells of changes of who is asked.
    pub(super) fn preferred(&self) -> watch::Receiver<usize> {
        self.preferred.subscribe()
    }

    /// Who is asked.
    pub(super) fn member(&self) -> (usize, &Member) {
        let at = *self.preferred.borrow() % self.members.len();
        (at, &self.members[at])
    }

    /// This member has failed: the next one is asked, unless another already is.
    pub(super) fn failed(&self, at: usize, why: &str) {
        let next = (at + 1) % self.members.len();
        let moved = self.preferred.send_if_modified(|preferred| {
            let moves = *preferred == at && next != at;
            *preferred = if moves { next } else { *preferred };
            moves
        });
        if moved {
            tracing::warn!(
                failed = self.members[at].url,
                next = self.members[next].url,
                why,
                "etcd's next member is asked"
            );
        }
    }

    /// One attempt, with one member.
    async fn attempt<T, F, Answer>(&self, again: Again, deadline: Instant, call: &F) -> Result<T, Failure>
    where
        F: Fn(&Member) -> Answer,
        Answer: Future<Output = Result<T, EtcdError>>,
    {
        let (at, member) = self.member();
        let until = match again {
            Again::Harmless => deadline.min(Instant::now() + self.attempt),
            Again::Never => deadline,
        };
        let failure = match timeout_at(until, call(member)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => failure::of(&error),
            Err(_) => Failure::Unknown(format!("{} does not answer", member.url)),
        };
        if let Failure::NotDone(why) | Failure::Unknown(why) = &failure {
            self.failed(at, why);
        }
        Err(failure)
    }

    /// Asks one member after the other until one answers or the time is up.
    pub(super) async fn call<T, F, Answer>(&self, again: Again, call: F) -> Result<T, Failure>
    where
        F: Fn(&Member) -> Answer,
        Answer: Future<Output = Result<T, EtcdError>>,
    {
        let deadline = Instant::now() + self.deadline;
        let mut attempts = 0;
        loop {
            let failure = match self.attempt(again, deadline, &call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let goes_on = match &failure {
                Failure::NotDone(_) => true,
                Failure::Unknown(_) => again == Again::Harmless,
                _ => false,
            };
            if !goes_on || Instant::now() >= deadline {
                return Err(failure);
            }
            attempts += 1;
            if attempts % self.members.len() == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
