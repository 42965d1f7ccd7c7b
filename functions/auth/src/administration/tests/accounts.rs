use registry::auth::Principal;
use registry::store::access::{Account, AccountKind, AuditKind, PasswordHash, Withdrawn};

use super::super::accounts::{AccountEdit, NewAccount};
use super::super::keys::NewKey;
use super::super::{AccountRef, AdministrationError, Author, LastAdmin};
use super::{BEGIN, World, alice, done, group, name};
use crate::grant;

fn edit(change: impl FnOnce(&mut AccountEdit)) -> AccountEdit {
    let mut edit = AccountEdit::default();
    change(&mut edit);
    edit
}

fn grants(texts: &[&str]) -> Vec<registry::auth::RepositoryGrant> {
    texts.iter().map(|text| grant::parse(text).unwrap()).collect()
}

/// Whether a token of this account that was issued before is refused now.
fn is_withdrawn(world: &World, before: &Account) -> bool {
    let state = world.state();
    state
        .withdrawn
        .contains(&before.principal(), before.generation, None, BEGIN)
}

#[test]
fn an_account_is_made_once_and_recorded() {
    let world = World::new();
    let made = world.user("zoe", &["payments", "admins"]);
    assert_eq!(world.account("zoe"), Some(made.clone()));
    assert_eq!(
        (made.by.as_str(), made.created, made.disabled),
        ("alice", BEGIN.plus_millis(1), false)
    );
    assert_eq!(made.generation, made.created.0);
    let state = world.state();
    assert_eq!(
        (state.version, state.accounts, state.admins, state.had_admin),
        (1, 1, 1, true)
    );
    let event = world.last_event();
    assert_eq!(
        (event.event, event.reference.as_deref()),
        (AuditKind::AccountCreated, Some("zoe"))
    );
    assert_eq!(event.after.as_deref(), Some("user; groups admins payments"));
    assert_eq!(event.principal, "alice");
    assert_eq!(event.credential, alice().credential);
    assert_eq!((event.address, event.request), (alice().address, alice().request));

    // Users and robots share one name space.
    for kind in [AccountKind::User, AccountKind::Robot] {
        let again = done(
            world
                .administration
                .create(&alice(), NewAccount::new(name("zoe"), kind)),
        );
        assert!(matches!(
            again,
            Err(AdministrationError::Exists {
                kind: AccountKind::User,
                ..
            })
        ));
    }
    assert_eq!((world.state().version, world.events().len()), (1, 1));
}

#[test]
fn a_robot_gets_its_first_key_with_its_account() {
    let world = World::new();
    let new = NewAccount {
        grants: grants(&["pull:payments/**", "create:payments/**"]),
        key: Some(NewKey {
            scope: None,
            expires: None,
        }),
        ..NewAccount::new(name("ci"), AccountKind::Robot)
    };
    let created = done(world.administration.create(&Author::operator(), new)).unwrap();
    let key = created.key.unwrap();
    let stored = world.account("ci").unwrap();
    assert_eq!(stored.grants, grants(&["pull,create:payments/**"]));
    assert!(key.key.matches(&stored.keys[&key.id].hash) && stored.keys.len() == 1);
    let event = world.last_event();
    assert_eq!(event.principal, Author::OPERATOR);
    assert!(Author::OPERATOR.parse::<Principal>().is_err(), "it is nobody's text");
    assert_eq!(event.detail, Some(format!("with the key {}", key.id)));
    // One change, and nothing secret in its row.
    assert_eq!((world.state().version, world.events().len()), (1, 1));
    let secret = &key.key.expose()[key.key.expose().len() - 40..];
    assert!(!format!("{:?}", world.events()).contains(secret));
}

