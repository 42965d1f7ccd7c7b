//! What is counted and logged of logins.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use registry::Authenticator as _;
use registry::auth::Credentials;
use registry::environment::Environment as _;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::support::{
    FileUsers, Outage, PASSWORD, World, account, basic, bearer, from, get_token, login, login_from, token,
};
use crate::accounts::{AccountAuthenticator, CredentialKind, LoginResult};
use crate::key::Key;

/// Keeps the lines with the target `audit`.
#[derive(Clone, Default)]
struct AuditLog(Arc<Mutex<Vec<String>>>);

impl AuditLog {
    fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.clone());
        (log, guard)
    }

    /// The lines since the last call.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, "{field}={value} ").unwrap();
    }
}

impl Subscriber for AuditLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "audit"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0.trim_end().to_owned());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The counters that have changed since `before`, which is set to the present ones.
fn moved(instance: &AccountAuthenticator, before: &mut Vec<u64>) -> Vec<(CredentialKind, LoginResult, u64)> {
    let logins = instance.statistics().logins;
    assert_eq!(logins.len(), CredentialKind::ALL.len() * LoginResult::ALL.len());
    let counts: Vec<u64> = logins.iter().map(|login| login.count).collect();
    let old = std::mem::replace(before, counts);
    let changes = logins.iter().zip(old);
    changes
        .filter(|(login, old)| login.count != *old)
        .map(|(login, old)| (login.kind, login.result, login.count - old))
        .collect()
}

#[tokio::test]
async fn each_login_moves_one_counter_by_one() {
    use CredentialKind::{Key as ByKey, Password, Token};
    use LoginResult::{Accepted, Delayed, Refused};

    let (world, key) = World::new().await;
    let instance = world.instance();
    let granted = token(&instance, &basic("alice", PASSWORD), "repository:a:pull").await;
    let mut counts = Vec::new();
    moved(&instance, &mut counts);
    for (credentials, kind, result) in [
        (basic("alice", PASSWORD), Password, Accepted),
        (basic("alice", "a wrong password"), Password, Refused),
        (basic("nobody", "a wrong password"), Password, Refused),
        (basic("ci", key.expose()), ByKey, Accepted),
        (bearer(key.expose()), ByKey, Accepted),
        (basic("alice", key.expose()), ByKey, Refused),
        (bearer("rsk_ci.wrong"), ByKey, Refused),
        (bearer(&granted), Token, Accepted),
        (bearer("a.b.c"), Token, Refused),
        (basic("oidc", "a.b.c"), Token, Refused),
    ] {
        login(&instance, &credentials).await;
        assert_eq!(moved(&instance, &mut counts), [(kind, result, 1)], "{credentials:?}");
    }
    // The API counts tokens as everything else does, and so does the token endpoint, which accepts none.
    for (token, result) in [(&*granted, Accepted), ("a.b.c", Refused)] {
        let caller = instance.api_caller(&from(1), &bearer(token)).await;
        assert_eq!(caller.is_ok(), result == Accepted);
        assert_eq!(moved(&instance, &mut counts), [(Token, result, 1)], "{token}");
        assert!(get_token(&instance, &bearer(token), "").await.is_err());
        assert_eq!(moved(&instance, &mut counts), [(Token, Refused, 1)], "{token}");
    }
    // A client without credentials logs in with nothing.
    login(&instance, &Credentials::Absent).await;
    assert!(moved(&instance, &mut counts).is_empty());
    // The token endpoint counts the login in the same way.
    get_token(&instance, &basic("alice", PASSWORD), "").await.unwrap();
    assert_eq!(moved(&instance, &mut counts), [(Password, Accepted, 1)]);
    for guess in 0..20 {
        login_from(&instance, &from(7), &basic("alice", &format!("guess number {guess}"))).await;
    }
    let guesses = moved(&instance, &mut counts);
    assert_eq!(guesses, [(Password, Refused, 5), (Password, Delayed, 15)]);
}

#[tokio::test]
async fn what_cannot_be_checked_is_counted_so() {
    let (world, _) = World::new().await;
    let outage = Outage::default();
    let store: Arc<dyn registry::store::access::AccessStore> = world.store.clone();
    let store = registry::store::wrapped::Wrapped::new(store, outage.clone());
    let instance = world.instance_over(Arc::new(store), World::settings(), None);
    let mut counts = Vec::new();
    moved(&instance, &mut counts);
    outage.set(true);
    assert_eq!(login(&instance, &basic("alice", PASSWORD)).await, "503");
    assert_eq!(
        moved(&instance, &mut counts),
        [(CredentialKind::Password, LoginResult::Unchecked, 1)]
    );
}

