//! Requests about whole objects.

use std::ops::Range;
use std::sync::atomic::Ordering;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::fault::{Fault, chain};
use crate::multipart::unquoted;
use crate::requests::{Bucket, Patience};
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
    pub(crate) fn without_condition<T>(&self, had: bool, answer: &Result<T, Fault>) -> bool {
        let unknown = had && answer.as_ref().is_err_and(Fault::is_unknown);
        if unknown {
            self.conditional.store(false, Ordering::Relaxed);
        }
        unknown
    }

    /// Stores an object of these bytes.
    pub(crate) async fn put(&self, key: &str, content: &Content, deadline: Deadline) -> Result<(), Fault> {
        let sha256 = STANDARD.encode(content.sha256().await);
        let condition = self.absent();
        let mut stored = self.put_if(key, content, &sha256, condition.clone(), deadline).await;
        if self.without_condition(condition.is_some(), &stored) {
            stored = self.put_if(key, content, &sha256, None, deadline).await;
        }
        match stored {
            // The answer to an earlier sending was lost, most likely.
            Err(fault) if fault.is_precondition() => {
                let seen = self.look(key, deadline).await?;
                let is_it =
                    |seen: Seen| seen.size == content.len() as u64 && seen.sha256.is_none_or(|there| there == sha256);
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
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let (sse, kms_key) = self.sse();
        let answer = self.call(Operation::PutObject, deadline, || {
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

    /// Asks for a range, which is not empty, of an object, if it is still the one with this entity tag.
    pub(crate) async fn get(
        &self,
        key: &str,
        range: Range<u64>,
        etag: Option<&str>,
        deadline: Deadline,
    ) -> Result<GetObjectOutput, Fault> {
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        self.call(Operation::GetObject, deadline, || {
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
        .await
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
            last,
        })
    }
}
