//! The registry as one request sees it. Each operation is a method of [`Call`].

use std::ops::Deref;

use crate::budget::ClientKey;
use crate::delivery::Client;
use crate::environment::context;
use crate::memory::{Memory, Purpose};
use crate::registry::Registry;
use crate::store::{Context, StoreError};

/// An answer of so many bytes is a small one: most manifests, and most lists.
pub(crate) const SMALL_ANSWER: usize = 64 << 10;

/// The registry as one request sees it: what is asked of stores and shell is asked for this request's client.
pub(crate) struct Call<'a> {
    registry: &'a Registry,
    client: ClientKey,
}

impl Deref for Call<'_> {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        self.registry
    }
}

impl<'a> Call<'a> {
    /// The call of the request with this head.
    pub(crate) fn new(registry: &'a Registry, head: &http::request::Parts) -> Self {
        let client = head.extensions.get::<Client>();
        Self {
            registry,
            client: client.map_or(ClientKey::INTERNAL, |client| ClientKey::of(client.0)),
        }
    }

    /// For whom things are held.
    pub(crate) fn client(&self) -> ClientKey {
        self.client
    }

    /// `bytes` of memory for this request's answer, when they are free; see [`crate::MemoryBudget::memory`].
    pub(crate) async fn memory(&self, bytes: usize) -> Result<Memory, StoreError> {
        let purpose = if bytes <= SMALL_ANSWER {
            Purpose::SmallAnswer
        } else {
            Purpose::Answer
        };
        self.memory_for(purpose, bytes).await
    }

    /// `bytes` of memory for a purpose, when they are free.
    pub(crate) async fn memory_for(&self, purpose: Purpose, bytes: usize) -> Result<Memory, StoreError> {
        match self.memory.memory_at_once(self.client, purpose, bytes) {
            Some(memory) => Ok(memory),
            None => self.memory.memory(self.client, purpose, bytes).await,
        }
    }

    /// Memory for an answer that is read as it is sent. It is granted before anything is opened, and so bounds what is open,
    /// too; the shell bounds the number of answers that are so small that it counts no memory for them.
    pub(crate) async fn memory_to_stream(&self, length: u64) -> Result<Memory, StoreError> {
        let most = self.settings.limits.stream_bytes;
        let bytes = usize::try_from(length).unwrap_or(most).min(most);
        self.memory_for(Purpose::Stream, bytes).await
    }

    /// A store call's context, now.
    pub(crate) fn cx(&self) -> Context {
        context(&*self.environment, self.client, self.settings.limits.store_ms)
    }

    /// The context of a seal, now: object stores may take minutes to make one object of many parts.
    pub(crate) fn sealing(&self) -> Context {
        context(&*self.environment, self.client, self.settings.limits.seal_ms)
    }
}
