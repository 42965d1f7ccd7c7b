//! An object store in memory that speaks as much of S3 as the tests need, on a port of its own; and that does what a
//! test asks for instead: refuses, hangs up, or loses its answer.
//!
//! It is strict where real ones are: parts below 5 MiB, parts out of order, other entity tags, wrong checksums, bodies
//! in `aws-chunked` encoding and unsigned requests are refused.

mod answers;
mod state;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use answers::Answer;
use aws_credential_types::Credentials;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
pub(crate) use state::{Held, Quirk};
use store_s3::{Operation, Options, S3Blobs};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The bucket that is there.
pub(crate) const BUCKET: &str = "bucket";

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An answer with a status and a code; nothing is done.
    Refuse(u16, &'static str),
    /// The connection ends before an answer; nothing is done.
    HangUp,
    /// Nothing is read, and nothing answered.
    Stall,
    /// It is done after so many milliseconds.
    Delay(u64),
    /// It is done, and the connection ends before the answer.
    LoseAnswer,
    /// The answer's body ends after so many bytes.
    Cut(usize),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) operation: Operation,
    pub(crate) key: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) query: BTreeMap<String, String>,
}

type Plan = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

/// The server; it ends when this is dropped.
pub(crate) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    held: Mutex<Held>,
    seen: Mutex<Vec<Seen>>,
    plan: Mutex<Plan>,
    parts: Mutex<AtOnce>,
}

/// How many parts are being received, and the most that were.
#[derive(Default)]
struct AtOnce {
    now: usize,
    most: usize,
}

/// A part that is being received, until this is dropped.
struct Receiving(Arc<Shared>);

impl Receiving {
    fn begin(shared: &Arc<Shared>) -> Self {
        let mut parts = shared.parts.lock().unwrap();
        parts.now += 1;
        parts.most = parts.most.max(parts.now);
        Self(Arc::clone(shared))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.parts.lock().unwrap().now -= 1;
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            held: Mutex::default(),
            seen: Mutex::default(),
            plan: Mutex::new(Box::new(|_| None)),
            parts: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let listening = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { shared.answer(request).await }
                });
                tokio::spawn(async move {
                    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // A connection that a fault ended.
                    drop(served.await);
                });
            }
        });
        Self {
            address,
            shared,
            listening,
        }
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A store on it.
    pub(crate) async fn store(&self, change: impl FnOnce(&mut Options)) -> S3Blobs {
        let mut options = Options::new(BUCKET);
        options.endpoint = Some(self.endpoint());
        options.region = Some("us-east-1".to_owned());
        change(&mut options);
        let credentials = Credentials::new("an id", "a secret", None, None, "a test");
        S3Blobs::open_as(options, credentials).await.unwrap()
    }

    /// Decides from now on what goes wrong.
    pub(crate) fn faults(&self, plan: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        *self.shared.plan.lock().unwrap() = Box::new(plan);
    }

    /// The requests since this was last asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    /// How often each operation was asked for since this was last asked, by name.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for seen in self.seen() {
            *counts.entry(seen.operation.name()).or_default() += 1;
        }
        counts
    }

    /// The most parts that were under way at once since this was last asked.
    pub(crate) fn most_parts(&self) -> usize {
        std::mem::take(&mut *self.shared.parts.lock().unwrap()).most
    }

    /// Looks at, or changes, what is stored.
    pub(crate) fn held<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.shared.held.lock().unwrap())
    }
}

/// The end of a connection.
#[derive(Debug)]
pub(crate) struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up")
    }
}

impl std::error::Error for HungUp {}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<answers::Body>, HungUp> {
        let (head, body) = request.into_parts();
        let query: BTreeMap<String, String> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .collect();
        let headers: BTreeMap<String, String> = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let path = decoded(head.uri.path());
        let (bucket, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let operation = operation(&head.method, key, &query, &headers);
        let seen = Seen {
            operation,
            key: key.to_owned(),
            headers,
            query,
        };
        let _receiving = (operation == Operation::UploadPart).then(|| Receiving::begin(&self));
        self.seen.lock().unwrap().push(seen.clone());
        let fault = (self.plan.lock().unwrap())(&seen);
        match fault {
            Some(Fault::HangUp) => return Err(HungUp),
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::Refuse(status, code)) => {
                // As a real one does, without reading what is sent.
                return Ok(Answer::refused(status, code).close().into_response(&head.method, None));
            }
            _ => {}
        }
        let Ok(body) = body.collect().await else {
            return Err(HungUp);
        };
        if let Some(Fault::Delay(millis)) = fault {
            tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
        }
        let answer = if bucket == BUCKET {
            self.held.lock().unwrap().answer(&seen, &body.to_bytes())
        } else {
            Answer::refused(404, "NoSuchBucket")
        };
        match fault {
            Some(Fault::LoseAnswer) => Err(HungUp),
            Some(Fault::Cut(after)) => Ok(answer.into_response(&head.method, Some(after))),
            _ => Ok(answer.into_response(&head.method, None)),
        }
    }
}

fn operation(
    method: &Method,
    key: &str,
    query: &BTreeMap<String, String>,
    headers: &BTreeMap<String, String>,
) -> Operation {
    let has = |name: &str| query.contains_key(name);
    match (method.as_str(), key.is_empty()) {
        ("PUT", false) if has("partNumber") && headers.contains_key("x-amz-copy-source") => Operation::UploadPartCopy,
        ("PUT", false) if has("partNumber") => Operation::UploadPart,
        ("PUT", false) => Operation::PutObject,
        ("POST", false) if has("uploads") => Operation::CreateMultipartUpload,
        ("POST", false) if has("uploadId") => Operation::CompleteMultipartUpload,
        ("DELETE", false) if has("uploadId") => Operation::AbortMultipartUpload,
        ("DELETE", false) => Operation::DeleteObject,
        ("GET", false) if has("uploadId") => Operation::ListParts,
        ("GET", false) => Operation::GetObject,
        ("HEAD", false) => Operation::HeadObject,
        ("POST", true) if has("delete") => Operation::DeleteObjects,
        ("GET", true) if has("uploads") => Operation::ListMultipartUploads,
        ("GET", true) if has("list-type") => Operation::ListObjectsV2,
        other => panic!("no operation of S3 that is expected: {other:?} {query:?}"),
    }
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text)
        .decode_utf8()
        .unwrap()
        .into_owned()
}
