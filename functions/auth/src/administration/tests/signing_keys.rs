use std::sync::atomic::Ordering;

use registry::store::Timestamp;
use registry::store::access::{AccessStore as _, AuditKind, KeyId, Withdrawn};

use super::super::AdministrationError;
use super::super::signing_keys::{Rotation, SigningKeyCondition, SigningKeyEntry};
use super::{BEGIN, World, alice, done};
use crate::key_set::KeySet;
use crate::signing_key::TokenSigner;

const PUBLISHED: Rotation = Rotation::Published(Rotation::PUBLISHED_MS);
const HOUR_MS: u64 = 3_600_000;

fn rotate(world: &World, rotation: Rotation) -> Result<SigningKeyEntry, AdministrationError> {
    done(world.administration.rotate_signing_keys(&alice(), rotation))
}

fn conditions(world: &World) -> Vec<&'static str> {
    let keys = done(world.administration.signing_keys()).unwrap();
    keys.iter().map(|entry| entry.condition.as_str()).collect()
}

fn seeds(world: &World) -> Vec<KeyId> {
    let seeds = done(world.store.token_seeds(world.administration.cx())).unwrap();
    assert!(seeds.iter().all(|seed| TokenSigner::from_stored(seed).is_ok()));
    seeds.into_iter().map(|seed| seed.kid).collect()
}

#[test]
fn a_new_key_is_published_before_it_signs_and_the_old_one_verifies_its_last_token() {
    let world = World::new();
    assert!(conditions(&world).is_empty());
    // The first key of a registry signs at once: there is no other one.
    let first = rotate(&world, PUBLISHED).unwrap();
    assert_eq!((first.condition, first.key.from), (SigningKeyCondition::Signing, BEGIN));
    assert_eq!(seeds(&world), [first.key.kid]);
    assert_eq!(conditions(&world), ["signing"]);

    let now = world.pass(1);
    let second = rotate(&world, PUBLISHED).unwrap();
    assert_eq!(second.condition, SigningKeyCondition::Published);
    assert_eq!(second.key.from, now.plus_millis(Rotation::PUBLISHED_MS));
    assert_eq!(conditions(&world), ["signing", "published"]);
    let event = world.last_event();
    assert_eq!(event.event, AuditKind::SigningKeyRotated);
    assert_eq!(
        (event.before, event.after),
        (Some(first.key.kid.to_string()), Some(second.key.kid.to_string()))
    );
    // At every time one key signs, and all that have signed verify.
    let signs = |now| KeySet::new(&world.state().keys).signs_at(now);
    assert_eq!(signs(second.key.from.plus_millis(0)), Some(second.key.kid));
    let last = world.pass(Rotation::PUBLISHED_MS - 1);
    assert_eq!(signs(last), Some(first.key.kid));
    world.pass(1);
    assert_eq!(conditions(&world), ["verifying", "signing"]);
    // The last token of the first key was signed just before.
    let ends = last.plus_millis(Withdrawn::LIFETIME_MS);
    assert!(KeySet::new(&world.state().keys).find(first.key.kid, ends).is_some());
    world.pass(Withdrawn::LIFETIME_MS);
    assert_eq!(conditions(&world), ["ended", "signing"]);

    // The next rotation forgets it, with its seed.
    let third = rotate(&world, PUBLISHED).unwrap();
    assert_eq!(conditions(&world), ["signing", "published"]);
    let mut expected = [second.key.kid, third.key.kid];
    expected.sort();
    assert_eq!(seeds(&world), expected);
}

