//! Limits the requests in progress on all connections, and the memory of their heads. Clients share the limit fairly.
//!
//! With HTTP/2 a client can begin many requests on each connection, each with its own head. A request keeps its head
//! while it waits for memory or for the verification of a password. So each request asks for a slot ([`RequestSlot`])
//! before anything else, and a refused request keeps nothing.

use http::header::{EXPECT, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use registry::budget::{Budget, ClientKey, Grant};

use shell::health;

/// Memory for the head of a request in one slot, in bytes. Most heads are smaller. A larger head takes several slots.
const HEAD_MEMORY: u64 = 6 << 10;

/// Memory for the answer in each slot, in bytes. A slot is kept until the last byte of the answer was written, so an
/// answer of at most this size needs no other memory.
pub(crate) const ANSWER_MEMORY: usize = 2 << 10;

/// Memory that a header field takes in addition to its text, in bytes.
const FIELD: u64 = 112;

/// Health checks have their own slots, so that they are answered when all other slots are taken.
const HEALTH_SLOTS: u64 = 64;

/// The header fields that this shell reads, in addition to those of the core.
const READ: [HeaderName; 2] = [EXPECT, USER_AGENT];

/// Maximum number of characters of a refused request's path and `User-Agent` that are kept for the log.
const KEPT: usize = 300;

/// Slots for requests in progress.
#[derive(Debug)]
pub(crate) struct RequestSlots {
    requests: Budget,
    health: Budget,
}

/// The slot of one request, until it is dropped. A request with a large head holds several slots.
#[derive(Debug)]
pub(crate) struct RequestSlot {
    slots: Grant,
    is_for_health: bool,
}

impl RequestSlots {
    /// Slots for this number of requests.
    pub(crate) fn new(requests: u32) -> Self {
        // No request waits for a slot, because it would keep its head while it waits.
        Self {
            requests: Budget::new(requests.into(), 0),
            health: Budget::new(HEALTH_SLOTS, 0),
        }
    }

    /// A slot for a request of `client`, if one is free now.
    pub(crate) fn take<B>(&self, client: ClientKey, request: &Request<B>) -> Option<RequestSlot> {
        let is_for_health = health::is_asked(request.uri().path());
        let slots = if is_for_health {
            self.health.try_take(client, 1)?
        } else {
            self.requests.try_take(client, slots_of(request))?
        };
        Some(RequestSlot { slots, is_for_health })
    }
}

impl RequestSlot {
    /// Whether this is a slot for health checks.
    pub(crate) fn is_for_health(&self) -> bool {
        self.is_for_health
    }

    /// Replaces a large head by copies of the fields that are read, and frees the slots of the rest. The request may
    /// wait for long, and a single field without a copy would keep the whole buffer in which the head arrived.
    pub(crate) fn condense<B>(&mut self, request: &mut Request<B>) {
        if slots_of(request) == 1 {
            return;
        }
        let Ok(uri) = request.uri().to_string().parse() else {
            return;
        };
        *request.uri_mut() = uri;
        let fields = request.headers();
        let mut kept = HeaderMap::new();
        for name in registry::heads::READ.iter().chain(&READ) {
            for value in fields.get_all(name) {
                let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else {
                    return;
                };
                copy.set_sensitive(value.is_sensitive());
                kept.append(name, copy);
            }
        }
        *request.headers_mut() = kept;
        self.slots.shrink_to(slots_of(request));
    }
}

/// The number of slots that a request takes.
fn slots_of<B>(request: &Request<B>) -> u64 {
    memory_of(request).div_ceil(HEAD_MEMORY).max(1)
}

/// The approximate memory of a head. Its bytes count twice, because they are in buffers that grow by doubling.
fn memory_of<B>(request: &Request<B>) -> u64 {
    let uri = request.uri();
    let target = [uri.scheme_str(), uri.authority().map(Authority::as_str)];
    let target = target.into_iter().flatten().map(str::len).sum::<usize>()
        + uri.path_and_query().map_or(0, |path| path.as_str().len())
        + request.method().as_str().len();
    let fields = request.headers().iter().map(|(name, value)| {
        let bytes = name.as_str().len() + value.len();
        2 * bytes as u64 + FIELD
    });
    2 * target as u64 + fields.sum::<u64>()
}

/// A copy of the parts of a refused request that are still needed. Parts of the request itself would keep its whole head.
pub(crate) fn essence<B>(request: &Request<B>) -> Request<()> {
    let path: String = request.uri().path().chars().take(KEPT).collect();
    let mut kept = Request::new(());
    *kept.method_mut() = request.method().clone();
    if let Ok(path) = path.parse() {
        *kept.uri_mut() = path;
    }
    let agent = request.headers().get(USER_AGENT).map(HeaderValue::as_bytes);
    if let Some(agent) = agent
        && let Ok(agent) = HeaderValue::from_bytes(&agent[..agent.len().min(KEPT)])
    {
        kept.headers_mut().insert(USER_AGENT, agent);
    }
    if request.headers().contains_key(EXPECT) {
        kept.headers_mut()
            .insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
    kept
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Uri;

    use super::*;

    fn client(number: u8) -> ClientKey {
        ClientKey::of([10, 0, 0, number].into())
    }

    fn request(path: &str, head: usize) -> Request<()> {
        let request = Request::get(path).header("x", "y".repeat(head));
        request.body(()).expect("a valid request")
    }

    #[test]
    fn requests_in_progress_are_bounded_and_shared() {
        let slots = RequestSlots::new(100);
        let small = request("/v2/", 10);
        let held: Vec<_> = std::iter::from_fn(|| slots.take(client(1), &small)).collect();
        assert_eq!(held.len(), 75, "one client leaves a quarter to the others");
        assert!(slots.take(client(2), &small).is_some());
        assert!(slots.take(client(1), &request("/readyz", 10)).is_some());
        drop(held);
        assert!(slots.take(client(1), &small).is_some());
    }

    #[test]
    fn heads_are_bounded_in_their_sum() {
        let slots = RequestSlots::new(1000);
        let large = request("/v2/", 32 << 10);
        let held: Vec<_> = std::iter::from_fn(|| slots.take(client(1), &large)).collect();
        assert!(memory_of(&large) > 64 << 10);
        assert_eq!(slots_of(&large), 11);
        assert_eq!(held.len(), 750 / 11);
        assert!(slots.take(client(2), &large).is_some());
        drop(held);
        assert_eq!(slots.requests.free(), slots.requests.total());
    }

    /// Every part of a head counts, even one that is long only in requests of unusual clients.
    #[test]
    fn the_memory_of_a_head_includes_all_its_parts() {
        let least = memory_of(&request("/", 0));
        let long = "a".repeat(10_000);
        let method = Request::builder().method(long.as_str()).body(()).expect("valid");
        for request in [
            request(&format!("http://{long}/"), 0),
            request(&format!("/{long}"), 0),
            request(&format!("/?{long}"), 0),
            request("/", 10_000),
            method,
        ] {
            assert!(memory_of(&request) >= least + 19_000, "{}", memory_of(&request));
        }
    }

    /// A waiting request keeps the fields that are read, and not the buffer in which its head arrived.
    #[test]
    fn a_large_head_is_condensed_to_the_fields_that_are_read() {
        let slots = RequestSlots::new(100);
        let text = "/v2/a/tags/list?n=1Basic eDp5agent".to_owned() + &"j".repeat(30_000);
        let arrived = Bytes::from(text.into_bytes());
        let value = |range| HeaderValue::from_maybe_shared(arrived.slice(range)).expect("valid");
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_maybe_shared(arrived.slice(..19)).expect("valid");
        request.headers_mut().insert("authorization", value(19..29));
        request.headers_mut().insert(USER_AGENT, value(29..34));
        request.headers_mut().insert("x-junk", value(34..30_034));
        for field in ["a, b", "c"] {
            request.headers_mut().append("accept", HeaderValue::from_static(field));
            request
                .headers_mut()
                .append("x-forwarded-for", HeaderValue::from_static(field));
        }
        let mut slot = slots.take(client(1), &request).expect("free");
        slot.condense(&mut request);
        assert!(arrived.is_unique(), "nothing of it is kept");
        assert_eq!(request.uri(), "/v2/a/tags/list?n=1");
        assert_eq!(request.headers()["authorization"], "Basic eDp5");
        assert_eq!(request.headers()[USER_AGENT], "agent");
        let accepted: Vec<_> = request.headers().get_all("accept").iter().collect();
        assert_eq!(accepted, ["a, b", "c"]);
        let hops: Vec<_> = request.headers().get_all("x-forwarded-for").iter().collect();
        assert_eq!(hops, ["a, b", "c"]);
        assert_eq!(request.headers().len(), 6);
        assert_eq!(slots.requests.total() - slots.requests.free(), 1);
        drop(slot);
        assert_eq!(slots.requests.free(), slots.requests.total());
    }

    #[test]
    fn a_short_copy_of_a_refused_request_is_kept() {
        let path = format!("/v2/{}?secret=1", "a".repeat(10_000));
        let mut large = request(&path, 30_000);
        large
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_str(&"b".repeat(1_000)).expect("valid"));
        let kept = essence(&large);
        assert_eq!(kept.uri().path().len(), KEPT);
        assert_eq!(kept.uri().query(), None);
        assert_eq!(kept.headers().len(), 1);
        assert_eq!(kept.headers()[USER_AGENT].len(), KEPT);
    }
}