#[test]
fn what_is_taken_away_withdraws_tokens_and_what_is_added_does_not() {
    let world = World::new();
    let administration = &world.administration;
    let change = |account: &str, edit: AccountEdit| {
        world.pass(10);
        let name = name(account);
        let changed = done(administration.change(&alice(), (&name).into(), &edit, LastAdmin::Stays)).unwrap();
        world.check_counts();
        changed
    };
    world.user("root", &["admins"]);
    world.user("zoe", &["payments"]);
    let new = NewAccount {
        grants: grants(&["pull:a/**"]),
        ..NewAccount::new(name("ci"), AccountKind::Robot)
    };
    done(administration.create(&alice(), new)).unwrap();
    let added = |groups: &[&str]| edit(|edit| edit.add_groups = groups.iter().map(|text| group(text)).collect());
    let left = |groups: &[&str]| edit(|edit| edit.remove_groups = groups.iter().map(|text| group(text)).collect());
    let disabled = |disabled| edit(|edit| edit.disabled = Some(disabled));
    for (account, edit, event, is_loss) in [
        ("zoe", added(&["ops", "payments"]), AuditKind::AccountChanged, false),
        ("zoe", added(&["admins"]), AuditKind::AccountChanged, false),
        ("zoe", left(&["admins"]), AuditKind::AccountChanged, true),
        ("zoe", disabled(true), AuditKind::AccountDisabled, true),
        ("zoe", disabled(false), AuditKind::AccountEnabled, false),
        (
            "ci",
            edit(|edit| edit.add_grants = grants(&["push:a/**", "pull:b"])),
            AuditKind::AccountChanged,
            false,
        ),
        (
            "ci",
            edit(|edit| edit.remove_grants = grants(&["delete,move:a/**"])),
            AuditKind::AccountChanged,
            true,
        ),
        (
            "ci",
            edit(|edit| edit.remove_grants = grants(&["pull:b"])),
            AuditKind::AccountChanged,
            true,
        ),
        (
            "ci",
            // A group for another one.
            edit(|edit| {
                edit.add_groups.insert(group("builders"));
                edit.add_grants = grants(&["pull:c"]);
            }),
            AuditKind::AccountChanged,
            false,
        ),
    ] {
        let before = world.account(account).unwrap();
        let version = world.state().version;
        let changed = change(account, edit.clone());
        assert!(changed.is_changed(), "{edit:?}");
        let after = changed.into_inner();
        assert_eq!(world.account(account), Some(after.clone()));
        assert_eq!(world.state().version, version + 1);
        assert_eq!(after.generation > before.generation, is_loss, "{edit:?}");
        assert_eq!(is_withdrawn(&world, &before), is_loss, "{edit:?}");
        assert!(!is_withdrawn(&world, &after), "{edit:?}");
        assert_eq!(world.last_event().event, event, "{edit:?}");
    }
    assert_eq!(
        world.account("ci").unwrap().grants,
        grants(&["pull,create:a/**", "pull:c"])
    );
    let event = world.last_event();
    assert_eq!(event.before.as_deref(), Some("robot; grants pull,create:a/**"));
    assert_eq!(
        event.after.as_deref(),
        Some("robot; groups builders; grants pull,create:a/** pull:c")
    );
}

#[test]
fn a_change_that_changes_nothing_is_not_written() {
    let world = World::new();
    let before = world.user("zoe", &["ops"]);
    let version = world.state().version;
    for edit in [
        AccountEdit::default(),
        edit(|edit| edit.add_groups = [group("ops")].into()),
        edit(|edit| edit.disabled = Some(false)),
    ] {
        let zoe = name("zoe");
        let changed = done(
            world
                .administration
                .change(&alice(), (&zoe).into(), &edit, LastAdmin::Stays),
        )
        .unwrap();
        assert!(!changed.is_changed());
        assert_eq!(changed.into_inner(), before);
    }
    assert_eq!((world.state().version, world.events().len()), (version, 1));
}

#[test]
fn a_password_is_set_and_tokens_of_the_old_one_are_withdrawn() {
    let world = World::new();
    let before = world.user("zoe", &[]);
    world.pass(10);
    let hash = PasswordHash::new("another".into());
    let after = done(world.administration.set_password(&alice(), &name("zoe"), hash.clone())).unwrap();
    assert_eq!(
        (after.password.as_ref(), world.account("zoe")),
        (Some(&hash), Some(after.clone()))
    );
    assert!(is_withdrawn(&world, &before) && !is_withdrawn(&world, &after));
    assert_eq!(world.last_event().event, AuditKind::AccountPassword);
    assert!(!format!("{:?}", world.events()).contains("another"));

    // The first password takes nothing away.
    let new = NewAccount::new(name("bob"), AccountKind::User);
    let bob = done(world.administration.create(&alice(), new)).unwrap().account;
    done(world.administration.set_password(&alice(), &name("bob"), hash.clone())).unwrap();
    assert!(!is_withdrawn(&world, &bob));

    done(
        world
            .administration
            .create(&alice(), NewAccount::new(name("ci"), AccountKind::Robot)),
    )
    .unwrap();
    let robot = done(world.administration.set_password(&alice(), &name("ci"), hash));
    assert!(matches!(robot, Err(AdministrationError::RobotPassword(_))));
}

