//! Receives the body of a manifest or a form into memory. Its size is bounded, and memory is taken as it arrives.
//!
//! A body starts with a small buffer, which is enough for forms and most manifests. A larger body then waits for all the memory
//! that it needs, in one step. So a client that sends the beginning of a manifest and then nothing uses little memory,
//! and a body that has some of the rest does not wait for more of it.

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::HeaderMap;

use crate::body::RequestBody;
use crate::call::Call;
use crate::error::Error;
use crate::heads::declared_length;
use crate::memory::{Memory, Purpose};
use crate::store::blobs::BodyError;
use crate::store::{Reason, StoreError};

/// The memory for first bytes is taken in pieces of this size.
const PIECE: usize = 8 << 10;

/// The maximum memory for first bytes of one body. Nearly every manifest is smaller.
const MAX_FIRST_BYTES: usize = 64 << 10;

/// A received body, with its memory permit.
pub(super) struct ReceivedBody {
    /// All bytes.
    pub(super) bytes: Bytes,
    /// The memory of these bytes.
    pub(super) memory: Held,
}

/// The memory permit of one body.
pub(super) struct Held {
    first: Memory,
    rest: Option<Rest>,
    /// How many bytes the permit allows.
    capacity: usize,
}

struct Rest {
    memory: Memory,
    /// How many bytes had arrived when it was granted.
    from: usize,
}

impl Held {
    /// Takes memory for `needed` bytes of a body with at most `expected` bytes.
    async fn take(&mut self, call: &Call<'_>, needed: usize, expected: usize) -> Result<(), StoreError> {
        if needed <= self.capacity {
            return Ok(());
        }
        let goal = needed.next_multiple_of(PIECE).min(expected);
        if goal > MAX_FIRST_BYTES || !self.first.try_grow(goal - self.capacity) {
            let memory = call.memory_for(Purpose::Body, expected - self.capacity).await?;
            let from = self.capacity;
            self.rest = Some(Rest { memory, from });
            self.capacity = expected;
        } else {
            self.capacity = goal;
        }
        Ok(())
    }

    /// Completes when this body, of which `arrived` bytes have arrived, must release its memory for others.
    async fn must_give_way(&mut self, arrived: usize) {
        match &mut self.rest {
            Some(rest) => {
                let arrived = arrived.saturating_sub(rest.from);
                rest.memory.must_give_way(arrived as u64).await;
            }
            None => self.first.must_give_way(arrived as u64).await,
        }
    }
}

impl Call<'_> {
    /// The whole body of a manifest; see [`Call::receive`].
    pub(super) async fn receive_manifest(&self, headers: &HeaderMap, body: RequestBody) -> Result<ReceivedBody, Error> {
        let limit = self.settings.limits.manifest_bytes;
        self.receive(headers, body, limit, Error::ManifestTooLarge { limit })
            .await
    }

    /// A whole body of at most `limit` bytes. Returns `too_large` as soon as the body is known to be larger; a declared
    /// length is checked before anything is read. Memory is taken when the first bytes have arrived. While this waits for memory,
    /// the body is not read, and the client's timeout does not run.
    pub(super) async fn receive(
        &self,
        headers: &HeaderMap,
        mut body: RequestBody,
        limit: usize,
        too_large: Error,
    ) -> Result<ReceivedBody, Error> {
        let declared = match declared_length(headers).map(usize::try_from) {
            Some(Ok(length)) if length <= limit => Some(length),
            Some(_) => return Err(too_large),
            None => None,
        };
        let expected = declared.unwrap_or(limit);
        let mut next = body.next_chunk().await?;
        let capacity = PIECE.min(expected);
        let mut held = Held {
            first: self.memory_for(Purpose::FirstBytes, capacity).await?,
            rest: None,
            capacity,
        };
        let mut bytes = Vec::new();
        let mut waited = 0;
        while let Some(chunk) = next {
            let length = bytes.len() + chunk.len();
            if length > expected {
                return Err(declared.map_or(too_large, |_| BodyError::LengthMismatch.into()));
            }
            held.take(self, length, expected).await?;
            // Never more than the permit allows: a buffer that doubles would take more.
            if bytes.capacity() < length {
                bytes.reserve_exact(held.capacity - bytes.len());
            }
            bytes.extend_from_slice(&chunk);
            drop(chunk);
            let since = self.environment.now();
            next = next_in_time(&mut body, &mut held, length).await?;
            waited += self.environment.now().millis_since(since);
            if waited > self.settings.limits.manifest_ms {
                return Err(BodyError::Stalled.into());
            }
        }
        if declared.is_some_and(|length| length != bytes.len()) {
            return Err(BodyError::LengthMismatch.into());
        }
        Ok(ReceivedBody {
            bytes: bytes.into(),
            memory: held,
        })
    }
}

/// The next bytes of a body of which `arrived` bytes have arrived. Fails if the body must release its memory first.
async fn next_in_time(body: &mut RequestBody, held: &mut Held, arrived: usize) -> Result<Option<Bytes>, Error> {
    let next = std::pin::pin!(body.next_chunk());
    let must_give_way = std::pin::pin!(held.must_give_way(arrived));
    match select(next, must_give_way).await {
        Either::Left((next, _)) => Ok(next?),
        Either::Right(((), _)) => Err(StoreError::because(
            Reason::Memory,
            "memory is short: a body that arrived too slowly gave way to others",
        )
        .into()),
    }
}
