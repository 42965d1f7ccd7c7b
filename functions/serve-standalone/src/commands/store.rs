//! The stores of a registry, for commands that work on them beside running servers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use registry::store::metadata::MetadataStore;
use registry::store::{Context, Page, StoreError, Uid};
use shell::admission::Admission;
use shell::clock;
use shell::opened::Opened;
use shell::stores::{self, Absent, Contact, OpenOptions};

use crate::cli::{ReadArgs, StoreArgs};
use crate::failure::Failure;

/// Items read at once: memory does not depend on the length of a list.
pub(super) const PAGE: usize = 1000;
/// How long one operation of a store may take, in milliseconds: nobody waits for a single one.
const PATIENCE_MS: u64 = 60_000;
/// Memory for what a command stores, in bytes.
const MEMORY: u64 = 256 << 20;

/// Runs `work` on the stores of a registry that exists, or with `absent` on one that is made.
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

/// Runs a command's future to its end.
pub(super) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start threads", error))?;
    let done = runtime.block_on(work);
    // What was cut off here is what a crash would cut off.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Opens the stores that the flags name.
pub(super) async fn open(args: &StoreArgs, absent: Absent) -> Result<Opened, Failure> {
    let opened = stores::open(&args.config(), &how(absent)).await?;
    if absent == Absent::Refuse {
        // What makes a registry, as an import does, may find blobs there.
        let admission = Admission::of(&opened, false);
        let lost = admission.refuse_lost_metadata().await;
        lost.map_err(|refusal| Failure::Failed(refusal.to_string()))?;
    }
    Ok(opened)
}

/// How commands open stores: nothing that they write may be lost.
pub(super) fn how(absent: Absent) -> OpenOptions {
    OpenOptions {
        absent,
        sync: store_embedded::Sync::Full,
        upload_memory: Some(MEMORY),
        memory_timeout: None,
        presign_lifetime: Duration::from_mins(15),
        min_free: store_embedded::MinFree::Bytes(0),
        contact: Contact::Now,
    }
}

/// Runs `read` on the metadata of a registry that exists.
pub(super) fn read<R, F>(args: &ReadArgs, read: R) -> Result<(), Failure>
where
    R: FnOnce(Arc<dyn MetadataStore>) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    with(&args.stores, Absent::Refuse, |opened| read(opened.stores.metadata))
}

/// The context of one operation, from now on.
pub(super) fn cx() -> Context {
    let now = clock::now();
    let mut uid = [0; 8];
    clock::random(&mut uid);
    Context {
        now,
        deadline: now.plus_millis(PATIENCE_MS),
        uid: Uid(u64::from_le_bytes(uid)),
        client: registry::budget::ClientKey::INTERNAL,
    }
}

/// Shows every item of a list that comes in pages. `page` gets the last item of the page before.
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
            .map_err(|error| Failure::failed("cannot read", error))?;
        for item in &items {
            show(item).await?;
        }
        last = items.pop();
        if !more || last.is_none() {
            return Ok(());
        }
    }
}
