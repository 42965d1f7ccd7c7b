//! Stores an object at the location in its record.

use registry::store::blobs::{AppendError, BlobStore, Source, Upload};
use registry::store::{Attempt, Context, Location, StoreError};

/// Stores the bytes of `source` as the object at `location`. It does so like an upload of one body: the key of the
/// location is the attempt, and the contract of [`BlobStore::seal`] says which key the object of an attempt gets.
pub(super) async fn store_object(
    to: &dyn BlobStore,
    location: &Location,
    size: u64,
    source: &mut dyn Source,
    cx: impl Fn() -> Context,
) -> Result<(), AppendError> {
    let attempt: Attempt = location.key.parse().map_err(|_| {
        StoreError::failed(format!(
            "the key {} of the object is not one of this registry, so the destination cannot store it",
            location.key
        ))
    })?;
    let appended = to.append(cx(), attempt, &[], source).await?;
    let leaves_something = to.leaves_something(&appended.state);
    let upload = Upload {
        session: attempt.session,
        state: appended.state,
        parts: appended.part.into_iter().collect(),
        size,
    };
    let stored = to.seal(cx(), &upload).await?;
    if stored == *location {
        // The rest of the upload has no row of a session, so no collection would find it.
        if leaves_something {
            to.tidy(cx(), &[stored]).await?;
        }
        return Ok(());
    }
    Err(StoreError::failed(format!(
        "the object was stored at {1} instead of {0}",
        location.key, stored.key
    ))
    .into())
}
