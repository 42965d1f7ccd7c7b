//! The HTTP/1.1 client that makes the load: one per worker, one kept connection per host.
//!
//! It does as little as the protocol asks for, since it shares the processors with the server it measures: no pool, no
//! resolver after the start, bodies passed on without a copy and read without being kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

use crate::address::{RequestTarget, Target};
use crate::content::{Payload, Timed, digest};

/// Sent with every request; only reads of manifests heed it.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, */*";

/// One request including its body; longer is a failure.
const REQUEST_LIMIT: Duration = Duration::from_mins(10);

/// Bytes asked of the socket at once when a large body arrives.
const READ_BUFFER: usize = 256 << 10;

/// Redirects followed for one read.
const REDIRECTS: usize = 5;

/// Bytes of an error's body that are shown.
const SHOWN: usize = 300;

/// Why a request did not do what the row needs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The address cannot be used.
    #[error("{0}")]
    Address(String),
    /// What a row needs could not be made ready.
    #[error("{0}")]
    Unready(String),
    /// No connection.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    /// The connection broke or the answer was not HTTP.
    #[error("{0}")]
    Transport(String, #[source] hyper::Error),
    /// No answer in time.
    #[error("{0}: no whole answer within {seconds} s", seconds = REQUEST_LIMIT.as_secs())]
    Slow(String),
    /// Another status than the protocol has for success.
    #[error("{request}: {status}: {body}")]
    Status {
        /// Method and path.
        request: String,
        /// What came.
        status: StatusCode,
        /// The beginning of the body.
        body: String,
    },
    /// The status was right, what came with it was not.
    #[error("{request}: {what}")]
    Content {
        /// Method and path.
        request: String,
        /// What is wrong.
        what: String,
    },
}

impl Failure {
    /// The failure and its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    }
}

/// What to do with the body of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Count its bytes.
    Count,
    /// Keep it.
    Keep,
    /// Count and hash it.
    Hash,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    /// The bytes of the body.
    pub(crate) length: u64,
    /// `Content-Length`, also of an answer to HEAD.
    pub(crate) announced: Option<u64>,
    /// Where it points.
    pub(crate) location: Option<RequestTarget>,
    /// The body, with [`Take::Keep`].
    pub(crate) body: Bytes,
    /// The digest of the body, with [`Take::Hash`].
    pub(crate) digest: Option<String>,
    /// From the last byte of the request's body to the head of the answer; `None` if it had no body.
    pub(crate) after_body: Option<Duration>,
    status: StatusCode,
}

/// A request without its body.
struct Ask<'a> {
    method: Method,
    request_target: &'a RequestTarget,
    content_type: Option<&'static str>,
    take: Take,
}

/// A worker's client.
pub(crate) struct BenchClient {
    target: Arc<Target>,
    connections: HashMap<String, http1::SendRequest<Timed>>,
}

