//! Authorities in messages: upload tokens, redirects, credentials; and the log, which must contain none of them.

use std::sync::Arc;

use contract::faulty::{Fault, FaultKind, FaultPoint};
use registry::Endpoint;
use registry::store::memory::MemoryBlobs;
use registry::store::wrapped::StoreMethod;

use super::examples::Fixture;
use crate::support::log::Log;
use crate::support::{Answer, Setup, Users, World, sha256, sha512};

const DAY: u64 = 24 * 3_600_000;

/// Everything that can be done with the location of an upload.
async fn use_upload(world: &World, location: &str, user: Option<&str>) -> Vec<Answer> {
    let digest = sha256(b"abcd");
    let mut answers = Vec::new();
    for (method, target) in [
        ("GET", location.to_owned()),
        ("HEAD", location.to_owned()),
        ("PATCH", location.to_owned()),
        ("PUT", format!("{location}?digest={digest}")),
        ("DELETE", location.to_owned()),
    ] {
        let mut call = world.call(method.parse().unwrap(), target).bytes("cd");
        if let Some(user) = user {
            call = call.user(user);
        }
        answers.push(call.send().await);
    }
    answers
}

fn all_are(answers: &[Answer], status: u16) {
    for answer in answers {
        assert_eq!(answer.status, status, "{}", answer.request);
    }
}

#[tokio::test]
async fn s09_upload_of_another_repository_or_user() {
    let fixture = Fixture::new().await;
    let world = &fixture.guarded;
    let location = fixture.upload_in("private/x");
    // In another repository, also one whose name begins or ends like it.
    for other in ["team/app", "private/xx", "private", "x", "private/x/blobs/uploads"] {
        let elsewhere = location.replace("private/x", other);
        all_are(&use_upload(world, &elsewhere, Some("alice")).await, 404);
    }
    // By other users.
    for other in ["bob", "reader", "robot"] {
        all_are(&use_upload(world, location, Some(other)).await, 403);
    }
    // Without credentials, or with invalid ones, the token counts.
    world.get(location).send().await.expect(204);
    for credentials in ["Basic YWxpY2U6d3Jvbmc=", "Bearer expired", "nonsense"] {
        let call = world.get(location).header("authorization", credentials);
        call.send().await.expect(204);
    }
    // After the session has ended.
    let target = format!("{location}?digest={}", sha256(b"ab"));
    world.put(target.clone()).send().await.expect(201);
    let answers = use_upload(world, location, None).await;
    all_are(&answers, 404);
    // The repetition is a 201 for the user that may have it.
    world.put(target.clone()).user("alice").send().await.expect(201);
    world.put(target.clone()).user("bob").send().await.expect(403);
    // Before and after its expiry.
    let location = fixture.upload_in("team/app");
    world.clock.pass(DAY - 1);
    world.get(location).send().await.expect(204);
    world.clock.pass(1);
    all_are(&use_upload(world, location, Some("alice")).await, 404);
    world.put(target).user("alice").send().await.expect(404);
}

/// Every bit of a token is protected.
#[tokio::test]
async fn s09_one_bit_flipped() {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let fixture = Fixture::new().await;
    let location = fixture.upload_in("private/x").to_owned();
    let (path, token) = location.rsplit_once('/').unwrap();
    for place in 0..token.len() {
        let value = ALPHABET
            .iter()
            .position(|letter| *letter == token.as_bytes()[place])
            .unwrap();
        for bit in 0..6 {
            let mut flipped = token.as_bytes().to_vec();
            flipped[place] = ALPHABET[value ^ (1 << bit)];
            let flipped = String::from_utf8(flipped).unwrap();
            let answer = fixture.guarded.get(format!("{path}/{flipped}")).send().await;
            assert_eq!(answer.status, 404, "bit {bit} of letter {place}");
        }
    }
    fixture.guarded.get(location).send().await.expect(204);
}

