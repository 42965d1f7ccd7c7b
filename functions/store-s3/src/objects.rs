//! Requests about whole objects.

use std::ops::Range;
use std::sync::atomic::Ordering;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::fault::{self, Fault, Passing, chain};
use crate::multipart::unquoted;
use crate::requests::{Bucket, Patience, lacks};
use crate::rope::Content;
use crate::statistics::Operation;
use crate::time::Deadline;

/// How often a small object that is cut off while it is read is read again.
const READS: u32 = 5;

/// An object as a look at it shows it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) size: u64,
    pub(crate) etag: Option<String>,
    pub(crate) sha256: Option<String>,
}

impl Bucket {
    /// The condition that an object is not there yet, unless the store has said that it knows no conditions. Every key
    /// is written by one attempt only, so that nothing depends on it; but a table that was put back from an old copy
    /// counts its attempts again, and then no object of later times must be overwritten.
    pub(crate) fn absent(&self) -> Option<String> {
        self.conditional.load(Ordering::Relaxed).then(|| "*".to_owned())
    }

    /// Whether a request is to be sent again without the condition that it had.
    pub(crate) fn without_condition<T>(had: bool, answer: &Result<T, Fault>) -> bool {
        had && answer.as_ref().is_err_and(Fault::is_unknown)
    }

    /// Stores an object of these bytes, whose hash may be known.
    pub(crate) async fn put(
        &self,
        key: &str,
        content: &Content,
        sha256: Option<[u8; 32]>,
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let sha256 = match sha256 {
            Some(known) => STANDARD.encode(known),
            None => STANDARD.encode(content.sha256().await),
        };
        let condition = self.absent();
        let mut sent = 0;
        let mut stored = self
            .put_if(key, content, &sha256, condition.clone(), &mut sent, deadline)
            .await;
        if Self::without_condition(condition.is_some(), &stored) {
            stored = self.put_if(key, content, &sha256, None, &mut sent, deadline).await;
            if stored.is_ok() {
                lacks(&self.conditional, "conditions of writes");
            }
        }
        match stored {
            // The answer to an earlier sending was lost, most likely. Whether the object is the one that was sent tells
            // its hash. A store that keeps none tells no more than the size; that is enough for what was sent before,
            // since nobody else writes to this key now, while an object that the first sending met is not from here.
            Err(fault) if fault.is_precondition() => {
                let seen = self.look(key, deadline).await?;
                let is_it = |seen: Seen| {
                    let same = seen.sha256.map_or(sent > 1, |there| there == sha256);
                    same && seen.size == content.len() as u64
                };
                if seen.is_some_and(is_it) { Ok(()) } else { Err(fault) }
            }
            other => other,
        }
    }

    async fn put_if(
        &self,
        key: &str,
        content: &Content,
        sha256: &str,
        condition: Option<String>,
        sent: &mut u32,
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let (sse, kms_key) = self.sse();
        let answer = self.call(Operation::PutObject, deadline, || {
            *sent += 1;
            self.counters.bytes_sent(content.len());
            let (body, taken) = content.body();
            let of = content.len();
            let request = self
                .client
                .put_object()
                .bucket(&self.name)
                .key(key)
                .set_expected_bucket_owner(self.owner.clone())
                .set_server_side_encryption(sse.clone())
                .set_ssekms_key_id(kms_key.clone())
                .set_if_none_match(condition.clone())
                .checksum_sha256(sha256)
                .content_length(i64::try_from(content.len()).unwrap_or(i64::MAX))
                .body(body.into());
            (request.send(), Patience::Progress { taken, of })
        });
        answer.await.map(drop)
    }

