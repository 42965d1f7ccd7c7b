//! `roadstead serve`.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use registry::auth::Ceiling;
use registry::{Anonymous, Authenticator, Limits, Registry, Settings, Sparse, Stores};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use store_embedded::{Embedded, Options, Sync};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::Failure;
use crate::cli::{AllowAnonymous, LogFormat, ServeArgs, SparsePolicy, SyncMode};
use crate::connection::Timeouts;
use crate::environment::SystemEnvironment;
use crate::exchange::Service;
use crate::health::Health;
use crate::htpasswd::Htpasswd;
use crate::logging;
use crate::server::{Drained, Server};

/// File descriptors for other things than connections: the database, the log, the runtime.
const OTHER_FILES: u64 = 256;
/// A connection is a file, and what is read or written for it another.
const FILES_PER_CONNECTION: u64 = 2;
/// How long threads that wait for the disk may take after everything has ended.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Serves until a signal says to stop.
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let format = logging::format(args.log);
    logging::init(format, &args.log_level)
        .map_err(|error| Failure::Usage(format!("--log-level {:?} cannot be used: {error}", args.log_level)))?;
    let (authenticator, access) = authenticator(args)?;
    let max_connections = connections(args.limits.max_connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start threads", error))?;
    let served: Result<_, Failure> = runtime.block_on(async {
        let signals = Signals::new().map_err(|error| Failure::failed("cannot listen to signals", error))?;
        let stop = signals.first();
        let server = open(args, authenticator, max_connections).await?;
        let address = server
            .listener
            .local_addr()
            .map_err(|error| Failure::failed("cannot tell the address", error))?;
        announce(args, format, address, &access);
        Ok(server.run(stop).await)
    });
    // Everything that matters has ended or is past its time; what is left must not keep the process.
    runtime.shutdown_timeout(LAST_MOMENT);
    match served? {
        Drained::Whole => {
            tracing::info!("drained");
            Ok(())
        }
        Drained::Cut => Err(Failure::Failed(
            "requests were still in flight after --drain-timeout and were cut off; what they had acknowledged is safe"
                .into(),
        )),
    }
}

/// Who may do what, and how to say it.
fn authenticator(args: &ServeArgs) -> Result<(Arc<dyn Authenticator>, String), Failure> {
    let file = match (&args.htpasswd, args.allow_anonymous) {
        (Some(_), Some(AllowAnonymous::All)) => {
            return Err(Failure::Usage(
                "--htpasswd and --allow-anonymous all contradict each other: passwords would protect nothing. Leave \
                 one of them out, or use --allow-anonymous pull"
                    .into(),
            ));
        }
        (Some(file), _) => file,
        (None, Some(AllowAnonymous::All)) => {
            return Ok((Arc::new(Anonymous::all()), "everyone may pull, push and delete".into()));
        }
        (None, Some(AllowAnonymous::Pull)) => {
            return Ok((Arc::new(Anonymous::pull()), "everyone may pull, nobody may push".into()));
        }
        // A mapped address is not loopback to `IpAddr`, though the system takes it for that.
        (None, None) if args.listen.ip().to_canonical().is_loopback() => {
            return Ok((
                Arc::new(Anonymous::all()),
                "everyone on this machine may pull, push and delete".into(),
            ));
        }
        (None, None) => {
            return Err(Failure::Usage(format!(
                "refusing to serve {} without authentication: everyone who reaches it could push and delete.\n\
                 Either make users:     roadstead htpasswd NAME > users, then add --htpasswd users\n\
                 or serve this machine: --listen 127.0.0.1:{}\n\
                 or ask for it by name: --allow-anonymous pull (nobody may push), or --allow-anonymous all",
                args.listen,
                args.listen.port()
            )));
        }
    };
    let anonymous = args.allow_anonymous.map(|_| Ceiling::PullOnly);
    let others = if anonymous.is_some() {
        ", everyone else may pull"
    } else {
        ""
    };
    let users = Htpasswd::open(file, anonymous)
        .map_err(|error| Failure::failed(format!("cannot use the htpasswd file {}", file.display()), error))?;
    let access = format!("{} users with passwords may pull, push and delete{others}", users.len());
    Ok((Arc::new(users), access))
}

