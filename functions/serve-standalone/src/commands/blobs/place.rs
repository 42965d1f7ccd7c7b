//! Putting an object where the records say that it is.

use registry::store::blobs::{AppendError, BlobStore, Source, Upload};
use registry::store::sessions::{Attempt, SessionId};
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
    let attempt = attempt(&location.key).ok_or_else(|| {
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

/// Reads the name of an attempt back.
fn attempt(key: &str) -> Option<Attempt> {
    let (session, number) = key.split_once('.')?;
    let attempt = Attempt {
        session: SessionId(u128::from_str_radix(session, 16).ok()?),
        number: number.parse().ok()?,
    };
    // Only the one spelling.
    (attempt.to_string() == key).then_some(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_an_attempt_is_read_as_one() {
        let session = SessionId(0xabc);
        let attempt_7 = Attempt { session, number: 7 };
        assert_eq!(attempt(&attempt_7.to_string()), Some(attempt_7));
        for other in [
            "",
            "abc.7",
            &format!("{session}.07"),
            &format!("{session}.7.0"),
            &format!("{session}.+7"),
            &format!("{session}"),
        ] {
            assert_eq!(attempt(other), None, "{other}");
        }
    }
}
