//! Requests about multipart uploads.

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

use crate::fault::{Fault, Passing};
use crate::options::Encryption;
use crate::record::{Part, Tag};
use crate::requests::{Bucket, Patience, lacks};
use crate::room::Room;
use crate::rope::{Content, Rope};
use crate::signed::SignedBody;
use crate::statistics::Operation;
use crate::time::{Deadline, Span};

/// What may stand in the header that names a source as it is.
const SOURCE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A multipart upload.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) key: String,
    pub(crate) id: String,
    /// Whether its parts have checksums: all of them, or none.
    pub(crate) checksums: bool,
}

/// How many parts one request may list.
const PARTS_LISTED: u16 = 1000;

/// How many of these requests are under way at once: enough for 10,000 parts, whose client waits for the answer.
const LISTS_AT_ONCE: usize = 10;

/// A part as a list shows it.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Bytes.
    pub(crate) size: u64,
    /// The entity tag, without its quotes.
    pub(crate) etag: String,
}

/// A part that was sent and is stored.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) part: Part,
    /// It was sent once: no earlier sending, of which nothing was heard, can still arrive and take its place.
    pub(crate) once: bool,
}

impl Bucket {
    /// What the SDK is told about encryption.
    pub(crate) fn sse(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.encryption {
            Encryption::Bucket => (None, None),
            Encryption::Aes256 => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }

    /// Begins an upload, whose parts have checksums if they may and the store takes them. Also answers whether the
    /// request was sent more than once: then there may be uploads of this key that nobody knows.
    pub(crate) async fn begin(
        &self,
        key: &str,
        may_have_checksums: bool,
        deadline: Deadline,
    ) -> Result<(Target, bool), Fault> {
        let checksums = may_have_checksums && self.part_checksums.load(Ordering::Relaxed);
        let begun = self.begin_with(key, checksums, deadline).await;
        match begun {
            Err(fault) if checksums && fault.is_unknown_header() => {
                let begun = self.begin_with(key, false, deadline).await?;
                lacks(&self.part_checksums, "checksums of parts");
                Ok(begun)
            }
            other => other,
        }
    }

    async fn begin_with(&self, key: &str, checksums: bool, deadline: Deadline) -> Result<(Target, bool), Fault> {
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
                (request.send(), Patience::SHORT)
            })
            .await?;
        let id = answer.upload_id.ok_or_else(|| incomplete(operation))?;
        let target = Target {
            key: key.to_owned(),
            id,
            checksums,
        };
        Ok((target, attempts > 1))
    }

    /// Stores a part: with a checksum, or else signed with the hash of its bytes, which every store compares.
    pub(crate) async fn upload_part(
        &self,
        target: &Target,
        number: u16,
        content: &Content,
        deadline: Deadline,
    ) -> Result<Sent, Fault> {
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
                let (body, taken) = content.body();
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
                (request.send(), Patience::Progress { taken, of })
            })
            .await?;
        let part = Part {
            number,
            size: content.len() as u64,
            etag: Tag::Whole(unquoted(answer.e_tag).ok_or_else(|| incomplete(operation))?),
            crc32,
        };
        Ok(Sent {
            part,
            once: attempts == 1,
        })
    }

    /// Makes a part of a small object: inside the store, or, if that yields no checksum and the upload needs one, by
    /// reading it and sending it back. Not all stores compute one when they copy. What is read waits for `room` first,
    /// unless the caller has some already.
    pub(crate) async fn copy_small(
        &self,
        target: &Target,
        number: u16,
        source: (&str, u64),
        room: Option<(&Room, ClientKey)>,
        deadline: Deadline,
    ) -> Result<Part, Fault> {
        let (source, size) = source;
        let copied = self.copy_part(target, number, source, 0..size, deadline).await?;
        let is_checksum = |text: &String| STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 4);
        if !target.checksums || copied.crc32.as_ref().is_some_and(is_checksum) {
            return Ok(copied);
        }
        let _held = match room {
            None => None,
            Some((room, client)) => {
                let held = room.whole(client, usize::try_from(size).unwrap_or(usize::MAX)).await;
                Some(held.map_err(|full| Fault::Exhausted {
                    operation: Operation::UploadPartCopy,
                    attempts: 1,
                    last: Passing {
                        reason: full.reason(),
                        text: full.to_string(),
                    },
                })?)
            }
        };
        let mut rope = Rope::default();
        for chunk in self.fetch(source, size, deadline).await? {
            rope.push(chunk);
        }
        let content = rope.cut(usize::MAX);
        let sent = self.upload_part(target, number, &content, deadline).await?;
        Ok(sent.part)
    }

    /// Makes a part of a range of an object, inside the store.
    pub(crate) async fn copy_part(
        &self,
        target: &Target,
        number: u16,
        source: &str,
        range: Range<u64>,
        deadline: Deadline,
    ) -> Result<Part, Fault> {
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
                (request.send(), Patience::LONG)
            })
            .await?;
        let result = answer.copy_part_result.ok_or_else(|| incomplete(operation))?;
        Ok(Part {
            number,
            size: range.end - range.start,
            etag: Tag::Whole(unquoted(result.e_tag).ok_or_else(|| incomplete(operation))?),
            crc32: result.checksum_crc32,
        })
    }

    /// Makes an object of these parts, and of no other. Answers whether the request was sent more than once: some
    /// stores say yes to the second one while they are still at the first.
    pub(crate) async fn complete(&self, target: &Target, parts: &[Part], deadline: Deadline) -> Result<bool, Fault> {
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
        let condition = self.absent();
        let completed = self.complete_if(target, &parts, condition.clone(), deadline).await;
        if !Self::without_condition(condition.is_some(), &completed) {
            return completed;
        }
        let completed = self.complete_if(target, &parts, None, deadline).await?;
        lacks(&self.conditional, "conditions of writes");
        Ok(completed)
    }

    async fn complete_if(
        &self,
        target: &Target,
        parts: &CompletedMultipartUpload,
        condition: Option<String>,
        deadline: Deadline,
    ) -> Result<bool, Fault> {
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
            (request.send(), Patience::LONG)
        });
        answer.await.map(|(_, attempts)| attempts > 1)
    }

    /// The parts that an upload has, of those with these numbers but the first.
    pub(crate) async fn list_parts(
        &self,
        target: &Target,
        numbers: RangeInclusive<u16>,
        span: Span,
    ) -> Result<BTreeMap<u16, Listed>, Fault> {
        let (first, last) = numbers.into_inner();
        let pages = (first..last).step_by(PARTS_LISTED.into());
        let pages = pages.map(|after| {
            let numbers = after..=after.saturating_add(PARTS_LISTED).min(last);
            // Boxed, or the compiler cannot tell that the whole may move between threads.
            self.list_some(target, numbers, span).boxed()
        });
        // Collected first, for the same reason.
        let pages: Vec<_> = pages.collect();
        let pages: Vec<_> = stream::iter(pages).buffered(LISTS_AT_ONCE).try_collect().await?;
        Ok(pages.into_iter().flatten().collect())
    }

    /// The same, by one request after the other; one is enough for [`PARTS_LISTED`] numbers, if the store lists as many.
    async fn list_some(
        &self,
        target: &Target,
        numbers: RangeInclusive<u16>,
        span: Span,
    ) -> Result<BTreeMap<u16, Listed>, Fault> {
        let operation = Operation::ListParts;
        let (mut after, last) = numbers.into_inner();
        let mut listed = BTreeMap::new();
        while after < last {
            let answer = self
                .call(operation, span.begin(), || {
                    let request = self
                        .client
                        .list_parts()
                        .bucket(&self.name)
                        .key(&target.key)
                        .upload_id(&target.id)
                        .part_number_marker(after.to_string())
                        .max_parts(i32::from(last - after))
                        .set_expected_bucket_owner(self.owner.clone());
                    (request.send(), Patience::SHORT)
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
                    listed.insert(number, Listed { size, etag });
                }
            }
            if after == before || !answer.is_truncated.unwrap_or(false) {
                break;
            }
        }
        Ok(listed)
    }

    /// Drops an upload; one that is not there is dropped.
    pub(crate) async fn abort(&self, target: &Target, deadline: Deadline) -> Result<(), Fault> {
        let aborted = self
            .call(Operation::AbortMultipartUpload, deadline, || {
                let request = self
                    .client
                    .abort_multipart_upload()
                    .bucket(&self.name)
                    .key(&target.key)
                    .upload_id(&target.id)
                    .set_expected_bucket_owner(self.owner.clone());
                (request.send(), Patience::SHORT)
            })
            .await;
        match aborted {
            Err(fault) if !fault.is_absent() => Err(fault),
            _ => Ok(()),
        }
    }
}

/// An entity tag as records keep it.
pub(crate) fn unquoted(tag: Option<String>) -> Option<String> {
    tag.map(|tag| tag.trim_matches('"').to_owned())
}

/// An answer without what every answer must have.
pub(crate) fn incomplete(operation: Operation) -> Fault {
    Fault::Refused {
        operation,
        status: 200,
        code: "Incomplete".to_owned(),
        message: "the answer lacks what the protocol asks for".to_owned(),
    }
}
