//! The memory that all requests of a process hold together.

use std::time::Duration;

use async_trait::async_trait;
use registry::MemoryBudget;
use registry::budget::{ArrivalRate, Budget, ClientKey, Grant};
use registry::memory::{MAX_WAITING, Memory, MemoryPermit, Purpose, in_time};
use registry::store::StoreError;
use tokio::time::Instant;

/// Default of the maximum time for which a request waits for memory.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of equal shares into which the memory is divided; each purpose gets some of them.
const SHARES: u64 = 16;

/// Pulls of blobs get this many times the memory of all other requests, and at least the minimum below: 64 KiB for each pull,
/// of which each connection may have one.
const STREAMS: u64 = 2;
const LEAST_FOR_STREAMS: u64 = 16 << 20;

/// The memory for requests. A request waits if there is not enough.
///
/// Each [`Purpose`] has a fixed share, so that no purpose takes the memory of another one. Each share is divided fairly
/// between clients. Pulls of blobs have twice the memory of all other requests, and at least 16 MiB.
#[derive(Debug)]
pub struct RequestMemory {
    first_bytes: Budget,
    bodies: Budget,
    pages: Budget,
    small_answers: Budget,
    answers: Budget,
    work: Budget,
    streams: Budget,
    /// Maximum time for which a request waits for memory.
    timeout: Duration,
    /// Pulls of blobs up to this size, in bytes, are counted elsewhere.
    counted_elsewhere: usize,
}

impl RequestMemory {
    /// With `memory` bytes for all requests together; each waits for its memory for 30 seconds.
    #[must_use]
    pub fn new(memory: u64) -> Self {
        let share = |shares: u64| Budget::new((memory * shares / SHARES).max(1), MAX_WAITING);
        Self {
            first_bytes: share(4),
            bodies: share(3),
            pages: share(1),
            small_answers: share(1),
            answers: share(5),
            work: share(2),
            streams: Budget::new(memory.saturating_mul(STREAMS).max(LEAST_FOR_STREAMS), MAX_WAITING),
            timeout: MEMORY_TIMEOUT,
            counted_elsewhere: 0,
        }
    }

    /// Sets the maximum time for which a request waits for memory.
    #[must_use]
    pub fn waiting_no_longer_than(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Grants memory for pulls of blobs of at most `bytes` at once, because the shell counts that memory itself.
    #[must_use]
    pub fn without_answers_up_to(self, bytes: usize) -> Self {
        Self {
            counted_elsewhere: bytes,
            ..self
        }
    }

    /// The memory for a purpose, and the name of the purpose in errors.
    fn budget(&self, purpose: Purpose) -> (&Budget, &'static str) {
        match purpose {
            Purpose::FirstBytes => (&self.first_bytes, "the first bytes of manifests"),
            Purpose::Body => (&self.bodies, "large manifests"),
            Purpose::Page => (&self.pages, "lists in the making"),
            Purpose::SmallAnswer => (&self.small_answers, "small answers"),
            Purpose::Answer => (&self.answers, "answers"),
            Purpose::Work => (&self.work, "the parsing of manifests"),
            Purpose::Stream => (&self.streams, "blobs that are pulled"),
        }
    }
}

/// A permit, and the speed of the body or the answer that holds it.
struct GrantedMemory {
    grant: Grant,
    granted: Instant,
    rate: ArrivalRate,
}

impl GrantedMemory {
    fn of(grant: Grant) -> Memory {
        Box::new(Self {
            grant,
            granted: Instant::now(),
            rate: ArrivalRate::new(0, 0),
        })
    }

