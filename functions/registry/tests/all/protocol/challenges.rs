//! The challenge of a 401: its scope for every endpoint, and the URL that it sends a client to.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request};
use oci::RepositoryName;
use registry::api_endpoint::ApiOperation;
use registry::auth::{Challenge, ChallengeSchemes, ChallengeScope, Forwarded, ForwardedHost, PublicUrl, UrlScheme};
use registry::{Endpoint, RequestBody, Settings};

use crate::support::{Answer, Setup, Users, World};

const DOCUMENT: &str = include_str!("../../../../../docs/challenges.md");

/// The methods of the table, and some others.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "get",
];

/// Queries of mounts, and others. Only a POST may be a mount.
const QUERIES: &[&str] = &[
    "",
    "mount=x&from=other/repository",
    "scope=registry:api:*",
    "from=a%2Fb&mount",
    "mount=x&from=a&from=b",
    "mount=x&from=&from=b",
    "mount=x",
    "from=other/repository",
    "mount=x&from=Other",
    "Mount=x&from=other",
    "mount=x&from=..%2fother",
    "mount=x&from=token:pull%20registry:api:*",
    "mount=x&from=x%22,realm=%22y",
];

/// A row of the document's table.
struct Row {
    methods: Vec<&'static str>,
    paths: Vec<&'static str>,
    endpoint: &'static str,
    scope: &'static str,
}

fn table() -> Vec<Row> {
    let lines = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| method | path |"));
    lines
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [methods, paths, endpoint, scope] = cells[..] else {
                panic!("four cells: {line}");
            };
            Row {
                methods: methods.split(", ").collect(),
                paths: paths.split(' ').map(|path| path.trim_matches('`')).collect(),
                endpoint: endpoint.trim_matches('`'),
                scope: scope.trim_matches('`'),
            }
        })
        .collect()
}

/// The name in a path that has this form; an empty name if the form has none. `None`: the path has another form.
fn matched(form: &str, path: &[&str]) -> Option<String> {
    let form: Vec<_> = form.split('/').collect();
    let (before, after) = match form.iter().position(|part| *part == "<name>") {
        Some(at) => (&form[..at], Some(&form[at + 1..])),
        None => (&form[..], None),
    };
    let is_same = |form: &[&str], path: &[&str]| {
        form.len() == path.len()
            && form
                .iter()
                .zip(path)
                .all(|(form, part)| form.starts_with('<') || form == part)
    };
    let Some(after) = after else {
        return is_same(before, path).then(String::new);
    };
    let ends_at = path.len().checked_sub(after.len())?;
    let name = path.get(before.len()..ends_at)?.join("/");
    let matches = is_same(before, &path[..before.len()])
        && is_same(after, &path[ends_at..])
        && name.parse::<RepositoryName>().is_ok();
    matches.then_some(name)
}

/// What the document says about the query: the endpoint and the parameter that has to be there, the parameter with the name of
/// another repository, and what it adds to the scope.
fn addition() -> [&'static str; 4] {
    let mut lines = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| endpoint | parameter |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let line = lines.next().expect("a row");
    assert_eq!(lines.next(), None, "one row");
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    let cells: [_; 4] = cells.try_into().expect("four cells");
    cells.map(|cell| cell.trim_matches('`'))
}

/// What the document says about a request: the endpoint, and the scope if it has one.
fn documented(table: &[Row], method: &str, path: &str, query: &str) -> Option<(&'static str, Option<String>)> {
    let path = path.replace("%2F", "/").replace("%2f", "/");
    let parts: Vec<_> = path.split('/').collect();
    let (paths, name) = table.iter().find_map(|row| {
        let name = row.paths.iter().find_map(|form| matched(form, &parts))?;
        Some((&row.paths, name))
    })?;
    let mut rows = table.iter().filter(|row| row.paths == *paths);
    let row = rows.find(|row| row.methods.contains(&method))?;
    let scope = (!row.scope.is_empty()).then(|| row.scope.replace("<name>", &name));
    let [endpoint, parameter, other, added] = addition();
    let first = |wanted: &str| {
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        parameters.find_map(|(key, value)| (key == wanted).then_some(value))
    };
    let other = first(other).filter(|other| other.parse::<RepositoryName>().is_ok() && *other != name);
    let scope = match other {
        Some(other) if row.endpoint == endpoint && first(parameter).is_some() => {
            scope.map(|scope| format!("{scope} {}", added.replace("<other>", &other)))
        }
        _ => scope,
    };
    Some((row.endpoint, scope))
}

fn head(method: &str, target: &str) -> Parts {
    let request = Request::builder().method(method).uri(target).body(()).unwrap();
    request.into_parts().0
}

