//! Deletes objects, and multipart uploads that were never completed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use registry::store::blobs::{Discarded, ObjectToDelete};
use registry::store::{Attempt, Location, SessionId, StoreError};

use crate::error::{RequestError, TransientError, is_transient};
use crate::keys::ObjectKeys;
use crate::multipart::{MultipartTarget, incomplete};
use crate::requests::{AttemptTimeout, BucketClient, mark_unsupported};
use crate::state::UploadState;
use crate::statistics::Operation;
use crate::store::S3Store;
use crate::time::CallDeadline;

/// Maximum number of objects in one delete request.
const MAXIMUM_DELETES: usize = 1000;

/// Maximum number of single deletes at once, if the store does not support deleting many objects.
const CONCURRENT_DELETES: usize = 16;

/// Maximum number of keys at once whose unfinished uploads are listed.
const CONCURRENT_LISTS: usize = 16;

/// The maximum number of attempts whose objects the end of an upload deletes. Each has two keys, and all fit one
/// request to the store.
const MAXIMUM_DISCARDED: u32 = 500;

const _: () = assert!(2 * MAXIMUM_DISCARDED as usize <= MAXIMUM_DELETES);

impl S3Store {
    /// Removes the remains of a session. The keys of all objects of its attempts are known without a request, and so is
    /// the upload that receives its parts. Only the store knows other uploads, which failed attempts began; collection
    /// removes those. Collection also removes the remains of the earliest of many attempts, since a client waits for
    /// this request.
    pub(crate) async fn discard(
        &self,
        deadline: CallDeadline,
        session: SessionId,
        attempts: u32,
        state: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError> {
        let state = UploadState::decode(state)?;
        let keep = keep.map(|keep| self.keys.of(keep)).transpose()?;
        if let Some(upload) = &state.upload {
            let attempt = Attempt {
                session,
                number: upload.attempt,
            };
            let target = MultipartTarget {
                key: self.keys.object(attempt),
                id: upload.id.clone(),
                checksums: upload.checksums,
            };
            if keep.as_ref() != Some(&target.key) {
                self.bucket.abort(&target, deadline).await?;
            }
        }
        // The last attempt may be one that only ended the session.
        let recorded = state.bodies + u32::from(state.last < attempts);
        // The state may also be older than the body that made the object, if the request of that body was cut off after
        // its commit. Then the uploads that this body began are unknown.
        let maker = keep
            .as_ref()
            .and_then(|key| key.rsplit('.').next()?.parse::<u32>().ok());
        let is_known = maker.is_none_or(|maker| maker <= state.last);
        let before = attempts.saturating_sub(MAXIMUM_DISCARDED);
        let left = (before + 1..=attempts).flat_map(|number| {
            let attempt = Attempt { session, number };
            [self.keys.object(attempt), self.keys.staged(attempt)]
        });
        let keys: Vec<_> = left.filter(|key| Some(key) != keep.as_ref()).collect();
        self.bucket.delete_all(&keys, deadline).await?;
        Ok(
            if before > 0 || recorded < attempts || state.has_unrecorded_uploads || !is_known {
                Discarded::Known
            } else {
                Discarded::All
            },
        )
    }

    pub(crate) async fn delete(&self, deadline: CallDeadline, to_delete: &[ObjectToDelete]) -> Result<(), StoreError> {
        let mut keys = BTreeSet::new();
        let mut unfinished = BTreeSet::new();
        for one in to_delete {
            let key = self.keys.of(&one.location)?;
            // Staged bytes may also exist next to a published object: with equal parts, the rest of a body is staged,
            // and copied when the object is made. Deleting them costs no additional request.
            keys.insert(ObjectKeys::staged_beside(&key));
            if one.unfinished {
                unfinished.insert(key.clone());
            }
            keys.insert(key);
        }
        self.abort_all(unfinished, deadline).await?;
        let keys: Vec<_> = keys.into_iter().collect();
        self.bucket.delete_all(&keys, deadline).await
    }

    pub(crate) async fn tidy(&self, deadline: CallDeadline, kept: &[Location]) -> Result<(), StoreError> {
        let keys = kept.iter().map(|kept| self.keys.of(kept));
        let keys = keys.collect::<Result<BTreeSet<_>, _>>()?;
        let staged: Vec<_> = keys.iter().map(|key| ObjectKeys::staged_beside(key)).collect();
        self.abort_all(keys, deadline).await?;
        self.bucket.delete_all(&staged, deadline).await
    }

    /// Aborts all uploads of these keys.
    async fn abort_all(&self, keys: BTreeSet<String>, deadline: CallDeadline) -> Result<(), StoreError> {
        let aborts = keys.iter().map(|key| self.bucket.abort_of(key, deadline));
        // Boxed, because the compiler could not prove the whole future `Send`.
        let aborts: Vec<_> = aborts.map(futures_util::FutureExt::boxed).collect();
        stream::iter(aborts)
            .buffer_unordered(CONCURRENT_LISTS)
            .try_collect::<()>()
            .await?;
        Ok(())
    }
}

impl BucketClient {
    /// Aborts the uploads of a key. The list request uses the whole key as its prefix, since not every store accepts a
    /// part of a key as a prefix (`MinIO` does not).
    async fn abort_of(&self, wanted: &str, deadline: CallDeadline) -> Result<(), RequestError> {
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
                        // Only the key marker, since some stores refuse both markers.
                        .set_key_marker(after.clone())
                        .set_expected_bucket_owner(self.owner.clone());
                    (request.send(), AttemptTimeout::SHORT)
                })
                .await?;
            let mut last = None;
            for upload in answer.uploads.unwrap_or_default() {
                let (Some(key), Some(id)) = (upload.key, upload.upload_id) else {
                    return Err(incomplete(Operation::ListMultipartUploads));
                };
                last = Some(key.clone());
                // Longer keys with the same prefix are those of other attempts.
                if key == wanted {
                    let target = MultipartTarget {
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
                // The uploads of one key may have been on both sides of a page boundary.
                (after, aborted) = (None, false);
            } else {
                return Ok(());
            }
        }
    }

