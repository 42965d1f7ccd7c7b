//! An object store in memory that supports as much of S3 as the tests need, on a port of its own. On request of a test
//! it injects faults: it refuses requests, closes connections, or loses responses.
//!
//! It is as strict as real stores: it refuses parts below 5 MiB, parts out of order, wrong entity tags, wrong
//! checksums, bodies in `aws-chunked` encoding and unsigned requests.

mod answers;
mod state;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use answers::FakeAnswer;
use aws_client::{AwsConfig, AwsSettings};
use aws_credential_types::Credentials;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
pub(crate) use state::{FakeState, Quirk};
use store_s3::{Operation, S3Blobs, S3Options};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The bucket that exists.
pub(crate) const BUCKET: &str = "bucket";

/// A fault in the handling of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerFault {
    /// The server answers with this status and code, and does nothing.
    Refuse(u16, &'static str),
    /// The server closes the connection before it answers, and does nothing.
    HangUp,
    /// The server neither reads nor answers.
    Stall,
    /// The server handles the request after this number of milliseconds.
    Delay(u64),
    /// The server handles the request, and closes the connection before it answers.
    LoseAnswer,
    /// The response body ends after this number of bytes.
    Cut(usize),
}

/// A request as the server received it.
#[derive(Clone, Debug)]
pub(crate) struct SeenRequest {
    pub(crate) operation: Operation,
    pub(crate) key: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) query: BTreeMap<String, String>,
}

type FaultChooser = Box<dyn FnMut(&SeenRequest) -> Option<ServerFault> + Send>;

/// The server. Dropping this stops it.
pub(crate) struct Fake {
    address: SocketAddr,
    shared: Arc<FakeShared>,
    listening: JoinHandle<()>,
}

struct FakeShared {
    state: Mutex<FakeState>,
    seen: Mutex<Vec<SeenRequest>>,
    plan: Mutex<FaultChooser>,
    parts: Mutex<PartsInFlight>,
}

/// The number of parts that are being received, and its maximum so far.
#[derive(Default)]
struct PartsInFlight {
    now: usize,
    maximum: usize,
}

/// A part that is being received, until this is dropped.
struct Receiving(Arc<FakeShared>);

impl Receiving {
    fn begin(shared: &Arc<FakeShared>) -> Self {
        let mut parts = shared.parts.lock().unwrap();
        parts.now += 1;
        parts.maximum = parts.maximum.max(parts.now);
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
        let shared = Arc::new(FakeShared {
            state: Mutex::default(),
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
                    // An error means that a fault ended the connection.
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

    /// The URL of the server.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A store that uses this server, in the region `us-east-1`.
    pub(crate) async fn store(&self, change: impl FnOnce(&mut S3Options)) -> S3Blobs {
        let mut options = S3Options::new(BUCKET);
        options.endpoint = Some(self.endpoint());
        change(&mut options);
        S3Blobs::open(options, &aws_in("us-east-1").await).await.unwrap()
    }

    /// Sets the function that decides which requests fail.
    pub(crate) fn faults(&self, plan: impl FnMut(&SeenRequest) -> Option<ServerFault> + Send + 'static) {
        *self.shared.plan.lock().unwrap() = Box::new(plan);
    }

    /// The requests since the last call of this method.
    pub(crate) fn seen(&self) -> Vec<SeenRequest> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    /// The number of requests since the last call of this method, by operation.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for seen in self.seen() {
            *counts.entry(seen.operation.name()).or_default() += 1;
        }
        counts
    }

    /// The maximum number of parts in flight at once since the last call of this method.
    pub(crate) fn maximum_parts(&self) -> usize {
        std::mem::take(&mut *self.shared.parts.lock().unwrap()).maximum
    }

    /// Reads or changes the stored data.
    pub(crate) fn state<T>(&self, look: impl FnOnce(&mut FakeState) -> T) -> T {
        look(&mut self.shared.state.lock().unwrap())
    }
}

/// The server closed the connection.
#[derive(Debug)]
pub(crate) struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server closed the connection")
    }
}

impl std::error::Error for HungUp {}

impl FakeShared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<answers::FakeBody>, HungUp> {
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
        let seen = SeenRequest {
            operation,
            key: key.to_owned(),
            headers,
            query,
        };
        let _receiving = (operation == Operation::UploadPart).then(|| Receiving::begin(&self));
        self.seen.lock().unwrap().push(seen.clone());
        let fault = (self.plan.lock().unwrap())(&seen);
        match fault {
            Some(ServerFault::HangUp) => return Err(HungUp),
            Some(ServerFault::Stall) => std::future::pending().await,
            Some(ServerFault::Refuse(status, code)) => {
                // Real stores also answer without reading the body.
                return Ok(FakeAnswer::refused(status, code)
                    .close()
                    .into_response(&head.method, None));
            }
            _ => {}
        }
        let Ok(body) = body.collect().await else {
            return Err(HungUp);
        };
        if let Some(ServerFault::Delay(millis)) = fault {
            tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
        }
        let answer = if bucket == BUCKET {
            self.state.lock().unwrap().answer(&seen, &body.to_bytes())
        } else {
            FakeAnswer::refused(404, "NoSuchBucket")
        };
        match fault {
            Some(ServerFault::LoseAnswer) => Err(HungUp),
            Some(ServerFault::Cut(after)) => Ok(answer.into_response(&head.method, Some(after))),
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
        other => panic!("unexpected request: {other:?} {query:?}"),
    }
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text)
        .decode_utf8()
        .unwrap()
        .into_owned()
}

/// AWS in a region, with some credentials.
pub(crate) async fn aws_in(region: &str) -> AwsConfig {
    let settings = AwsSettings {
        region: Some(region.to_owned()),
        ..AwsSettings::default()
    };
    let credentials = Credentials::new("an id", "a secret", None, None, "a test");
    AwsConfig::load_as(&settings, credentials).await
}
