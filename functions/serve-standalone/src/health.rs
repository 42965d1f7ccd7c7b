//! `/livez` and `/readyz`, for whatever keeps the server running. They need no credentials, and say no more than a
//! reason in fixed words.
//!
//! * `/livez`: the process answers.
//! * `/readyz`: pulls work. Fails when the metadata or the bucket cannot be read, when the clock is wrong, and when the
//!   store was replaced. What stops pushes alone stands in a line of the answer, which stays 200.
//! * `/readyz?push`: pushes work too, as far as that is known without pushing.
//!
//! Looks cost no write, and are good for some seconds: anybody may ask, as often as they like.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use registry::store::sessions::{Attempt, SessionId, SessionKey};
use registry::store::{Context, Location, Reason, StoreError, Timestamp, Uid};
use registry::{AllStores, Environment, ResponseBody};
use store_s3::S3Blobs;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::condition::Condition;
use crate::stores::Opened;

/// For how long an answer of the stores is good.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// The same where asking costs money.
const GOOD_FOR_REMOTE: Duration = Duration::from_secs(5);
/// How long the stores may take, in milliseconds.
const TIMEOUT_MS: u64 = 2_000;

/// Whether the server lives and can work.
pub(crate) struct Health {
    asked: Arc<Asked>,
    good_for: Duration,
    draining: AtomicBool,
    last: Arc<Mutex<Option<(Instant, Readiness)>>>,
}

/// What is asked for readiness.
struct Asked {
    stores: AllStores,
    bucket: Option<S3Blobs>,
    condition: Condition,
    environment: Arc<dyn Environment>,
}

/// What the last look has found.
#[derive(Clone, Debug)]
struct Readiness {
    /// Why pulls do not work, and the id under which the log says it in full.
    pulls: Result<(), (Reason, String)>,
    /// Why pushes would be refused.
    pushes: Vec<Reason>,
}

impl Health {
    pub(crate) fn new(opened: &Opened, environment: Arc<dyn Environment>) -> Self {
        Self {
            asked: Arc::new(Asked {
                stores: opened.stores.clone(),
                bucket: opened.statistics.bucket().cloned(),
                condition: opened.condition.clone(),
                environment,
            }),
            good_for: if opened.remote { GOOD_FOR_REMOTE } else { GOOD_FOR },
            draining: AtomicBool::new(false),
            last: Arc::default(),
        }
    }

    /// From now on the server is not ready.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether `path` is one of the two.
    pub(crate) fn is_asked(path: &str) -> bool {
        matches!(path, "/livez" | "/readyz")
    }

    /// The answer, if the request is for one of the two paths.
    pub(crate) async fn answer(&self, method: &Method, uri: &Uri) -> Option<Response<ResponseBody>> {
        let readiness = match uri.path() {
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
        let for_pushes = uri.query().is_some_and(|query| {
            let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
            names.any(|name| name == "push")
        });
        let (status, text) = if !readiness {
            (StatusCode::OK, "ok\n".into())
        } else if self.draining.load(Ordering::Acquire) {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into())
        } else {
            told(&self.readiness().await, for_pushes)
        };
        Some(plain(status, text, method == Method::HEAD))
    }