    fn age(&self) -> u64 {
        u64::try_from(self.granted.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[async_trait]
impl MemoryPermit for GrantedMemory {
    fn try_grow(&mut self, bytes: usize) -> bool {
        self.grant.try_grow(bytes as u64)
    }

    fn shrink_to(&mut self, bytes: usize) {
        self.grant.shrink_to(bytes as u64);
    }

    async fn must_give_way(&mut self, arrived: u64) {
        loop {
            tokio::time::sleep_until(self.granted + Duration::from_millis(self.rate.next_look())).await;
            if self.rate.look(self.age(), arrived, &mut self.grant) {
                return;
            }
        }
    }

    fn look(&mut self, sent: u64, waits: bool) -> Option<u64> {
        let now = self.age();
        if !waits {
            // The registry needs time to make the answer, or to read more of it. This time does not count against the client.
            self.grant.catches_up();
            self.rate = ArrivalRate::new(now, sent);
        } else if self.rate.look(now, sent, &mut self.grant) {
            return None;
        }
        Some(self.rate.next_look().saturating_sub(now))
    }
}

#[async_trait]
impl MemoryBudget for RequestMemory {
    async fn memory(&self, client: ClientKey, purpose: Purpose, bytes: usize) -> Result<Memory, StoreError> {
        let (budget, what) = self.budget(purpose);
        let granted = async { Ok(GrantedMemory::of(budget.take(client, bytes as u64).await?)) };
        in_time(granted, tokio::time::sleep(self.timeout), what).await
    }

    fn memory_at_once(&self, client: ClientKey, purpose: Purpose, bytes: usize) -> Option<Memory> {
        if purpose == Purpose::Stream && bytes <= self.counted_elsewhere {
            return Some(Box::new(()));
        }
        let (budget, _) = self.budget(purpose);
        budget.try_take(client, bytes as u64).map(GrantedMemory::of)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use http_body_util::{BodyExt as _, Full};
    use registry::store::blobs::BodyError;
    use registry::store::memory::MemoryMetadata;
    use registry::store::metadata::MetadataStore;
    use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
    use registry::{Anonymous, Registry, RequestBody, Settings, Stores};
    use tokio::sync::Notify;

    use super::*;
    use crate::clock::SystemEnvironment;
    use crate::opened::in_memory;

    /// Answers up to this size are counted elsewhere.
    const SMALL: usize = 2 << 10;

    fn budget(memory: u64) -> RequestMemory {
        RequestMemory::new(memory).without_answers_up_to(SMALL)
    }

    fn client(number: u8) -> ClientKey {
        ClientKey::of([10, 0, 0, number].into())
    }

    #[tokio::test(start_paused = true)]
    async fn memory_of_each_purpose_is_bounded_and_waited_for_within_its_time() {
        let system = budget(80 << 10);
        for (purpose, total) in [
            (Purpose::FirstBytes, 20 << 10),
            (Purpose::Body, 15 << 10),
            (Purpose::Page, 5 << 10),
            (Purpose::SmallAnswer, 5 << 10),
            (Purpose::Answer, 25 << 10),
            (Purpose::Work, 10 << 10),
        ] {
            let all = system.memory(client(1), purpose, 1 << 30).await;
            let all = all.expect("what is too much gets all there is");
            let since = Instant::now();
            let refused = system.memory(client(2), purpose, 1).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))));
            assert_eq!(since.elapsed().as_secs(), 30, "{purpose:?}");
            drop(all);
            let most = system
                .memory(client(2), purpose, total)
                .await
                .expect("all of it is free");
            assert_eq!(since.elapsed().as_secs(), 30);
            assert!(!{ most }.try_grow(1));
        }
    }

    /// Free memory is granted at once, other memory is not. The smallest answers of blobs need none: the slot of their request
    /// counts them.
    #[tokio::test]
    async fn memory_at_once_is_what_is_free() {
        let system = budget(80 << 10);
        let at_once = |number, purpose, bytes| system.memory_at_once(client(number), purpose, bytes);
        for purpose in [Purpose::SmallAnswer, Purpose::Stream] {
            let all = at_once(1, purpose, 1 << 30).expect("no client has any");
            assert!(at_once(2, purpose, SMALL + 1).is_none(), "{purpose:?}");
            let fits = at_once(2, purpose, SMALL).is_some();
            assert_eq!(fits, purpose == Purpose::Stream, "{purpose:?}");
            drop(all);
            assert!(at_once(2, purpose, 1 << 30).is_some(), "{purpose:?}: it was released");
        }
    }

    /// Who sends the beginning of a manifest and then hardly anything gives way, once others wait; who sends on does not.
    #[tokio::test(start_paused = true)]
    async fn slow_bodies_give_way_while_others_wait() {
        let system = budget(80 << 10);
        let mut slow = system.memory(client(1), Purpose::Body, 20 << 10).await.expect("free");
        let alone = tokio::time::timeout(Duration::from_mins(10), slow.must_give_way(7)).await;
        assert!(alone.is_err(), "no client waits");
        let since = Instant::now();
        let waiting = system.memory(client(2), Purpose::Body, 1);
        let (other, ()) = tokio::join!(waiting, async {
            slow.must_give_way(7).await;
            drop(slow);
        });
        assert!(other.is_ok());
        assert!(
            since.elapsed().as_millis() <= u128::from(ArrivalRate::ASK_EVERY_MS),
            "{:?}",
            since.elapsed()
        );

        let mut fast = system
            .memory(client(1), Purpose::FirstBytes, 20 << 10)
            .await
            .expect("free");
        let waiting = tokio::spawn(async move { system.memory(client(2), Purpose::FirstBytes, 1).await.is_ok() });
        let mut arrived = 0;
        for _ in 0..100 {
            arrived += ArrivalRate::LEAST_RATE / 4;
            // Asked again with each chunk, which does not begin the measurement anew.
            let asked = tokio::time::timeout(Duration::from_millis(200), fast.must_give_way(arrived)).await;
            assert!(asked.is_err(), "after {arrived} bytes");
        }
        let mut ended = false;
        for _ in 0..100 {
            ended |= tokio::time::timeout(Duration::from_millis(200), fast.must_give_way(arrived))
                .await
                .is_ok();
        }
        assert!(ended, "nothing arrives any more");
        drop(fast);
        assert!(!waiting.await.expect("it ends"), "it has waited for 30 s");
    }

