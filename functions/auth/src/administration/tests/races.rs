//! Two changes at once: the one that comes too late is made again, from what is there then. If it comes too late every time, it
//! fails, says so, and has changed nothing.

use std::sync::Arc;

use registry::store::access::{AccessStore, AccountKind, AuditEvent, PasswordHash, PolicyForm};
use registry::store::wrapped::Wrapped;

use super::super::accounts::{AccountEdit, NewAccount};
use super::super::keys::{KeyEdit, KeyEnd, NewKey};
use super::super::policies::{MadeFrom, NewPolicy};
use super::super::signing_keys::Rotation;
use super::super::{AccountVersion, Administration, AdministrationError, LastAdmin, TRIES};
use super::{BEGIN, World, alice, done, group, name};
use crate::test_rival::Rival;

/// Makes so many other accounts, one before each change.
fn race(world: &World, rival: &Rival, times: u32) {
    for number in 0..times {
        let administration = world.administration.clone();
        rival.comes_first(move || {
            let new = NewAccount::new(name(&format!("rival{number}")), AccountKind::Robot);
            done(administration.create(&alice(), new)).unwrap();
        });
    }
}

type Change = fn(&Administration) -> Result<(), AdministrationError>;

/// Every change of administration.
const CHANGES: [(&str, Change); 12] = [
    ("create", |all| {
        done(all.create(&alice(), NewAccount::new(name("new"), AccountKind::User))).map(drop)
    }),
    ("create before administrators", |all| {
        let new = NewAccount::new(name("new"), AccountKind::User);
        done(all.create_before_admins(&alice(), new)).map(drop)
    }),
    ("change", |all| {
        let edit = AccountEdit {
            remove_groups: [group("ops")].into(),
            ..AccountEdit::default()
        };
        done(all.change(&alice(), (&name("zoe")).into(), &edit, LastAdmin::Stays)).map(drop)
    }),
    ("disable", |all| {
        let edit = AccountEdit {
            disabled: Some(true),
            ..AccountEdit::default()
        };
        done(all.change(&alice(), (&name("zoe")).into(), &edit, LastAdmin::Stays)).map(drop)
    }),
    ("password", |all| {
        let hash = PasswordHash::new("other".into());
        done(all.set_password(&alice(), &name("zoe"), hash)).map(drop)
    }),
    ("remove", |all| {
        done(all.remove(&alice(), (&name("zoe")).into(), LastAdmin::Stays)).map(drop)
    }),
    ("add a key", |all| {
        let new = NewKey {
            scope: None,
            expires: None,
        };
        done(all.add_key(&alice(), (&name("zoe")).into(), &new)).map(drop)
    }),
    ("change a key", |all| {
        let account = done(all.account((&name("zoe")).into()))?;
        let id = *account.keys.keys().next().unwrap();
        let edit = KeyEdit {
            scope: None,
            expires: Some(KeyEnd::At(BEGIN.plus_millis(1_000_000))),
        };
        done(all.change_key(&alice(), (&name("zoe")).into(), id, &edit)).map(drop)
    }),
    ("rotate a key", |all| {
        let account = done(all.account((&name("zoe")).into()))?;
        let id = *account.keys.keys().next().unwrap();
        done(all.rotate_key(&alice(), (&name("zoe")).into(), id, 1000, None)).map(drop)
    }),
    ("remove a key", |all| {
        let account = done(all.account((&name("zoe")).into()))?;
        let id = *account.keys.keys().next().unwrap();
        done(all.remove_key(&alice(), (&name("zoe")).into(), id)).map(drop)
    }),
    ("set the policy", |all| {
        let new = NewPolicy {
            form: PolicyForm::Toml,
            source: "syntax = 1".into(),
            note: None,
            made_from: MadeFrom::Any,
        };
        done(all.set_policy(&alice(), &new)).map(drop)
    }),
    ("rotate signing keys", |all| {
        done(all.rotate_signing_keys(&alice(), Rotation::Now)).map(drop)
    }),
];

/// A user with a key, a signing key, and administration that a rival comes before.
fn world() -> (World, Administration, Rival) {
    let world = World::new();
    world.user("zoe", &["ops"]);
    let new = NewKey {
        scope: None,
        expires: None,
    };
    done(world.administration.add_key(&alice(), (&name("zoe")).into(), &new)).unwrap();
    done(world.administration.rotate_signing_keys(&alice(), Rotation::Now)).unwrap();
    world.pass(1);
    let inner: Arc<dyn AccessStore> = world.store.clone();
    let rival = Rival::default();
    let raced = world.through(Arc::new(Wrapped::new(inner, rival.clone())));
    (world, raced, rival)
}