/// As many connections as were asked for and as the system has files for.
fn connections(asked: u32) -> u32 {
    let wanted = u64::from(asked) * FILES_PER_CONNECTION + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    // The usual soft limit is there for programs that cannot handle more, not to keep others from more.
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < raised) {
        let raised = Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    let possible = (files.saturating_sub(OTHER_FILES) / FILES_PER_CONNECTION).max(1);
    let possible = u32::try_from(possible).unwrap_or(u32::MAX);
    if possible < asked {
        tracing::warn!(
            files,
            connections = possible,
            "fewer connections than asked for: too few files may be open"
        );
    }
    possible.min(asked)
}

async fn open(
    args: &ServeArgs,
    authenticator: Arc<dyn Authenticator>,
    max_connections: u32,
) -> Result<Server, Failure> {
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::Failed(format!(
            "cannot listen on {}: {error}. Choose another address with --listen, or port 0 for a free one",
            args.listen
        ))
    })?;
    let options = Options {
        data: args.data.clone(),
        sync: match args.sync {
            SyncMode::Full => Sync::Full,
            SyncMode::Off => Sync::Off,
        },
        upload_memory: args.limits.upload_memory.0,
    };
    let opening = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot open the data directory {}", args.data.display()), error)
    };
    let Embedded {
        blobs,
        metadata,
        sessions,
    } = Embedded::open(&options).map_err(|error| opening(&error))?;
    let stores = Stores {
        blobs,
        metadata,
        sessions,
    };
    let environment = Arc::new(SystemEnvironment::new(args.limits.upload_memory.0));
    let health = Arc::new(Health::new(&stores, environment.clone()));
    let settings = Settings {
        limits: Limits {
            blob_bytes: args.limits.max_blob_size.0,
            ..Limits::default()
        },
        sparse: match args.sparse {
            SparsePolicy::Refuse => Sparse::Refuse,
            SparsePolicy::Indexes => Sparse::Indexes,
            SparsePolicy::Allow => Sparse::Allow,
        },
        ..Settings::default()
    };
    let registry = Registry::open(stores, authenticator, environment, settings)
        .await
        .map_err(|error| opening(&error))?;
    let limits = &args.limits;
    let timeouts = Timeouts {
        header: limits.header_timeout.0,
        keep_alive: limits.keep_alive.0,
        idle: limits.idle_timeout.0,
        stall: limits.stall_timeout.0,
        total: limits.request_timeout.0,
    };
    let (copies, work) = mpsc::channel(1);
    let service = Arc::new(Service::new(registry, health.clone(), timeouts, copies));
    Ok(Server {
        listener,
        service,
        health,
        work,
        max_connections,
        drain_timeout: limits.drain_timeout.0,
    })
}

/// Says where the server is and how to push to it: to a person in words, to a log collector in one line.
fn announce(args: &ServeArgs, format: LogFormat, address: SocketAddr, access: &str) {
    let host = reachable(address);
    let push = format!("docker tag alpine {host}/alpine && docker push {host}/alpine");
    match format {
        LogFormat::Json => {
            tracing::info!(%address, data = %args.data.display(), access, push, "listening");
        }
        LogFormat::Text => {
            // The server works whether or not anybody reads this.
            let _ = writeln!(
                std::io::stdout(),
                "roadstead {} is listening on http://{address}\n\
                 Data:    {}\n\
                 Access:  {access}\n\
                 Push an image to it:\n  {push}",
                env!("CARGO_PKG_VERSION"),
                args.data.display(),
            );
        }
    }
}

/// An address that works in a command on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Completes at the first signal. The second ends the process at once.
    async fn first(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("a second signal: ending at once");
            logging::flush();
            std::process::exit(1);
        });
    }
}
