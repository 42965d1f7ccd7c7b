//! Requests for multipart uploads.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::Ordering;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use registry::budget::ClientKey;

use crate::chunk_queue::{ByteChunks, ChunkQueue};
use crate::error::{RequestError, TransientError};
use crate::memory::UploadMemory;
use crate::options::Encryption;
use crate::record::{EntityTag, StoredPart};
use crate::requests::{AttemptTimeout, BucketClient, mark_unsupported};
use crate::signed::SignedBody;
use crate::statistics::Operation;
use crate::time::{CallDeadline, CallTimeout};

/// Encodes all other characters in the header that contains the source of a copy.
const SOURCE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A multipart upload.
#[derive(Clone, Debug)]
pub(crate) struct MultipartTarget {
    pub(crate) key: String,
    pub(crate) id: String,
    /// Whether its parts have checksums; either all have one or none.
    pub(crate) checksums: bool,
}

/// Maximum number of parts in one list response.
const PARTS_LISTED: u16 = 1000;

/// Maximum number of list requests at once: enough for 10,000 parts, because a client waits for the result.
const CONCURRENT_LISTS: usize = 10;

/// A part in a list response.
#[derive(Debug)]
pub(crate) struct ListedPart {
    /// The number of bytes.
    pub(crate) size: u64,
    /// The entity tag, without its quotes.
    pub(crate) etag: String,
}

/// A part that was sent and is stored.
#[derive(Debug)]
pub(crate) struct SentPart {
    pub(crate) part: StoredPart,
    /// Whether the part was sent once. If it was sent again, the unanswered first request can still arrive and replace
    /// it.
    pub(crate) sent_once: bool,
}

impl BucketClient {
    /// The parameters for encryption.
    pub(crate) fn sse(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.encryption {
            Encryption::Bucket => (None, None),
            Encryption::Aes256 => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }

    /// Begins an upload. Its parts have checksums if `may_have_checksums` is true and the store supports them. Also
    /// returns whether the request was sent more than once: then the store may have other uploads of this key that no
    /// state records.
    pub(crate) async fn begin(
        &self,
        key: &str,
        may_have_checksums: bool,
        deadline: CallDeadline,
    ) -> Result<(MultipartTarget, bool), RequestError> {
        let checksums = may_have_checksums && self.part_checksums.load(Ordering::Relaxed);
        let begun = self.begin_with(key, checksums, deadline).await;
        match begun {
            Err(error) if checksums && error.may_be_unsupported() => {
                let begun = self.begin_with(key, false, deadline).await?;
                mark_unsupported(&self.part_checksums, "checksums of parts");
                Ok(begun)
            }
            other => other,
        }
    }

    async fn begin_with(
        &self,
        key: &str,
        checksums: bool,
        deadline: CallDeadline,
    ) -> Result<(MultipartTarget, bool), RequestError> {
        let (sse, kms_key) = self.sse();
        let algorithm = checksums.then_some(ChecksumAlgorithm::Crc32);
        let operation = Operation::CreateMultipartUpload;
        let (answer, attempts) = self
            .call_counting(operation, deadline, || {
                let request = self
                    .client
                    .create_multipart_upload()
                    .bucket(&self.name)
                    .key(key)
                    .set_expected_bucket_owner(self.owner.clone())
                    .set_server_side_encryption(sse.clone())
                    .set_ssekms_key_id(kms_key.clone())
                    .set_checksum_algorithm(algorithm.clone());
                (request.send(), AttemptTimeout::SHORT)
            })
            .await?;
        let id = answer.upload_id.ok_or_else(|| incomplete(operation))?;
        let target = MultipartTarget {
            key: key.to_owned(),
            id,
            checksums,
        };
        Ok((target, attempts > 1))
    }

    /// Stores a part: with a checksum, or signed with the hash of its bytes, which every store verifies.
    pub(crate) async fn upload_part(
        &self,
        target: &MultipartTarget,
        number: u16,
        content: &ByteChunks,
        deadline: CallDeadline,
    ) -> Result<SentPart, RequestError> {
        let crc32 = target.checksums.then(|| STANDARD.encode(content.crc32()));
        let signed = if target.checksums {
            None
        } else {
            Some(SignedBody::of(content).await)
        };
        let operation = Operation::UploadPart;
        let (answer, attempts) = self
            .call_counting(operation, deadline, || {
                self.counters.bytes_sent(content.len());
                let (body, accepted) = content.body();
                let of = content.len();
                let request = self
                    .client
                    .upload_part()
                    .bucket(&self.name)
                    .key(&target.key)
                    .upload_id(&target.id)
                    .part_number(number.into())
                    .set_expected_bucket_owner(self.owner.clone())
                    .set_checksum_crc32(crc32.clone())
                    .content_length(i64::try_from(content.len()).unwrap_or(i64::MAX))
                    .body(body.into());
                let request = match &signed {
                    Some(signed) => request.customize().interceptor(signed.clone()),
                    None => request.customize(),
                };
                (request.send(), AttemptTimeout::Progress { accepted, of })
            })
            .await?;
        let part = StoredPart {
            number,
            size: content.len() as u64,
            etag: EntityTag::Whole(unquoted(answer.e_tag).ok_or_else(|| incomplete(operation))?),
            crc32,
        };
        Ok(SentPart {
            part,
            sent_once: attempts == 1,
        })
    }

    /// Makes a part of a small object with a copy inside the store. If the upload needs a checksum and the copy yields
    /// none, it reads the object and sends it as a part: not all stores compute a checksum when they copy. Before it
    /// reads, it waits for memory from `memory`; a caller that has memory already passes `None`.
    pub(crate) async fn copy_small(
        &self,
        target: &MultipartTarget,
        number: u16,
        source: (&str, u64),
        memory: Option<(&UploadMemory, ClientKey)>,
        deadline: CallDeadline,
    ) -> Result<StoredPart, RequestError> {
        let (source, size) = source;
        let copied = self.copy_part(target, number, source, 0..size, deadline).await?;
        let is_checksum = |text: &String| STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 4);
        if !target.checksums || copied.crc32.as_ref().is_some_and(is_checksum) {
            return Ok(copied);
        }
        let _held = match memory {
            None => None,
            Some((memory, client)) => {
                let held = memory
                    .permit_for_copy(client, usize::try_from(size).unwrap_or(usize::MAX))
                    .await;
                Some(held.map_err(|full| RequestError::Exhausted {
                    operation: Operation::UploadPartCopy,
                    attempts: 1,
                    last: TransientError {
                        reason: full.reason(),
                        text: full.to_string(),
                    },
                })?)
            }
        };
        let mut queue = ChunkQueue::default();
        for chunk in self.fetch(source, size, deadline).await? {
            queue.push(chunk);
        }
        let content = queue.cut(usize::MAX);
        let sent = self.upload_part(target, number, &content, deadline).await?;
        Ok(sent.part)
    }