/// How many changes of rivals, and others, the audit trail has of the present time.
fn recorded(world: &World) -> (usize, usize) {
    let now = world.pass(0);
    let events = world.events();
    let of_rivals = |event: &&AuditEvent| event.reference.as_deref().unwrap_or_default().starts_with("rival");
    let (rivals, others): (Vec<_>, Vec<_>) = events.iter().filter(|event| event.at == now).partition(of_rivals);
    (rivals.len(), others.len())
}

#[test]
fn a_change_that_came_too_late_is_made_from_what_is_there_then() {
    for (what, change) in CHANGES {
        let (world, raced, rival) = world();
        let before = world.state();
        race(&world, &rival, TRIES - 1);
        change(&raced).unwrap();
        assert_eq!(rival.left(), 0, "{what}");
        // All of them were made, and each is recorded once.
        assert_eq!(world.state().version, before.version + u64::from(TRIES), "{what}");
        assert!((0..TRIES - 1).all(|number| world.account(&format!("rival{number}")).is_some()));
        assert_eq!(recorded(&world), (9, 1), "{what}");
        world.check_counts();
    }
}

#[test]
fn a_race_that_is_lost_every_time_is_told_and_changes_nothing() {
    for (what, change) in CHANGES {
        let (world, raced, rival) = world();
        let seeds = || done(world.store.token_seeds(world.administration.cx())).unwrap();
        let (before, zoe, keys) = (world.state(), world.account("zoe"), seeds());
        race(&world, &rival, TRIES);
        let error = change(&raced).unwrap_err();
        assert!(matches!(error, AdministrationError::Conflict), "{what}: {error}");
        assert!(error.to_string().contains("nothing was changed"), "{what}");
        assert_eq!(rival.left(), 0, "{what}");
        // Only the other changes were made.
        let (after, tries) = (world.state(), u64::from(TRIES));
        assert_eq!(
            (after.version, after.accounts),
            (before.version + tries, before.accounts + tries),
            "{what}"
        );
        assert_eq!((after.policy, &after.keys), (before.policy, &before.keys), "{what}");
        assert_eq!((world.account("zoe"), seeds()), (zoe, keys), "{what}");
        assert_eq!(recorded(&world), (10, 0), "{what}");
        // Made again, it succeeds.
        change(&raced).unwrap();
        world.check_counts();
    }
}

/// What a change is meant for is asked again each time.
#[test]
fn a_change_of_what_another_one_has_changed_is_refused() {
    let join = |world: &World, rival: &Rival| {
        let administration = world.administration.clone();
        rival.comes_first(move || {
            let edit = AccountEdit {
                add_groups: [group("admins")].into(),
                ..AccountEdit::default()
            };
            done(administration.change(&alice(), (&name("zoe")).into(), &edit, LastAdmin::Stays)).unwrap();
        });
    };
    // Before it, there was no administrator.
    let (world_one, raced, rival) = world();
    join(&world_one, &rival);
    let new = NewAccount::new(name("new"), AccountKind::User);
    let refused = done(raced.create_before_admins(&alice(), new)).unwrap_err();
    assert!(matches!(refused, AdministrationError::HasAdmin), "{refused}");
    assert_eq!(world_one.account("new"), None);
    // Before it, zoe was none.
    let (world_two, raced, rival) = world();
    join(&world_two, &rival);
    let removed = done(raced.remove(&alice(), (&name("zoe")).into(), LastAdmin::Stays)).unwrap_err();
    assert!(matches!(removed, AdministrationError::LastAdmin(_)), "{removed}");
    assert!(world_two.account("zoe").is_some());
    // Before it, zoe had the version that is to be changed.
    let (world_three, raced, rival) = world();
    join(&world_three, &rival);
    let version = AccountVersion::of(&world_three.account("zoe").unwrap());
    let disable = AccountEdit {
        disabled: Some(true),
        ..AccountEdit::default()
    };
    let changed = raced.of_version(version);
    let changed = done(changed.change(&alice(), (&name("zoe")).into(), &disable, LastAdmin::MayGo)).unwrap_err();
    assert!(matches!(changed, AdministrationError::AccountChanged(_)), "{changed}");
    // Before it, the default policy was in force.
    let (world_four, raced, rival) = world();
    let policy = |made_from| NewPolicy {
        form: PolicyForm::Toml,
        source: "syntax = 1".into(),
        note: None,
        made_from,
    };
    let (administration, any) = (world_four.administration.clone(), policy(MadeFrom::Any));
    rival.comes_first(move || drop(done(administration.set_policy(&alice(), &any)).unwrap()));
    let set = done(raced.set_policy(&alice(), &policy(MadeFrom::Version(None)))).unwrap_err();
    assert!(matches!(set, AdministrationError::PolicyConflict { .. }), "{set}");
}
