//! The metadata of a data directory, for commands that read it beside a running server.

use std::future::Future;
use std::sync::Arc;

use registry::store::metadata::MetadataStore;
use registry::store::{Context, Incarnation, Page, StoreError};
use store_embedded::{Embedded, Options, Sync};

use super::Failure;
use crate::cli::ReadArgs;
use crate::environment;

/// Items read at once: memory does not depend on the length of a list.
pub(super) const PAGE: usize = 1000;
/// How long one read may take, in milliseconds.
const PATIENCE_MS: u64 = 30_000;

/// Runs `read` on the metadata of an existing data directory.
pub(super) fn read<R, F>(args: &ReadArgs, read: R) -> Result<(), Failure>
where
    R: FnOnce(Arc<dyn MetadataStore>) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let path = args.data.display();
    let options = Options {
        data: args.data.clone(),
        sync: Sync::Full,
        upload_memory: 1,
    };
    let stores = Embedded::open_existing(&options).map_err(|error| {
        Failure::Failed(format!(
            "cannot open the data directory {path}: {error}. Name the directory of the server with --data or \
             ROADSTEAD_DATA"
        ))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start", error))?;
    runtime.block_on(read(stores.metadata))
}

/// The context of one read, from now on.
pub(super) fn cx() -> Context {
    let now = environment::now();
    Context {
        now,
        deadline: now.plus_millis(PATIENCE_MS),
        incarnation: Incarnation(0),
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