#[test]
fn an_account_that_was_removed_and_made_again_has_its_own_tokens() {
    let world = World::new();
    let administration = &world.administration;
    let zoe = name("zoe");
    let first = world.user("zoe", &["ops"]);
    world.pass(1);
    let removed = done(administration.remove(&alice(), (&zoe).into(), LastAdmin::Stays)).unwrap();
    assert_eq!(removed, first);
    assert_eq!((world.account("zoe"), world.state().accounts), (None, 0));
    assert_eq!(world.last_event().event, AuditKind::AccountRemoved);
    assert!(is_withdrawn(&world, &first));
    // In the same millisecond, or by a clock that was set back.
    for set_back in [0, 5_000] {
        world
            .clock
            .now
            .fetch_sub(set_back + 1, std::sync::atomic::Ordering::Relaxed);
        let again = world.user("zoe", &[]);
        assert!(again.generation > first.generation);
        assert!(is_withdrawn(&world, &first) && !is_withdrawn(&world, &again));
        done(administration.remove(&alice(), (&zoe).into(), LastAdmin::Stays)).unwrap();
    }
    let gone = done(administration.remove(&alice(), (&zoe).into(), LastAdmin::Stays));
    assert!(matches!(gone, Err(AdministrationError::NoAccount { .. })));
}

#[test]
fn the_last_enabled_administrator_stays() {
    let world = World::new();
    let administration = &world.administration;
    let disable = edit(|edit| edit.disabled = Some(true));
    let leave = edit(|edit| edit.remove_groups = [group("admins")].into());
    let (root, zoe) = (name("root"), name("zoe"));
    world.user("root", &["admins"]);
    world.user("zoe", &["admins"]);
    let change =
        |name, edit: &AccountEdit, last| done(administration.change(&alice(), AccountRef::from(name), edit, last));
    change(&zoe, &disable, LastAdmin::Stays).unwrap();
    world.check_counts();
    // A disabled administrator does not count.
    let (version, events) = (world.state().version, world.events().len());
    for edit in [&disable, &leave] {
        let error = change(&root, edit, LastAdmin::Stays).unwrap_err();
        assert!(matches!(error, AdministrationError::LastAdmin(name) if name == root));
    }
    let error = done(administration.remove(&alice(), (&root).into(), LastAdmin::Stays)).unwrap_err();
    assert!(matches!(error, AdministrationError::LastAdmin(name) if name == root));
    assert_eq!((world.state().version, world.events().len()), (version, events));
    // Its other groups may change.
    let join = edit(|edit| edit.add_groups = [group("ops")].into());
    change(&root, &join, LastAdmin::Stays).unwrap();
    // Who is no enabled administrator may go.
    done(administration.remove(&alice(), (&zoe).into(), LastAdmin::Stays)).unwrap();
    world.check_counts();
    // An operator may insist.
    change(&root, &disable, LastAdmin::MayGo).unwrap();
    world.check_counts();
    let state = world.state();
    assert_eq!((state.admins, state.had_admin), (0, true));
    let enable = edit(|edit| edit.disabled = Some(false));
    change(&root, &enable, LastAdmin::Stays).unwrap();
    assert_eq!(world.state().admins, 1);
}