    /// Deletes objects. It is no error if an object does not exist.
    async fn delete_all(&self, keys: &[String], deadline: CallDeadline) -> Result<(), StoreError> {
        for keys in keys.chunks(MAXIMUM_DELETES) {
            let many = self.multi_delete.load(Ordering::Relaxed);
            if many {
                match self.delete_many(keys, deadline).await {
                    Ok(()) => continue,
                    Err(error) if error.may_be_unsupported() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let deletes: Vec<_> = keys.iter().map(|key| self.delete_one(key, deadline)).collect();
            stream::iter(deletes)
                .buffer_unordered(CONCURRENT_DELETES)
                .try_collect::<()>()
                .await?;
            if many {
                mark_unsupported(&self.multi_delete, "deletes of many objects at once");
            }
        }
        Ok(())
    }

    async fn delete_many(&self, keys: &[String], deadline: CallDeadline) -> Result<(), RequestError> {
        let operation = Operation::DeleteObjects;
        let mut left = keys.to_vec();
        // Keys that failed with a transient error are tried again.
        for round in 1.. {
            let objects = left.iter().map(|key| ObjectIdentifier::builder().key(key).build());
            let objects = objects.collect::<Result<Vec<_>, _>>();
            let built = objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
            let delete = built.map_err(|error| RequestError::Refused {
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
                    (request.send(), AttemptTimeout::LONG)
                })
                .await?;
            let mut last = None;
            left.clear();
            for error in answer.errors.unwrap_or_default() {
                let code = error.code.unwrap_or_default();
                match error.key {
                    Some(_) if matches!(code.as_str(), "NoSuchKey" | "NotFound") => {}
                    Some(key) if is_transient(&code) => {
                        left.push(key);
                        last = Some(TransientError::answered(200, &code));
                    }
                    _ => {
                        return Err(RequestError::Refused {
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

    async fn delete_one(&self, key: &str, deadline: CallDeadline) -> Result<(), RequestError> {
        let deleted = self
            .call(Operation::DeleteObject, deadline, || {
                let request = self
                    .client
                    .delete_object()
                    .bucket(&self.name)
                    .key(key)
                    .set_expected_bucket_owner(self.owner.clone());
                (request.send(), AttemptTimeout::SHORT)
            })
            .await;
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
