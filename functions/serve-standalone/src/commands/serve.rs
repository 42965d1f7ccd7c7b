//! `roadstead serve`.

use std::sync::Arc;
use std::time::Duration;

use auth::api::{Api, ApiParts};
use registry::{HostPolicy, Registry, Settings};
use shell::admission::{Admission, LateRefusal};
use shell::challenge::AskedClients;
use shell::client_address::TrustedProxies;
use shell::clock::SystemEnvironment;
use shell::collector::{Collector, Passes};
use shell::edge::Edge;
use shell::health::Health;
use shell::opened::StoreStatistics;
use shell::stores::{self, Absent, Contact, OpenOptions};
use store_embedded::Sync;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::signals::{Hangups, Signals};
use crate::cli::{MetricsAddress, ServeArgs, SyncMode, flag};
use crate::exchange::Service;
use crate::failure::Failure;
use crate::logging;
use crate::metrics::{Metrics, MetricsListener};
use crate::requests::{ANSWER_MEMORY, RequestSlots};
use crate::server::{Drained, Server};
use crate::tls::TlsFiles;
use crate::transport::{Buffers, Timeouts};

mod access;
mod announce;
mod files;
mod secrets;

use access::{Access, AccessFlags};
use announce::{announce, warn_of_challenges, warn_of_redirects};
use files::Bounds;
use secrets::EdgeInFront;

/// Maximum time for threads that still wait for the disk after the server has ended.
const THREADS_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of threads that run requests: one for each processor, because more threads would only share the same
/// processors. At least two, because one of them makes no call that may wait for a disk.
fn worker_threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .max(2)
}

/// The maximum number of blocking threads, in addition to those of the stores on local disk: one for each core that verifies
/// a password, and some that check files of the configuration and the free space, or resolve host names.
fn other_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) + 32
}

/// Keeps memory in pages of the usual size. The allocator asks for huge pages, and has separate memory for each thread and
/// each size class. So a few bytes in a new size class would take 2 MiB.
#[cfg(target_os = "linux")]
fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // Some sandboxes do not have the call. Then the process takes more memory.
        tracing::debug!(%error, "huge pages cannot be disabled");
    }
}

/// Runs the server until a signal ends it.
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    #[cfg(target_os = "linux")]
    refuse_huge_pages();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .max_blocking_threads(store_embedded::MAX_THREADS + other_threads())
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start threads", error))?;
    // Before files are read, so that a signal during the start makes the server read them again.
    let hangups = {
        let _inside = runtime.enter();
        Hangups::new().map_err(|error| Failure::failed("cannot handle signals", error))?
    };
    let format = logging::format(args.log.map(Into::into));
    logging::init(format, &args.log_level)
        .map_err(|error| Failure::Usage(format!("--log-level {:?} cannot be used: {error}", args.log_level)))?;
    args.stores.check(false).map_err(Failure::Usage)?;
    let (edge, edge_file) = secrets::edge(args)?
        .map(|EdgeInFront { edge, file }| (edge, file))
        .unzip();
    let access = AccessFlags::read(args, edge.is_some())?;
    let mut files = access.files();
    files.extend(edge_file.flatten().map(|file| Arc::new(file) as _));
    let tls = open_tls(args)?;
    files.extend(tls.iter().map(|tls| Arc::new(tls.clone()) as _));
    let has_edge = edge.is_some();
    let bounds = Bounds {
        connections: args.limits.max_connections,
        requests: args.limits.max_requests,
    }
    .within_files();
    let served: Result<_, Failure> = runtime.block_on(async {
        let signals = Signals::new().map_err(|error| Failure::failed("cannot handle signals", error))?;
        let stop = signals.first();
        tokio::spawn(hangups.reload(files));
        let Running {
            server,
            metrics,
            collector,
            statistics,
            refusals,
            access,
            asked,
        } = open(args, access, bounds, Front { tls, edge }).await?;
        let address = server
            .listener
            .local_addr()
            .map_err(|error| Failure::failed("cannot find out the address of the listener", error))?;
        warn_of_challenges(args, asked, has_edge);
        warn_of_redirects(args, address, &statistics).await;
        announce(args, format, address, metrics.as_ref(), &access);
        let running = server.run(async {
            stop.await;
            // A collection pass stops at its next step. Another process continues from there.
            drop(collector);
        });
        let drained = tokio::select! {
            drained = running => drained,
            // No request has used the stores yet, so that nothing is cut off.
            refusal = refusals.first() => return Err(refusal.into()),
        };
        // The metrics end last, so that they show the last requests too.
        drop(metrics);
        Ok(drained)
    });
    // All requests have ended or were cut off. Threads that still wait must not keep the process alive.
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    match served? {
        Drained::Whole => {
            tracing::info!("drained: all requests have ended");
            Ok(())
        }
        Drained::Cut => Err(Failure::Failed(
            "requests were still in progress after --drain-timeout and were cut off; everything that was acknowledged is safe"
                .into(),
        )),
    }
}

/// Reads the certificate and its key, if they are given.
fn open_tls(args: &ServeArgs) -> Result<Option<TlsFiles>, Failure> {
    let Some((certificate, key)) = args.tls.pair().map_err(Failure::Usage)? else {
        return Ok(None);
    };
    let files = TlsFiles::open(certificate, key).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Some(files))
}