    /// Who reads an answer slowly gives way once others wait, and not for the time in which nothing was there to read.
    #[tokio::test(start_paused = true)]
    async fn slow_readers_give_way_while_others_wait() {
        let system: &'static _ = Box::leak(Box::new(budget(80 << 10)));
        let mut slow = system
            .memory(client(1), Purpose::SmallAnswer, 5 << 10)
            .await
            .expect("free");
        tokio::time::advance(Duration::from_mins(1)).await;
        let measured = Some(ArrivalRate::MEASURED_MS);
        assert_eq!(slow.look(0, false), measured, "it begins to be read");
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(slow.look(10, true), Some(ArrivalRate::ASK_EVERY_MS), "no client waits");
        let waiting = tokio::spawn(system.memory(client(2), Purpose::SmallAnswer, 1));
        tokio::task::yield_now().await;
        assert_eq!(slow.look(10, false), measured, "the client is not waited for");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(slow.look(10 + (80 << 10), true), measured, "it was fast enough");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(slow.look(20 + (80 << 10), true), None);
        drop(slow);
        assert!(waiting.await.expect("it ends").is_ok());
    }

    /// Four clients hold and want pages of 4 MiB and read none: a request for a small answer does not wait behind them.
    #[tokio::test(start_paused = true)]
    async fn small_answers_do_not_wait_behind_large_ones() {
        const PAGE: usize = 4 << 20;
        let system: &'static _ = Box::leak(Box::new(budget(64 << 20)));
        let mut held = Vec::new();
        let mut waiting = Vec::new();
        for number in 1..=4 {
            for _ in 0..8 {
                let memory = system.memory(client(number), Purpose::Answer, PAGE);
                match tokio::time::timeout(Duration::from_millis(1), memory).await {
                    Ok(memory) => held.push(memory.expect("free")),
                    Err(_) => break,
                }
            }
            waiting.push(tokio::spawn(system.memory(client(number), Purpose::Answer, PAGE)));
            tokio::task::yield_now().await;
        }
        assert!(system.answers.waiting() >= 4);
        let since = Instant::now();
        for number in 5..25 {
            held.push(
                system
                    .memory(client(number), Purpose::SmallAnswer, 64 << 10)
                    .await
                    .expect("apart from the others"),
            );
        }
        assert_eq!(since.elapsed(), Duration::ZERO);
    }

    /// Holds lists of referrers up, and counts them.
    #[derive(Clone, Default)]
    struct SlowReferrers {
        waiting: Arc<AtomicUsize>,
        goes_on: Arc<Notify>,
    }

    impl Hook for SlowReferrers {
        fn before(&self, _: StoreMethod) -> Result<(), StoreError> {
            Ok(())
        }

        fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
            Ok(())
        }

        fn gate(&self, method: StoreMethod) -> BoxFuture<'static, ()> {
            let this = self.clone();
            async move {
                if method == StoreMethod::Referrers {
                    this.waiting.fetch_add(1, Ordering::SeqCst);
                    this.goes_on.notified().await;
                }
            }
            .boxed()
        }
    }

    fn request(method: &str, target: &str, body: &'static str) -> http::Request<RequestBody> {
        let body = Full::new(bytes::Bytes::from(body)).map_err(|never| -> BodyError { match never {} });
        http::Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost")
            .header("content-type", oci::MediaType::OCI_INDEX)
            .body(RequestBody::stream(body))
            .expect("a request")
    }

    /// While a store is slow to tell of referrers, others are listed and manifests are pushed.
    #[tokio::test(start_paused = true)]
    async fn lists_of_referrers_keep_no_request_waiting() {
        let metadata = Arc::new(MemoryMetadata::new());
        let slow = SlowReferrers::default();
        let stores = Stores {
            metadata: Arc::new(Wrapped::new(metadata.clone() as Arc<dyn MetadataStore>, slow.clone())),
            ..in_memory(&metadata)
        };
        let memory = Arc::new(budget(64 << 20));
        let registry = Registry::open(
            stores.clone(),
            Arc::new(Anonymous::all()),
            Arc::new(SystemEnvironment),
            memory,
            Settings::default(),
        );
        let registry = Arc::new(registry.await.expect("memory stores open"));
        let since = Instant::now();
        let referrers = format!("/v2/a/referrers/sha256:{}", "0".repeat(64));
        let lists: Vec<_> = (0..2)
            .map(|_| {
                let (registry, request) = (registry.clone(), request("GET", &referrers, ""));
                tokio::spawn(async move { registry.handle(request).await.status() })
            })
            .collect();
        while slow.waiting.load(Ordering::SeqCst) < 2 {
            assert!(since.elapsed() < MEMORY_TIMEOUT, "one waits for the other");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        let put = registry.handle(request("PUT", "/v2/a/manifests/t", index)).await;
        assert_eq!(put.status(), 201);
        assert!(since.elapsed() < MEMORY_TIMEOUT);
        slow.goes_on.notify_waiters();
        for list in lists {
            assert_eq!(list.await.expect("it ends"), 200);
        }
    }
}
