//! `/livez` and `/readyz`, for service managers and load balancers. They need no credentials. Their answers contain only
//! reasons from a fixed list.
//!
//! * `/livez`: the process answers.
//! * `/readyz`: pulls work. It fails if the metadata or the bucket cannot be read, if the clock is wrong, or if the
//!   store was replaced. If only pushes are refused, the response stays 200, and has a line with the reason. A refused
//!   write is reported until a write of the same kind succeeds (see [`Condition`]).
//! * `/readyz?push`: pushes work too, as far as this is known without a push.
//!
//! A check writes nothing. [`Checks`] checks the stores at each call. `Health` keeps its result for some seconds, so that
//! any client may ask as often as it likes.

#[cfg(feature = "native")]
mod kept;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, join, select};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use registry::budget::ClientKey;
use registry::environment::{context, random_u64};
use registry::store::sessions::SessionKey;
use registry::store::{Attempt, Context, Location, Reason, SessionId, StoreError, Timestamp};
use registry::{Environment, ResponseBody, Stores};

#[cfg(feature = "native")]
pub use self::kept::Health;
use crate::condition::Condition;
use crate::opened::Opened;
use crate::probe::ObjectStoreProbe;

/// Maximum time for the answers of the stores, in milliseconds.
const TIMEOUT_MS: u64 = 2_000;

/// Whether `path` is `/livez` or `/readyz`.
#[must_use]
pub fn is_asked(path: &str) -> bool {
    Question::of(path, None).is_some()
}

/// The checks of readiness.
pub struct Checks {
    stores: Stores,
    object_store: Option<Arc<dyn ObjectStoreProbe>>,
    condition: Condition,
    environment: Arc<dyn Environment>,
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

/// The result of the checks.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Why pulls do not work, and the id of the log line with the full error.
    pulls: Result<(), (Reason, String)>,
    /// Why pushes would be refused.
    pushes: Vec<Reason>,
}

/// The question of a request.
enum Question {
    Live,
    Ready { for_pushes: bool },
}

impl Question {
    /// `None` if the path is neither of the two.
    fn of(path: &str, query: Option<&str>) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready {
                for_pushes: query.is_some_and(|query| {
                    let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
                    names.any(|name| name == "push")
                }),
            }),
            _ => None,
        }
    }
}

/// The answer, if the request is for one of the two paths. `ready` is awaited only for `/readyz`; it returns `None` if the
/// server is ending.
pub async fn answer(
    method: &Method,
    uri: &Uri,
    ready: impl Future<Output = Option<Readiness>>,
) -> Option<Response<ResponseBody>> {
    let question = Question::of(uri.path(), uri.query())?;
    if method != Method::GET && method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".into(), false);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    let (status, text) = match question {
        Question::Live => (StatusCode::OK, "ok\n".into()),
        Question::Ready { for_pushes } => match ready.await {
            Some(found) => readiness_answer(&found, for_pushes),
            None => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
        },
    };
    Some(plain(status, text, method == Method::HEAD))
}

impl Checks {
    /// The checks of the stores of `opened`. `environment` is the clock.
    #[must_use]
    pub fn new(opened: &Opened, environment: Arc<dyn Environment>) -> Self {
        Self {
            stores: opened.stores.clone(),
            object_store: opened.statistics.object_store.clone(),
            condition: opened.condition.clone(),
            environment,
        }
    }

    /// Asks all stores at the same time, and logs new faults. `before` is the result of the last checks. Takes at most 2
    /// seconds.
    pub async fn look(&self, before: Option<&Readiness>) -> Readiness {
        let before = before.map(|before| &*before.pushes).unwrap_or_default();
        let (pulls, sessions) = join(self.ask(), self.ask_for_sessions()).await;
        let pulls = pulls.map_err(|error| {
            let id = format!("{:016x}", random_u64(&*self.environment));
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

    /// Checks what a pull needs: one read of the metadata and one of the objects. Their cost does not depend on the size of
    /// the registry.
    async fn ask(&self) -> Result<(), StoreError> {
        self.condition.may_read()?;
        // First, because in a replaced store everything else fails for this reason.
        self.condition.is_in_place()?;
        let cx = self.cx();
        let metadata = self.stores.metadata.repositories(cx, None, 1);
        let (metadata, objects) = join(
            self.within_time(Reason::MetadataUnreachable, metadata),
            self.within_time(Reason::ObjectStoreUnreachable, self.ask_for_objects(cx)),
        )
        .await;
        metadata?;
        objects?;
        // Last, because the answers contain the time.
        self.condition.may_change()
    }

    async fn ask_for_objects(&self, cx: Context) -> Result<(), StoreError> {
        if let Some(probe) = &self.object_store {
            return Ok(probe.check(cx).await?);
        }
        // The ids of sessions are random, so no session has this one.
        let unused = Attempt {
            session: SessionId(0),
            number: 1,
        };
        let absent = Location::main(unused.to_string());
        self.stores.blobs.stat(cx, &absent).await.map(drop)
    }

    /// Checks what only uploads need.
    async fn ask_for_sessions(&self) -> Result<(), StoreError> {
        self.condition.may_read()?;
        let unused = SessionKey {
            expires: Timestamp(0),
            id: SessionId(0),
        };
        let asked = self.stores.sessions.get(self.cx(), unused);
        self.within_time(Reason::MetadataUnreachable, asked).await.map(drop)
    }

    fn cx(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, TIMEOUT_MS)
    }

    /// The answer of a store. A store that does not answer in time is unreachable.
    async fn within_time<T>(
        &self,
        unreachable: Reason,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match select(pin!(asked), pin!(self.environment.sleep(TIMEOUT_MS))).await {
            Either::Left((answered, _)) => answered,
            Either::Right(_) => Err(StoreError::because(unreachable, "no answer in time")),
        }
    }
}

/// The status and the text of an answer to `/readyz`.
fn readiness_answer(found: &Readiness, for_pushes: bool) -> (StatusCode, String) {
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
