//! Who guesses passwords, and who has one.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::h2::{self, H2};
use crate::support::{Server, basic};

/// Streams of each connection that guess; the server allows a few more.
const STREAMS: usize = 60;
/// What an ordinary request may take while others guess, on a machine that is busy with their guesses.
const SOON: Duration = Duration::from_secs(2);
/// How often a known user asks.
const REQUESTS: usize = 60;

/// Where the clients are: at the server, or behind a proxy that says so.
#[derive(Clone, Copy)]
enum Road {
    Direct,
    Proxy,
}

/// A client at one address.
struct TestClient {
    client: H2,
    forwarded: Option<String>,
}

impl TestClient {
    async fn at(server: &Server, road: Road, last: u8) -> Self {
        let address = Ipv4Addr::new(127, 0, 0, last);
        let (from, forwarded) = match road {
            Road::Direct => (address, None),
            Road::Proxy => (Ipv4Addr::LOCALHOST, Some(format!("198.51.100.{last}"))),
        };
        Self {
            client: H2::connect(server.address, from).await,
            forwarded,
        }
    }

    /// Whether the server takes a user's password; `None` when the connection is gone.
    async fn ping(&self, user: &str, password: &str) -> Option<(u16, bool)> {
        let authorization = basic(user, password);
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(
            self.forwarded
                .iter()
                .map(|address| ("x-forwarded-for", address.as_str())),
        );
        let answer = self.client.request("GET", "/v2/", &headers).await.ok()?;
        Some((answer.status, answer.headers.contains_key("retry-after")))
    }
}

/// What the guesses came to.
#[derive(Default)]
struct Guesses {
    wrong: AtomicUsize,
    later: AtomicUsize,
}

/// Guesses at once from `connections` connections, half of them from the address `near`.
async fn guess(server: &Server, road: Road, connections: usize, near: u8) -> (Arc<Guesses>, JoinSet<()>) {
    let guesses = Arc::<Guesses>::default();
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let last = if connection % 2 == 0 { 2 } else { near };
        let client = Arc::new(TestClient::at(server, road, last).await);
        for stream in 0..STREAMS {
            let (client, guesses) = (client.clone(), guesses.clone());
            tasks.spawn(async move {
                for number in 0.. {
                    // Of known users and of unknown ones, never the same twice.
                    let user = ["alice", "bob", "nobody"][number % 3];
                    let password = format!("{connection}-{stream}-{number}");
                    match client.ping(user, &password).await {
                        Some((401, _)) => {
                            guesses.wrong.fetch_add(1, Ordering::Relaxed);
                        }
                        // Its turn does not come, or the client has guessed too often.
                        Some((503 | 429, true)) => {
                            guesses.later.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(500)).await;
                        }
                        None => tokio::time::sleep(Duration::from_millis(500)).await,
                        other => panic!("a guess was answered by {other:?}"),
                    }
                }
            });
        }
    }
    (guesses, tasks)
}

fn users_file(users: &[(&str, &str)]) -> String {
    let lines: Vec<_> = users
        .iter()
        .map(|(user, password)| format!("{user}:{}", bcrypt::hash(password, 8).unwrap()))
        .collect();
    lines.join("\n") + "\n"
}

/// Users who were in before stay in without waiting, also when lines of others change. Who has never been in waits
/// for a few checks and not for all who guess.
async fn known_users_do_not_wait(road: Road, connections: usize) {
    let folder = Arc::new(TempDir::new().unwrap());
    let text = users_file(&[("alice", "secret"), ("bob", "secret")]);
    std::fs::write(folder.path().join("users"), &text).unwrap();
    let proxy: &[&str] = match road {
        Road::Direct => &[],
        Road::Proxy => &["--trusted-proxy", "127.0.0.1"],
    };
    let flags = [&["--htpasswd", "users", "--log-level", "info,access=off"], proxy].concat();
    let begun = Instant::now();
    let server = Server::start_in(folder.clone(), &flags);
    let alice = TestClient::at(&server, road, 3).await;
    assert_eq!(alice.ping("alice", "secret").await, Some((200, false)));
    let (guesses, mut tasks) = guess(&server, road, connections, 3).await;
    while guesses.wrong.load(Ordering::Relaxed) < 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Another user's line comes, and no user's password is forgotten for that.
    let more = text + &users_file(&[("carol", "secret")]);
    std::fs::write(folder.path().join("users"), more).unwrap();
    let mut soon = 0;
    for _ in 0..REQUESTS {
        let start = Instant::now();
        let answer = alice.ping("alice", "secret").await;
        assert_eq!(answer, Some((200, false)), "who was in is in");
        soon += usize::from(start.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(soon * 100 >= REQUESTS * 95, "{soon} of {REQUESTS} were answered soon");
    // Never seen before, from an address of their own; one of them was not there when the server started.
    for (user, last) in [("bob", 4), ("carol", 5)] {
        let client = TestClient::at(&server, road, last).await;
        assert_eq!(client.ping(user, "secret").await, Some((200, false)), "{user}");
    }
    // Those that still wait end.
    while let Some(ended) = tasks.try_join_next() {
        ended.unwrap();
    }
    tasks.abort_all();
    // They were many indeed: more than are checked.
    assert!(guesses.later.load(Ordering::Relaxed) > 0);
    // This is no fault, and one line reports many that had no turn. An address has one guess in the queue at a time, so there
    // may be none.
    let lines = server.lines();
    assert!(lines.iter().all(|line| line["level"] != "ERROR"), "{lines:?}");
    let reported = lines.iter().filter(|line| line["requests"].is_u64()).count();
    assert!(reported < 2 + usize::try_from(begun.elapsed().as_secs()).unwrap());
}

#[test]
fn s31_known_users_do_not_wait_for_guesses() {
    h2::runtime().block_on(known_users_do_not_wait(Road::Direct, 10));
}

#[test]
fn s31_known_users_behind_a_proxy_do_not_wait_for_guesses() {
    h2::runtime().block_on(known_users_do_not_wait(Road::Proxy, 10));
}

#[test]
#[ignore = "long: tests/run --full"]
fn s31_known_users_do_not_wait_for_twelve_hundred_guessing_clients() {
    for road in [Road::Direct, Road::Proxy] {
        h2::runtime().block_on(known_users_do_not_wait(road, 20));
    }
}

/// bcrypt itself would take whatever begins with the same 72 bytes.
#[test]
fn a_password_beyond_72_bytes_is_not_cut() {
    let folder = Arc::new(TempDir::new().unwrap());
    let (longest, longer) = ("x".repeat(72), "x".repeat(73));
    let users = folder.path().join("users");
    // As another program, which cuts, makes it.
    std::fs::write(
        &users,
        format!(
            "a:{}\nb:{}\n",
            bcrypt::hash(&longest, 4).unwrap(),
            bcrypt::hash(&longer, 4).unwrap()
        ),
    )
    .unwrap();
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    let ping = |user: &str, password: &str| {
        server
            .request("GET", "/v2/", &[("Authorization", &basic(user, password))], b"")
            .status
    };
    assert_eq!(ping("a", &longest), 200);
    assert_eq!(ping("a", &longer), 401);
    assert_eq!(ping("b", &longer), 401);
}
