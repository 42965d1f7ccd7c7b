//! `/livez` and `/readyz`, for whatever keeps the server running. They need no credentials, and say no more than a
//! reason in fixed words.
//!
//! * `/livez`: the process answers.
//! * `/readyz`: pulls work. Fails when the metadata or the bucket cannot be read, when the clock is wrong, and when the
//!   store was replaced. What stops pushes alone stands in a line of the answer, which stays 200.
//! * `/readyz?push`: pushes work too, as far as that is known without pushing.
//!
//! A look costs no write. [`Checks`] looks at each request; `Health` keeps what it has found for some seconds, so that
//! anybody may ask, as often as they like.

#[cfg(feature = "native")]
mod kept;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, join, select};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use registry::store::sessions::{Attempt, SessionId, SessionKey};
use registry::store::{Context, Location, Reason, StoreError, Timestamp, Uid};
use registry::{Environment, ResponseBody, Stores};

#[cfg(feature = "native")]
pub use self::kept::Health;
use crate::condition::Condition;
use crate::opened::Opened;
use crate::probe::ObjectStoreProbe;

/// How long the stores may take, in milliseconds.
const TIMEOUT_MS: u64 = 2_000;

/// Whether `path` is one of the two.
#[must_use]
pub fn is_asked(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// What is asked for readiness.
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

/// What a look has found.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Why pulls do not work, and the id under which the log says it in full.
    pulls: Result<(), (Reason, String)>,
    /// Why pushes would be refused.
    pushes: Vec<Reason>,
}

/// What a request asks.
enum Question {
    Live,
    Ready { for_pushes: bool },
}

impl Question {
    /// `None`: neither.
    fn of(uri: &Uri) -> Option<Self> {
        match uri.path() {
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready {
                for_pushes: uri.query().is_some_and(|query| {
                    let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
                    names.any(|name| name == "push")
                }),
            }),
            _ => None,
        }
    }
}

/// The answer, if the request is for one of the two paths. `ready` is asked for readiness alone; `None`: the server ends.
pub async fn answer(
    method: &Method,
    uri: &Uri,
    ready: impl Future<Output = Option<Readiness>>,
) -> Option<Response<ResponseBody>> {
    let question = Question::of(uri)?;
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
            Some(found) => told(&found, for_pushes),
            None => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
        },
    };
    Some(plain(status, text, method == Method::HEAD))
}

impl Checks {
    /// Of the stores of `opened`; `environment` tells the time, and for how long a store is waited for.
    #[must_use]
    pub fn new(opened: &Opened, environment: Arc<dyn Environment>) -> Self {
        Self {
            stores: opened.stores.clone(),
            object_store: opened.statistics.object_store.clone(),
            condition: opened.condition.clone(),
            environment,
        }
    }

    /// Asks every store at once, and logs what has come to be wrong. `before`: what the last look has found. Takes 2
    /// seconds at most.
    pub async fn look(&self, before: Option<&Readiness>) -> Readiness {
        let before = before.map(|before| &*before.pushes).unwrap_or_default();
        let (pulls, sessions) = join(self.ask(), self.ask_for_sessions()).await;
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
        let (metadata, objects) = join(
            self.within_time(Reason::MetadataUnreachable, metadata),
            self.within_time(Reason::ObjectStoreUnreachable, self.ask_for_objects(cx)),
        )
        .await;
        metadata?;
        objects?;
        // What the answers have told of the time.
        self.condition.may_change()
    }

    async fn ask_for_objects(&self, cx: Context) -> Result<(), StoreError> {
        if let Some(probe) = &self.object_store {
            return Ok(probe.check(cx).await?);
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
        self.within_time(Reason::MetadataUnreachable, asked).await.map(drop)
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

    /// The answer of a store; one that does not answer is unreachable.
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