    /// What a look finds; the one before, if it is recent.
    async fn readiness(&self) -> Readiness {
        // Held while asking: of many askers, one asks the stores.
        let mut last = self.last.clone().lock_owned().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < self.good_for
        {
            return found.clone();
        }
        let asked = self.asked.clone();
        // On a task of its own: one who waits for less time than a store takes would end the look with his request, so
        // that nothing was ever found, nor logged.
        let looking = tokio::spawn(async move {
            let before = last.take().map(|(_, before)| before.pushes).unwrap_or_default();
            let found = asked.look(&before).await;
            *last = Some((Instant::now(), found.clone()));
            found
        });
        match looking.await {
            Ok(found) => found,
            Err(ended) => match ended.try_into_panic() {
                Ok(panicked) => std::panic::resume_unwind(panicked),
                // The runtime is shutting down, and ends this too.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Asked {
    /// Asks every store at once, and logs what has come to be wrong. `before`: why pushes were refused until now.
    async fn look(&self, before: &[Reason]) -> Readiness {
        let (pulls, sessions) = tokio::join!(self.ask(), self.ask_for_sessions());
        let pulls = pulls.map_err(|error| {
            let mut id = [0; 8];
            self.environment.random(&mut id);
            let id = format!("{:016x}", u64::from_le_bytes(id));
            let reason = error.reason();
            tracing::error!(
                id,
                reason = reason.text(),
                error = &error as &dyn std::error::Error,
                "not ready: pulls do not work"
            );
            (reason, id)
        });
        let mut blocks = self.condition.push_blocks();
        if let Err(error) = sessions {
            blocks.entry(error.reason()).or_insert_with(|| error.to_string());
        }
        if pulls.is_ok() {
            for (reason, error) in blocks.iter().filter(|(reason, _)| !before.contains(reason)) {
                tracing::error!(reason = reason.text(), error, "not ready for pushes");
            }
        }
        Readiness {
            pulls,
            pushes: blocks.into_keys().collect(),
        }
    }

    /// What a pull needs: a read of the metadata, and one of the objects, which cost the same whatever is stored.
    async fn ask(&self) -> Result<(), StoreError> {
        self.condition.may_read()?;
        // First, since whatever fails in such a store fails because of that.
        self.condition.is_in_place()?;
        let cx = self.cx();
        let metadata = self.stores.metadata.repositories(cx, None, 1);
        let (metadata, objects) = tokio::join!(
            within_time(Reason::MetadataUnreachable, metadata),
            within_time(Reason::ObjectStoreUnreachable, self.ask_for_objects(cx)),
        );
        metadata?;
        objects?;
        // What the answers have told of the time.
        self.condition.may_change()
    }

    async fn ask_for_objects(&self, cx: Context) -> Result<(), StoreError> {
        if let Some(bucket) = &self.bucket {
            return Ok(bucket.check(cx).await?);
        }
        // The ids of sessions are random: this one is nobody's.
        let nobodys = Attempt {
            session: SessionId(0),
            number: 1,
        };
        let nothing = Location::main(nobodys.to_string());
        self.stores.blobs.stat(cx, &nothing).await.map(drop)
    }

    /// What only uploads need.
    async fn ask_for_sessions(&self) -> Result<(), StoreError> {
        self.condition.may_read()?;
        let nobodys = SessionKey {
            expires: Timestamp(0),
            id: SessionId(0),
        };
        let asked = self.stores.sessions.get(self.cx(), nobodys);
        within_time(Reason::MetadataUnreachable, asked).await.map(drop)
    }

    fn cx(&self) -> Context {
        let now = self.environment.now();
        Context {
            now,
            deadline: now.plus_millis(TIMEOUT_MS),
            uid: Uid(0),
            client: registry::budget::ClientKey::INTERNAL,
        }
    }
}

/// The answer to a look; a store that does not answer is unreachable.
async fn within_time<T>(
    unreachable: Reason,
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(Duration::from_millis(TIMEOUT_MS), asked).await {
        Ok(answered) => answered,
        Err(late) => Err(StoreError::because(unreachable, late)),
    }
}

/// The answer to a question for readiness.
fn told(found: &Readiness, for_pushes: bool) -> (StatusCode, String) {
    let Readiness { pulls, pushes } = found;
    if let Err((reason, id)) = pulls {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready ({id}): {}\n", reason.text()),
        );
    }
    let pushes: Vec<_> = pushes.iter().map(|reason| reason.text()).collect();
    let pushes = pushes.join("; ");
    match (pushes.is_empty(), for_pushes) {
        (true, _) => (StatusCode::OK, "ready\n".into()),
        (false, true) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready for pushes: {pushes}\n"),
        ),
        (false, false) => (StatusCode::OK, format!("ready\npushes are refused: {pushes}\n")),
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

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use http_body_util::BodyExt as _;
    use registry::store::blobs::BlobStore;
    use registry::store::metadata::MetadataStore;
    use registry::store::sessions::SessionStore;
    use registry::store::wrapped::{Hook, Wrapped};
    use store_embedded::{Embedded, MinFree, Options, Sync};

    use super::*;
    use crate::condition::ConditionParts;
    use crate::environment::SystemEnvironment;
    use crate::stores::Statistics;

    async fn ask(health: &Health, uri: &str) -> (u16, String) {
        let response = health.answer(&Method::GET, &uri.parse().unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn embedded(folder: &std::path::Path) -> Embedded {
        let options = Options {
            data: folder.join("data"),
            sync: Sync::Off,
            upload_memory: 1 << 20,
            memory_timeout: Options::MEMORY_TIMEOUT,
        };
        Embedded::open(&options).unwrap()
    }

    fn health(embedded: &Embedded) -> Health {
        let stores = AllStores {
            blobs: embedded.blobs.clone(),
            metadata: embedded.metadata.clone(),
            sessions: embedded.sessions.clone(),
            collection: embedded.metadata.clone(),
            records: embedded.metadata.clone(),
        };
        of_stores(embedded, stores)
    }

    fn of_stores(embedded: &Embedded, stores: AllStores) -> Health {
        let condition = Condition::of(ConditionParts {
            spaces: vec![embedded.metadata.space().clone()],
            watches: vec![embedded.metadata.watch().clone()],
            ..ConditionParts::default()
        });
        let opened = Opened {
            stores,
            statistics: Statistics::default(),
            condition,
            remote: false,
        };
        Health::new(&opened, Arc::new(SystemEnvironment::new(0)))
    }

    #[tokio::test]
    async fn readiness_follows_the_stores_and_ends_with_draining() {
        let folder = tempfile::TempDir::new().unwrap();
        let embedded = embedded(folder.path());
        let health = health(&embedded);
        let (status, text) = ask(&health, "/readyz").await;
        assert!(
            status == 503 && text.contains("metadata store cannot be reached"),
            "{text}"
        );
        health.asked.condition.admit();
        *health.last.lock().await = None;
        assert_eq!(ask(&health, "/readyz").await, (200, "ready\n".into()));
        assert_eq!(ask(&health, "/readyz?push").await, (200, "ready\n".into()));
        embedded.close();
        // The answer before is good for a moment.
        assert_eq!(ask(&health, "/readyz").await.0, 200);
        *health.last.lock().await = None;
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 503);
        let id = text
            .strip_prefix("not ready (")
            .and_then(|text| text.strip_suffix("): the metadata store cannot be reached\n"))
            .unwrap();
        assert!(
            id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{text}"
        );
        assert_eq!(ask(&health, "/livez").await, (200, "ok\n".into()));
        health.drain();
        assert_eq!(ask(&health, "/readyz").await, (503, "draining\n".into()));
        assert_eq!(ask(&health, "/livez").await.0, 200);
        assert!(health.answer(&Method::GET, &"/v2/".parse().unwrap()).await.is_none());
    }

    #[tokio::test]
    async fn what_stops_pushes_alone_is_told_and_fails_the_question_for_pushes() {
        let folder = tempfile::TempDir::new().unwrap();
        let embedded = embedded(folder.path());
        embedded.metadata.space().keep(MinFree::Bytes(u64::MAX));
        let health = health(&embedded);
        health.asked.condition.admit();
        health.asked.condition.look();
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 200, "{text}");
        assert!(
            text.starts_with("ready\npushes are refused: no space is left"),
            "{text}"
        );
        for uri in ["/readyz?push", "/readyz?push=1", "/readyz?x&push"] {
            let (status, text) = ask(&health, uri).await;
            assert_eq!(status, 503, "{uri}");
            assert!(text.starts_with("not ready for pushes: no space is left"), "{text}");
        }
        assert_eq!(ask(&health, "/readyz?pushing").await.0, 200);
        embedded.metadata.space().keep(MinFree::Bytes(0));
        *health.last.lock().await = None;
        assert_eq!(ask(&health, "/readyz?push").await, (200, "ready\n".into()));
    }

    #[tokio::test]
    async fn s34_a_store_that_was_removed_is_not_ready() {
        let folder = tempfile::TempDir::new().unwrap();
        let embedded = embedded(folder.path());
        let health = health(&embedded);
        health.asked.condition.admit();
        std::fs::rename(folder.path().join("data"), folder.path().join("away")).unwrap();
        health.asked.condition.look();
        let (status, text) = ask(&health, "/readyz").await;
        assert!(status == 503 && text.contains("removed or replaced"), "{text}");
    }

    /// Lets no call through.
    struct Silent;

    impl Hook for Silent {
        fn before(&self, _: &'static str) -> Result<(), StoreError> {
            Ok(())
        }

        fn after(&self, _: &'static str) -> Result<(), StoreError> {
            Ok(())
        }

        fn gate(&self, _: &'static str) -> BoxFuture<'static, ()> {
            std::future::pending().boxed()
        }
    }

    /// All stores are waited for together, and what is found is kept also when the prober has gone away meanwhile: the
    /// next one need not wait.
    #[tokio::test(start_paused = true)]
    async fn a_prober_who_does_not_wait_for_silent_stores_leaves_an_answer_for_the_next() {
        let folder = tempfile::TempDir::new().unwrap();
        let embedded = embedded(folder.path());
        let stores = AllStores {
            blobs: Arc::new(Wrapped::new(embedded.blobs.clone() as Arc<dyn BlobStore>, Silent)),
            metadata: Arc::new(Wrapped::new(
                embedded.metadata.clone() as Arc<dyn MetadataStore>,
                Silent,
            )),
            sessions: Arc::new(Wrapped::new(embedded.sessions.clone() as Arc<dyn SessionStore>, Silent)),
            collection: embedded.metadata.clone(),
            records: embedded.metadata.clone(),
        };
        let health = of_stores(&embedded, stores);
        health.asked.condition.admit();
        let start = Instant::now();
        let patience = Duration::from_secs(1);
        let given_up = tokio::time::timeout(patience, ask(&health, "/readyz")).await;
        assert!(given_up.is_err());
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 503, "{text}");
        assert_eq!(start.elapsed(), Duration::from_millis(TIMEOUT_MS));
        assert_eq!(
            ask(&health, "/readyz").await,
            (status, text),
            "the same answer, by its id"
        );
        assert_eq!(start.elapsed(), Duration::from_millis(TIMEOUT_MS));
    }
}
