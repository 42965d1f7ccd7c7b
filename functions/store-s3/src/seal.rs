//! Makes one object of all bytes that an upload has stored.
//!
//! An object of one body without a multipart upload is complete already. The seal completes a multipart upload from the
//! records of its parts. Staged bytes become its last part with a copy inside the store.
//!
//! **Idempotence.** If the multipart upload no longer exists and the object under its key has the expected size, an
//! earlier seal has made it. The size proves this: attempts that share a multipart upload only append to it, so two
//! results of equal size are equal. An attempt after a gap has a multipart upload of its own (see
//! [`OpenMultipart`](crate::state::OpenMultipart)). The seal also compares the number of parts, if the `ETag` contains
//! it.
//!
//! **Verification.** Some stores answer a repeated completion with success, even with other parts or while the first
//! one still runs. So the seal verifies the object if it has several bodies or if completion was sent twice. An upload
//! that only one attempt has written to can become only one object.
//!
//! **Time.** A client may wait for 30 seconds and then ask again (see `finish` in the core). So the seal sends requests
//! in parallel where possible: pages of the list of parts, and copies. The completion itself is one request, which may
//! take minutes on S3 for 10,000 parts. Only the time of copies depends on the size. Each copy has the time limit of a
//! whole call and is made only once, so a seal takes as long as it needs. If another request claims the session
//! meanwhile, it reuses the finished copies.
//!
//! **A lost seal.** If an upload was sealed but not published, the next attempt comes after a gap. It starts a new
//! multipart upload, which begins with a copy of the beginning of the sealed object.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use registry::budget::ClientKey;
use registry::store::blobs::Upload;
use registry::store::{Attempt, Location, SessionId, StoreError};

use crate::error::RequestError;
use crate::keys::ObjectKeys;
use crate::multipart::MultipartTarget;
use crate::plan::TAIL_NUMBER;
use crate::record::{EntityTag, StoredPart};
use crate::stages::Stage;
use crate::state::{TailObject, UploadState};
use crate::statistics::Operation;
use crate::store::S3Store;
use crate::time::CallTimeout;

/// Maximum number of copies inside the store at once.
///
/// The time of a copy depends only on the store. The more copies run at once, the sooner the client gets its response.
/// A layer of 500 GiB needs 200 copies, which are seven rounds.
const CONCURRENT_COPIES: usize = 32;

/// Maximum number of attempts of a seal that conflicts with another one.
const MAXIMUM_ATTEMPTS: u32 = 6;

/// The data for sealing one stage.
struct StageSeal<'a> {
    stage: &'a Stage,
    client: ClientKey,
    target: MultipartTarget,
    /// The key of the object whose bytes the stage begins with.
    before: Option<&'a str>,
    /// The staged bytes at its end, and their key.
    tail: Option<(TailObject, String)>,
    /// The number of all bytes of its object, or the minimum if not `is_exact`.
    size: u64,
    is_exact: bool,
    /// Whether the object must be verified even if the store answers with success.
    needs_verification: bool,
}

impl S3Store {
    pub(crate) async fn seal(
        &self,
        timeout: CallTimeout,
        client: ClientKey,
        upload: &Upload,
    ) -> Result<Location, StoreError> {
        let state = UploadState::decode(&upload.state)?;
        if state.bodies == 0 || state.size() != upload.size {
            return Err(StoreError::failed(format!(
                "an upload of {} bytes has stored {} bytes in {} bodies",
                upload.size,
                state.size(),
                state.bodies
            )));
        }
        let attempt = |number| Attempt {
            session: upload.session,
            number,
        };
        let stages = Stage::collect(&upload.parts, &state)?;
        if let Some(last) = stages.last() {
            self.complete_all(upload.session, client, &stages, &state, timeout)
                .await?;
            return Ok(ObjectKeys::named(attempt(last.attempt)));
        }
        let object = state.tail.ok_or_else(|| StoreError::failed("nothing was stored"))?;
        let object_key = self.keys.object(attempt(object.attempt));
        // An object of several bodies is verified, because the earlier bodies, and this object with them, may have been
        // discarded. The only body of an upload was stored by the request that seals it, or by the request before.
        if state.bodies > 1 {
            match self.bucket.head(&object_key, timeout.start()).await? {
                Some(info) if info.size == object.size => {}
                _ => return Err(missing(&object_key)),
            }
        }
        Ok(ObjectKeys::named(attempt(object.attempt)))
    }

    async fn complete_all(
        &self,
        session: SessionId,
        client: ClientKey,
        stages: &[Stage],
        state: &UploadState,
        timeout: CallTimeout,
    ) -> Result<(), StoreError> {
        let attempt = |number| Attempt { session, number };
        let mut before: Option<String> = None;
        for (index, stage) in stages.iter().enumerate() {
            let is_last = index + 1 == stages.len();
            let tail = state.tail.filter(|_| is_last);
            let key = self.keys.object(attempt(stage.attempt));
            let job = StageSeal {
                stage,
                client,
                target: MultipartTarget {
                    key: key.clone(),
                    id: stage.id.clone(),
                    checksums: stage.has_checksums(),
                },
                before: before.as_deref(),
                size: stage.end() + tail.map_or(0, |tail| tail.size),
                tail: tail.map(|tail| (tail, self.keys.staged(attempt(tail.attempt)))),
                is_exact: is_last,
                needs_verification: state.bodies > 1,
            };
            self.complete_stage(&job, timeout).await?;
            before = Some(key);
        }
        Ok(())
    }

