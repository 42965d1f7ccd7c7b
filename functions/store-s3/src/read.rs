//! Streams a range of an object, and goes on where a connection was cut.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream as Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use registry::store::blobs::ByteStream;
use registry::store::{Location, Reason, StoreError};

use crate::fault::chain;
use crate::multipart::unquoted;
use crate::requests::Bucket;
use crate::store::Store;
use crate::time::Span;

/// A stream that brings nothing for so long is asked for again.
const STALL: Duration = Duration::from_secs(15);

/// How often in a row a stream may break without having brought a byte.
const BREAKS: u32 = 5;

/// A range that is being read.
struct Reader {
    bucket: Arc<Bucket>,
    key: String,
    span: Span,
    /// What is still to come.
    range: Range<u64>,
    /// The object that was opened; another one under its key must not continue it.
    etag: Option<String>,
    /// `None`: it broke.
    body: Option<Body>,
    breaks: u32,
}

impl Store {
    pub(crate) async fn read(
        &self,
        span: Span,
        location: &Location,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        let key = self.keys.of(location)?;
        if range.is_empty() {
            // No request can ask for no bytes.
            let seen = self.bucket.look(&key, span.begin()).await?;
            let is_within = seen.is_some_and(|seen| range.start == range.end && range.end <= seen.size);
            return Ok(is_within.then(|| stream::empty().boxed()));
        }
        let answer = match self.bucket.get(&key, range.clone(), None, span.begin()).await {
            Ok(answer) => answer,
            Err(fault) if fault.is_absent() || fault.is_too_short() => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        let reader = Reader {
            bucket: Arc::clone(&self.bucket),
            key,
            span,
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

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.range.is_empty() {
            if self.body.is_none() {
                let etag = self.etag.as_deref();
                let reopened = self.bucket.get(&self.key, self.range.clone(), etag, self.span.begin());
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
                Ok(None) => "it ended early".to_owned(),
                Err(_) => "it stalled".to_owned(),
            };
            self.body = None;
            self.breaks += 1;
            tracing::debug!(
                key = self.key,
                error = why,
                left = self.range.end - self.range.start,
                "a read broke"
            );
            if self.breaks > BREAKS {
                return Err(StoreError::because(
                    Reason::ObjectStoreUnreachable,
                    format!("an object could not be read on: {why}"),
                ));
            }
        }
        Ok(None)
    }
}