    /// What there is under a key.
    pub(crate) async fn look(&self, key: &str, deadline: Deadline) -> Result<Option<Seen>, Fault> {
        let answer = self
            .call(Operation::HeadObject, deadline, || {
                let request = self
                    .client
                    .head_object()
                    .bucket(&self.name)
                    .key(key)
                    .set_expected_bucket_owner(self.owner.clone())
                    .checksum_mode(ChecksumMode::Enabled);
                (request.send(), Patience::SHORT)
            })
            .await;
        match answer {
            Ok(answer) => Ok(Some(Seen {
                size: answer.content_length.and_then(|size| size.try_into().ok()).unwrap_or(0),
                etag: unquoted(answer.e_tag),
                sha256: answer.checksum_sha256,
            })),
            Err(fault) if fault.is_absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Asks for a range, which is not empty, of an object, if it is still the one with this entity tag. An answer with
    /// other bytes, as by a store that does not know ranges or conditions, is none.
    pub(crate) async fn get(
        &self,
        key: &str,
        range: Range<u64>,
        etag: Option<&str>,
        deadline: Deadline,
    ) -> Result<GetObjectOutput, Fault> {
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        let operation = Operation::GetObject;
        let answer = self
            .call(operation, deadline, || {
                let request = self
                    .client
                    .get_object()
                    .bucket(&self.name)
                    .key(key)
                    .range(&bytes)
                    .set_if_match(etag.map(|etag| format!("\"{etag}\"")))
                    .set_expected_bucket_owner(self.owner.clone());
                (request.send(), Patience::SHORT)
            })
            .await?;
        let other = |code: &str, message: String| Fault::Refused {
            operation,
            status: 200,
            code: code.to_owned(),
            message,
        };
        if !is_range(&range, answer.content_range.as_deref(), answer.content_length) {
            let told = answer.content_range.as_deref().unwrap_or("everything");
            let whole = told.rsplit_once('/').and_then(|(_, size)| size.parse::<u64>().ok());
            return Err(other(
                if whole.is_some_and(|size| size < range.end) {
                    fault::TOO_SHORT
                } else {
                    "AnotherRange"
                },
                format!("{bytes} of {key} were asked for, not {told}"),
            ));
        }
        let there = unquoted(answer.e_tag.clone());
        if etag.is_some() && there.is_some() && etag != there.as_deref() {
            return Err(other("AnotherObject", format!("{key} has changed while it was read")));
        }
        Ok(answer)
    }

    /// Reads the first `size` bytes of an object, in the chunks in which they come.
    pub(crate) async fn fetch(&self, key: &str, size: u64, deadline: Deadline) -> Result<Vec<Bytes>, Fault> {
        let operation = Operation::GetObject;
        let mut last = String::new();
        for _ in 0..READS {
            let mut body = self.get(key, 0..size, None, deadline).await?.body;
            let (mut chunks, mut read) = (Vec::new(), 0);
            let whole = async {
                while let Some(chunk) = body.next().await {
                    let chunk = chunk.map_err(|error| chain(&error))?;
                    self.counters.bytes_received(chunk.len());
                    read += chunk.len() as u64;
                    chunks.push(chunk);
                }
                Ok::<(), String>(())
            };
            last = match tokio::time::timeout(deadline.left(), whole).await {
                Ok(Ok(())) if read == size => return Ok(chunks),
                Ok(Ok(())) => {
                    return Err(Fault::Refused {
                        operation,
                        status: 200,
                        code: "AnotherSize".to_owned(),
                        message: format!("{size} bytes of {key} are {read}"),
                    });
                }
                Ok(Err(error)) => error,
                Err(_) => "reading took too long".to_owned(),
            };
            self.counters.failed(operation);
        }
        Err(Fault::Exhausted {
            operation,
            attempts: READS,
            last: Passing::silence(last),
        })
    }
}

/// Whether an answer with these headers brings `range`. Without `Content-Range` it brings the whole object (RFC 9110,
/// section 14.2: a range may be ignored).
fn is_range(range: &Range<u64>, content_range: Option<&str>, content_length: Option<i64>) -> bool {
    let length = content_length.map(|length| u64::try_from(length).ok() == Some(range.end - range.start));
    match content_range {
        Some(told) => {
            let told = told.strip_prefix("bytes ").and_then(|told| told.split_once('/'));
            let is_told = told.is_some_and(|(told, _)| told == format!("{}-{}", range.start, range.end - 1));
            is_told && length != Some(false)
        }
        None => range.start == 0 && length == Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_brings_the_range_that_was_asked_for_or_none() {
        for (range, told, length, is_it) in [
            (10..20, Some("bytes 10-19/100"), Some(10), true),
            (10..20, Some("bytes 10-19/*"), None, true),
            (0..20, Some("bytes 0-19/20"), Some(20), true),
            (0..20, None, Some(20), true),
            (0..20, None, Some(100), false),
            (0..20, None, None, false),
            (10..20, None, Some(10), false),
            (10..20, Some("bytes 10-19/100"), Some(100), false),
            (10..20, Some("bytes 10-14/15"), Some(5), false),
            (10..20, Some("bytes 0-9/100"), Some(10), false),
            (10..20, Some("bytes 10-190/200"), Some(10), false),
            (10..20, Some("items 10-19/100"), Some(10), false),
            (10..20, Some("bytes 10-19"), Some(10), false),
            (10..20, Some(""), Some(-1), false),
        ] {
            assert_eq!(is_range(&range, told, length), is_it, "{range:?}: {told:?}, {length:?}");
        }
    }
}