    /// Makes a part of a range of an object, with a copy inside the store.
    pub(crate) async fn copy_part(
        &self,
        target: &MultipartTarget,
        number: u16,
        source: &str,
        range: Range<u64>,
        deadline: CallDeadline,
    ) -> Result<StoredPart, RequestError> {
        let from = format!("{}/{source}", self.name);
        let from = utf8_percent_encode(&from, SOURCE).to_string();
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        let operation = Operation::UploadPartCopy;
        let answer = self
            .call(operation, deadline, || {
                let request = self
                    .client
                    .upload_part_copy()
                    .bucket(&self.name)
                    .key(&target.key)
                    .upload_id(&target.id)
                    .part_number(number.into())
                    .copy_source(&from)
                    .copy_source_range(&bytes)
                    .set_expected_bucket_owner(self.owner.clone())
                    .set_expected_source_bucket_owner(self.owner.clone());
                (request.send(), AttemptTimeout::LONG)
            })
            .await?;
        let result = answer.copy_part_result.ok_or_else(|| incomplete(operation))?;
        Ok(StoredPart {
            number,
            size: range.end - range.start,
            etag: EntityTag::Whole(unquoted(result.e_tag).ok_or_else(|| incomplete(operation))?),
            crc32: result.checksum_crc32,
        })
    }