/// The parts of a running server.
struct Running {
    server: Server,
    metrics: Option<MetricsListener>,
    collector: Option<Collector>,
    statistics: StoreStatistics,
    /// Ends the start if a store cannot be used.
    refusals: LateRefusal,
    /// Which clients may do what, for the operator.
    access: String,
    /// Which clients are asked for credentials.
    asked: AskedClients,
}

/// What is between the clients and the server.
struct Front {
    /// The certificate of the server and its key; `None` without TLS.
    tls: Option<TlsFiles>,
    /// The edge through which all clients come; `None`: there is none.
    edge: Option<Arc<Edge>>,
}

async fn open(args: &ServeArgs, access: AccessFlags, bounds: Bounds, front: Front) -> Result<Running, Failure> {
    let how = open_options(args);
    access.check_exposure(args, &how).await?;
    let listener = listen(args).await?;
    let opened = stores::open(&args.stores.config(), &how).await?;
    let environment = Arc::new(SystemEnvironment);
    let health = Arc::new(Health::new(&opened, environment.clone()));
    let statistics = opened.statistics.clone();
    // The health checks use the stores directly. Everything else uses them only as their condition allows.
    let guarded = opened.condition.guarding(&opened.stores);
    let Access {
        authenticator,
        text: access,
        asked,
        hosts,
    } = access.open(args, &opened.stores, &guarded).await?;
    let metrics = Arc::new(Metrics::new(
        statistics.clone(),
        opened.condition.clone(),
        authenticator.clone(),
    ));
    let api = Api::new(ApiParts {
        authenticator: authenticator.clone(),
        access: guarded.access.clone(),
        metadata: guarded.metadata.clone(),
        environment: environment.clone(),
    });
    let registry = Registry::new(
        guarded,
        authenticator.clone(),
        environment.clone(),
        Arc::new(how.request_memory().without_answers_up_to(ANSWER_MEMORY)),
        settings(args, hosts),
    );
    let registry = registry.with_token_endpoint(authenticator);
    let registry = Arc::new(registry.with_api_endpoint(Arc::new(api)));
    opened.condition.look();
    opened.condition.watch();
    let admission = Admission::of(&opened, environment.clone(), args.begin_anew, flag);
    let prepared = registry.clone();
    let passes = Passes::new(&opened, environment, metrics.clone());
    let refusals = admission
        .start(opened.condition, async move || {
            // This also marks a new metadata file as used. If it fails, the first upload tries it again.
            if let Err(error) = prepared.prepare().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the keys that sign upload tokens cannot be read now; the first upload tries it again"
                );
            }
        })
        .await?;
    let listener_of_metrics = match args.metrics {
        MetricsAddress::At(address) => Some(
            MetricsListener::open(address, metrics.clone(), args.allow_host.clone())
                .await
                .map_err(|error| Failure::failed(format!("cannot serve metrics on {address}"), error))?,
        ),
        MetricsAddress::Here | MetricsAddress::Off => None,
    };
    let work = TaskTracker::new();
    let collector = args.collect_every.map(|every| Collector::start(every.0, passes, &work));
    let service = Arc::new(Service {
        registry,
        health: health.clone(),
        metrics,
        shows_metrics: args.metrics == MetricsAddress::Here,
        proxies: TrustedProxies::new(args.pulls.trusted_proxy.clone()),
        timeouts: timeouts(args),
        slots: RequestSlots::new(bounds.requests),
        buffers: Buffers::new(),
        tls: front.tls,
        edge: front.edge,
        work: work.clone(),
    });
    Ok(Running {
        server: Server {
            listener,
            service,
            health,
            work,
            max_connections: bounds.connections,
            drain_timeout: args.limits.drain_timeout.0,
        },
        metrics: listener_of_metrics,
        collector,
        statistics,
        refusals,
        access,
        asked,
    })
}

fn open_options(args: &ServeArgs) -> OpenOptions {
    OpenOptions {
        absent: Absent::Create,
        sync: match args.sync {
            SyncMode::Full => Sync::Full,
            SyncMode::Off => Sync::Off,
        },
        upload_memory: args.limits.upload_memory.map(|length| length.0),
        memory_timeout: args.limits.memory_timeout.map(|span| span.0),
        presign_lifetime: args.pulls.presign_lifetime.0,
        min_free: args.min_free,
        contact: Contact::Later,
        spelling: flag,
    }
}

async fn listen(args: &ServeArgs) -> Result<TcpListener, Failure> {
    TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::Failed(format!(
            "cannot listen on {}: {error}. Choose another address with --listen, or port 0 for a free one",
            args.listen
        ))
    })
}

fn timeouts(args: &ServeArgs) -> Timeouts {
    let limits = &args.limits;
    Timeouts {
        header: limits.header_timeout.0,
        keep_alive: limits.keep_alive.0,
        idle: limits.idle_timeout.0,
        stall: limits.stall_timeout.0,
        total: limits.request_timeout.0,
    }
}

fn settings(args: &ServeArgs, hosts: HostPolicy) -> Settings {
    let limits = &args.limits;
    Settings {
        limits: args.stores.blobs.limits(limits.max_blob_size, limits.upload_lifetime),
        sparse: args.sparse.into(),
        delivery: Arc::new(args.pulls.rules()),
        hosts,
        challenge: args.challenges().challenge(),
        region: args.region.clone(),
    }
}
