//! Makes one object of all that an upload has stored.
//!
//! An object of one body that is no multipart upload is finished already. An upload is completed from the records of
//! its parts; staged bytes become its last part by a copy inside the store.
//!
//! **Idempotence.** When the upload is gone, and under its key there is an object of the right size, it was sealed.
//! The size tells it: an upload is written to by a chain of attempts, each directly after the other, so that all that
//! it can ever be completed to are beginnings of the same bytes, and each is of another length. An attempt after a gap
//! has an upload of its own (see [`OpenUpload`](crate::state::OpenUpload)). The number of parts is compared too, where
//! the entity tag tells it.
//!
//! **Trust.** Several stores say yes when they are asked to complete an upload that is complete already, whatever parts
//! are named, and some while they are still at it. So an object of several bodies, and one whose completion was asked
//! for twice, is looked at before anybody is told. What only one attempt has written can become only one thing.
//!
//! **Time.** A client may wait for 30 seconds and then ask again (see `finish` in the core), so that what can be asked at once
//! is: pages of the list of parts, and copies. What is left is the completion itself, for which S3 may take minutes when there
//! are 10,000 parts. Copies are the only thing whose time depends on the size. Each has as much as a whole call, and none is made
//! twice, so that a seal takes as long as it takes; the session may be claimed by others meanwhile, who go on with what is
//! copied.
//!
//! **A lost seal.** Whoever goes on behind what was sealed and not published comes after a gap, and has an upload of
//! its own, which begins with a copy of the beginning of the sealed object.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use registry::budget::ClientKey;
use registry::store::blobs::Upload;
use registry::store::sessions::{Attempt, SessionId};
use registry::store::{Location, StoreError};

use crate::fault::Fault;
use crate::keys::Keys;
use crate::multipart::Target;
use crate::plan::TAIL_NUMBER;
use crate::record::{Part, Tag};
use crate::stages::Stage;
use crate::state::{State, Tail};
use crate::statistics::Operation;
use crate::store::Store;
use crate::time::Span;

/// How many copies inside the store are under way at once.
///
/// A copy takes as long for a few gigabytes as the store is slow, and nothing here: the more at once, the sooner the client has
/// its answer. 500 GiB are 200 copies, which is seven rounds.
const COPIES_AT_ONCE: usize = 32;

/// How often a seal is tried that another one gets in the way of.
const TRIES: u32 = 6;

/// What a seal of one stage knows.
struct Job<'a> {
    stage: &'a Stage,
    client: ClientKey,
    target: Target,
    /// The object that the stage begins with.
    before: Option<&'a str>,
    /// Staged bytes at its end, and where they lie.
    tail: Option<(Tail, String)>,
    /// All bytes of its object, or the least it must have.
    size: u64,
    is_exact: bool,
    /// The answer of the store is not enough.
    is_doubtful: bool,
}

