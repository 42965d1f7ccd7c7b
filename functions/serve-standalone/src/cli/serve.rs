//! The flags of the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use registry::auth::{ChallengeSchemes, PublicUrl};
use registry::{RegionName, Sparse};
use shell::access::AnonymousAccess;
use shell::challenge::{ChallengeSettings, parse_schemes};
use shell::log::LogFormat;
use shell::settings;
use store_embedded::MinFree;

use super::pull::PullArgs;
use super::stores::StoreArgs;
use super::tls::TlsArgs;
use super::values::{self, MetricsAddress};
use shell::values::{Length, Span, TokenLifetime, within_a_day};

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free port, which is printed
    #[arg(
        long,
        env = values::LISTEN_VARIABLE,
        value_name = "ADDRESS:PORT",
        default_value = values::DEFAULT_LISTEN,
        value_parser = values::listen
    )]
    pub(crate) listen: SocketAddr,
    /// File of users and their passwords, beside the accounts that are stored with the metadata: lines user:hash with bcrypt or
    /// argon2id hashes. The server reads it again when it changes, and at SIGHUP
    #[arg(long, env = "ROADSTEAD_HTPASSWD", value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// What requests without credentials may do, besides what the policy says. Without this flag and without users, they may do
    /// everything on a loopback address, and the server refuses to start on any other address, and behind a proxy
    /// (--trusted-proxy, --public-url). The first account ends what is allowed on a loopback address, and `all`
    #[arg(long, env = settings::ALLOW_ANONYMOUS.variable, value_name = "WHAT")]
    pub(crate) allow_anonymous: Option<AllowAnonymous>,
    /// A host name or address, without a port, for which requests are answered, in addition to localhost, 127.0.0.1 and
    /// `[::1]`. Requests for other hosts are refused at a loopback address without --htpasswd, and at a loopback address of
    /// --metrics, because a web page could send them. Elsewhere, requests for all hosts are answered unless this flag is
    /// given. May be repeated, or separated by commas
    #[arg(
        long,
        env = settings::ALLOW_HOST.variable,
        value_name = "HOST",
        value_delimiter = ',',
        value_parser = values::host
    )]
    pub(crate) allow_host: Vec<registry::Host>,
    /// URL at which clients reach the registry, such as `https://registry.example.com`: scheme, host and port, without a path.
    /// A challenge for tokens sends clients with their passwords to this URL. Without this flag, it is the URL that a proxy
    /// of --trusted-proxy reports in `X-Forwarded-Proto` and `X-Forwarded-Host`; or that of localhost, if the request is for
    /// this machine; or https and the host of the request, if the certificate of --tls-cert is for it
    #[arg(long, env = settings::PUBLIC_URL.variable, value_name = "URL")]
    pub(crate) public_url: Option<PublicUrl>,
    /// How clients are asked for credentials
    #[arg(
        long,
        env = settings::CHALLENGE.variable,
        value_name = "HOW",
        default_value = settings::CHALLENGE.default,
        value_parser = challenge_words()
    )]
    pub(crate) challenge: ChallengeSchemes,
    /// For how long clients may use an access token before they ask for another one; 1m to 1h
    #[arg(
        long,
        env = settings::TOKEN_LIFETIME.variable,
        value_name = "DURATION",
        default_value = settings::TOKEN_LIFETIME.default
    )]
    pub(crate) token_lifetime: TokenLifetime,
    /// File of the keys that sign access tokens: a line with 32 random bytes in base64url for each, the newest first. The
    /// first key signs, and all of them verify. Without this flag, the keys are stored with the metadata
    #[arg(long, env = settings::TOKEN_KEY_FILE.variable, value_name = "FILE")]
    pub(crate) token_key_file: Option<PathBuf>,
    /// File of a secret of at least 32 bytes by which the first administrator can be made where no command reaches the
    /// metadata. The variable `ROADSTEAD_BOOTSTRAP_SECRET` may hold it instead
    #[arg(long, env = settings::BOOTSTRAP_SECRET_FILE.variable, value_name = "FILE")]
    pub(crate) bootstrap_secret_file: Option<PathBuf>,
    /// File of the secret by which an edge in front of the registry, such as a CDN, proves that it has sent a request: 32 bytes
    /// or more, and a second one while it is replaced. All other requests are refused with 403, except `/livez` and `/readyz`.
    /// The server reads it again at SIGHUP. The variable `ROADSTEAD_ORIGIN_SECRET` may hold the secret instead
    #[arg(long, env = settings::ORIGIN_SECRET_FILE.variable, value_name = "FILE")]
    pub(crate) origin_secret_file: Option<PathBuf>,
    /// Whether a manifest may refer to blobs and manifests that are absent in its repository
    #[arg(long, env = settings::SPARSE.variable, value_name = "POLICY", default_value = settings::SPARSE.default)]
    pub(crate) sparse: SparsePolicy,
    /// Name of the region of this server. Only servers of the region in which an upload began can continue it
    #[arg(long, env = settings::REGION.variable, value_name = "NAME", default_value_t)]
    pub(crate) region: RegionName,
    /// Whether an acknowledged push survives a power failure, for the stores on this host
    #[arg(long, env = settings::SYNC.variable, value_name = "HOW", default_value = settings::SYNC.default)]
    pub(crate) sync: SyncMode,
    /// Minimum free space on the file systems of --data. If less is free, uploads are refused with 503; pulls, deletions and
    /// garbage collection still work. A size, a part of the file system such as 10%, or 0 for no minimum [default: 5%, at
    /// most 1GiB]
    #[arg(
        long,
        env = settings::MIN_FREE.variable,
        value_name = "SIZE|PERCENT",
        default_value = settings::MIN_FREE.default,
        hide_default_value = true,
        value_parser = values::min_free
    )]
    pub(crate) min_free: MinFree,
    /// Start although the metadata or all blobs of a registry are lost: the metadata is empty and there are blobs, or the
    /// metadata refers to blobs of which none is present. Without this flag the server refuses to start in these cases,
    /// because most likely a directory was mistyped or is not mounted. Give this flag for one start, and leave it out
    /// afterwards
    #[arg(long, env = settings::BEGIN_ANEW.variable, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) begin_anew: bool,
    /// Format of the log on standard error [default: text on a terminal, JSON elsewhere]
    #[arg(long, env = settings::LOG.variable, value_name = "FORM")]
    pub(crate) log: Option<LogFormatArg>,
    /// What is logged: a level, or a list of targets with levels. `info,access=off` leaves out the line for each request
    #[arg(long, env = settings::LOG_LEVEL.variable, value_name = "FILTER", default_value = settings::LOG_LEVEL.default)]
    pub(crate) log_level: String,
    /// Interval between collection passes in the background, each as by `roadstead collect`. If several servers share the
    /// stores, one of them at a time examines the metadata. Once in 30 days a pass is a deep one, as with `--deep`
    #[arg(long, env = settings::COLLECT_EVERY.variable, value_name = "DURATION")]
    pub(crate) collect_every: Option<Span>,
    /// Where `/metrics` is served, as text for Prometheus: `off`, `here` (at the address of the registry, for all clients),
    /// or a separate ADDRESS:PORT. On loopback, only requests for localhost, 127.0.0.1, `[::1]` and the hosts of
    /// --allow-host are answered
    #[arg(long, env = "ROADSTEAD_METRICS", value_name = "WHERE", default_value = "off")]
    pub(crate) metrics: MetricsAddress,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
    #[command(flatten)]
    pub(crate) pulls: PullArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

