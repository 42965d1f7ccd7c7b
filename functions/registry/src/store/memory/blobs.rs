//! The blob store in memory.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;

use oci::{Algorithm, Digest};

use super::lock;
use crate::store::blobs::{
    AppendError, Appended, BlobStore, ByteStream, DeletedObjects, Discarded, ObjectToDelete, Redirect, RedirectRequest,
    Source, StoredObject, Upload,
};
use crate::store::{Attempt, Context, Cursor, Location, SessionId, Slice, StoreError, Timestamp};

/// The maximum size of one item of a [`ByteStream`]. It is small, so that readers get objects in several chunks.
const CHUNK: usize = 64 * 1024;

/// The end of the keys of the litter of a littering store.
const LITTER: &str = ".litter";

/// The validity of a redirect.
const REDIRECT_LIFETIME: Duration = Duration::from_mins(15);

/// A blob store in memory.
///
/// Every body is a segment of its own, under the name of its attempt. A seal uses a single segment in place. It joins
/// several segments under a key of their own, and leaves them: until the session is committed, another attempt may
/// replace the last one, and is then sealed with the same segments before it. The part record of a body is the number
/// of its attempt. The state is the number of bytes so far, with which the seal checks that it was given every part.
#[derive(Debug, Default)]
pub struct MemoryBlobs {
    objects: Mutex<BTreeMap<String, Object>>,
    redirect: Option<String>,
    litters: bool,
}

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    /// Whether it can be read. A body that was never sealed cannot.
    sealed: bool,
}

impl MemoryBlobs {
    /// An empty store. The registry itself serves its bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that returns redirects to `<base_url>/<key>?response-content-type=<type>`, valid for 15 minutes.
    /// No server listens there: it is for tests of a redirecting registry.
    #[must_use]
    pub fn redirecting(base_url: impl Into<String>) -> Self {
        Self {
            redirect: Some(base_url.into()),
            ..Self::default()
        }
    }

    /// An empty store in which every body leaves something that only a search finds. In an object store, a started
    /// upload whose response was lost is such a leftover.
    #[must_use]
    pub fn littering() -> Self {
        Self {
            litters: true,
            ..Self::default()
        }
    }

    /// The number of objects, sealed or not.
    #[must_use]
    pub fn objects(&self) -> usize {
        lock(&self.objects).len()
    }

    /// Removes an object and returns its bytes. No operation does this; it is for tests of missing objects.
    pub fn lose(&self, location: &Location) -> Option<Bytes> {
        lock(&self.objects).remove(&location.key).map(|object| object.bytes)
    }

    /// Puts an object where one was removed, with these bytes.
    pub fn restore(&self, location: &Location, bytes: impl Into<Bytes>) {
        let object = Object {
            bytes: bytes.into(),
            sealed: true,
        };
        lock(&self.objects).insert(location.key.clone(), object);
    }

    /// The number of sealed objects.
    #[must_use]
    pub fn sealed(&self) -> usize {
        let objects = lock(&self.objects);
        objects.values().filter(|object| object.sealed).count()
    }
}

/// The number of stored bytes in a state; 0 for the empty state of a new session.
fn stored(state: &[u8]) -> Result<u64, StoreError> {
    if state.is_empty() {
        return Ok(0);
    }
    let state = state
        .try_into()
        .map_err(|_| StoreError::failed("not a state of this store"))?;
    Ok(u64::from_be_bytes(state))
}

