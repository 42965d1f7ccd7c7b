//! Two changes at once: one is made, the other is told, and has changed nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use registry::store::StoreError;
use registry::store::access::{AccessStore, AccountKind, PasswordHash, PolicyForm};
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};

use super::super::accounts::{AccountEdit, NewAccount};
use super::super::keys::NewKey;
use super::super::policies::{MadeFrom, NewPolicy};
use super::super::signing_keys::Rotation;
use super::super::{Administration, AdministrationError, LastAdmin};
use super::{World, alice, done, group, name};

/// Makes another change just before the first change is written.
struct Rival {
    rival: Administration,
    is_done: AtomicBool,
}

impl Hook for Rival {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method == StoreMethod::Apply && !self.is_done.swap(true, Ordering::Relaxed) {
            let new = NewAccount::new(name("rival"), AccountKind::Robot);
            done(self.rival.create(&alice(), new)).unwrap();
        }
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}

type Change = fn(&Administration) -> Result<(), AdministrationError>;

#[test]
fn a_lost_race_is_told_and_changes_nothing() {
    let changes: [(&str, Change); 10] = [
        ("create", |all| {
            done(all.create(&alice(), NewAccount::new(name("new"), AccountKind::User))).map(drop)
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
    for (what, change) in changes {
        let world = World::new();
        world.user("zoe", &["ops"]);
        let new = NewKey {
            scope: None,
            expires: None,
        };
        done(world.administration.add_key(&alice(), (&name("zoe")).into(), &new)).unwrap();
        done(world.administration.rotate_signing_keys(&alice(), Rotation::Now)).unwrap();
        let seeds = || done(world.store.token_seeds(world.administration.cx())).unwrap();
        let (before, zoe, keys) = (world.state(), world.account("zoe"), seeds());
        world.pass(1);
        let inner: Arc<dyn AccessStore> = world.store.clone();
        let rival = Rival {
            rival: world.administration.clone(),
            is_done: AtomicBool::new(false),
        };
        let raced = world.through(Arc::new(Wrapped::new(inner, rival)));
        let error = change(&raced).unwrap_err();
        assert!(matches!(error, AdministrationError::Conflict), "{what}: {error}");
        assert!(error.to_string().contains("nothing was changed"), "{what}");
        // Only the other change was made.
        let after = world.state();
        assert_eq!(
            (after.version, after.accounts),
            (before.version + 1, before.accounts + 1),
            "{what}"
        );
        assert_eq!((after.policy, &after.keys), (before.policy, &before.keys), "{what}");
        assert_eq!((world.account("zoe"), seeds()), (zoe, keys), "{what}");
        assert_eq!(world.last_event().reference.as_deref(), Some("rival"), "{what}");
        // Made again, it succeeds.
        change(&raced).unwrap();
        world.check_counts();
    }
}
