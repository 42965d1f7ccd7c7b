//! `/livez` and `/readyz`, for whatever keeps the server running. They need no credentials and tell nothing but a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use registry::store::sessions::{Attempt, Claim, Progress, SessionId, SessionKey};
use registry::store::{Context, Incarnation, Location, StoreError, Timestamp};
use registry::{Environment, ResponseBody, Stores};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::stores::Opened;

/// For how long an answer of the stores is good: anybody may ask, as often as they like.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// The same where asking costs money.
const GOOD_FOR_REMOTE: Duration = Duration::from_secs(5);
/// How long the stores may take, in milliseconds.
const PATIENCE_MS: u64 = 2_000;

/// Whether the server lives and can work.
pub(crate) struct Health {
    stores: Stores,
    good_for: Duration,
    environment: Arc<dyn Environment>,
    draining: AtomicBool,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Health {
    pub(crate) fn new(opened: &Opened, environment: Arc<dyn Environment>) -> Self {
        Self {
            stores: opened.stores.serving(),
            good_for: if opened.remote { GOOD_FOR_REMOTE } else { GOOD_FOR },
            environment,
            draining: AtomicBool::new(false),
            last: Mutex::new(None),
        }
    }

    /// From now on the server is not ready.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The answer, if the request is for one of the two paths.
    pub(crate) async fn answer(&self, method: &Method, path: &str) -> Option<Response<ResponseBody>> {
        let readiness = match path {
            "/livez" => false,
            "/readyz" => true,
            _ => return None,
        };
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".into(), false);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(response);
        }
        let (status, text) = if !readiness {
            (StatusCode::OK, "ok\n".into())
        } else if self.draining.load(Ordering::Acquire) {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into())
        } else {
            match self.stores_answer().await {
                Ok(()) => (StatusCode::OK, "ready\n".into()),
                Err(id) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready ({id})\n")),
            }
        };
        Some(plain(status, text, method == Method::HEAD))
    }

    /// Whether the stores answer; if not, the id under which the log says why.
    async fn stores_answer(&self) -> Result<(), String> {
        // Held while asking: of many askers, one asks the stores.
        let mut last = self.last.lock().await;
        if let Some((at, answered)) = &*last
            && at.elapsed() < self.good_for
        {
            return answered.clone();
        }
        let answered = self.ask().await.map_err(|error| {
            let mut id = [0; 8];
            self.environment.random(&mut id);
            let id = format!("{:016x}", u64::from_le_bytes(id));
            tracing::error!(
                id,
                error = &error as &dyn std::error::Error,
                "not ready: a store does not answer"
            );
            id
        });
        *last = Some((Instant::now(), answered.clone()));
        answered
    }

    /// A look for an object, a read and a write without effect, which cost the same whatever is stored.
    async fn ask(&self) -> Result<(), StoreError> {
        let now = self.environment.now();
        let cx = Context {
            now,
            deadline: now.plus_millis(PATIENCE_MS),
            incarnation: Incarnation(0),
            client: registry::budget::ClientKey::INTERNAL,
        };
        let session = SessionId(0);
        let nobodys = Claim {
            key: SessionKey {
                expires: Timestamp(0),
                id: session,
            },
            attempt: Attempt { session, number: 0 },
            version: 0,
            progress: Progress::default(),
        };
        // The ids of sessions are random: this one is nobody's.
        let nothing = Location::main(Attempt { session, number: 1 }.to_string());
        let asked = async {
            self.stores.metadata.repositories(cx, None, 1).await?;
            // Asks what writes, without writing: nobody holds this claim.
            self.stores.sessions.release(cx, &nobodys).await?;
            self.stores.blobs.stat(cx, &nothing).await.map(drop)
        };
        match tokio::time::timeout(Duration::from_millis(PATIENCE_MS), asked).await {
            Ok(answered) => answered,
            Err(late) => Err(StoreError::unavailable(late)),
        }
    }
}

fn plain(status: StatusCode, text: String, head_only: bool) -> Response<ResponseBody> {
    let length = text.len();
    let body = if head_only {
        ResponseBody::empty()
    } else {
        ResponseBody::full(Bytes::from(text))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use http_body_util::BodyExt as _;
    use registry::AllStores;
    use store_embedded::{Embedded, Options, Sync};

    use super::*;
    use crate::environment::SystemEnvironment;
    use crate::stores::Statistics;

    async fn ask(health: &Health, path: &str) -> (u16, String) {
        let response = health.answer(&Method::GET, path).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_stores_and_ends_with_draining() {
        let folder = tempfile::TempDir::new().unwrap();
        let options = Options {
            data: folder.path().join("data"),
            sync: Sync::Off,
            upload_memory: 1 << 20,
            memory_timeout: Options::MEMORY_TIMEOUT,
        };
        let embedded = Embedded::open(&options).unwrap();
        let opened = Opened {
            stores: AllStores {
                blobs: embedded.blobs.clone(),
                metadata: embedded.metadata.clone(),
                sessions: embedded.sessions.clone(),
                collection: embedded.metadata.clone(),
                records: embedded.metadata.clone(),
            },
            statistics: Statistics::default(),
            remote: false,
        };
        let health = Health::new(&opened, Arc::new(SystemEnvironment::new(0)));
        assert_eq!(ask(&health, "/readyz").await, (200, "ready\n".into()));
        embedded.close();
        // The answer before is good for a moment.
        assert_eq!(ask(&health, "/readyz").await.0, 200);
        *health.last.lock().await = None;
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 503);
        let id = text
            .strip_prefix("not ready (")
            .and_then(|text| text.strip_suffix(")\n"))
            .unwrap();
        assert!(
            id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{text}"
        );
        assert_eq!(ask(&health, "/livez").await, (200, "ok\n".into()));
        health.drain();
        assert_eq!(ask(&health, "/readyz").await, (503, "draining\n".into()));
        assert_eq!(ask(&health, "/livez").await.0, 200);
        assert!(health.answer(&Method::GET, "/v2/").await.is_none());
    }
}
