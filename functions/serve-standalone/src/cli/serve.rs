//! The flags of the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use registry::{RegionName, Sparse};
use shell::log::LogFormat;
use store_embedded::MinFree;

use super::pull::PullArgs;
use super::stores::StoreArgs;
use super::tls::TlsArgs;
use super::values::{self, Length, MetricsAddress, Span};

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Address and port to serve on; port 0 takes a free one, which is printed
    #[arg(
        long,
        env = values::LISTEN_VARIABLE,
        value_name = "ADDRESS:PORT",
        default_value = values::DEFAULT_LISTEN,
        value_parser = values::listen
    )]
    pub(crate) listen: SocketAddr,
    /// Users and their passwords, as lines user:hash with bcrypt or argon2id hashes; read again when it changes, and at
    /// SIGHUP
    #[arg(long, env = "ROADSTEAD_HTPASSWD", value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// What requests without credentials may do. Without this, and without --htpasswd, everything on a loopback
    /// address, while other addresses are refused at start
    #[arg(long, env = "ROADSTEAD_ALLOW_ANONYMOUS", value_name = "WHAT")]
    pub(crate) allow_anonymous: Option<AllowAnonymous>,
    /// A host name or address, without a port, at which requests are answered beside localhost, 127.0.0.1 and `[::1]`.
    /// Needed on a loopback address without --htpasswd, where other names are refused because a web page could use
    /// them, and for --metrics at one; elsewhere every name is answered unless some are given here. May be repeated, or
    /// separated by commas
    #[arg(long, env = "ROADSTEAD_ALLOW_HOST", value_name = "HOST", value_delimiter = ',', value_parser = values::host)]
    pub(crate) allow_host: Vec<registry::Host>,
    /// Whether manifests may refer to what the repository does not hold
    #[arg(long, env = "ROADSTEAD_SPARSE", value_name = "POLICY", default_value = "refuse")]
    pub(crate) sparse: SparsePolicy,
    /// Name of the region that this server belongs to. An upload is continued by servers of the region in which it was
    /// opened, and by no others
    #[arg(long, env = "ROADSTEAD_REGION", value_name = "NAME", default_value_t)]
    pub(crate) region: RegionName,
    /// Whether an acknowledged push survives a power failure, as far as it is kept on this host
    #[arg(long, env = "ROADSTEAD_SYNC", value_name = "HOW", default_value = "full")]
    pub(crate) sync: SyncMode,
    /// How much stays free on the file systems of --data: below that, uploads are refused with 503, while pulls,
    /// deletions and collection go on. A size, a part such as 10%, or 0 for no floor [default: 5%, at most 1GiB]
    #[arg(
        long,
        env = "ROADSTEAD_MIN_FREE",
        value_name = "SIZE|PERCENT",
        default_value = "",
        hide_default_value = true,
        value_parser = values::min_free
    )]
    pub(crate) min_free: MinFree,
    /// Start although the metadata is empty beside blobs of a registry, or names blobs that are all gone: what is lost
    /// is given up. Without this such a start is refused, because a directory was mistyped or not mounted, most likely.
    /// For one start: leave it out again afterwards
    #[arg(long, env = "ROADSTEAD_BEGIN_ANEW", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) begin_anew: bool,
    /// Form of the log on standard error; text on a terminal and JSON elsewhere unless set
    #[arg(long, env = "ROADSTEAD_LOG", value_name = "FORM")]
    pub(crate) log: Option<LogFormatArg>,
    /// What is logged: a level, or targets with levels. `info,access=off` leaves out the line for each request
    #[arg(long, env = "ROADSTEAD_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub(crate) log_level: String,
    /// Interval between garbage collections, each as by `roadstead collect`. Of several servers over the same stores one at a
    /// time goes through the metadata. Once in 30 days a pass is a deep one, as with `--deep`
    #[arg(long, env = "ROADSTEAD_COLLECT_EVERY", value_name = "DURATION")]
    pub(crate) collect_every: Option<Span>,
    /// Where `/metrics` is served, as text for Prometheus: `off`, `here` (beside the registry, to every client), or an
    /// ADDRESS:PORT of its own; at a loopback address only to the names of this machine and of --allow-host
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

