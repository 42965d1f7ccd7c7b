//! Keys that were rotated: the old one until its end, and the new one.

use registry::auth::{Actions, CredentialId};
use registry::environment::Environment as _;
use registry::store::access::AccountKey;
use registry::token_endpoint::TokenRefusal;

use super::support::{World, account, basic, bearer, get_token, grant, login, token};
use crate::administration::{Administration, Author};
use crate::key::Key;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Every form in which a client sends a key.
#[tokio::test]
async fn a_rotated_key_logs_in_until_the_overlap_ends_and_not_after() {
    let (world, old) = World::new().await;
    let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
    let ci = account("ci");
    let instances = [world.instance(), world.instance()];
    let by = |id: CredentialId| format!("robot:ci by {id}");
    assert_eq!(login(&instances[0], &bearer(old.expose())).await, by(old.id()));
    let rotated = administration
        .rotate_key(&Author::operator(), (&ci).into(), old.id(), DAY_MS, None)
        .await
        .unwrap();
    let new = rotated.new.key;
    world.clock.pass(DAY_MS - 1);
    let forms = |key: &Key| {
        [
            bearer(key.expose()),
            basic("ci", key.expose()),
            basic("key", key.expose()),
        ]
    };
    let last = token(&instances[0], &bearer(old.expose()), "repository:ci/x:pull").await;
    for instance in &instances {
        for key in [&old, &new] {
            for credentials in forms(key) {
                assert_eq!(login(instance, &credentials).await, by(key.id()));
                assert!(get_token(instance, &credentials, "").await.is_ok());
            }
        }
    }
    world.clock.pass(1);
    for instance in &instances {
        for credentials in forms(&old) {
            assert!(
                login(instance, &credentials).await.starts_with("401"),
                "{credentials:?}"
            );
            let refusal = get_token(instance, &credentials, "").await.unwrap_err();
            assert!(
                matches!(&refusal, TokenRefusal::InvalidGrant(text) if *text == "the key has expired"),
                "{refusal:?}"
            );
        }
        for credentials in forms(&new) {
            assert_eq!(login(instance, &credentials).await, by(new.id()));
        }
        // A token that it got before is good for the rest of its time.
        assert_eq!(login(instance, &bearer(&last)).await, by(old.id()));
    }
    world.clock.pass(661_000);
    assert_eq!(login(&instances[0], &bearer(&last)).await, "401 invalid_token");
}

/// Keys that end are counted for the operator, and the end of one that was replaced is nothing to do.
#[tokio::test]
async fn a_key_with_a_successor_does_not_count_as_ending_soon() {
    let scope = |actions: Actions| Some(vec![grant("ci/**", actions)]);
    // The first key ends in a day. What it and the other one allow, how much later the other one was made, after how many days
    // that one ends, and how many of them count.
    let cases = [
        ("rotated", None, None, 1, None, 0),
        ("rotated, and the new one ends later", None, None, 1, Some(90), 0),
        (
            "rotated with its scope",
            scope(Actions::PULL),
            scope(Actions::PULL),
            1,
            None,
            0,
        ),
        ("the new one allows everything", scope(Actions::PULL), None, 1, None, 0),
        ("the new one ends soon too, and later", None, None, 1, Some(2), 1),
        ("the new one has ended", None, None, 1, Some(0), 1),
        ("they end together", None, None, 1, Some(1), 2),
        ("the new one allows less", None, scope(Actions::PULL), 1, None, 1),
        (
            "the new one allows something else",
            scope(Actions::PULL),
            Some(vec![grant("other/**", Actions::PULL)]),
            1,
            None,
            1,
        ),
        ("the other one was there before", None, None, 0, None, 1),
    ];
    for (what, first, other, later, days, expected) in cases {
        let (world, key) = World::new().await;
        world.clock.pass(1);
        let now = world.clock.now();
        let another = Key::generate(&account("ci"), &*world.clock);
        world
            .change("ci", |ci| {
                for old in ci.keys.values_mut() {
                    old.scope.clone_from(&first);
                    old.expires = Some(now.plus_millis(DAY_MS));
                }
                let created = ci.keys[&key.id()].created.plus_millis(later);
                let record = AccountKey {
                    scope: other,
                    created,
                    expires: days.map(|days| now.plus_millis(days * DAY_MS)),
                    ..world.account_key(&another)
                };
                ci.keys.insert(another.id(), record);
            })
            .await;
        let instance = world.instance();
        let by_key = login(&instance, &bearer(key.expose())).await;
        assert!(by_key.starts_with("robot:ci"), "{what}: {by_key}");
        assert_eq!(instance.statistics().keys_ending_soon, expected, "{what}");
    }
}