impl ServeArgs {
    /// What the flags say about challenges.
    pub(crate) fn challenges(&self) -> ChallengeSettings {
        ChallengeSettings {
            schemes: self.challenge,
            public_url: self.public_url.clone(),
        }
    }
}

/// The words of `--challenge`, with their help.
fn challenge_words() -> impl TypedValueParser<Value = ChallengeSchemes> {
    PossibleValuesParser::new([
        PossibleValue::new("auto")
            .help("For a token, if the registry grants tokens and its URL is known; else for a password"),
        PossibleValue::new("basic").help("Always for a password"),
    ])
    .try_map(|word| parse_schemes(&word))
}

/// The flags of limits.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Maximum number of connections. A connection above the limit replaces another one: that of the client with the most
    /// connections that makes the least progress. If none can be replaced, requests on the new connection get 503 after 5
    /// seconds; `/livez` and `/readyz` are answered in any case
    #[arg(long, env = "ROADSTEAD_MAX_CONNECTIONS", value_name = "COUNT", default_value = "1024",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_connections: u32,
    /// Maximum number of requests in progress on all connections; further requests are answered with 503. A request counts
    /// once for each 6 KiB of memory that its head takes. One client gets at most three quarters, and less while other
    /// clients need some
    #[arg(long, env = "ROADSTEAD_MAX_REQUESTS", value_name = "COUNT", default_value = "4096",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_requests: u32,
    /// Memory for the bodies of all uploads together. Further uploads wait for memory; a body that was interrupted because
    /// of it is answered with 503. The same amount again (64MiB if this flag is not given) is for manifests and lists; twice
    /// that, and at least 16MiB, is for blobs that are sent [default: 64MiB; for uploads into S3 512MiB]
    #[arg(long, env = settings::UPLOAD_MEMORY.variable, value_name = "SIZE")]
    pub(crate) upload_memory: Option<Length>,
    /// Maximum time for which a request waits for memory before it is answered with 503. While requests wait, bodies and
    /// responses that are slower than 16 KiB a second are ended [default: 30s; for uploads into S3 5m]
    #[arg(long, env = settings::MEMORY_TIMEOUT.variable, value_name = "DURATION")]
    pub(crate) memory_timeout: Option<Span>,
    /// Maximum size of a blob
    #[arg(
        long,
        env = settings::MAX_BLOB_SIZE.variable,
        value_name = "SIZE",
        default_value = settings::MAX_BLOB_SIZE.default
    )]
    pub(crate) max_blob_size: Length,
    /// Maximum time for which an upload can be continued after its start; up to 24h. Afterwards its data is deleted
    #[arg(
        long,
        env = settings::UPLOAD_LIFETIME.variable,
        value_name = "DURATION",
        default_value = settings::UPLOAD_LIFETIME.default,
        value_parser = within_a_day
    )]
    pub(crate) upload_lifetime: Span,
    /// Maximum time for the head of a request, from its first byte or from the opening of the connection. It includes the
    /// TLS handshake
    #[arg(
        long,
        env = "ROADSTEAD_HEADER_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub(crate) header_timeout: Span,
    /// Maximum time for which a connection stays open without a request, from the last byte of the last response
    #[arg(long, env = "ROADSTEAD_KEEP_ALIVE", value_name = "DURATION", default_value = "2m")]
    pub(crate) keep_alive: Span,
    /// Maximum time between two bytes of a request's body. Clients that compress while they send may pause for a while
    #[arg(long, env = "ROADSTEAD_IDLE_TIMEOUT", value_name = "DURATION", default_value = "2m")]
    pub(crate) idle_timeout: Span,
    /// Maximum time in which a client must read at least 1 KiB of a response. Bytes in the send buffer of the operating
    /// system count as read: on Linux up to 256 KiB, and the system takes more when half of them were sent
    #[arg(long, env = "ROADSTEAD_STALL_TIMEOUT", value_name = "DURATION", default_value = "2m")]
    pub(crate) stall_timeout: Span,
    /// Maximum time for the whole body of a request or of a response
    #[arg(
        long,
        env = "ROADSTEAD_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "6h"
    )]
    pub(crate) request_timeout: Span,
    /// Maximum time for which the server waits for requests in progress after SIGTERM. The service manager must wait longer
    /// before it kills the server (Kubernetes: termination grace period; systemd: stop timeout)
    #[arg(long, env = "ROADSTEAD_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "5m")]
    pub(crate) drain_timeout: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AllowAnonymous {
    /// Pull and list everything
    Pull,
    /// Everything, also push and delete
    All,
}

impl From<AllowAnonymous> for AnonymousAccess {
    fn from(allowed: AllowAnonymous) -> Self {
        match allowed {
            AllowAnonymous::Pull => Self::Pull,
            AllowAnonymous::All => Self::All,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SparsePolicy {
    /// No: all blobs and manifests that a manifest refers to must be in its repository
    Refuse,
    /// An index may refer to absent manifests, as after a copy of one platform
    Indexes,
    /// Yes: all references may be absent
    Allow,
}

impl From<SparsePolicy> for Sparse {
    fn from(policy: SparsePolicy) -> Self {
        match policy {
            SparsePolicy::Refuse => Self::Refuse,
            SparsePolicy::Indexes => Self::Indexes,
            SparsePolicy::Allow => Self::Allow,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SyncMode {
    /// Yes: files and directories are synced before a push is acknowledged
    Full,
    /// No: faster; an acknowledged push survives only a crash of the server itself
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormatArg {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(format: LogFormatArg) -> Self {
        match format {
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
        }
    }
}