/// Bounds of the server.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Connections at once. For one more another one ends: of the client with the most connections the one that gets on
    /// least. If none does, the new one gets 503 after 5 seconds; `/livez` and `/readyz` are answered in any case
    #[arg(long, env = "ROADSTEAD_MAX_CONNECTIONS", value_name = "COUNT", default_value = "1024",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_connections: u32,
    /// Requests in progress at once, over all connections; more are answered with 503. A request counts once for each 6 KiB
    /// of memory that its head takes. One client gets at most three quarters, and less when others want some
    #[arg(long, env = "ROADSTEAD_MAX_REQUESTS", value_name = "COUNT", default_value = "4096",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_requests: u32,
    /// Memory for the bodies of all uploads together; more uploads wait for room, and a body that was interrupted for
    /// lack of it ends with 503. As much again is for manifests and lists, and twice as much for blobs on their way out
    /// [default: 64MiB, with blobs in S3 512MiB for uploads]
    #[arg(long, env = "ROADSTEAD_UPLOAD_MEMORY", value_name = "SIZE")]
    pub(crate) upload_memory: Option<Length>,
    /// For how long a request waits for memory before it is answered with 503. While others wait, bodies that arrive,
    /// and answers that are read, at less than 16 KiB a second give way [default: 30s, for uploads into S3 5m]
    #[arg(long, env = "ROADSTEAD_MEMORY_TIMEOUT", value_name = "DURATION")]
    pub(crate) memory_timeout: Option<Span>,
    /// The largest blob that is accepted
    #[arg(long, env = "ROADSTEAD_MAX_BLOB_SIZE", value_name = "SIZE", default_value = "500GiB")]
    pub(crate) max_blob_size: Length,
    /// For how long an upload that was begun may be continued; up to 24h, since what it stored is collected afterwards
    #[arg(
        long,
        env = "ROADSTEAD_UPLOAD_LIFETIME",
        value_name = "DURATION",
        default_value = "24h",
        value_parser = values::within_a_day
    )]
    pub(crate) upload_lifetime: Span,
    /// From the first byte of a request, or from the opening of a connection, to the end of the request's head. The handshake
    /// of TLS counts too
    #[arg(
        long,
        env = "ROADSTEAD_HEADER_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub(crate) header_timeout: Span,
    /// For how long a connection may be kept without a request, from the last byte of the last answer
    #[arg(long, env = "ROADSTEAD_KEEP_ALIVE", value_name = "DURATION", default_value = "2m")]
    pub(crate) keep_alive: Span,
    /// For how long no byte of a request's body may arrive. Clients that compress while they send are silent for a while
    #[arg(long, env = "ROADSTEAD_IDLE_TIMEOUT", value_name = "DURATION", default_value = "2m")]
    pub(crate) idle_timeout: Span,
    /// For how long a client may read less than 1 KiB of a response. What the system keeps for it counts as read: on
    /// Linux up to 256 KiB, of which it takes more when half was sent
    #[arg(long, env = "ROADSTEAD_STALL_TIMEOUT", value_name = "DURATION", default_value = "2m")]
    pub(crate) stall_timeout: Span,
    /// For how long a body, of a request or of a response, may take in all
    #[arg(
        long,
        env = "ROADSTEAD_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "6h"
    )]
    pub(crate) request_timeout: Span,
    /// For how long requests in flight are waited for after SIGTERM. What stops the server should wait longer than
    /// this before it kills (Kubernetes: its termination grace period; systemd: its stop timeout)
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SparsePolicy {
    /// Everything that a manifest refers to must be in its repository
    Refuse,
    /// An index may name manifests that are absent, as after a copy of one platform
    Indexes,
    /// Nothing needs to be present
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
    /// Yes: files and directories are synced before anything is acknowledged
    Full,
    /// No: faster, and safe only against a crash of the server itself
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