    /// Makes an object of exactly these parts. Returns whether the request was sent more than once: some stores answer
    /// the second request with success while they still process the first.
    pub(crate) async fn complete(
        &self,
        target: &MultipartTarget,
        parts: &[StoredPart],
        deadline: CallDeadline,
    ) -> Result<bool, RequestError> {
        let parts = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number.into())
                .set_e_tag(part.etag.whole().map(|etag| format!("\"{etag}\"")))
                .set_checksum_crc32(part.crc32.clone())
                .build()
        });
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.collect()))
            .build();
        let condition = self.if_absent();
        let completed = self.complete_if(target, &parts, condition.clone(), deadline).await;
        if !Self::must_repeat_without_condition(condition.is_some(), &completed) {
            return completed;
        }
        let completed = self.complete_if(target, &parts, None, deadline).await?;
        mark_unsupported(&self.conditional_writes, "conditional writes");
        Ok(completed)
    }

    async fn complete_if(
        &self,
        target: &MultipartTarget,
        parts: &CompletedMultipartUpload,
        condition: Option<String>,
        deadline: CallDeadline,
    ) -> Result<bool, RequestError> {
        let answer = self.call_counting(Operation::CompleteMultipartUpload, deadline, || {
            let request = self
                .client
                .complete_multipart_upload()
                .bucket(&self.name)
                .key(&target.key)
                .upload_id(&target.id)
                .set_expected_bucket_owner(self.owner.clone())
                .set_if_none_match(condition.clone())
                .multipart_upload(parts.clone());
            (request.send(), AttemptTimeout::LONG)
        });
        answer.await.map(|(_, attempts)| attempts > 1)
    }

    /// The parts that exist in an upload, with numbers in this range except the first number.
    pub(crate) async fn list_parts(
        &self,
        target: &MultipartTarget,
        numbers: RangeInclusive<u16>,
        timeout: CallTimeout,
    ) -> Result<BTreeMap<u16, ListedPart>, RequestError> {
        let (first, last) = numbers.into_inner();
        let pages = (first..last).step_by(PARTS_LISTED.into());
        let pages = pages.map(|after| {
            let numbers = after..=after.saturating_add(PARTS_LISTED).min(last);
            // Boxed, because the compiler could not prove the whole future `Send`.
            self.list_some(target, numbers, timeout).boxed()
        });
        // Collected first, for the same reason.
        let pages: Vec<_> = pages.collect();
        let pages: Vec<_> = stream::iter(pages).buffered(CONCURRENT_LISTS).try_collect().await?;
        Ok(pages.into_iter().flatten().collect())
    }

    /// Lists parts with one request after the other. One request suffices for [`PARTS_LISTED`] numbers if the store's
    /// page is that large.
    async fn list_some(
        &self,
        target: &MultipartTarget,
        numbers: RangeInclusive<u16>,
        timeout: CallTimeout,
    ) -> Result<BTreeMap<u16, ListedPart>, RequestError> {
        let operation = Operation::ListParts;
        let (mut after, last) = numbers.into_inner();
        let mut listed = BTreeMap::new();
        while after < last {
            let answer = self
                .call(operation, timeout.start(), || {
                    let request = self
                        .client
                        .list_parts()
                        .bucket(&self.name)
                        .key(&target.key)
                        .upload_id(&target.id)
                        .part_number_marker(after.to_string())
                        .max_parts(i32::from(last - after))
                        .set_expected_bucket_owner(self.owner.clone());
                    (request.send(), AttemptTimeout::SHORT)
                })
                .await?;
            let before = after;
            for part in answer.parts.unwrap_or_default() {
                let number = part.part_number.and_then(|number| number.try_into().ok());
                let size = part.size.and_then(|size| size.try_into().ok());
                let (Some(number), Some(size), Some(etag)) = (number, size, unquoted(part.e_tag)) else {
                    return Err(incomplete(operation));
                };
                after = after.max(number);
                if number <= last {
                    listed.insert(number, ListedPart { size, etag });
                }
            }
            if after == before || !answer.is_truncated.unwrap_or(false) {
                break;
            }
        }
        Ok(listed)
    }

    /// Aborts an upload. It is no error if the upload does not exist.
    pub(crate) async fn abort(&self, target: &MultipartTarget, deadline: CallDeadline) -> Result<(), RequestError> {
        let aborted = self
            .call(Operation::AbortMultipartUpload, deadline, || {
                let request = self
                    .client
                    .abort_multipart_upload()
                    .bucket(&self.name)
                    .key(&target.key)
                    .upload_id(&target.id)
                    .set_expected_bucket_owner(self.owner.clone());
                (request.send(), AttemptTimeout::SHORT)
            })
            .await;
        match aborted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// An entity tag without its quotes.
pub(crate) fn unquoted(tag: Option<String>) -> Option<String> {
    tag.map(|tag| tag.trim_matches('"').to_owned())
}

/// The error for a response that lacks a required field.
pub(crate) fn incomplete(operation: Operation) -> RequestError {
    RequestError::Refused {
        operation,
        status: 200,
        code: "Incomplete".to_owned(),
        message: "the response lacks a field that the protocol requires".to_owned(),
    }
}