/// Invalid tokens are 404, and no store is called.
#[tokio::test]
async fn s10_tampered_tokens() {
    let fixture = Fixture::new().await;
    let world = &fixture.guarded;
    let location = fixture.upload_in("private/x").to_owned();
    let (path, token) = location.rsplit_once('/').unwrap();
    let mut tampered = vec![
        String::new(),
        "A".to_owned(),
        "A".repeat(62 * 4 / 3),
        "A".repeat(6143),
        "A".repeat(6145),
        "A".repeat(60_000),
        format!("{token}A"),
        format!("{token}="),
        format!("{token}%3D%3D"),
        format!("A{token}"),
        format!("{token}{token}"),
        token.to_lowercase(),
        token.chars().rev().collect(),
        format!("{token}%00"),
        format!("{token}%20"),
        format!("%20{token}"),
        format!("{token}%2F"),
        "%2e%2e".to_owned(),
        "00000000-0000-0000-0000-000000000000".to_owned(),
        "%F0%9F%A6%80".to_owned(),
    ];
    tampered.extend((0..token.len()).map(|length| token[..length].to_owned()));
    tampered.extend((1..token.len()).map(|start| token[start..].to_owned()));
    let _ = world.counts.take();
    for text in tampered {
        if text.is_empty() {
            continue;
        }
        for answer in use_upload(world, &format!("{path}/{text}"), Some("alice")).await {
            assert_eq!(answer.status, 404, "{}", answer.request);
        }
    }
    assert_eq!(world.counts.all().len(), 0, "no store was asked");
    world.get(location).send().await.expect(204);
}