/// The table of the document is what the registry does, for every endpoint, every method, and names that look like other
/// parts of a path.
#[test]
fn the_scope_of_every_endpoint_is_documented() {
    let table = table();
    let names = [
        "a",
        "a/b",
        "token",
        "v2/_catalog",
        "a/blobs/uploads",
        "blobs",
        "a/manifests",
        "a/tags/list",
        "tags",
        "a/referrers/b",
        "A",
        "_catalog",
        "a%2Fb",
        "a%2fblobs%2fuploads",
        "",
    ];
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let parts = ["list", "uploads", "blobs", "manifests", "tags", "latest", "", digest];
    let mut paths: BTreeSet<String> = [
        "/",
        "/token",
        "/token/",
        "/v2",
        "/v2/",
        "/v2//",
        "/v2/token",
        "/v1/",
        "/api/v1",
        "/api/v1/",
        "/api/v1/whoami/",
        "/api/v2/whoami",
        "/v2/api/v1/whoami",
    ]
    .map(str::to_owned)
    .into();
    paths.extend(ApiOperation::ALL.iter().map(|operation| {
        let path = operation.path().replace("{account}", "ci");
        let path = path.replace("{key}", "3f9aK2dQ").replace("{version}", "7");
        format!("/api/v1/{path}")
    }));
    paths.extend(["/.well-known/jwks.json", "/.well-known/jwks.json/", "/.well-known"].map(str::to_owned));
    for name in names {
        paths.insert(format!("/v2/{name}"));
        paths.insert(format!("/v2/{name}/"));
        for kind in ["blobs", "blobs/uploads", "manifests", "referrers", "tags"] {
            paths.insert(format!("/v2/{name}/{kind}"));
            for part in parts {
                paths.insert(format!("/v2/{name}/{kind}/{part}"));
                paths.insert(format!("/v2/{name}/{kind}/{part}/"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let mut scopes = BTreeSet::new();
    for path in &paths {
        for method in METHODS {
            let queries = if method == "POST" { QUERIES } else { &QUERIES[..3] };
            for query in queries {
                let expected = documented(&table, method, path, query);
                let separator = if query.is_empty() { "" } else { "?" };
                let head = head(method, &format!("{path}{separator}{query}"));
                let endpoint = Endpoint::of(&head);
                let scope = ChallengeScope::of(&head).map(|scope| scope.to_string());
                let found = endpoint.map(|endpoint| (endpoint.as_str(), scope.clone()));
                assert_eq!(found, expected, "{method} {path}?{query}");
                seen.extend(endpoint);
                scopes.extend(scope);
            }
        }
    }
    let all: BTreeSet<_> = Endpoint::ALL.iter().copied().collect();
    assert_eq!(seen, all, "every endpoint was asked");
    let listed: BTreeSet<_> = table.iter().map(|row| row.endpoint).collect();
    let all: BTreeSet<_> = Endpoint::ALL.iter().map(|endpoint| endpoint.as_str()).collect();
    assert_eq!(listed, all, "every endpoint is listed");
    assert!(scopes.len() > 20, "{scopes:?}");
}

/// What a shell and a stranger say about a request.
#[derive(Default)]
struct Reached {
    host: &'static str,
    headers: &'static [(&'static str, &'static str)],
    forwarded: Option<Forwarded>,
    over_tls: bool,
}

async fn challenge(world: &World, reached: &Reached) -> String {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri("/v2/")
        .header("host", reached.host);
    for (name, value) in reached.headers {
        request = request.header(*name, *value);
    }
    if let Some(forwarded) = &reached.forwarded {
        request = request.extension(forwarded.clone());
    }
    if reached.over_tls {
        request = request.extension(UrlScheme::Https);
    }
    let response = world.registry.handle(request.body(RequestBody::empty()).unwrap()).await;
    let answer = Answer::read(reached.host.to_owned(), response).await.expect(401);
    let [challenge] = answer.lines("www-authenticate")[..] else {
        panic!("exactly one challenge: {answer:?}");
    };
    challenge.to_owned()
}

async fn world(schemes: ChallengeSchemes, public_url: Option<&str>, has_tokens: bool) -> World {
    let mut setup = Setup::private(&Arc::new(Users::private()));
    let url: Option<PublicUrl> = public_url.map(|url| url.parse().unwrap());
    setup.settings = Settings {
        challenge: Challenge::new(schemes, url),
        ..Settings::default()
    };
    if !has_tokens {
        setup.token_endpoint = None;
    }
    World::with(setup).await
}

const BASIC: &str = r#"Basic realm="roadstead", charset="UTF-8""#;

/// What strangers put into `Host` and `X-Forwarded-…` names no realm, and never makes one of plain http for a host that is not
/// the machine itself. A request with such a field has no realm of its own, because a proxy on this machine may have sent it.
#[tokio::test]
async fn s29_strangers_do_not_steer_the_realm() {
    const SPOOFED: &[(&str, &str)] = &[
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "444"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1;host=evil.example;proto=https"),
    ];
    const LOCAL_SPOOFED: &[(&str, &str)] = &[("x-forwarded-host", "localhost:1"), ("x-forwarded-proto", "http")];
    const REWRITTEN: &[(&str, &str)] = &[("x-forwarded-for", "192.0.2.1")];
    const STANDARD: &[(&str, &str)] = &[("forwarded", "for=192.0.2.1")];
    const VIA: &[(&str, &str)] = &[("via", "1.1 proxy.example")];
    for (public_url, unknown) in [
        (None, BASIC),
        (
            Some("https://registry.example"),
            r#"Bearer realm="https://registry.example/token",service="registry.example""#,
        ),
    ] {
        let world = world(ChallengeSchemes::Auto, public_url, true).await;
        for headers in [&[][..], SPOOFED, LOCAL_SPOOFED, REWRITTEN, STANDARD, VIA] {
            for over_tls in [false, true] {
                for host in [
                    "evil.example",
                    "localhost.evil.example",
                    "127.0.0.1.evil.example",
                    "10.0.0.1:5000",
                    "[2001:db8::1]",
                    "0.0.0.0",
                ] {
                    let reached = Reached {
                        host,
                        headers,
                        over_tls,
                        ..Reached::default()
                    };
                    assert_eq!(challenge(&world, &reached).await, unknown, "{host} {headers:?}");
                }
                let local = challenge(
                    &world,
                    &Reached {
                        host: "localhost:5000",
                        headers,
                        over_tls,
                        ..Reached::default()
                    },
                )
                .await;
                let scheme = if over_tls { "https" } else { "http" };
                let expected = match public_url {
                    None if headers.is_empty() => {
                        format!(r#"Bearer realm="{scheme}://localhost:5000/token",service="roadstead""#)
                    }
                    _ => unknown.to_owned(),
                };
                assert_eq!(local, expected, "{headers:?}");
            }
        }
    }
}

/// What a trusted proxy says counts, unless the URL is configured.
#[tokio::test]
async fn a_trusted_proxy_says_the_realm() {
    let forwarded = |scheme, host: &str| Forwarded {
        scheme,
        host: match host {
            "" => ForwardedHost::Unchanged,
            "?" => ForwardedHost::Unclear,
            host => ForwardedHost::Host(host.parse().unwrap()),
        },
    };
    let auto = world(ChallengeSchemes::Auto, None, true).await;
    let configured = world(ChallengeSchemes::Auto, Some("https://registry.example"), true).await;
    let basic = world(ChallengeSchemes::Basic, Some("https://registry.example"), true).await;
    for (host, scheme, reported, expected) in [
        ("a.example", Some(UrlScheme::Https), "", Some("https://a.example")),
        (
            "localhost:5000",
            Some(UrlScheme::Https),
            "b.example:8443",
            Some("https://b.example:8443"),
        ),
        (
            "localhost:5000",
            Some(UrlScheme::Http),
            "",
            Some("http://localhost:5000"),
        ),
        // Passwords would cross a network in plain text.
        ("a.example", Some(UrlScheme::Http), "", None),
        ("localhost:5000", Some(UrlScheme::Http), "b.example", None),
        ("localhost:5000", None, "", None),
        ("a.example", None, "b.example", None),
        ("a.example", Some(UrlScheme::Https), "?", None),
    ] {
        let reached = Reached {
            host,
            forwarded: Some(forwarded(scheme, reported)),
            ..Reached::default()
        };
        let expected = expected.map_or(BASIC.to_owned(), |url| {
            format!(r#"Bearer realm="{url}/token",service="roadstead""#)
        });
        assert_eq!(
            challenge(&auto, &reached).await,
            expected,
            "{host} {scheme:?} {reported}"
        );
        assert_eq!(
            challenge(&configured, &reached).await,
            r#"Bearer realm="https://registry.example/token",service="registry.example""#
        );
        assert_eq!(challenge(&basic, &reached).await, BASIC);
    }
}

/// Without a token endpoint, a Bearer challenge would send clients to a path that does not exist.
#[tokio::test]
async fn without_a_token_endpoint_every_challenge_is_basic() {
    for public_url in [None, Some("https://registry.example")] {
        let world = world(ChallengeSchemes::Auto, public_url, false).await;
        for host in ["localhost:5000", "registry.example"] {
            let forwarded = Forwarded {
                scheme: Some(UrlScheme::Https),
                host: ForwardedHost::Unchanged,
            };
            for forwarded in [None, Some(forwarded)] {
                let reached = Reached {
                    host,
                    forwarded,
                    ..Reached::default()
                };
                assert_eq!(challenge(&world, &reached).await, BASIC);
            }
        }
    }
}
