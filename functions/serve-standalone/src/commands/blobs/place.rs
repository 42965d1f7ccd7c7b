//! Putting an object where the records say that it is.

use registry::store::blobs::{AppendError, BlobStore, Source, Upload};
use registry::store::sessions::Attempt;
use registry::store::{Context, Location, StoreError};

/// Stores the bytes of `source` as the object at `location`, like the upload of one body whose attempt had that name:
/// the contract of [`BlobStore::seal`] says under which key its object lies.
pub(super) async fn place(
    to: &dyn BlobStore,
    location: &Location,
    size: u64,
    source: &mut dyn Source,
    cx: impl Fn() -> Context,
) -> Result<(), AppendError> {
    let attempt: Attempt = location.key.parse().map_err(|_| {
        StoreError::failed(format!(
            "its key {} is none that the store at the destination makes",
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
    let placed = to.seal(cx(), &upload).await?;
    if placed == *location {
        // No session's row names what is left beside it.
        if leaves_something {
            to.tidy(cx(), &[placed]).await?;
        }
        return Ok(());
    }
    Err(StoreError::failed(format!("it was to lie at {} and lies at {}", location.key, placed.key)).into())
}