/// A login that repeats has one line in a quarter of an hour; another password, client or result has its own.
#[tokio::test]
async fn a_login_that_repeats_is_logged_once() {
    let (world, key) = World::new().await;
    let instance = world.instance();
    let (log, _guard) = AuditLog::capture();
    let (good, stale) = (basic("alice", PASSWORD), basic("alice", "the password before"));
    for minute in 0..30 {
        for _ in 0..50 {
            login(&instance, &good).await;
            login(&instance, &stale).await;
        }
        let lines = log.take();
        if minute % 15 == 0 {
            assert_eq!(
                lines,
                [
                    "event=login.accepted principal=alice address=192.0.2.1 detail=password",
                    "event=login.refused principal=alice address=192.0.2.1 detail=password",
                ]
            );
        } else {
            assert!(lines.is_empty(), "{minute}: {lines:?}");
        }
        world.clock.pass(60_000);
    }
    let other = basic("alice", "another wrong password");
    login(&instance, &other).await;
    login_from(&instance, &from(2), &good).await;
    let id = key.id();
    login(&instance, &basic("ci", key.expose())).await;
    assert_eq!(
        log.take(),
        [
            "event=login.refused principal=alice address=192.0.2.1 detail=password",
            "event=login.accepted principal=alice address=192.0.2.2 detail=password",
            &*format!("event=login.accepted principal=robot:ci credential={id} address=192.0.2.1 detail=key"),
        ]
    );
    assert!(instance.api_caller(&from(8), &bearer("a.b.c")).await.is_err());
    assert!(instance.api_caller(&from(8), &bearer("a.b.c")).await.is_err());
    assert!(get_token(&instance, &bearer("a.b.d"), "").await.is_err());
    assert_eq!(
        log.take(),
        [
            "event=login.refused address=192.0.2.8 detail=token",
            "event=login.refused address=192.0.2.1 detail=token",
        ]
    );
    // However many passwords a client tries, that it has to wait is one line.
    for guess in 0..1_000 {
        login_from(&instance, &from(7), &basic("alice", &format!("guess number {guess}"))).await;
    }
    let lines = log.take();
    let delayed = "event=login.delayed principal=alice address=192.0.2.7 detail=password";
    assert_eq!(lines.iter().filter(|line| *line == delayed).count(), 1);
    assert_eq!(lines.len(), 6, "and five wrong passwords: {lines:?}");
}

/// A user may have typed the password into the field for the name.
#[tokio::test]
async fn s18_the_log_of_logins_holds_no_secret_and_no_name_that_nobody_has() {
    let (world, key) = World::new().await;
    let instance = world.instance_with(World::settings(), Some(FileUsers::new()));
    let (log, _guard) = AuditLog::capture();
    let (stranger, text) = (Key::generate(&account("stranger"), &*world.clock), key.expose());
    let granted = token(&instance, &basic("ci", text), "repository:ci/x:pull").await;
    for credentials in [
        basic("hunter2", PASSWORD),
        basic("Hunter 2\n\u{1b}[31mhunter2", "hunter2"),
        basic("alice", "hunter2"),
        basic(FileUsers::NAME, PASSWORD),
        basic(FileUsers::NAME, "hunter2"),
        basic("hunter2", text),
        basic("hunter2", stranger.expose()),
        bearer(stranger.expose()),
        bearer(&granted),
        bearer(&granted[1..]),
    ] {
        login(&instance, &credentials).await;
    }
    let lines = log.take();
    let text = lines.join("\n");
    for secret in [
        "hunter2",
        PASSWORD,
        &key.expose()[16..],
        &stranger.expose()[4..],
        &granted[..20],
    ] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(!text.contains("stranger"), "{text}");
    assert!(
        text.lines()
            .all(|line| line.starts_with("event=") && !line.contains('\u{1b}')),
        "{text}"
    );
    let issued = lines.iter().find(|line| line.contains("token.issued")).unwrap();
    let principal = format!(
        "principal=robot:ci credential={} address=192.0.2.1 reference=",
        key.id()
    );
    assert!(
        issued.contains(&principal) && issued.ends_with("detail=repository:ci/x:pull"),
        "{issued}"
    );
    let of_file = format!(
        "event=login.refused principal={} address=192.0.2.1 detail=password",
        FileUsers::NAME
    );
    assert!(lines.contains(&of_file), "{text}");
}

/// 10,000 clients with names of their own change the numbers only.
#[tokio::test]
async fn ten_thousand_names_add_no_counter() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    let mut counts = Vec::new();
    moved(&instance, &mut counts);
    for number in 0..10_000 {
        login(&instance, &basic(&format!("user{number}"), "a wrong password")).await;
    }
    let changes = moved(&instance, &mut counts);
    let all: u64 = changes.iter().map(|(_, _, count)| count).sum();
    assert_eq!((changes.len(), all), (2, 10_000), "refused and delayed: {changes:?}");
}

#[tokio::test]
async fn the_age_of_the_state_and_the_keys_that_end_soon() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    let (world, key) = World::new().await;
    let now = world.clock.now();
    let others = [13, 14, 15, 30].map(|days| {
        let another = Key::generate(&account("ci"), &*world.clock);
        let mut record = world.account_key(&another);
        record.expires = Some(now.plus_millis(days * DAY_MS));
        (another.id(), record)
    });
    world.change("ci", |ci| ci.keys.extend(others)).await;
    let instance = world.instance();
    let seen = || {
        let statistics = instance.statistics();
        (statistics.state_age_ms, statistics.keys_ending_soon)
    };
    assert_eq!(seen(), (None, 0), "nothing was read");
    let _ = world.counts.take();
    assert!(instance.authenticate(&from(1), &bearer(key.expose())).await.is_ok());
    assert_eq!(seen(), (Some(0), 2));
    let reads = world.counts.reads();
    world.clock.pass(9_000);
    assert_eq!(seen(), (Some(9_000), 2));
    world.clock.pass(DAY_MS);
    assert_eq!(seen(), (Some(DAY_MS + 9_000), 3));
    world.clock.pass(13 * DAY_MS);
    assert_eq!(seen().1, 1, "two have ended, and one more ends soon");
    assert_eq!(world.counts.reads(), reads, "metrics read nothing");
}