impl Store {
    pub(crate) async fn seal(&self, span: Span, client: ClientKey, upload: &Upload) -> Result<Location, StoreError> {
        let state = State::decode(&upload.state)?;
        if state.bodies == 0 || state.size() != upload.size {
            return Err(StoreError::failed(format!(
                "an upload of {} bytes has stored {} in {} bodies",
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
            self.complete_all(upload.session, client, &stages, &state, span).await?;
            return Ok(Keys::named(attempt(last.attempt)));
        }
        let object = state.tail.ok_or_else(|| StoreError::failed("nothing was stored"))?;
        let object_key = self.keys.object(attempt(object.attempt));
        // One that was made of others is looked at, because those may have been discarded, and it with them. The only
        // body of an upload was stored by the request that seals it, or by the one before.
        if state.bodies > 1 {
            match self.bucket.look(&object_key, span.begin()).await? {
                Some(seen) if seen.size == object.size => {}
                _ => return Err(missing(&object_key)),
            }
        }
        Ok(Keys::named(attempt(object.attempt)))
    }

    async fn complete_all(
        &self,
        session: SessionId,
        client: ClientKey,
        stages: &[Stage],
        state: &State,
        span: Span,
    ) -> Result<(), StoreError> {
        let attempt = |number| Attempt { session, number };
        let mut before: Option<String> = None;
        for (index, stage) in stages.iter().enumerate() {
            let is_last = index + 1 == stages.len();
            let tail = state.tail.filter(|_| is_last);
            let key = self.keys.object(attempt(stage.attempt));
            let job = Job {
                stage,
                client,
                target: Target {
                    key: key.clone(),
                    id: stage.id.clone(),
                    checksums: stage.has_checksums(),
                },
                before: before.as_deref(),
                size: stage.end() + tail.map_or(0, |tail| tail.size),
                tail: tail.map(|tail| (tail, self.keys.staged(attempt(tail.attempt)))),
                is_exact: is_last,
                is_doubtful: state.bodies > 1,
            };
            self.complete_stage(&job, span).await?;
            before = Some(key);
        }
        Ok(())
    }

    async fn complete_stage(&self, job: &Job<'_>, span: Span) -> Result<(), StoreError> {
        // Copying for nothing costs more than a look.
        if job.before.is_some() && self.is_sealed(job, span).await? {
            return Ok(());
        }
        let mut last = None;
        for tried in 0..TRIES {
            if tried > 0 {
                // Another seal of the same bytes is at it: its copies were taken for this one's, or it has completed
                // the upload and the object does not show yet.
                tokio::time::sleep(Duration::from_millis(20 << tried)).await;
            }
            match self.try_complete(job, span).await {
                Ok(repeated) if !repeated && !job.is_doubtful => return Ok(()),
                Ok(_) if self.is_sealed(job, span).await? => return Ok(()),
                Ok(_) => last = None,
                Err(fault) if fault.is_absent() || fault.is_precondition() => {
                    if self.is_sealed(job, span).await? {
                        return Ok(());
                    }
                    last = Some(fault);
                }
                Err(fault) if fault.is_invalid_part() && (job.before.is_some() || job.tail.is_some()) => {
                    last = Some(fault);
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        Err(last.map_or_else(|| missing(&job.target.key), StoreError::failed))
    }

    async fn try_complete(&self, job: &Job<'_>, span: Span) -> Result<bool, Fault> {
        let mut parts = match job.before {
            Some(source) => self.copy_all(job, source, span).await?,
            None => Vec::new(),
        };
        parts.extend(self.told(job, span).await?);
        if let Some((tail, source)) = &job.tail {
            let copied = self.bucket.copy_small(
                &job.target,
                TAIL_NUMBER,
                (source, tail.size),
                Some((&self.room, job.client)),
                span.begin(),
            );
            parts.push(copied.await?);
        }
        self.bucket.complete(&job.target, &parts, span.begin()).await
    }

    /// The stage's own parts, with their entity tags. Where the record holds only hashes of them, the store is asked, and
    /// what it tells must have these hashes.
    async fn told(&self, job: &Job<'_>, span: Span) -> Result<Vec<Part>, Fault> {
        let own = &job.stage.parts;
        if own.iter().all(|part| matches!(part.etag, Tag::Whole(_))) {
            return Ok(own.clone());
        }
        let last = own.last().map_or(0, |part| part.number);
        let listed = self
            .bucket
            .list_parts(&job.target, job.stage.first - 1..=last, span)
            .await?;
        let told = own.iter().map(|part| {
            let there = listed.get(&part.number).map(|there| Tag::Whole(there.etag.clone()));
            let etag = there
                .filter(|there| part.etag.is_of(there))
                .ok_or_else(|| Fault::Refused {
                    operation: Operation::ListParts,
                    status: 200,
                    code: "InvalidPart".to_owned(),
                    message: format!("part {} is not the one that was recorded", part.number),
                })?;
            Ok(Part { etag, ..part.clone() })
        });
        told.collect()
    }

    /// Copies the beginning of a stage, from the object of the one before: what an earlier seal has not copied yet. Each
    /// copy has the time of a whole call, so that what takes long in all comes to its end, and a seal that is repeated goes
    /// on. (A copy that is there already is as good as a new one: only seals write to its number, all of them from the same
    /// bytes.)
    async fn copy_all(&self, job: &Job<'_>, source: &str, span: Span) -> Result<Vec<Part>, Fault> {
        let count = u64::from(job.stage.first - 1);
        let bound = |number: u64| {
            // Up to 2^63 bytes times 10,000 do not fit 64 bits.
            let at = u128::from(job.stage.prefix) * u128::from(number) / u128::from(count);
            u64::try_from(at).unwrap_or(u64::MAX)
        };
        let there = match self.bucket.list_parts(&job.target, 0..=job.stage.first - 1, span).await {
            Ok(there) => there,
            // Whoever may not look copies everything.
            Err(Fault::Refused {
                status: 403 | 405 | 501,
                ..
            }) => BTreeMap::new(),
            Err(fault) => return Err(fault),
        };
        let copies = (1..job.stage.first).map(|number| {
            let range = bound(u64::from(number) - 1)..bound(number.into());
            let size = range.end - range.start;
            let there = there.get(&number).filter(|there| there.size == size);
            async move {
                if let Some(there) = there {
                    return Ok(Part {
                        number,
                        size,
                        etag: Tag::Whole(there.etag.clone()),
                        crc32: None,
                    });
                }
                self.bucket
                    .copy_part(&job.target, number, source, range, span.begin())
                    .await
            }
        });
        // Boxed, or the compiler cannot tell that the whole may move between threads.
        let copies: Vec<_> = copies.map(futures_util::FutureExt::boxed).collect();
        stream::iter(copies).buffered(COPIES_AT_ONCE).try_collect().await
    }

    /// Whether the object is there.
    async fn is_sealed(&self, job: &Job<'_>, span: Span) -> Result<bool, StoreError> {
        let Some(seen) = self.bucket.look(&job.target.key, span.begin()).await? else {
            return Ok(false);
        };
        if !job.is_exact {
            return Ok(seen.size >= job.size);
        }
        let parts = usize::from(job.stage.first - 1) + job.stage.parts.len() + usize::from(job.tail.is_some());
        let told = seen.etag.as_deref().and_then(parts_of);
        Ok(seen.size == job.size && told.is_none_or(|told| told == parts))
    }
}

/// The number of parts that an entity tag tells, if it has the usual form: `<MD5>-<number>`.
fn parts_of(etag: &str) -> Option<usize> {
    let (digest, number) = etag.split_once('-')?;
    (digest.len() == 32).then(|| number.parse().ok()).flatten()
}

fn missing(key: &str) -> StoreError {
    StoreError::failed(format!(
        "the bytes of {key} are missing or do not have the length they were stored with"
    ))
}