fn segment_key(session: SessionId, part: &[u8]) -> Result<String, StoreError> {
    let number = part
        .try_into()
        .map_err(|_| StoreError::failed("not a part of this store"))?;
    let number = u32::from_be_bytes(number);
    Ok(Attempt { session, number }.to_string())
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn append(
        &self,
        _cx: Context,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError> {
        let before = stored(state)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = source.next().await? {
            body.extend_from_slice(&chunk);
        }
        if let Some(declared) = source.sha256()
            && *Digest::of(Algorithm::Sha256, &body).as_bytes() != declared
        {
            return Err(StoreError::failed("the body does not have the declared hash").into());
        }
        let size = before + body.len() as u64;
        let segment = Object {
            bytes: body.freeze(),
            sealed: false,
        };
        let mut objects = lock(&self.objects);
        objects.insert(attempt.to_string(), segment);
        if self.litters {
            let litter = Object {
                bytes: Bytes::new(),
                sealed: false,
            };
            objects.insert(format!("{attempt}{LITTER}"), litter);
        }
        Ok(Appended {
            state: size.to_be_bytes().to_vec(),
            part: Some(attempt.number.to_be_bytes().to_vec()),
        })
    }

    async fn seal(&self, _cx: Context, upload: &Upload) -> Result<Location, StoreError> {
        let keys = upload
            .parts
            .iter()
            .map(|part| segment_key(upload.session, part))
            .collect::<Result<Vec<_>, _>>()?;
        // The parts before an attempt are known when it is claimed, so the last one identifies the whole list.
        let key = match keys.as_slice() {
            [] => return Err(StoreError::failed("nothing was appended")),
            [one] => one.clone(),
            [.., last] => format!("{last}.{}", keys.len()),
        };
        if stored(&upload.state)? != upload.size {
            return Err(StoreError::failed("the state is not that of this upload"));
        }

        let mut objects = lock(&self.objects);
        if !objects.get(&key).is_some_and(|object| object.sealed) {
            let mut segments = Vec::new();
            for key in &keys {
                let Some(segment) = objects.get(key) else {
                    return Err(StoreError::failed(format!("there is no segment {key}")));
                };
                segments.push(segment.bytes.clone());
            }
            let bytes: Bytes = match segments.as_slice() {
                [one] => one.clone(),
                several => several.concat().into(),
            };
            if bytes.len() as u64 != upload.size {
                return Err(StoreError::failed("the segments are not the upload"));
            }
            let whole = Object { bytes, sealed: true };
            objects.insert(key.clone(), whole);
        }
        Ok(Location::main(key))
    }

    fn seal_writes(&self, upload: &Upload) -> bool {
        upload.parts.len() > 1
    }

    fn leaves_something(&self, _state: &[u8]) -> bool {
        // The segment of a single body becomes the object.
        self.litters
    }

    async fn discard(
        &self,
        _cx: Context,
        session: SessionId,
        _attempts: u32,
        _state: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError> {
        let own = format!("{session}.");
        lock(&self.objects).retain(|key, _| {
            let is_kept = keep.is_some_and(|keep| keep.key == *key) || key.ends_with(LITTER);
            !key.starts_with(&own) || is_kept
        });
        Ok(if self.litters { Discarded::Known } else { Discarded::All })
    }

    async fn read(
        &self,
        _cx: Context,
        location: &Location,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        let key = location.key_in(Location::MAIN)?;
        let object = match lock(&self.objects).get(key) {
            Some(object) if object.sealed => object.bytes.clone(),
            _ => return Ok(None),
        };
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return Ok(None);
        };
        if start > end || end > object.len() {
            return Ok(None);
        }
        let chunks = (start..end)
            .step_by(CHUNK)
            .map(move |at| Ok(object.slice(at..end.min(at + CHUNK))));
        Ok(Some(stream::iter(chunks).boxed()))
    }

    async fn redirect(
        &self,
        _now: Timestamp,
        location: &Location,
        request: RedirectRequest,
    ) -> Result<Option<Redirect>, StoreError> {
        let key = location.key_in(Location::MAIN)?;
        Ok(self.redirect.as_ref().map(|base| {
            let content_type = request.content_type.replace('/', "%2F");
            Redirect {
                url: format!("{base}/{key}?response-content-type={content_type}"),
                lifetime: REDIRECT_LIFETIME,
            }
        }))
    }

    async fn delete(&self, _cx: Context, to_delete: &[ObjectToDelete]) -> Result<Option<DeletedObjects>, StoreError> {
        let keys = to_delete
            .iter()
            .map(|to_delete| Ok((to_delete.location.key_in(Location::MAIN)?, to_delete.unfinished)));
        let keys = keys.collect::<Result<Vec<_>, StoreError>>()?;
        let mut objects = lock(&self.objects);
        let mut deleted = DeletedObjects::default();
        for (key, unfinished) in keys {
            if let Some(object) = objects.remove(key) {
                deleted.objects += 1;
                deleted.bytes += object.bytes.len() as u64;
            }
            if unfinished {
                let joined = format!("{key}.");
                for (_, object) in objects.extract_if(joined.clone().., |key, _| key.starts_with(&joined)) {
                    deleted.bytes += object.bytes.len() as u64;
                }
            }
        }
        Ok(Some(deleted))
    }

    async fn tidy(&self, _cx: Context, kept: &[Location]) -> Result<(), StoreError> {
        let prefixes = kept.iter().map(|kept| Ok(format!("{}.", kept.key_in(Location::MAIN)?)));
        let prefixes = prefixes.collect::<Result<Vec<_>, StoreError>>()?;
        lock(&self.objects).retain(|key, _| !prefixes.iter().any(|prefix| key.starts_with(prefix)));
        Ok(())
    }

    async fn stat(&self, _cx: Context, location: &Location) -> Result<Option<u64>, StoreError> {
        let key = location.key_in(Location::MAIN)?;
        let objects = lock(&self.objects);
        let sealed = objects.get(key).filter(|object| object.sealed);
        Ok(sealed.map(|object| object.bytes.len() as u64))
    }

    async fn objects(
        &self,
        _cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<StoredObject>, StoreError> {
        let objects = lock(&self.objects);
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.0.as_str()));
        let following = objects.range::<str, _>((from, Bound::Unbounded));
        let items: Vec<_> = following
            .take(limit)
            .map(|(key, object)| StoredObject {
                location: Location::main(key),
                size: object.bytes.len() as u64,
            })
            .collect();
        let last = items.last().filter(|_| items.len() == limit);
        Ok(Slice {
            next: last.map(|last| Cursor(last.location.key.clone())),
            items,
        })
    }
}
