use registry::auth::CredentialId;
use registry::store::Timestamp;
use registry::store::access::{Account, AuditKind, Withdrawn};

use super::super::keys::{IssuedKey, KeyEdit, KeyEnd, MAX_OVERLAP_MS, NewKey};
use super::super::{AccountRef, AdministrationError};
use super::{BEGIN, World, alice, done, name};
use crate::grant;
use crate::key::Key;

const ENDLESS: NewKey = NewKey {
    scope: None,
    expires: None,
};

fn add(world: &World, new: &NewKey) -> Result<IssuedKey, AdministrationError> {
    done(world.administration.add_key(&alice(), (&name("zoe")).into(), new))
}

fn until(expires: Timestamp) -> NewKey {
    NewKey {
        expires: Some(expires),
        ..ENDLESS
    }
}

fn is_withdrawn(world: &World, id: CredentialId) -> bool {
    let zoe = world.account("zoe").unwrap();
    let state = world.state();
    state
        .withdrawn
        .contains(&zoe.principal(), zoe.generation, Some(id), BEGIN)
}

#[test]
fn a_key_is_stored_as_a_hash_with_its_scope_and_end() {
    let world = World::new();
    let before = world.user("zoe", &[]);
    let scope: Vec<_> = ["pull:a/**", "create:a/**"]
        .map(|text| grant::parse(text).unwrap())
        .into();
    let new = NewKey {
        scope: Some(scope),
        expires: Some(BEGIN.plus_millis(100)),
    };
    let issued = add(&world, &new).unwrap();
    let stored = world.account("zoe").unwrap();
    let record = &stored.keys[&issued.id];
    assert_eq!(record, &issued.record);
    assert!(Key::parse(issued.key.expose()).unwrap().matches(&record.hash));
    assert_eq!(record.scope, Some(vec![grant::parse("pull,create:a/**").unwrap()]));
    assert_eq!((record.expires, record.by.as_str()), (new.expires, "alice"));
    // A further key takes nothing away.
    assert_eq!(stored.generation, before.generation);
    assert_eq!(world.state().withdrawn, Withdrawn::default());
    let event = world.last_event();
    assert_eq!(
        (event.event, event.reference),
        (AuditKind::KeyCreated, Some(format!("zoe.{}", issued.id)))
    );
    let printed = format!("{:?} {issued:?}", world.events());
    assert!(!printed.contains(&issued.key.expose()[20..]));
}

#[test]
fn a_key_must_end_later_and_allow_something() {
    let world = World::new();
    world.user("zoe", &[]);
    let now = world.pass(0);
    assert!(matches!(add(&world, &until(now)), Err(AdministrationError::Expired)));
    add(&world, &until(now.plus_millis(1))).unwrap();
    let scope = |count: usize| NewKey {
        scope: Some(
            (0..count)
                .map(|number| grant::parse(&format!("pull:r{number}")).unwrap())
                .collect(),
        ),
        ..ENDLESS
    };
    add(&world, &scope(Account::MAX_GRANTS)).unwrap();
    let error = add(&world, &scope(Account::MAX_GRANTS + 1)).unwrap_err();
    assert!(matches!(error, AdministrationError::TooMany { .. }));
    assert_eq!(world.account("zoe").unwrap().keys.len(), 2);
}

#[test]
fn the_number_of_keys_is_bounded_and_those_that_ended_make_room() {
    let world = World::new();
    world.user("zoe", &[]);
    let now = world.pass(0);
    let first = add(&world, &until(now.plus_millis(2))).unwrap();
    let second = add(&world, &until(now.plus_millis(1))).unwrap();
    for _ in 2..Account::MAX_KEYS {
        add(&world, &ENDLESS).unwrap();
    }
    // They have ended, and tokens that were issued for them have not.
    world.pass(2);
    let error = add(&world, &ENDLESS).unwrap_err();
    assert!(
        matches!(
            error,
            AdministrationError::TooMany {
                what: "keys",
                found: 21,
                maximum: 20,
                ..
            }
        ),
        "{error}"
    );
    world.pass(Withdrawn::LIFETIME_MS);
    for gone in [second.id, first.id] {
        assert!(world.account("zoe").unwrap().keys.contains_key(&gone));
        add(&world, &ENDLESS).unwrap();
        let keys = world.account("zoe").unwrap().keys;
        assert!(keys.len() == Account::MAX_KEYS && !keys.contains_key(&gone));
    }
    assert!(add(&world, &ENDLESS).is_err());
}

#[test]
fn a_removed_key_takes_its_tokens_with_it() {
    let world = World::new();
    let before = world.user("zoe", &[]);
    let (one, other) = (add(&world, &ENDLESS).unwrap(), add(&world, &ENDLESS).unwrap());
    let zoe = name("zoe");
    let reference = AccountRef::from(&zoe);
    done(world.administration.remove_key(&alice(), reference, one.id)).unwrap();
    let stored = world.account("zoe").unwrap();
    assert_eq!(stored.keys.keys().copied().collect::<Vec<_>>(), [other.id]);
    assert_eq!(stored.generation, before.generation);
    assert!(is_withdrawn(&world, one.id) && !is_withdrawn(&world, other.id));
    assert_eq!(world.last_event().event, AuditKind::KeyRevoked);
    let again = done(world.administration.remove_key(&alice(), reference, one.id)).unwrap_err();
    assert_eq!(again.to_string(), format!("zoe has no key {}", one.id));
}

