//! The registry as one request sees it. Each operation is a method of [`Call`].

use std::net::IpAddr;
use std::ops::Deref;

use crate::auth::{Action, Permit};
use crate::budget::ClientKey;
use crate::deadline;
use crate::delivery::Client;
use crate::environment::{context, context_until};
use crate::memory::{Memory, Purpose};
use crate::registry::Registry;
use crate::request_id::RequestId;
use crate::store::access::Author;
use crate::store::{Context, StoreError, Timestamp};

/// The largest response, in bytes, that counts as small. Most manifests and most lists are small.
pub(crate) const SMALL_ANSWER: usize = 64 << 10;

/// The registry as one request sees it. It adds the request's client to the calls of stores and shell.
pub(crate) struct Call<'a> {
    registry: &'a Registry,
    /// The client to which memory and files are charged.
    client: ClientKey,
    /// The address of the client. `None`: the shell does not know it.
    address: Option<IpAddr>,
    /// The id of a request that may change something.
    request_id: Option<RequestId>,
}

impl Deref for Call<'_> {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        self.registry
    }
}

impl<'a> Call<'a> {
    /// The call for the request with this head.
    pub(crate) fn new(registry: &'a Registry, head: &http::request::Parts) -> Self {
        let client = head.extensions.get::<Client>();
        Self {
            registry,
            client: client.map_or(ClientKey::INTERNAL, |client| ClientKey::of(client.0)),
            address: client.map(|client| client.0),
            request_id: RequestId::of_change(&head.method, &*registry.environment),
        }
    }

    /// The call for work that a shell does by itself, without a request.
    pub(crate) fn internal(registry: &'a Registry) -> Self {
        Self {
            registry,
            client: ClientKey::INTERNAL,
            address: None,
            request_id: None,
        }
    }

    /// The id of the request. `None`: it changes nothing, or is the work of the shell.
    pub(crate) fn request_id(&self) -> Option<RequestId> {
        self.request_id
    }

    /// The author of the changes that this request makes with a permit.
    pub(crate) fn author<A: Action>(&self, permit: &Permit<A>) -> Author {
        Author {
            credential: permit.credential(),
            address: self.address.map(|address| address.to_string()),
            request: self.request_id.map(|id| id.to_string()),
            ..Author::new(permit.principal().to_string())
        }
    }

    /// Waits for a permit for `bytes` of memory for this request's response; see [`crate::MemoryBudget::memory`].
    pub(crate) async fn memory(&self, bytes: usize) -> Result<Memory, StoreError> {
        let purpose = if bytes <= SMALL_ANSWER {
            Purpose::SmallAnswer
        } else {
            Purpose::Answer
        };
        self.memory_for(purpose, bytes).await
    }

    /// Waits for a permit for `bytes` of memory for a purpose.
    pub(crate) async fn memory_for(&self, purpose: Purpose, bytes: usize) -> Result<Memory, StoreError> {
        match self.memory.memory_at_once(self.client, purpose, bytes) {
            Some(memory) => Ok(memory),
            None => self.memory.memory(self.client, purpose, bytes).await,
        }
    }

    /// Waits for a permit for a response that is read from the store while it is sent. The permit is granted before any
    /// object is opened, so it also bounds the number of open objects. The shell counts no memory for very small
    /// responses; it bounds their number instead.
    pub(crate) async fn memory_to_stream(&self, length: u64) -> Result<Memory, StoreError> {
        let max_bytes = self.settings.limits.stream_bytes;
        let bytes = usize::try_from(length).unwrap_or(max_bytes).min(max_bytes);
        self.memory_for(Purpose::Stream, bytes).await
    }

    /// The context of a store call that begins now.
    pub(crate) fn cx(&self) -> Context {
        self.context(self.settings.limits.store_ms)
    }