    async fn complete_stage(&self, job: &StageSeal<'_>, timeout: CallTimeout) -> Result<(), StoreError> {
        // Verifying costs less than copying in vain.
        if job.before.is_some() && self.is_sealed(job, timeout).await? {
            return Ok(());
        }
        let mut last = None;
        for tried in 0..MAXIMUM_ATTEMPTS {
            if tried > 0 {
                // Another seal of the same bytes is running: its copies replaced those of this seal, or it has
                // completed the upload and the object is not visible yet.
                tokio::time::sleep(Duration::from_millis(20 << tried)).await;
            }
            match self.try_complete(job, timeout).await {
                Ok(repeated) if !repeated && !job.needs_verification => return Ok(()),
                Ok(_) if self.is_sealed(job, timeout).await? => return Ok(()),
                Ok(_) => last = None,
                Err(error) if error.is_not_found() || error.is_precondition_failed() => {
                    if self.is_sealed(job, timeout).await? {
                        return Ok(());
                    }
                    last = Some(error);
                }
                Err(error) if error.is_invalid_part() && (job.before.is_some() || job.tail.is_some()) => {
                    last = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(|| missing(&job.target.key), StoreError::failed))
    }

    async fn try_complete(&self, job: &StageSeal<'_>, timeout: CallTimeout) -> Result<bool, RequestError> {
        let mut parts = match job.before {
            Some(source) => self.copy_all(job, source, timeout).await?,
            None => Vec::new(),
        };
        parts.extend(self.own_parts(job, timeout).await?);
        if let Some((tail, source)) = &job.tail {
            let copied = self.bucket.copy_small(
                &job.target,
                TAIL_NUMBER,
                (source, tail.size),
                Some((&self.memory, job.client)),
                timeout.start(),
            );
            parts.push(copied.await?);
        }
        self.bucket.complete(&job.target, &parts, timeout.start()).await
    }

    /// The stage's own parts, with their entity tags. If the record has only the hashes of the tags, the store's list
    /// of parts provides the tags, which must match the hashes.
    async fn own_parts(&self, job: &StageSeal<'_>, timeout: CallTimeout) -> Result<Vec<StoredPart>, RequestError> {
        let own = &job.stage.parts;
        if own.iter().all(|part| matches!(part.etag, EntityTag::Whole(_))) {
            return Ok(own.clone());
        }
        let last = own.last().map_or(0, |part| part.number);
        let listed = self
            .bucket
            .list_parts(&job.target, job.stage.first - 1..=last, timeout)
            .await?;
        let reported = own.iter().map(|part| {
            let there = listed
                .get(&part.number)
                .map(|there| EntityTag::Whole(there.etag.clone()));
            let etag = there
                .filter(|there| part.etag.is_of(there))
                .ok_or_else(|| RequestError::Refused {
                    operation: Operation::ListParts,
                    status: 200,
                    code: "InvalidPart".to_owned(),
                    message: format!("part {} is not the one that was recorded", part.number),
                })?;
            Ok(StoredPart { etag, ..part.clone() })
        });
        reported.collect()
    }

    /// Copies the beginning of a stage from the object of the stage before, except what an earlier seal has copied
    /// already. Each copy has the time limit of a whole call. So copies that take long in total still complete, and a
    /// repeated seal continues. (An existing copy is as good as a new one: only seals write to its number, all from the
    /// same bytes.)
    async fn copy_all(
        &self,
        job: &StageSeal<'_>,
        source: &str,
        timeout: CallTimeout,
    ) -> Result<Vec<StoredPart>, RequestError> {
        let count = u64::from(job.stage.first - 1);
        let bound = |number: u64| {
            // A product of up to 2^63 bytes and 10,000 does not fit 64 bits.
            let at = u128::from(job.stage.prefix) * u128::from(number) / u128::from(count);
            u64::try_from(at).unwrap_or(u64::MAX)
        };
        let there = match self
            .bucket
            .list_parts(&job.target, 0..=job.stage.first - 1, timeout)
            .await
        {
            Ok(there) => there,
            // Without permission to list parts, all parts are copied.
            Err(RequestError::Refused {
                status: 403 | 405 | 501,
                ..
            }) => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let copies = (1..job.stage.first).map(|number| {
            let range = bound(u64::from(number) - 1)..bound(number.into());
            let size = range.end - range.start;
            let there = there.get(&number).filter(|there| there.size == size);
            async move {
                if let Some(there) = there {
                    return Ok(StoredPart {
                        number,
                        size,
                        etag: EntityTag::Whole(there.etag.clone()),
                        crc32: None,
                    });
                }
                self.bucket
                    .copy_part(&job.target, number, source, range, timeout.start())
                    .await
            }
        });
        // Boxed, because the compiler could not prove the whole future `Send`.
        let copies: Vec<_> = copies.map(futures_util::FutureExt::boxed).collect();
        stream::iter(copies).buffered(CONCURRENT_COPIES).try_collect().await
    }

    /// Whether the sealed object exists.
    async fn is_sealed(&self, job: &StageSeal<'_>, timeout: CallTimeout) -> Result<bool, StoreError> {
        let Some(info) = self.bucket.head(&job.target.key, timeout.start()).await? else {
            return Ok(false);
        };
        if !job.is_exact {
            return Ok(info.size >= job.size);
        }
        let parts = usize::from(job.stage.first - 1) + job.stage.parts.len() + usize::from(job.tail.is_some());
        let reported = info.etag.as_deref().and_then(parts_of);
        Ok(info.size == job.size && reported.is_none_or(|reported| reported == parts))
    }
}

/// The number of parts in an entity tag of the usual form, `<MD5>-<number>`.
fn parts_of(etag: &str) -> Option<usize> {
    let (digest, number) = etag.split_once('-')?;
    (digest.len() == 32).then(|| number.parse().ok()).flatten()
}

fn missing(key: &str) -> StoreError {
    StoreError::failed(format!(
        "the bytes of {key} are missing or do not have the length they were stored with"
    ))
}