/// All accounts share the list of what was withdrawn. An account that removes its keys cannot fill it, which would end the tokens
/// of all others.
#[test]
fn an_account_that_removes_many_keys_takes_few_entries() {
    let world = World::new();
    let other = world.user("other", &[]);
    let first = world.user("zoe", &[]);
    let zoe = name("zoe");
    let remove = |id| done(world.administration.remove_key(&alice(), (&zoe).into(), id)).unwrap();
    let mut removed = Vec::new();
    for number in 0..300 {
        let key = add(&world, &ENDLESS).unwrap();
        removed.push((key.id, world.account("zoe").unwrap().generation));
        world.pass(1);
        remove(key.id);
        let withdrawn = world.state().withdrawn;
        assert!(withdrawn.keys.len() <= Withdrawn::MAX_KEYS, "{number}");
        assert!(
            withdrawn.principals.len() <= 1 && withdrawn.all_before.is_none(),
            "{number}"
        );
    }
    let (withdrawn, account) = (world.state().withdrawn, world.account("zoe").unwrap());
    assert!(account.generation > first.generation);
    let now = world.pass(0);
    for (id, generation) in removed {
        assert!(
            withdrawn.contains(&account.principal(), generation, Some(id), now),
            "{id}"
        );
    }
    assert!(!withdrawn.contains(&account.principal(), account.generation, None, now));
    assert!(!withdrawn.contains(&other.principal(), other.generation, None, now));
    // When these entries have ended, a key has one of its own again, and the other tokens of its account stay.
    let key = add(&world, &ENDLESS).unwrap();
    world.pass(Withdrawn::LIFETIME_MS);
    remove(key.id);
    let withdrawn = world.state().withdrawn;
    assert_eq!((withdrawn.principals.len(), withdrawn.keys.len()), (0, 1));
    assert_eq!(world.account("zoe").unwrap().generation, account.generation);
}

/// A key that has ended makes room for another one. No token of it is left, so nothing is withdrawn.
#[test]
fn a_key_that_makes_room_withdraws_nothing() {
    let world = World::new();
    world.user("zoe", &[]);
    let now = world.pass(0);
    for _ in 0..Account::MAX_KEYS {
        add(&world, &until(now.plus_millis(1))).unwrap();
    }
    world.pass(1 + Withdrawn::LIFETIME_MS);
    add(&world, &ENDLESS).unwrap();
    assert_eq!(world.account("zoe").unwrap().keys.len(), Account::MAX_KEYS);
    assert_eq!(world.state().withdrawn, Withdrawn::default());
}

#[test]
fn a_rotated_key_works_until_the_overlap_ends() {
    let world = World::new();
    world.user("zoe", &[]);
    let scoped = NewKey {
        scope: Some(vec![grant::parse("pull:**").unwrap()]),
        expires: None,
    };
    let zoe = name("zoe");
    let rotate = |id, overlap_ms, expires| {
        done(
            world
                .administration
                .rotate_key(&alice(), (&zoe).into(), id, overlap_ms, expires),
        )
    };
    let old = add(&world, &scoped).unwrap();
    let now = world.pass(10);
    let ends = Some(now.plus_millis(1000));
    let rotated = rotate(old.id, 50, ends).unwrap();
    assert_eq!(rotated.old_ends, Some(now.plus_millis(50)));
    let keys = world.account("zoe").unwrap().keys;
    assert_eq!(keys[&old.id].expires, rotated.old_ends);
    assert_eq!(keys[&rotated.new.id].expires, ends);
    assert_eq!(keys[&rotated.new.id].scope, scoped.scope);
    assert!(!is_withdrawn(&world, old.id));
    let event = world.last_event();
    assert_eq!(
        (event.event, event.reference),
        (AuditKind::KeyRotated, Some(format!("zoe.{}", old.id)))
    );
    assert_eq!(event.after, Some(format!("zoe.{}", rotated.new.id)));

    // An overlap does not make a key live longer.
    let longer = rotate(old.id, 5000, None).unwrap();
    assert_eq!(longer.old_ends, rotated.old_ends);
    world.pass(50);
    assert!(matches!(
        rotate(old.id, 1, None),
        Err(AdministrationError::KeyEnded { .. })
    ));
    // Without an overlap the old one is removed.
    let at_once = rotate(longer.new.id, 0, None).unwrap();
    assert_eq!(at_once.old_ends, None);
    assert!(!world.account("zoe").unwrap().keys.contains_key(&longer.new.id));
    assert!(is_withdrawn(&world, longer.new.id) && !is_withdrawn(&world, at_once.new.id));
    assert!(matches!(
        rotate("unknown0".parse().unwrap(), 1, None),
        Err(AdministrationError::NoKey { .. })
    ));
}