    /// The context of a seal that begins now. Its timeout is longer, since object stores may take minutes to make one
    /// object of many parts.
    pub(crate) fn sealing(&self) -> Context {
        deadline::begin_seal();
        self.context(self.settings.limits.seal_ms)
    }

    fn context(&self, budget_ms: u64) -> Context {
        context(&*self.environment, self.client, budget_ms)
    }

    /// Makes contexts for store calls that begin after the operation has returned. Responses that are read while they
    /// are sent need them.
    pub(crate) fn later_contexts(&self) -> impl Fn() -> Context + Clone + Send + use<> {
        let (environment, client) = (self.environment.clone(), self.client);
        let (deadline, budget_ms) = (deadline::in_force(), self.settings.limits.store_ms);
        move || context_until(deadline, &*environment, client, budget_ms)
    }

    /// Whether the deadline of the request has passed.
    pub(crate) fn is_due(now: Timestamp) -> bool {
        deadline::in_force().is_some_and(|deadline| deadline.at() <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use async_trait::async_trait;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::auth::Anonymous;
    use crate::deadline::{Deadline, with_deadline};
    use crate::environment::Environment;
    use crate::settings::Settings;
    use crate::store::memory::{MemoryBlobs, MemoryCollection, MemoryMetadata, MemorySessions};
    use crate::stores::Stores;

    const NOW: u64 = 1_000_000;

    struct Clock;

    #[async_trait]
    impl Environment for Clock {
        fn now(&self) -> Timestamp {
            Timestamp(NOW)
        }

        fn random(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }

        async fn sleep(&self, _: u64) {}
    }

    /// Store calls end at the request's deadline or at their own timeout, whichever comes first.
    #[test]
    fn a_request_may_have_a_deadline() {
        let (metadata, sessions) = (Arc::new(MemoryMetadata::new()), Arc::new(MemorySessions::new()));
        let stores = Stores {
            blobs: Arc::new(MemoryBlobs::new()),
            collection: Arc::new(MemoryCollection::new(metadata.clone(), sessions.clone())),
            records: metadata.clone(),
            access: metadata.clone(),
            metadata,
            sessions,
        };
        let settings = Settings::default();
        let (own, seal) = (NOW + settings.limits.store_ms, NOW + settings.limits.seal_ms);
        let registry = Registry::new(
            stores,
            Arc::new(Anonymous::all()),
            Arc::new(Clock),
            Arc::new(()),
            settings,
        );
        let (head, ()) = http::Request::new(()).into_parts();
        let call = Call::new(&registry, &head);
        for (deadline, expected, sealing, is_due) in [
            (None, own, seal, false),
            (Some(NOW + 1), NOW + 1, NOW + 1, false),
            (Some(own - 1), own - 1, own - 1, false),
            (Some(own + 1), own, own + 1, false),
            (Some(u64::MAX), own, seal, false),
            (Some(NOW), NOW, NOW, true),
            (Some(0), 0, 0, true),
        ] {
            let at = |make: fn(Timestamp) -> Deadline| deadline.map(|at| make(Timestamp(at)));
            let check = |deadline, sealing| {
                let checked = pin!(async {
                    let later = call.later_contexts();
                    assert_eq!(Call::is_due(Timestamp(NOW)), is_due, "{deadline:?}");
                    for cx in [call.cx(), later()] {
                        assert_eq!((cx.now.0, cx.deadline.0), (NOW, expected), "{deadline:?}");
                    }
                    assert_eq!(call.sealing().deadline.0, sealing, "{deadline:?}");
                    let publishing = if sealing == seal { own } else { expected };
                    assert_eq!(call.cx().deadline.0, publishing, "{deadline:?}");
                    later
                });
                // What is read while the response is sent.
                let later = with_deadline(deadline, checked)
                    .now_or_never()
                    .expect("it does not wait");
                assert_eq!(later().deadline.0, expected, "{deadline:?}");
            };
            check(at(Deadline::hard), sealing);
            check(at(Deadline::until_seal), seal);
        }
    }
}
