//! Deletes objects, and what was begun and never became one.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use registry::store::blobs::{Discarded, ObjectToDelete};
use registry::store::sessions::{Attempt, SessionId};
use registry::store::{Location, StoreError};

use crate::fault::{Fault, Passing, passes};
use crate::keys::Keys;
use crate::multipart::{Target, incomplete};
use crate::requests::{Bucket, Patience, lacks};
use crate::state::State;
use crate::statistics::Operation;
use crate::store::Store;
use crate::time::Deadline;

/// How many objects one request may delete.
const AT_ONCE: usize = 1000;

/// How many single deletes are under way at once, where the store does not take many.
const SINGLE_AT_ONCE: usize = 16;

/// How many keys are looked at for unfinished uploads at once.
const LOOKS_AT_ONCE: usize = 16;

/// Of how many attempts a request that ends an upload deletes what they have left: what is two keys each, in one request
/// to the store.
const DISCARDED: u32 = 500;

const _: () = assert!(2 * DISCARDED as usize <= AT_ONCE);

impl Store {
    /// Removes what a session has left. What its attempts have stored lies under keys that can be told without
    /// looking, and the upload that takes its parts is known. What attempts may have begun that came to nothing is
    /// known only to the store, and is left to collection; and so is what many attempts have left, since somebody waits
    /// for this.
    pub(crate) async fn discard(
        &self,
        deadline: Deadline,
        session: SessionId,
        attempts: u32,
        state: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError> {
        let state = State::decode(state)?;
        let keep = keep.map(|keep| self.keys.of(keep)).transpose()?;
        if let Some(upload) = &state.upload {
            let attempt = Attempt {
                session,
                number: upload.attempt,
            };
            let target = Target {
                key: self.keys.object(attempt),
                id: upload.id.clone(),
                checksums: upload.checksums,
            };
            if keep.as_ref() != Some(&target.key) {
                self.bucket.abort(&target, deadline).await?;
            }
        }
        // The last attempt may be one that only ended the session.
        let told = state.bodies + u32::from(state.last < attempts);
        // Nor is the state that of the body which made the object, when the request that brought it was cut off behind
        // its commit: then nobody knows what that body has begun.
        let maker = keep
            .as_ref()
            .and_then(|key| key.rsplit('.').next()?.parse::<u32>().ok());
        let is_known = maker.is_none_or(|maker| maker <= state.last);
        let before = attempts.saturating_sub(DISCARDED);
        let left = (before + 1..=attempts).flat_map(|number| {
            let attempt = Attempt { session, number };
            [self.keys.object(attempt), self.keys.staged(attempt)]
        });
        let keys: Vec<_> = left.filter(|key| Some(key) != keep.as_ref()).collect();
        self.bucket.delete_all(&keys, deadline).await?;
        Ok(if before > 0 || told < attempts || state.littered || !is_known {
            Discarded::Known
        } else {
            Discarded::All
        })
    }

    pub(crate) async fn delete(&self, deadline: Deadline, to_delete: &[ObjectToDelete]) -> Result<(), StoreError> {
        let mut keys = BTreeSet::new();
        let mut unfinished = BTreeSet::new();
        for one in to_delete {
            let key = self.keys.of(&one.location)?;
            // Also beside an object that was published: of equal parts, what is left over of a body is staged, and copied
            // when the object is made. It costs no request of its own.
            keys.insert(Keys::staged_beside(&key));
            if one.unfinished {
                unfinished.insert(key.clone());
            }
            keys.insert(key);
        }
        self.abort_all(unfinished, deadline).await?;
        let keys: Vec<_> = keys.into_iter().collect();
        self.bucket.delete_all(&keys, deadline).await
    }

    pub(crate) async fn tidy(&self, deadline: Deadline, kept: &[Location]) -> Result<(), StoreError> {
        let keys = kept.iter().map(|kept| self.keys.of(kept));
        let keys = keys.collect::<Result<BTreeSet<_>, _>>()?;
        let staged: Vec<_> = keys.iter().map(|key| Keys::staged_beside(key)).collect();
        self.abort_all(keys, deadline).await?;
        self.bucket.delete_all(&staged, deadline).await
    }

    /// Aborts whatever uploads there are of these keys.
    async fn abort_all(&self, keys: BTreeSet<String>, deadline: Deadline) -> Result<(), StoreError> {
        let looks = keys.iter().map(|key| self.bucket.abort_of(key, deadline));
        // Boxed, or the compiler cannot tell that the whole may move between threads.
        let looks: Vec<_> = looks.map(futures_util::FutureExt::boxed).collect();
        stream::iter(looks)
            .buffer_unordered(LOOKS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(())
    }
}

impl Bucket {
    /// Aborts the uploads of a key. It is asked for whole, since not every store takes a beginning of it for a prefix
    /// (`MinIO` does not).
    async fn abort_of(&self, wanted: &str, deadline: Deadline) -> Result<(), Fault> {
        let mut after: Option<String> = None;
        let mut aborted = false;
        loop {
            let answer = self
                .call(Operation::ListMultipartUploads, deadline, || {
                    let request = self
                        .client
                        .list_multipart_uploads()
                        .bucket(&self.name)
                        .prefix(wanted)
                        // By the key alone, since some stores refuse both markers.
                        .set_key_marker(after.clone())
                        .set_expected_bucket_owner(self.owner.clone());
                    (request.send(), Patience::SHORT)
                })
                .await?;
            let mut last = None;
            for upload in answer.uploads.unwrap_or_default() {
                let (Some(key), Some(id)) = (upload.key, upload.upload_id) else {
                    return Err(incomplete(Operation::ListMultipartUploads));
                };
                last = Some(key.clone());
                // Keys that go on behind it are those of other attempts.
                if key == wanted {
                    let target = Target {
                        key,
                        id,
                        checksums: false,
                    };
                    self.abort(&target, deadline).await?;
                    aborted = true;
                }
            }
            let is_truncated = answer.is_truncated.unwrap_or(false);
            if !is_truncated && after.is_none() {
                return Ok(());
            }
            if is_truncated {
                after = answer.next_key_marker.or(last);
            } else if aborted {
                // Several uploads of one key may have lain on both sides of a page's end.
                (after, aborted) = (None, false);
            } else {
                return Ok(());
            }
        }
    }

    /// Deletes objects; those that are not there are deleted.
    async fn delete_all(&self, keys: &[String], deadline: Deadline) -> Result<(), StoreError> {
        for keys in keys.chunks(AT_ONCE) {
            let many = self.many_at_once.load(Ordering::Relaxed);
            if many {
                match self.delete_many(keys, deadline).await {
                    Ok(()) => continue,
                    Err(fault) if fault.is_unknown_header() => {}
                    Err(fault) => return Err(fault.into()),
                }
            }
            let deletes: Vec<_> = keys.iter().map(|key| self.delete_one(key, deadline)).collect();
            stream::iter(deletes)
                .buffer_unordered(SINGLE_AT_ONCE)
                .try_collect::<()>()
                .await?;
            if many {
                lacks(&self.many_at_once, "deletes of many objects at once");
            }
        }
        Ok(())
    }

    async fn delete_many(&self, keys: &[String], deadline: Deadline) -> Result<(), Fault> {
        let operation = Operation::DeleteObjects;
        let mut left = keys.to_vec();
        // What failed for each by itself is tried again.
        for round in 1.. {
            let objects = left.iter().map(|key| ObjectIdentifier::builder().key(key).build());
            let objects = objects.collect::<Result<Vec<_>, _>>();
            let built = objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
            let delete = built.map_err(|error| Fault::Refused {
                operation,
                status: 0,
                code: "NotBuilt".to_owned(),
                message: error.to_string(),
            })?;
            let answer = self
                .call(operation, deadline, || {
                    let request = self
                        .client
                        .delete_objects()
                        .bucket(&self.name)
                        .delete(delete.clone())
                        .set_expected_bucket_owner(self.owner.clone());
                    (request.send(), Patience::LONG)
                })
                .await?;
            let mut last = None;
            left.clear();
            for error in answer.errors.unwrap_or_default() {
                let code = error.code.unwrap_or_default();
                match error.key {
                    Some(_) if matches!(code.as_str(), "NoSuchKey" | "NotFound") => {}
                    Some(key) if passes(&code) => {
                        left.push(key);
                        last = Some(Passing::answered(200, &code));
                    }
                    _ => {
                        return Err(Fault::Refused {
                            operation,
                            status: 200,
                            code,
                            message: error.message.unwrap_or_default(),
                        });
                    }
                }
            }
            let Some(last) = last else {
                return Ok(());
            };
            self.pause(operation, round, last, deadline).await?;
        }
        Ok(())
    }

    async fn delete_one(&self, key: &str, deadline: Deadline) -> Result<(), Fault> {
        let deleted = self
            .call(Operation::DeleteObject, deadline, || {
                let request = self
                    .client
                    .delete_object()
                    .bucket(&self.name)
                    .key(key)
                    .set_expected_bucket_owner(self.owner.clone());
                (request.send(), Patience::SHORT)
            })
            .await;
        match deleted {
            Err(fault) if !fault.is_absent() => Err(fault),
            _ => Ok(()),
        }
    }
}