#[test]
fn limits_hold_at_their_bounds() {
    let world = World::new();
    let administration = &world.administration;
    let groups = |count: usize| (0..count).map(|number| group(&format!("g{number}"))).collect();
    let patterns = |count: usize| {
        let texts: Vec<_> = (0..count).map(|number| format!("pull:r{number}")).collect();
        grants(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let robot = |robot: &str, group_count, grant_count| {
        let new = NewAccount {
            groups: groups(group_count),
            grants: patterns(grant_count),
            ..NewAccount::new(name(robot), AccountKind::Robot)
        };
        done(administration.create(&alice(), new))
    };
    robot("full", Account::MAX_GROUPS, Account::MAX_GRANTS).unwrap();
    for (groups, grants, expected) in [
        (Account::MAX_GROUPS + 1, 0, "groups"),
        (0, Account::MAX_GRANTS + 1, "grants"),
    ] {
        let error = robot("more", groups, grants).unwrap_err();
        assert!(
            matches!(error, AdministrationError::TooMany { what, .. } if what == expected),
            "{error}"
        );
    }
    let full = name("full");
    for more in [
        edit(|edit| edit.add_groups = [group("more")].into()),
        edit(|edit| edit.add_grants = grants(&["pull:more"])),
    ] {
        let error = done(administration.change(&alice(), (&full).into(), &more, LastAdmin::Stays)).unwrap_err();
        assert!(matches!(error, AdministrationError::TooMany { .. }), "{error}");
    }
    // One for another.
    let swap = edit(|edit| {
        edit.add_groups = [group("more")].into();
        edit.remove_groups = [group("g0")].into();
        edit.add_grants = grants(&["pull:more"]);
        edit.remove_grants = grants(&["pull:r0"]);
    });
    assert!(
        done(administration.change(&alice(), (&full).into(), &swap, LastAdmin::Stays))
            .unwrap()
            .is_changed()
    );
    world.check_counts();
}

#[test]
fn what_is_removed_must_be_there_and_kinds_are_kept_apart() {
    let world = World::new();
    let administration = &world.administration;
    let zoe = name("zoe");
    world.user("zoe", &["ops"]);
    let change = |reference, edit| done(administration.change(&alice(), reference, &edit, LastAdmin::Stays));
    let error = change((&zoe).into(), edit(|edit| edit.remove_groups = [group("dev")].into())).unwrap_err();
    assert!(matches!(error, AdministrationError::NotInGroup { .. }));
    let error = change((&zoe).into(), edit(|edit| edit.remove_grants = grants(&["pull:a"]))).unwrap_err();
    assert!(matches!(error, AdministrationError::NoGrant { .. }));
    let error = change((&zoe).into(), edit(|edit| edit.add_grants = grants(&["pull:a"]))).unwrap_err();
    assert!(matches!(error, AdministrationError::UserGrants));
    let as_robot = AccountRef {
        name: &zoe,
        kind: Some(AccountKind::Robot),
    };
    let error = change(as_robot, edit(|edit| edit.disabled = Some(true))).unwrap_err();
    assert_eq!(error.to_string(), "zoe is a user");
    let nobody = name("nobody");
    let error = change((&nobody).into(), AccountEdit::default()).unwrap_err();
    assert_eq!(error.to_string(), "there is no account nobody");
    assert_eq!(world.state().version, 1);
}

#[test]
fn groups_are_those_of_all_accounts() {
    let world = World::new();
    for number in 0..250 {
        world.user(
            &format!("u{number:03}"),
            if number % 100 == 0 { &["some", "all"] } else { &["all"] },
        );
    }
    let groups = done(world.administration.groups()).unwrap();
    assert_eq!(groups[&group("all")].len(), 250);
    assert_eq!(groups[&group("some")], [name("u000"), name("u100"), name("u200")]);
    assert_eq!(groups.len(), 2);
}

#[test]
fn more_losses_than_entries_withdraw_every_token() {
    let world = World::new();
    let last = world.user("last", &[]);
    for number in 0..=Withdrawn::MAX_ENTRIES {
        let user = format!("u{number}");
        world.user(&user, &[]);
        done(
            world
                .administration
                .remove(&alice(), (&name(&user)).into(), LastAdmin::Stays),
        )
        .unwrap();
    }
    assert!(is_withdrawn(&world, &last));
    let state = world.state();
    assert!(state.withdrawn.principals.len() < Withdrawn::MAX_ENTRIES);
    world.pass(Withdrawn::UNSEEN_MS + Withdrawn::LIFETIME_MS);
    world.user("later", &[]);
    assert_eq!(world.state().withdrawn, Withdrawn::default());
}