/// A key that would have begun to sign after its successor never signs. It verifies like every key that was replaced: an
/// instance that does not know its successor yet may sign with it.
#[test]
fn a_key_that_is_replaced_before_it_signs_never_signs() {
    let world = World::new();
    let first = rotate(&world, PUBLISHED).unwrap();
    world.pass(1);
    let replaced = rotate(&world, Rotation::Published(HOUR_MS)).unwrap();
    assert_eq!(conditions(&world), ["signing", "published"]);
    let now = world.pass(1);
    let last = rotate(&world, PUBLISHED).unwrap();
    assert_eq!(conditions(&world), ["signing", "published", "published"]);
    let set = KeySet::new(&world.state().keys);
    for (later, signs) in [
        (0, first.key.kid),
        (Rotation::PUBLISHED_MS - 1, first.key.kid),
        (Rotation::PUBLISHED_MS, last.key.kid),
        (HOUR_MS - 1, last.key.kid),
        (HOUR_MS, last.key.kid),
        (2 * HOUR_MS, last.key.kid),
    ] {
        assert_eq!(set.signs_at(now.plus_millis(later)), Some(signs), "{later} ms later");
    }
    assert!(set.find(replaced.key.kid, replaced.key.from).is_some());
    world.pass(Rotation::PUBLISHED_MS);
    assert_eq!(conditions(&world), ["verifying", "verifying", "signing"]);
    world.pass(Withdrawn::LIFETIME_MS);
    assert_eq!(conditions(&world), ["ended", "ended", "signing"]);
}

/// The clock of the instance that made the first key was an hour ahead.
#[test]
fn a_key_that_signs_before_its_time_is_replaced() {
    let world = World::new();
    let first = rotate(&world, PUBLISHED).unwrap();
    world.clock.now.fetch_sub(HOUR_MS, Ordering::Relaxed);
    let next = rotate(&world, PUBLISHED).unwrap();
    let set = KeySet::new(&world.state().keys);
    for (before_next, signs) in [
        (Rotation::PUBLISHED_MS, first.key.kid),
        (1, first.key.kid),
        (0, next.key.kid),
    ] {
        let at = Timestamp(next.key.from.0 - before_next);
        assert_eq!(set.signs_at(at), Some(signs), "{before_next}");
    }
    for at in [BEGIN, BEGIN.plus_millis(HOUR_MS)] {
        assert_eq!(set.signs_at(at), Some(next.key.kid), "{at:?}");
    }
}

#[test]
fn a_key_that_others_may_know_is_replaced_at_once() {
    let world = World::new();
    let first = rotate(&world, PUBLISHED).unwrap();
    let now = world.pass(Rotation::PUBLISHED_MS);
    let second = rotate(&world, Rotation::Now).unwrap();
    assert_eq!((second.key.from, second.condition), (now, SigningKeyCondition::Signing));
    let set = KeySet::new(&world.state().keys);
    assert!(set.find(first.key.kid, now).is_none());
    assert_eq!(set.signs_at(now), Some(second.key.kid));
    assert_eq!(seeds(&world), [second.key.kid]);
    assert!(world.last_event().detail.is_some());
}

#[test]
fn twenty_rotations_at_once_leave_one_key_that_signs() {
    let world = World::new();
    for _ in 0..21 {
        rotate(&world, Rotation::Published(1000)).unwrap();
        let now = world.pass(1000);
        let set = KeySet::new(&world.state().keys);
        assert_eq!(set.signs_at(now), world.state().keys.last().map(|key| key.kid));
        assert!(world.state().keys.iter().all(|key| set.find(key.kid, now).is_some()));
    }
    for _ in 21..Rotation::MAX_KEYS {
        rotate(&world, Rotation::Published(1000)).unwrap();
    }
    let (state, before) = (world.state(), seeds(&world));
    let error = rotate(&world, PUBLISHED).unwrap_err();
    assert!(
        matches!(error, AdministrationError::TooManySigningKeys { .. }),
        "{error}"
    );
    assert_eq!((world.state(), seeds(&world)), (state.clone(), before));
    // The state with all of them is still one unit of a read.
    assert!(serde_json::to_string(&state).unwrap().len() < 4096);
    rotate(&world, Rotation::Now).unwrap();
    assert_eq!(conditions(&world), ["signing"]);
}

#[test]
fn seeds_of_failed_rotations_are_removed_by_the_next() {
    let world = World::new();
    let orphan = TokenSigner::new_seed(&*world.clock);
    done(world.store.add_token_seed(world.administration.cx(), &orphan)).unwrap();
    let key = rotate(&world, PUBLISHED).unwrap();
    assert_eq!(seeds(&world), [key.key.kid]);
}
