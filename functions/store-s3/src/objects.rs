//! Requests for whole objects.

use std::ops::Range;
use std::sync::atomic::Ordering;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::chunk_queue::ByteChunks;
use crate::error::{self, RequestError, TransientError, chain};
use crate::multipart::unquoted;
use crate::requests::{AttemptTimeout, BucketClient, mark_unsupported};
use crate::statistics::Operation;
use crate::time::CallDeadline;

/// How often a small object is read again if the connection is cut while reading.
const MAXIMUM_READS: u32 = 5;

/// The properties of an object.
#[derive(Clone, Debug)]
pub(crate) struct ObjectInfo {
    pub(crate) size: u64,
    pub(crate) etag: Option<String>,
    pub(crate) sha256: Option<String>,
}

impl BucketClient {
    /// The condition that the object does not exist yet, unless the store has answered that it does not support
    /// conditions. Each key is written by one attempt only, so correctness does not depend on the condition. But a
    /// table that was restored from an old backup repeats attempt numbers, and then newer objects must not be
    /// overwritten.
    pub(crate) fn if_absent(&self) -> Option<String> {
        self.conditional_writes.load(Ordering::Relaxed).then(|| "*".to_owned())
    }

    /// Whether a request must be sent again without its condition.
    pub(crate) fn must_repeat_without_condition<T>(had: bool, answer: &Result<T, RequestError>) -> bool {
        had && answer.as_ref().is_err_and(RequestError::is_unsupported)
    }

    /// Stores an object with this content; `sha256` is its hash, if known.
    pub(crate) async fn put(
        &self,
        key: &str,
        content: &ByteChunks,
        sha256: Option<[u8; 32]>,
        deadline: CallDeadline,
    ) -> Result<(), RequestError> {
        let sha256 = match sha256 {
            Some(known) => STANDARD.encode(known),
            None => STANDARD.encode(content.sha256().await),
        };
        let condition = self.if_absent();
        let stored = self.put_if(key, content, &sha256, condition.clone(), deadline).await;
        if !Self::must_repeat_without_condition(condition.is_some(), &stored) {
            return stored;
        }
        self.put_if(key, content, &sha256, None, deadline).await?;
        mark_unsupported(&self.conditional_writes, "conditional writes");
        Ok(())
    }

