//! A registry in memory that can be told to misbehave, and the tests that need one: every row must pass on it, and every
//! fault must be noticed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::address::Target;
use crate::content::digest_of;
use crate::rows::{ROWS, Row, Scale, Work};
use crate::site::{Plan, Site};

/// How it misbehaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ModelFault {
    None,
    /// One byte of what is read is another.
    WrongByte,
    /// Every tenth request for a blob or manifest is answered 500.
    Sometimes500,
    /// Every list has one entry.
    ShortLists,
    /// Blobs are read elsewhere: under another host name, where credentials are refused.
    Redirects,
}

#[derive(Default)]
struct Held {
    content: BTreeMap<String, Bytes>,
    tags: BTreeMap<String, BTreeSet<String>>,
    sessions: BTreeMap<String, Vec<u8>>,
    requests: u64,
}

struct Model {
    fault: ModelFault,
    port: u16,
    held: Mutex<Held>,
}

impl Model {
    /// Serves until the test's runtime ends.
    async fn serve(fault: ModelFault) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let model = Arc::new(Self {
            fault,
            port,
            held: Mutex::default(),
        });
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let model = Arc::clone(&model);
                let service = service_fn(move |request| {
                    let model = Arc::clone(&model);
                    async move { Ok::<_, Infallible>(model.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Target::new(&format!("http://127.0.0.1:{port}"), Some("a:b"), false).unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (ask, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = ask.uri.path().to_owned();
        let query = ask.uri.query().unwrap_or_default().to_owned();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.requests += 1;
        let authorized = ask.headers.contains_key(AUTHORIZATION);
        if authorized == path.starts_with("/elsewhere/") {
            return status(StatusCode::UNAUTHORIZED);
        }
        if path == "/v2/_catalog" {
            return self.list("repositories", held.tags.keys().cloned().collect());
        }
        if let Some(name) = path
            .strip_prefix("/v2/")
            .and_then(|path| path.strip_suffix("/tags/list"))
        {
            return self.list("tags", held.tags[name].iter().cloned().collect());
        }
        if path.contains("/blobs/uploads/") {
            return upload(&mut held, &ask.method, &path, &query, &body);
        }
        if self.fault == ModelFault::Sometimes500 && held.requests.is_multiple_of(10) {
            return status(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if ask.method == Method::PUT {
            let (name, tag) = path["/v2/".len()..].split_once("/manifests/").unwrap();
            held.tags.entry(name.to_owned()).or_default().insert(tag.to_owned());
            let by_digest = path.replace(tag, &digest_of(&body));
            held.content.insert(by_digest, body.clone());
            held.content.insert(path, body);
            return status(StatusCode::CREATED);
        }
        if self.fault == ModelFault::Redirects
            && matches!(ask.method, Method::GET | Method::HEAD)
            && path.contains("/blobs/")
            && authorized
        {
            let location = format!("http://localhost:{}/elsewhere{path}", self.port);
            return Response::builder()
                .status(307)
                .header(LOCATION, location)
                .body(Full::default())
                .unwrap();
        }
        let Some(content) = held.content.get(path.trim_start_matches("/elsewhere")) else {
            return status(StatusCode::NOT_FOUND);
        };
        let mut content = content.to_vec();
        if self.fault == ModelFault::WrongByte {
            content[0] ^= 1;
        }
        Response::new(Full::new(content.into()))
    }

    fn list(&self, key: &str, mut names: Vec<String>) -> Response<Full<Bytes>> {
        if self.fault == ModelFault::ShortLists {
            names.truncate(1);
        }
        Response::new(Full::new(serde_json::json!({ key: names }).to_string().into()))
    }
}

fn upload(held: &mut Held, method: &Method, path: &str, query: &str, body: &[u8]) -> Response<Full<Bytes>> {
    let session = if *method == Method::POST {
        format!("{path}{}", held.requests)
    } else {
        // The state must come back as it was given.
        assert!(query.starts_with("state=a%2Fb"), "{query}");
        path.to_owned()
    };
    let bytes = held.sessions.entry(session.clone()).or_default();
    bytes.extend_from_slice(body);
    if *method != Method::PUT {
        let location = format!("{session}?state=a%2Fb");
        return Response::builder()
            .status(202)
            .header(LOCATION, location)
            .body(Full::default())
            .unwrap();
    }
    let bytes = held.sessions.remove(&session).unwrap();
    let digest = query.split_once("digest=").unwrap().1;
    if digest_of(&bytes) != digest {
        return status(StatusCode::BAD_REQUEST);
    }
    let name = path.split_once("uploads/").unwrap().0;
    held.content.insert(format!("{name}{digest}"), bytes.into());
    status(StatusCode::CREATED)
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}

/// Failures of one small pass of each row, by name.
async fn failures(fault: ModelFault, rows: &[Row]) -> BTreeMap<&'static str, Vec<String>> {
    let scale = Scale {
        time: Duration::from_secs(1),
        smoke: true,
    };
    let mut plan = Plan::new(2, scale, 1);
    let mut site = Site::new(Model::serve(fault).await, None, "test");
    let mut all = BTreeMap::new();
    for row in rows {
        let sample = site.pass(&mut plan, row).await;
        assert!(
            !sample.latencies.is_empty() || !sample.errors.is_empty(),
            "{} did nothing",
            row.name
        );
        all.insert(row.name, sample.errors);
    }
    all
}

fn rows(wanted: impl Fn(Work) -> bool) -> Vec<Row> {
    let rows: Vec<Row> = ROWS
        .iter()
        .filter(|row| !row.starts_server() && wanted(row.work))
        .copied()
        .collect();
    assert!(!rows.is_empty());
    rows
}

#[tokio::test]
async fn every_row_passes_on_a_registry_that_behaves() {
    for (name, errors) in failures(ModelFault::None, &rows(|_| true)).await {
        assert_eq!(errors, [""; 0], "{name}");
    }
}

#[tokio::test]
async fn redirects_are_followed_without_the_credentials() {
    let rows = rows(|work| {
        matches!(
            work,
            Work::PullBlob(1024) | Work::HeadBlob | Work::PushImage(..) | Work::PullAndPush(_)
        )
    });
    for (name, errors) in failures(ModelFault::Redirects, &rows).await {
        assert_eq!(errors, [""; 0], "{name}");
    }
}

#[tokio::test]
async fn a_wrong_byte_fails_every_row_that_moves_content() {
    let heads = |work| matches!(work, Work::HeadBlob | Work::Manifest { head: true, .. });
    let lists = |work| matches!(work, Work::TagsPage(_) | Work::CatalogPage(_) | Work::Catalog(_));
    for (name, errors) in failures(ModelFault::WrongByte, &rows(|work| !heads(work) && !lists(work))).await {
        assert!(
            errors.iter().any(|error| error.contains("hashes to")),
            "{name}: {errors:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_an_error_fails_the_row() {
    let reads = rows(|work| matches!(work, Work::Manifest { .. } | Work::PullImage(_) | Work::PutTags(_)));
    for (name, errors) in failures(ModelFault::Sometimes500, &reads).await {
        assert!(errors.iter().any(|error| error.contains("500")), "{name}: {errors:?}");
    }
}

#[tokio::test]
async fn a_page_that_lacks_names_fails_the_row() {
    let lists = rows(|work| matches!(work, Work::TagsPage(_) | Work::CatalogPage(_) | Work::Catalog(_)));
    for (name, errors) in failures(ModelFault::ShortLists, &lists).await {
        assert!(errors.iter().any(|error| error.contains("not ")), "{name}: {errors:?}");
    }
}
