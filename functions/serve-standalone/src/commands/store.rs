//! Opens the stores of a registry for commands, which may run while servers use the same stores.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use oci::RepositoryName;
use registry::budget::ClientKey;
use registry::environment::context;
use registry::store::metadata::MetadataStore;
use registry::store::{Context, Page, StoreError};
use shell::admission::Admission;
use shell::clock::SystemEnvironment;
use shell::opened::Opened;
use shell::stores::{self, Absent, Contact, OpenFailure, OpenOptions, Records};
use shell::values::PresignLifetime;

use crate::cli::{ReadArgs, StoreArgs, flag};
use crate::failure::Failure;

/// Number of items that are read in one call, so that memory does not depend on the length of a list.
pub(super) const PAGE: usize = 1000;
/// Maximum time of one operation of a store, in milliseconds. It is long, because no client waits for the operation.
pub(super) const OPERATION_TIMEOUT_MS: u64 = 60_000;
/// Memory for the data that a command writes, in bytes.
const MEMORY: u64 = 256 << 20;

/// Opens the stores of a registry and runs `work` on them. `absent` says what to do if there is no registry.
pub(super) fn with<R, F, T>(args: &StoreArgs, absent: Absent, work: R) -> Result<T, Failure>
where
    R: FnOnce(Opened) -> F,
    F: Future<Output = Result<T, Failure>>,
{
    args.check(false).map_err(Failure::Usage)?;
    run(async {
        let opened = open(args, absent).await?;
        work(opened).await
    })
}

/// Runs `work` on the records of a registry. `absent` says what to do if there is no registry on this host; what it makes is
/// reported. Records in a table are opened alone, without blobs.
pub(super) fn with_records<R, F, T>(args: &StoreArgs, absent: Absent, work: R) -> Result<T, Failure>
where
    R: FnOnce(Records) -> F,
    F: Future<Output = Result<T, Failure>>,
{
    args.check(false).map_err(Failure::Usage)?;
    run(async {
        let records = match absent {
            Absent::Refuse => match stores::open_table(&args.config(), &how(absent)).await? {
                Some(records) => records,
                None => Records::from(&open(args, absent).await?),
            },
            Absent::Create => match records_if_present(args).await? {
                Some(records) => records,
                None => Records::from(&create(args).await?),
            },
        };
        work(records).await
    })
}

/// Opens the records of the registry that the flags name. `None`: there is no registry.
pub(super) async fn records_if_present(args: &StoreArgs) -> Result<Option<Records>, Failure> {
    match stores::open_records(&args.config(), &how(Absent::Refuse)).await {
        Ok(records) => Ok(Some(records)),
        Err(OpenFailure::Absent(_)) => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

/// Makes a registry whose records are on this host.
async fn create(args: &StoreArgs) -> Result<Opened, Failure> {
    let opened = stores::open(&args.config(), &how(Absent::Create)).await?;
    eprintln!("made a new registry in {}", args.data.display());
    Ok(opened)
}

/// Runs a command's future to its end.
pub(super) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start threads", error))?;
    let done = runtime.block_on(work);
    // Tasks that are still running are cut off as by a crash, which the stores survive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Opens the stores that the flags name.
pub(super) async fn open(args: &StoreArgs, absent: Absent) -> Result<Opened, Failure> {
    let opened = stores::open(&args.config(), &how(absent)).await?;
    if absent == Absent::Refuse {
        // A command that may create a registry, such as an import, may find blobs that were copied before.
        let admission = Admission::of(&opened, Arc::new(SystemEnvironment), false, flag);
        admission.refuse_lost_metadata().await?;
    }
    Ok(opened)
}

/// How commands open stores: everything that they write is durable.
pub(super) fn how(absent: Absent) -> OpenOptions {
    OpenOptions {
        absent,
        sync: store_embedded::Sync::Full,
        upload_memory: Some(MEMORY),
        memory_timeout: None,
        presign_lifetime: PresignLifetime::default().0,
        min_free: store_embedded::MinFree::Bytes(0),
        contact: Contact::Now,
        spelling: flag,
    }
}

/// Runs `read` on the metadata of an existing registry.
pub(super) fn read<R, F>(args: &ReadArgs, read: R) -> Result<(), Failure>
where
    R: FnOnce(Arc<dyn MetadataStore>) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    with(&args.stores, Absent::Refuse, |opened| read(opened.stores.metadata))
}

/// The context of one operation that begins now.
pub(super) fn cx() -> Context {
    context(&SystemEnvironment, ClientKey::INTERNAL, OPERATION_TIMEOUT_MS)
}

/// Calls `show` with every item of a list that is read in pages. `page` gets the last item of the page before.
pub(super) async fn pages<T, F>(
    mut page: impl FnMut(Option<T>) -> F,
    mut show: impl AsyncFnMut(&T) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    F: Future<Output = Result<Page<T>, StoreError>>,
{
    let mut last = None;
    loop {
        let Page { mut items, more } = page(last)
            .await
            .map_err(|error| Failure::failed("cannot read the metadata", error))?;
        for item in &items {
            show(item).await?;
        }
        last = items.pop();
        if !more || last.is_none() {
            return Ok(());
        }
    }
}

/// The name of a repository from the command line.
pub(super) fn parse_repository(text: &str) -> Result<RepositoryName, Failure> {
    text.parse()
        .map_err(|error| Failure::Usage(format!("{text:?} is not a valid name of a repository: {error}")))
}