/// Malicious names, tags, agents and credentials; then faults in the middle of that. The log contains none of it: no
/// credential, no token, no line that a client wrote.
#[tokio::test]
async fn s18_nothing_secret_or_forged_in_the_log() {
    // A header cannot contain line ends or escapes; a target can, percent-encoded.
    const HOSTILE: &str = "x\" level=ERROR FORGED \u{e9}";
    let (log, guard) = Log::capture();
    let mut secrets = vec![
        Users::password("alice"),
        "d3Jvbmc=".to_owned(),
        "FORGED".to_owned(),
        "QUERY".to_owned(),
    ];
    let mut logged = 0;
    for &endpoint in Endpoint::ALL {
        for nth in 0..6 {
            let fixture = Fixture::new().await;
            for repository in ["team/app", "private/x"] {
                let location = fixture.upload_in(repository);
                secrets.push(location.rsplit_once('/').unwrap().1.to_owned());
            }
            for example in fixture.examples(endpoint, "private/x") {
                let kind = if nth % 2 == 0 {
                    FaultKind::Failed
                } else {
                    FaultKind::Unavailable
                };
                let fault = Fault {
                    method: None,
                    nth: nth / 2 + 1,
                    kind,
                    point: FaultPoint::Before,
                };
                fixture.guarded.faults.plan(fault);
                let call = example.call(&fixture.guarded).user("alice");
                let call = call.header("user-agent", HOSTILE);
                let answer = call.send().await;
                logged += u32::from(answer.status >= 500);
                fixture.guarded.faults.clear();
            }
        }
    }
    assert!(logged > 50, "{logged} failures were logged");
    let fixture = Fixture::new().await;
    let world = &fixture.guarded;
    for target in [
        "/v2/FORGED%0aERROR/tags/list".to_owned(),
        "/v2/team/app/manifests/%1b%5b31mFORGED".to_owned(),
        "/v2/team/app/manifests/latest?ns=FORGED%0d%0a".to_owned(),
        "/v2/team/app/tags/list?n=FORGED%0a".to_owned(),
        format!("{}/x?token=QUERY", fixture.upload_in("team/app")),
        "/v2/team/app/blobs/sha256:FORGED".to_owned(),
    ] {
        for credentials in ["Basic d3Jvbmc=", "Basic RlJPTTpGT1JHRUQ=", HOSTILE] {
            let call = world.get(target.clone()).header("authorization", credentials);
            let answer = call.header("user-agent", HOSTILE).send().await;
            let reported = format!("{:?}{:?}", answer.headers, answer.body);
            assert!(
                !reported.contains("d3Jvbmc=") && !reported.contains("\\u{1b}"),
                "{reported}"
            );
        }
    }
    drop(guard);
    let text = log.text();
    for secret in secrets {
        assert!(!text.contains(&secret), "the log holds {secret}");
    }
    for line in text.lines() {
        let level = line.split(' ').next().unwrap();
        assert!(
            matches!(level, "ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE"),
            "a line that is not ours: {line}"
        );
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

/// The Debug output of values with secrets does not contain the secrets.
#[test]
fn s18_secrets_are_not_printed() {
    use registry::auth::Credentials;
    use registry::store::Timestamp;
    use registry::store::sessions::SigningKey;

    let credentials = Credentials::Basic {
        user: "alice".to_owned(),
        password: "hunter2".to_owned(),
    };
    assert!(!format!("{credentials:?}").contains("hunter2"));
    let key = SigningKey {
        id: 1,
        secret: [0xab; 32],
        created: Timestamp(0),
    };
    let printed = format!("{key:?}{key:#?}");
    assert!(
        !printed.contains("171") && !printed.to_lowercase().contains("ab, ab"),
        "{printed}"
    );
}

/// A user's name is written to logs and histories: it contains nothing that could break a line there.
#[test]
fn s18_names_of_users_cannot_break_lines() {
    use base64::Engine as _;
    use registry::auth::Credentials;

    for name in ["a\nb", "a\rb", "a\u{1b}[0m", "a\0", "\u{85}", ""] {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:x"));
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Basic {encoded}").parse().unwrap());
        assert!(
            matches!(Credentials::from_headers(&headers), Credentials::Unreadable),
            "{name:?}"
        );
    }
}

/// Signatures are compared by the MAC's own verification, which takes the same time wherever they differ. The time
/// itself cannot be tested here. This tests that no other code compares them.
#[test]
fn s20_signatures_are_compared_in_constant_time() {
    let source = include_str!("../../../src/token.rs");
    let verify = source.split_once("fn verify(").unwrap().1;
    let verify = verify.split_once("\n    }\n").unwrap().0;
    assert!(verify.contains(".verify_slice(mac)"), "the MAC's verification is used");
    assert!(
        !verify.contains("finalize"),
        "no MAC is computed to be compared by hand"
    );
    assert!(!verify.contains("== mac") && !verify.contains("mac =="));
    let order = [".verify_slice(mac)", "Self::decode("].map(|text| verify.find(text).unwrap());
    assert!(order[0] < order[1], "authenticated before it is decoded");
}

/// A redirect is an authority for one object, for GET, for a limited time. It does not contain the client's
/// credentials.
#[tokio::test]
async fn s28_what_a_redirect_grants() {
    let blobs = MemoryBlobs::redirecting("https://objects.example/bucket");
    let open = World::with(Setup {
        blobs,
        ..Setup::default()
    })
    .await;
    let world = open
        .another(Arc::new(Users::private()), registry::Settings::default())
        .await;
    let mut keys = Vec::new();
    for (repository, bytes) in [("team/app", "one"), ("team/app", "two"), ("private/x", "three")] {
        let digest = open.push_blob(repository, bytes).await;
        let target = format!("/v2/{repository}/blobs/{digest}");
        let before = world.counts.of(StoreMethod::Read);
        let answer = world.get(target.clone()).user("alice").send().await.expect(307);
        assert_eq!(
            world.counts.of(StoreMethod::Read),
            before,
            "no request to the object store"
        );
        let url: http::Uri = answer.location().parse().unwrap();
        assert_eq!(
            url.authority().unwrap(),
            "objects.example",
            "no user or password before the host"
        );
        let key = url.path().strip_prefix("/bucket/").unwrap().to_owned();
        assert!(key.bytes().all(|byte| b"0123456789abcdef.".contains(&byte)), "{key}");
        assert!(!key.contains(&digest.hex()));
        let everything = format!("{:?}", answer.headers);
        for secret in [
            Users::password("alice"),
            "authorization".to_owned(),
            "alice".to_owned(),
            "Basic".to_owned(),
        ] {
            assert!(!everything.contains(&secret), "{everything}");
        }
        let age: u64 = answer
            .header("cache-control")
            .strip_prefix("private, max-age=")
            .unwrap()
            .parse()
            .unwrap();
        assert!(age <= 15 * 60, "a cache keeps it no longer than it works");
        keys.push(key);
        // Only GET is redirected.
        world.head(target.clone()).user("alice").send().await.expect(200);
        world.put(target.clone()).user("alice").send().await.expect(405);
        world.delete(target.clone()).user("alice").send().await.expect(202);
        // Only blobs that may be read are redirected.
        world.get(target.clone()).user("alice").send().await.expect(404);
        world.get(target.clone()).user("robot").send().await.expect(403);
        world.get(target).send().await.expect(401);
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3, "each object has a key of its own");
    let answer = world
        .get(format!("/v2/team/app/blobs/{}", sha512(b"one")))
        .user("alice")
        .send()
        .await;
    answer.expect_error(404, "BLOB_UNKNOWN");
}
