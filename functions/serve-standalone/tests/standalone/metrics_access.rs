//! The metrics of logins, tokens, refusals and accounts: the request that causes it moves each, and no request adds a
//! series.

use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use super::administration::Registry;
use super::metrics::{text_of, value};
use super::policies::{INDEX_TYPE, empty_index};
use crate::support::{Server, basic, eventually, folder_with_users};

/// What members of the group `team` may do in `team/**`. Tags that are versions are immutable.
const TEAM: &str = "syntax = 1

[[allow]]
name = \"team\"
who = [\"group:team\"]
repositories = [\"team/**\"]
actions = [\"pull\", \"push\", \"delete\"]

[[immutable]]
name = \"releases\"
repositories = [\"**\"]
tags = [\"semver\"]
";

const BACKOFFS: &str = "roadstead_login_backoffs_total";

fn logins(credential: &str, result: &str) -> String {
    format!("roadstead_logins_total{{credential=\"{credential}\",result=\"{result}\"}}")
}

fn tokens(result: &str) -> String {
    format!("roadstead_token_requests_total{{result=\"{result}\"}}")
}

fn refusals(reason: &str) -> String {
    format!("roadstead_refusals_total{{reason=\"{reason}\"}}")
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

/// A server with users of a file.
fn server_with_users(users: &[(&str, &str)]) -> Server {
    let folder = folder_with_users(users);
    Server::start_in(folder, &["--htpasswd", "users", "--metrics", "here"])
}

/// A server with accounts.
fn server_with_accounts(folder: &Arc<TempDir>) -> Server {
    Server::start_in(folder.clone(), &["--metrics", "here"])
}

/// Sends a request, and returns the status of its response and the series of access that it has moved, each by one, in ASCII
/// order.
fn moved_by(
    server: &Server,
    method: &str,
    target: &str,
    authorization: Option<&str>,
    body: &[u8],
) -> (u16, Vec<String>) {
    let before = text_of(server);
    let mut headers = vec![INDEX_TYPE];
    headers.extend(authorization.map(|line| ("Authorization", line)));
    let status = server.request(method, target, &headers, body).status;
    let after = text_of(server);
    let is_counted = |series: &str| {
        ["logins", "token_requests", "refusals", "login_backoffs"]
            .iter()
            .any(|name| series.starts_with(&format!("roadstead_{name}_total")))
    };
    let names = after.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0));
    let mut moved = Vec::new();
    for series in names.filter(|name| is_counted(name)) {
        let [old, new] = [&before, &after].map(|text| value(text, series));
        if new != old {
            assert_eq!(new, old.map(|old| old + 1), "{method} {target}: {series}");
            moved.push(series.to_owned());
        }
    }
    moved.sort();
    (status, moved)
}

#[test]
fn logins_tokens_and_refusals_are_counted() {
    let server = server_with_users(&[("alice", "secret")]);
    let (alice, wrong) = (basic("alice", "secret"), basic("alice", "wrong"));
    let headers = [("Authorization", alice.as_str())];
    let granted = server.request("GET", "/token?scope=repository:a:pull", &headers, b"");
    let token = bearer(granted.json()["token"].as_str().unwrap());
    let broken = format!("{token}x");
    for (method, target, credentials, status, mut moved) in [
        ("GET", "/v2/", None, 401, vec![refusals("no_credentials")]),
        ("GET", "/v2/", Some(&alice), 200, vec![logins("password", "accepted")]),
        (
            "GET",
            "/v2/",
            Some(&wrong),
            401,
            vec![logins("password", "refused"), refusals("invalid_credentials")],
        ),
        ("GET", "/v2/", Some(&token), 200, vec![logins("token", "accepted")]),
        (
            "GET",
            "/v2/",
            Some(&broken),
            401,
            vec![logins("token", "refused"), refusals("invalid_token")],
        ),
        (
            "DELETE",
            "/v2/a/manifests/latest",
            Some(&token),
            401,
            vec![logins("token", "accepted"), refusals("insufficient_scope")],
        ),
        (
            "GET",
            "/token",
            Some(&alice),
            200,
            vec![logins("password", "accepted"), tokens("granted")],
        ),
        (
            "GET",
            "/token",
            Some(&wrong),
            401,
            vec![
                logins("password", "refused"),
                tokens("refused"),
                refusals("invalid_credentials"),
            ],
        ),
        ("POST", "/token", None, 400, vec![tokens("invalid")]),
    ] {
        moved.sort();
        let seen = moved_by(&server, method, target, credentials.map(String::as_str), b"");
        assert_eq!(seen, (status, moved), "{method} {target}");
    }
}

/// A tag that is frozen and a tag that may only be created are reasons of their own.
#[test]
fn keys_and_refusals_of_the_policy_are_counted() {
    let registry = Registry::new();
    let alice = registry.add_user("alice", &["--group", "team"]);
    let grants = ["--allow", "pull,create:team/**", "--expires", "never"];
    let key = registry.run(&[&["robot", "add", "ci"][..], &grants].concat()).0;
    let key = key.trim_end();
    registry.set_policy(TEAM);
    let server = server_with_accounts(&registry.folder);
    let (ci, stolen) = (basic("ci", key), basic("alice", key));
    let (by_key, malformed) = (bearer(key), bearer("rsk_ci.wrong"));
    let frozen = [logins("key", "accepted"), refusals("frozen_tag")];
    let by_policy = [logins("key", "accepted"), refusals("policy")];
    for (method, target, credentials, status, moved) in [
        ("GET", "/v2/", &by_key, 200, &[logins("key", "accepted")][..]),
        (
            "GET",
            "/v2/",
            &stolen,
            401,
            &[logins("key", "refused"), refusals("invalid_credentials")],
        ),
        (
            "GET",
            "/v2/",
            &malformed,
            401,
            &[logins("key", "refused"), refusals("invalid_token")],
        ),
        (
            "GET",
            "/token",
            &ci,
            200,
            &[logins("key", "accepted"), tokens("granted")],
        ),
        (
            "PUT",
            "/v2/team/app/manifests/1.0.0",
            &alice,
            201,
            &[logins("key", "accepted")],
        ),
        ("PUT", "/v2/team/app/manifests/1.0.0", &alice, 403, &frozen),
        ("DELETE", "/v2/team/app/manifests/1.0.0", &alice, 403, &frozen),
        (
            "PUT",
            "/v2/team/app/manifests/latest",
            &ci,
            201,
            &[logins("key", "accepted")],
        ),
        (
            "PUT",
            "/v2/team/app/manifests/latest",
            &ci,
            403,
            &[logins("key", "accepted"), refusals("create_only")],
        ),
        ("DELETE", "/v2/team/app/manifests/latest", &ci, 403, &by_policy),
        ("GET", "/v2/other/app/tags/list", &alice, 403, &by_policy),
        ("GET", "/api/v1/accounts", &alice, 403, &by_policy),
    ] {
        // Each manifest differs from all others, as only a manifest that differs moves a tag.
        let body = if method == "PUT" {
            empty_index(&format!("{target} {status}"))
        } else {
            Vec::new()
        };
        let mut moved = moved.to_vec();
        moved.sort();
        let seen = moved_by(&server, method, target, Some(credentials), &body);
        assert_eq!(seen, (status, moved), "{method} {target}");
    }
}

/// From the fifth different wrong password on, the client waits, and longer after each one that is checked.
#[test]
fn requests_that_have_to_wait_are_counted() {
    let server = server_with_users(&[("alice", "secret")]);
    let mut guesses = (0..1000).map(|number| basic("alice", &format!("guess {number}")));
    for (target, waits) in [
        ("/v2/", vec![BACKOFFS.to_owned(), logins("password", "delayed")]),
        (
            "/token",
            vec![BACKOFFS.to_owned(), logins("password", "delayed"), tokens("delayed")],
        ),
    ] {
        // A client that is slow enough has waited already.
        let moved = guesses.find_map(|guess| {
            let (status, moved) = moved_by(&server, "GET", target, Some(&guess), b"");
            assert!(matches!(status, 401 | 429), "{target}: {status}");
            (status == 429).then_some(moved)
        });
        assert_eq!(moved, Some(waits), "{target}");
    }
}

/// While what is stored of the accounts cannot be read, nothing is said about credentials.
#[test]
fn credentials_that_cannot_be_checked_are_counted() {
    let registry = Registry::new();
    registry.add_user("alice", &[]);
    let key = registry
        .run(&["robot", "add", "ci", "--allow", "pull:**", "--expires", "never"])
        .0;
    // The server does not know the key that has signed it, so it reads the state once more.
    let granted = Server::start(&[]).request("GET", "/token", &[], b"");
    let foreign = bearer(granted.json()["token"].as_str().unwrap());
    let (password, by_key) = (basic("alice", "a password"), bearer(key.trim_end()));
    let server = server_with_accounts(&registry.folder);
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 401);
    let database = Connection::open(registry.folder.path().join("data/metadata.db")).unwrap();
    database
        .execute_batch("UPDATE account SET generation = -1; UPDATE access_state SET keys = '['")
        .unwrap();
    drop(database);
    for (target, credentials, moved) in [
        ("/v2/", &password, vec![logins("password", "unchecked")]),
        ("/v2/", &by_key, vec![logins("key", "unchecked")]),
        ("/v2/", &foreign, vec![logins("token", "unchecked")]),
        (
            "/token",
            &by_key,
            vec![logins("key", "unchecked"), tokens("unavailable")],
        ),
    ] {
        let seen = moved_by(&server, "GET", target, Some(credentials), b"");
        assert_eq!(seen, (503, moved), "{target}");
    }
}

/// Only an account that has logged in is counted, because nothing is read for the metric.
#[test]
fn a_key_that_ends_within_two_weeks_is_counted() {
    let registry = Registry::new();
    registry.add_user("root", &["--admin"]);
    let [soon, late] = [("ci", "7d"), ("deploy", "90d")].map(|(name, expires)| {
        let key = registry
            .run(&["robot", "add", name, "--allow", "pull:**", "--expires", expires])
            .0;
        basic(name, key.trim_end())
    });
    let server = server_with_accounts(&registry.folder);
    let ending_soon = || value(&text_of(&server), "roadstead_keys_ending_soon");
    assert_eq!(ending_soon(), Some(0));
    for (credentials, expected) in [(&late, 0), (&soon, 1)] {
        let headers = [("Authorization", credentials.as_str())];
        assert_eq!(server.request("GET", "/v2/", &headers, b"").status, 200);
        assert_eq!(ending_soon(), Some(expected));
    }
}

/// It grows until a request needs a younger state.
#[test]
fn the_age_of_the_access_state_grows_between_requests() {
    let server = server_with_users(&[("alice", "secret")]);
    let age = || value(&text_of(&server), "roadstead_access_state_age_seconds");
    let ask = || assert_eq!(server.request("GET", "/v2/", &[], b"").status, 401);
    ask();
    let old = eventually("no request may use the state any more", || {
        age().filter(|age| *age >= 10)
    });
    ask();
    assert!(age().unwrap() < old);
}

/// The series after `requests` requests for `endpoint`, and the whole text.
fn series_after(server: &Server, endpoint: &str, requests: u64) -> (Vec<String>, String) {
    let all = format!("roadstead_request_duration_seconds_count{{endpoint=\"{endpoint}\"}}");
    // A scrape is counted after it is written, so the first one is not among the series of the next one at once.
    let scrapes = "roadstead_request_duration_seconds_count{endpoint=\"Health\"}";
    let text = eventually("all requests are counted", || {
        let text = text_of(server);
        let is_all = value(&text, &all) == Some(requests) && value(&text, scrapes).is_some();
        is_all.then_some(text)
    });
    let names = text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
    (names.collect(), text)
}

/// Neither names nor paths of clients become labels.
#[test]
fn ten_thousand_names_make_no_new_series() {
    let server = server_with_users(&[("alice", "secret")]);
    let mut client = server.connect();
    let mut ask = |number: usize| {
        let credentials = basic(&format!("name{number}"), "a wrong password");
        let target = format!("/v2/team{number}/app/manifests/tag{number}");
        client
            .request("GET", &target, &[("Authorization", &credentials)], b"")
            .status
    };
    // The first ones are refused, and then the client has to wait most of the time.
    let statuses: Vec<_> = (0..100).map(&mut ask).collect();
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");
    let (before, _) = series_after(&server, "GetManifest", 100);
    assert!((100..10_000).map(&mut ask).all(|status| matches!(status, 401 | 429)));
    let (after, text) = series_after(&server, "GetManifest", 10_000);
    assert_eq!(before, after);
    let refused = value(&text, &refusals("invalid_credentials")).unwrap();
    let delayed = value(&text, BACKOFFS).unwrap();
    assert_eq!(refused + delayed, 10_000);
    assert!(!text.contains("team") && !text.contains("name1"), "{text}");
}

/// The same for clients that are logged in, whatever they ask for: in repositories, of the token endpoint and of the API.
#[test]
fn names_that_the_policy_the_token_endpoint_and_the_api_meet_make_no_new_series() {
    let registry = Registry::new();
    let alice = registry.add_user("alice", &[]);
    registry.set_policy(TEAM);
    let server = server_with_accounts(&registry.folder);
    let mut client = server.connect();
    let mut ask = |number: usize| {
        let (method, target, status) = match number % 6 {
            0 => ("GET", format!("/v2/name{number}/app/tags/list"), 403),
            1 => ("DELETE", format!("/v2/name{number}/app/manifests/tag{number}"), 403),
            2 => (
                "GET",
                format!("/token?scope=repository:name{number}/app:pull,push"),
                200,
            ),
            3 => ("GET", format!("/api/v1/accounts/name{number}"), 404),
            4 => ("GET", format!("/api/v1/tags?repository=name{number}/app"), 403),
            _ => ("GET", format!("/api/v1/name{number}"), 404),
        };
        let answer = client.request(method, &target, &[("Authorization", &alice)], b"");
        assert_eq!(answer.status, status, "{method} {target}");
    };
    // Each kind of request once, and the last of them is one of those that are waited for.
    (0..10).for_each(&mut ask);
    let (before, _) = series_after(&server, "GetAccount", 2);
    (10..10_000).for_each(&mut ask);
    let (after, text) = series_after(&server, "GetAccount", 1667);
    assert_eq!(before, after);
    // Three of the six kinds are denied by the policy, and an account of others is denied as if it did not exist.
    assert_eq!(value(&text, &refusals("policy")), Some(6667));
    assert_eq!(value(&text, &tokens("granted")), Some(1667));
    assert_eq!(value(&text, &logins("key", "accepted")), Some(8334));
    assert!(!text.contains("name1") && !text.contains("tag1"), "{text}");
}