/// A longer one would make a time that no store and no export has to keep.
#[test]
fn an_overlap_has_at_most_365_days() {
    let world = World::new();
    world.user("zoe", &[]);
    let zoe = name("zoe");
    let key = add(&world, &ENDLESS).unwrap();
    let rotate = |overlap_ms| {
        done(
            world
                .administration
                .rotate_key(&alice(), (&zoe).into(), key.id, overlap_ms, None),
        )
    };
    let before = world.account("zoe").unwrap();
    for overlap_ms in [MAX_OVERLAP_MS + 1, u64::MAX] {
        assert!(matches!(rotate(overlap_ms), Err(AdministrationError::LongOverlap)));
    }
    assert_eq!(world.account("zoe").unwrap(), before);
    let rotated = rotate(MAX_OVERLAP_MS).unwrap();
    assert_eq!(rotated.old_ends, Some(world.pass(0).plus_millis(MAX_OVERLAP_MS)));
}

/// A scope of a key before a change and after it, and whether tokens of the account are withdrawn.
type ScopeCase<'a> = (Option<&'a [&'a str]>, &'a [&'a str], bool);

#[test]
fn a_key_that_loses_a_part_of_its_scope_withdraws_tokens() {
    let scope = |texts: &[&str]| -> Vec<_> { texts.iter().map(|text| grant::parse(text).unwrap()).collect() };
    let cases: [ScopeCase<'_>; 6] = [
        (None, &["pull:**"], true),
        (Some(&["pull:a/**"]), &["pull:a/**", "pull:b"], false),
        (Some(&["pull:a/**"]), &["pull,push:a/**"], false),
        (Some(&["pull,push:a/**"]), &["pull:a/**"], true),
        (Some(&["pull:a/**", "pull:b"]), &["pull:b"], true),
        (Some(&["pull:a/**"]), &[], true),
    ];
    for (before, after, is_withdrawn) in cases {
        let world = World::new();
        let account = world.user("zoe", &[]);
        let new = NewKey {
            scope: before.map(scope),
            ..ENDLESS
        };
        let key = add(&world, &new).unwrap();
        world.pass(10);
        let edit = KeyEdit {
            scope: Some(scope(after)),
            expires: None,
        };
        let zoe = name("zoe");
        let changed = done(world.administration.change_key(&alice(), (&zoe).into(), key.id, &edit)).unwrap();
        assert!(changed.is_changed());
        let stored = world.account("zoe").unwrap();
        assert_eq!(stored, changed.into_inner());
        assert_eq!(stored.keys[&key.id].scope, Some(scope(after)));
        assert_eq!(stored.keys[&key.id].hash, key.record.hash);
        assert_eq!(
            stored.generation > account.generation,
            is_withdrawn,
            "{before:?} {after:?}"
        );
        let withdrawn = world.state().withdrawn;
        let tokens = withdrawn.contains(&stored.principal(), account.generation, Some(key.id), BEGIN);
        assert_eq!(tokens, is_withdrawn, "{before:?} {after:?}");
        // New tokens of the key are good.
        assert!(!withdrawn.contains(&stored.principal(), stored.generation, Some(key.id), BEGIN));
        assert_eq!(world.last_event().event, AuditKind::KeyChanged);
    }
}

#[test]
fn the_end_of_a_key_is_changed_until_it_has_come() {
    let world = World::new();
    world.user("zoe", &[]);
    let now = world.pass(0);
    let key = add(&world, &until(now.plus_millis(1000))).unwrap();
    let zoe = name("zoe");
    let change = |expires: Option<Timestamp>| {
        let edit = KeyEdit {
            scope: None,
            expires: Some(expires.map_or(KeyEnd::Never, KeyEnd::At)),
        };
        done(world.administration.change_key(&alice(), (&zoe).into(), key.id, &edit))
    };
    let ends = || world.account("zoe").unwrap().keys[&key.id].expires;
    for expires in [None, Some(now.plus_millis(2000)), Some(now.plus_millis(50))] {
        assert!(change(expires).unwrap().is_changed());
        assert_eq!(ends(), expires);
        assert!(!change(expires).unwrap().is_changed());
    }
    assert!(matches!(change(Some(now)), Err(AdministrationError::Expired)));
    let now = world.pass(50);
    let late = change(Some(now.plus_millis(1000)));
    assert!(matches!(late, Err(AdministrationError::KeyEnded { .. })));
    assert_eq!(ends(), Some(now));
    let unknown = "00000000".parse().unwrap();
    let unknown = done(
        world
            .administration
            .change_key(&alice(), (&zoe).into(), unknown, &KeyEdit::default()),
    );
    assert!(matches!(unknown, Err(AdministrationError::NoKey { .. })));
}
