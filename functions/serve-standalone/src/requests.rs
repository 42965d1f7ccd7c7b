//! How many requests are in progress over all connections, and how much their heads hold: bounded, and shared fairly
//! between clients.
//!
//! HTTP/2 lets a client begin many requests on each connection, each with a head of its own, and a request that waits,
//! for a password to be verified or for memory, keeps its head meanwhile. So a place is asked for before anything else is
//! done, and one that is refused keeps nothing.

use http::header::{EXPECT, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Uri};
use registry::budget::{Budget, ClientKey, Grant};

/// Memory for heads, for each request that may be in progress: most heads are smaller than this.
const HEAD_MEMORY: u64 = 8 << 10;

/// Memory for heads at least: for some of the largest.
const LEAST_HEAD_MEMORY: u64 = 1 << 20;

/// What a header field takes beside its bytes.
const FIELD: u64 = 112;

/// Requests that ask how the server is have places of their own, so that they are answered when all others are taken.
const HEALTH_PLACES: u64 = 64;

/// Characters of a refused request's path, and of its client's name, that are kept for the log.
const KEPT: usize = 300;

/// Places for requests in progress.
#[derive(Debug)]
pub(crate) struct RequestPlaces {
    requests: Budget,
    heads: Budget,
    health: Budget,
}

/// The place of one request, until it is dropped.
#[derive(Debug)]
pub(crate) struct RequestPlace {
    _request: Grant,
    _head: Option<Grant>,
}

impl RequestPlaces {
    /// Places for so many requests.
    pub(crate) fn new(requests: u32) -> Self {
        let requests = u64::from(requests);
        let heads = (requests * HEAD_MEMORY).max(LEAST_HEAD_MEMORY);
        // Nobody waits: a request that waited for its place would hold its head.
        Self {
            requests: Budget::new(requests, 0),
            heads: Budget::new(heads, 0),
            health: Budget::new(HEALTH_PLACES, 0),
        }
    }

    /// A place for `request` of `client`, if there is one now.
    pub(crate) fn take<B>(&self, client: ClientKey, request: &Request<B>) -> Option<RequestPlace> {
        if matches!(request.uri().path(), "/livez" | "/readyz") {
            return Some(RequestPlace {
                _request: self.health.try_take(client, 1)?,
                _head: None,
            });
        }
        Some(RequestPlace {
            _request: self.requests.try_take(client, 1)?,
            _head: Some(
                self.heads
                    .try_take(client, memory_of(request.uri(), request.headers()))?,
            ),
        })
    }
}

/// About how much memory a head takes. Its bytes count twice: they lie in buffers that grew by doubling.
fn memory_of(uri: &Uri, headers: &HeaderMap) -> u64 {
    let uri = uri.path_and_query().map_or(0, |path| path.as_str().len()) as u64;
    let fields = headers.iter().map(|(name, value)| {
        let bytes = name.as_str().len() + value.len();
        2 * bytes as u64 + FIELD
    });
    2 * uri + fields.sum::<u64>()
}

/// What is still to be known of a refused request, as a copy: anything of the request itself would keep its whole head.
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
        let places = RequestPlaces::new(100);
        let small = request("/v2/", 10);
        let held: Vec<_> = std::iter::from_fn(|| places.take(client(1), &small)).collect();
        assert_eq!(held.len(), 75, "one client leaves a quarter to the others");
        assert!(places.take(client(2), &small).is_some());
        assert!(places.take(client(1), &request("/readyz", 10)).is_some());
        drop(held);
        assert!(places.take(client(1), &small).is_some());
    }

    #[test]
    fn heads_are_bounded_in_their_sum() {
        let places = RequestPlaces::new(1000);
        let large = request("/v2/", 32 << 10);
        let held: Vec<_> = std::iter::from_fn(|| places.take(client(1), &large)).collect();
        let most = 1000 * HEAD_MEMORY * 3 / 4;
        let each = memory_of(large.uri(), large.headers());
        assert!(each > 64 << 10);
        assert_eq!(held.len() as u64, most / each);
        assert!(places.take(client(2), &large).is_some());
        drop(held);
        assert_eq!(places.heads.free(), places.heads.total());
        assert_eq!(places.requests.free(), places.requests.total());
    }

    #[test]
    fn what_is_kept_of_a_refused_request_is_short_and_a_copy() {
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