    async fn put_if(
        &self,
        key: &str,
        content: &ByteChunks,
        sha256: &str,
        condition: Option<String>,
        mut deadline: CallDeadline,
    ) -> Result<(), RequestError> {
        let (sse, kms_key) = self.sse();
        let operation = Operation::PutObject;
        let mut sent = 0;
        loop {
            sent += 1;
            self.counters.bytes_sent(content.len());
            let (body, accepted) = content.body();
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
            let timeout = AttemptTimeout::Progress { accepted, of };
            let sending = self.attempt(operation, &mut deadline, (request.send(), timeout));
            let last = match sending.await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(last)) => last,
                // Most likely the response to an earlier attempt was lost.
                Err(error) if error.is_precondition_failed() => {
                    let is_stored = self.is_stored(key, content, sha256, sent, deadline).await?;
                    return if is_stored { Ok(()) } else { Err(error) };
                }
                Err(error) => return Err(error),
            };
            // If an earlier attempt stored the object, the store may refuse this one before it has read the body, and
            // close the connection. The sender then gets a reset instead of the response, at every attempt. So the
            // object is looked for before the request is sent a third time.
            let may_exist = condition.is_some() && sent > 1;
            if may_exist && matches!(self.is_stored(key, content, sha256, sent, deadline).await, Ok(true)) {
                self.counters.failed(operation);
                return Ok(());
            }
            self.pause(operation, sent, last, deadline).await?;
        }
    }

    /// Whether the object under the key is the one that was sent, `sent` times so far. Its hash shows that. A store
    /// without hashes only shows the size. That is enough if the request was sent before, since no other request writes
    /// to this key now. If the first attempt already met an object, that object is from elsewhere.
    async fn is_stored(
        &self,
        key: &str,
        content: &ByteChunks,
        sha256: &str,
        sent: u32,
        deadline: CallDeadline,
    ) -> Result<bool, RequestError> {
        let info = self.head(key, deadline).await?;
        Ok(info.is_some_and(|info| {
            info.sha256.map_or(sent > 1, |there| there == sha256) && info.size == content.len() as u64
        }))
    }

    /// The properties of the object under a key, if it exists.
    pub(crate) async fn head(&self, key: &str, deadline: CallDeadline) -> Result<Option<ObjectInfo>, RequestError> {
        let answer = self
            .call(Operation::HeadObject, deadline, || {
                let request = self
                    .client
                    .head_object()
                    .bucket(&self.name)
                    .key(key)
                    .set_expected_bucket_owner(self.owner.clone())
                    .checksum_mode(ChecksumMode::Enabled);
                (request.send(), AttemptTimeout::SHORT)
            })
            .await;
        match answer {
            Ok(answer) => Ok(Some(ObjectInfo {
                size: answer.content_length.and_then(|size| size.try_into().ok()).unwrap_or(0),
                etag: unquoted(answer.e_tag),
                sha256: answer.checksum_sha256,
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Requests a non-empty range of an object, if the object still has this entity tag. A response with other bytes,
    /// for example from a store that does not support ranges or conditions, is an error.
    pub(crate) async fn get(
        &self,
        key: &str,
        range: Range<u64>,
        etag: Option<&str>,
        deadline: CallDeadline,
    ) -> Result<GetObjectOutput, RequestError> {
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
                (request.send(), AttemptTimeout::SHORT)
            })
            .await?;
        let other = |code: &str, message: String| RequestError::Refused {
            operation,
            status: 200,
            code: code.to_owned(),
            message,
        };
        if !is_range(&range, answer.content_range.as_deref(), answer.content_length) {
            let reported = answer.content_range.as_deref().unwrap_or("the whole object");
            let whole = reported.rsplit_once('/').and_then(|(_, size)| size.parse::<u64>().ok());
            return Err(other(
                if whole.is_some_and(|size| size < range.end) {
                    error::TOO_SHORT
                } else {
                    "AnotherRange"
                },
                format!("{bytes} of {key} were requested, but the response has {reported}"),
            ));
        }
        let there = unquoted(answer.e_tag.clone());
        if etag.is_some() && there.is_some() && etag != there.as_deref() {
            return Err(other("AnotherObject", format!("{key} changed while it was read")));
        }
        Ok(answer)
    }

    /// Reads the first `size` bytes of an object, as chunks.
    pub(crate) async fn fetch(&self, key: &str, size: u64, deadline: CallDeadline) -> Result<Vec<Bytes>, RequestError> {
        let operation = Operation::GetObject;
        let mut last = String::new();
        for _ in 0..MAXIMUM_READS {
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
                    return Err(RequestError::Refused {
                        operation,
                        status: 200,
                        code: "AnotherSize".to_owned(),
                        message: format!("{size} bytes of {key} were requested, but the response has {read}"),
                    });
                }
                Ok(Err(error)) => error,
                Err(_) => "reading exceeded the time limit".to_owned(),
            };
            self.counters.failed(operation);
        }
        Err(RequestError::Exhausted {
            operation,
            attempts: MAXIMUM_READS,
            last: TransientError::no_response(last),
        })
    }
}

/// Whether a response with these headers contains exactly `range`. Without `Content-Range` it contains the whole object
/// (RFC 9110, section 14.2: a server may ignore a range).
fn is_range(range: &Range<u64>, content_range: Option<&str>, content_length: Option<i64>) -> bool {
    let length = content_length.map(|length| u64::try_from(length).ok() == Some(range.end - range.start));
    match content_range {
        Some(reported) => {
            let reported = reported
                .strip_prefix("bytes ")
                .and_then(|reported| reported.split_once('/'));
            let matches =
                reported.is_some_and(|(reported, _)| reported == format!("{}-{}", range.start, range.end - 1));
            matches && length != Some(false)
        }
        None => range.start == 0 && length == Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_accepted_only_with_the_requested_range() {
        for (range, reported, length, is_same) in [
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
            assert_eq!(
                is_range(&range, reported, length),
                is_same,
                "{range:?}: {reported:?}, {length:?}"
            );
        }
    }
}
