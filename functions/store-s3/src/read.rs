//! Streams a range of an object, and continues after a broken connection.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream as Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry::store::blobs::ByteStream;
use registry::store::{Location, Reason, StoreError};

use crate::error::chain;
use crate::multipart::unquoted;
use crate::requests::BucketClient;
use crate::store::S3Store;
use crate::time::CallTimeout;

/// Maximum time without bytes before the stream is requested again.
const STALL: Duration = Duration::from_secs(15);

/// Maximum number of consecutive breaks without any bytes in between.
const MAXIMUM_BREAKS: u32 = 5;

/// A range that is being read.
struct RangeReader {
    bucket: Arc<BucketClient>,
    key: String,
    timeout: CallTimeout,
    /// The bytes still to read.
    range: Range<u64>,
    /// The entity tag of the object. Another object under the same key must not continue it.
    etag: Option<String>,
    /// `None` after the stream broke.
    body: Option<Body>,
    breaks: u32,
}

impl S3Store {
    pub(crate) async fn read(
        &self,
        timeout: CallTimeout,
        location: &Location,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        let key = self.keys.of(location)?;
        if range.is_empty() {
            // A request cannot ask for an empty range.
            let info = self.bucket.head(&key, timeout.start()).await?;
            let is_within = info.is_some_and(|info| range.start == range.end && range.end <= info.size);
            return Ok(is_within.then(|| stream::empty().boxed()));
        }
        let answer = match self.bucket.get(&key, range.clone(), None, timeout.start()).await {
            Ok(answer) => answer,
            Err(error) if error.is_not_found() || error.is_too_short() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let reader = RangeReader {
            bucket: Arc::clone(&self.bucket),
            key,
            timeout,
            range,
            etag: unquoted(answer.e_tag),
            body: Some(answer.body),
            breaks: 0,
        };
        let chunks = stream::try_unfold(reader, |mut reader| async move {
            let chunk = reader.next().await?;
            Ok(chunk.map(|chunk| (chunk, reader)))
        });
        Ok(Some(chunks.boxed()))
    }
}

impl RangeReader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.range.is_empty() {
            if self.body.is_none() {
                let etag = self.etag.as_deref();
                let reopened = self
                    .bucket
                    .get(&self.key, self.range.clone(), etag, self.timeout.start());
                self.body = Some(reopened.await?.body);
            }
            let Some(body) = &mut self.body else {
                continue;
            };
            let why = match tokio::time::timeout(STALL, body.next()).await {
                Ok(Some(Ok(mut chunk))) => {
                    let left = self.range.end - self.range.start;
                    chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    self.range.start += chunk.len() as u64;
                    self.bucket.counters.bytes_received(chunk.len());
                    if chunk.is_empty() {
                        continue;
                    }
                    self.breaks = 0;
                    return Ok(Some(chunk));
                }
                Ok(Some(Err(error))) => chain(&error),
                Ok(None) => "the response ended early".to_owned(),
                Err(_) => "the response stalled".to_owned(),
            };
            self.body = None;
            self.breaks += 1;
            tracing::debug!(
                key = self.key,
                error = why,
                left = self.range.end - self.range.start,
                "a read was interrupted: it will be continued"
            );
            if self.breaks > MAXIMUM_BREAKS {
                return Err(StoreError::because(
                    Reason::ObjectStoreUnreachable,
                    format!("reading an object could not be continued: {why}"),
                ));
            }
        }
        Ok(None)
    }
}