impl BenchClient {
    /// A client of `target` that connects when it is first used.
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            connections: HashMap::new(),
        }
    }

    /// The target of a request for `path` in the registry.
    pub(crate) fn request_target(&self, path: &str) -> RequestTarget {
        RequestTarget {
            authority: self.target.authority.clone(),
            path: path.to_owned(),
        }
    }

    /// GET with every redirect followed; anything but 200 is a failure.
    pub(crate) async fn get(&mut self, path: &str, take: Take) -> Result<Answer, Failure> {
        self.read(Method::GET, path, take).await
    }

    /// HEAD with every redirect followed; anything but 200 is a failure.
    pub(crate) async fn head(&mut self, path: &str) -> Result<Answer, Failure> {
        self.read(Method::HEAD, path, Take::Count).await
    }

    async fn read(&mut self, method: Method, path: &str, take: Take) -> Result<Answer, Failure> {
        let mut request_target = self.request_target(path);
        for _ in 0..REDIRECTS {
            let ask = Ask {
                method: method.clone(),
                request_target: &request_target,
                content_type: None,
                take,
            };
            let answer = self.send(ask, Payload::Empty).await?;
            match (answer.status, answer.location.clone()) {
                (StatusCode::OK, _) => return Ok(answer),
                (status, Some(next)) if status.is_redirection() => request_target = next,
                (status, _) => return Err(refused(&method, &request_target, status, &answer.body)),
            }
        }
        Err(Failure::Content {
            request: format!("{method} {path}"),
            what: format!("more than {REDIRECTS} redirects"),
        })
    }

    /// POST, PUT or PATCH; any other status than `wanted` is a failure.
    pub(crate) async fn expect(
        &mut self,
        method: Method,
        request_target: &RequestTarget,
        content_type: Option<&'static str>,
        payload: Payload,
        wanted: StatusCode,
    ) -> Result<Answer, Failure> {
        let ask = Ask {
            method: method.clone(),
            request_target,
            content_type,
            take: Take::Count,
        };
        let answer = self.send(ask, payload).await?;
        if answer.status == wanted {
            Ok(answer)
        } else {
            Err(refused(&method, request_target, answer.status, &answer.body))
        }
    }

    async fn send(&mut self, ask: Ask<'_>, payload: Payload) -> Result<Answer, Failure> {
        let named = format!("{} {}", ask.method, ask.request_target.path);
        match tokio::time::timeout(REQUEST_LIMIT, self.exchange(&ask, payload)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => {
                self.connections.remove(&ask.request_target.authority);
                Err(failure)
            }
            Err(_) => {
                self.connections.remove(&ask.request_target.authority);
                Err(Failure::Slow(named))
            }
        }
    }

    async fn exchange(&mut self, ask: &Ask<'_>, payload: Payload) -> Result<Answer, Failure> {
        let broken = |error| Failure::Transport(format!("{} {}", ask.method, ask.request_target.path), error);
        let own_host = ask.request_target.authority == self.target.authority;
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(&ask.request_target.path)
            .header(HOST, &ask.request_target.authority)
            .header(ACCEPT, ACCEPTED);
        // A redirect's target authorizes by its URL alone; credentials stay with the registry.
        if let Some(value) = self.target.authorization.as_ref().filter(|_| own_host) {
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(value) = ask.content_type {
            request = request.header(CONTENT_TYPE, value);
        }
        if matches!(payload, Payload::Empty) && ask.method != Method::GET && ask.method != Method::HEAD {
            request = request.header(CONTENT_LENGTH, 0);
        }
        let (payload, ended) = Timed::new(payload);
        let request = request.body(payload).map_err(|error| Failure::Content {
            request: format!("{} {}", ask.method, ask.request_target.path),
            what: error.to_string(),
        })?;
        let response = self
            .connection(ask.request_target)
            .await?
            .send_request(request)
            .await
            .map_err(broken)?;
        let answered = Instant::now();
        let (head, mut body) = response.into_parts();
        let announced = head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        let location = match head.headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
            Some(location) if !head.status.is_client_error() => Some(ask.request_target.resolve(location)?),
            _ => None,
        };
        // What an error says is shown, whatever the caller wants of a success.
        let take = if head.status.is_success() { ask.take } else { Take::Keep };
        let mut kept = BytesMut::new();
        let mut hash = (take == Take::Hash).then(Sha256::new);
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            length += data.len() as u64;
            if take == Take::Keep {
                kept.extend_from_slice(&data);
            }
            if let Some(hash) = &mut hash {
                hash.update(&data);
            }
        }
        Ok(Answer {
            length,
            announced,
            location,
            body: kept.freeze(),
            digest: hash.map(digest),
            after_body: ended.get().map(|ended| answered.saturating_duration_since(*ended)),
            status: head.status,
        })
    }

    async fn connection(&mut self, request_target: &RequestTarget) -> Result<&mut http1::SendRequest<Timed>, Failure> {
        let usable = match self.connections.get_mut(&request_target.authority) {
            // A server may close a connection between two requests; that is no failure of either.
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let connection = self.connect(&request_target.authority).await?;
            self.connections.insert(request_target.authority.clone(), connection);
        }
        self.connections
            .get_mut(&request_target.authority)
            .ok_or_else(|| Failure::Address(format!("{}: no connection", request_target.authority)))
    }

    async fn connect(&self, authority: &str) -> Result<http1::SendRequest<Timed>, Failure> {
        let failed = |error| Failure::Connect(authority.to_owned(), error);
        let stream = TcpStream::connect(self.target.address(authority)?)
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BUFFER * 2)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Transport(authority.to_owned(), error))?;
        // Its errors reach the request that is under way.
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn refused(method: &Method, request_target: &RequestTarget, status: StatusCode, body: &Bytes) -> Failure {
    let shown = &body[..body.len().min(SHOWN)];
    Failure::Status {
        request: format!("{method} {}", request_target.path),
        status,
        body: String::from_utf8_lossy(shown).trim().to_owned(),
    }
}
