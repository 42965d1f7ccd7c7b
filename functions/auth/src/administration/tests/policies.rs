use registry::auth::{Principal, Subject};
use registry::policy::Policy;
use registry::store::access::{AuditKind, PolicyForm};

use super::super::accounts::AccountEdit;
use super::super::policies::{AccountCondition, MadeFrom, NewPolicy};
use super::super::{AdministrationError, LastAdmin};
use super::{World, alice, done, group, name};

const RULE: &str =
    "syntax = 1\n\n[[allow]]\nname = 'all'\nwho = ['users']\nrepositories = ['**']\nactions = ['pull']\n";

fn new(source: &str, made_from: MadeFrom) -> NewPolicy {
    NewPolicy {
        form: PolicyForm::Toml,
        source: source.into(),
        note: Some("because".into()),
        made_from,
    }
}

#[test]
fn a_policy_comes_in_force_and_is_recorded() {
    let world = World::new();
    let before = done(world.administration.policy_in_force()).unwrap();
    assert_eq!((before.version, before.policy), (None, Policy::default_policy()));
    world.user("zoe", &[]);
    world.pass(1);
    let set = done(world.administration.set_policy(&alice(), &new(RULE, MadeFrom::Any))).unwrap();
    assert_eq!(set.version.version, 2);
    assert!(set.warnings.is_empty(), "{:?}", set.warnings);
    let state = world.state();
    assert_eq!((state.version, state.policy, state.accounts), (2, Some(2), 1));
    let stored = done(world.administration.policy(2)).unwrap();
    assert_eq!(stored, set.version);
    assert_eq!(
        (stored.source.as_str(), stored.note.as_deref()),
        (RULE, Some("because"))
    );
    let in_force = done(world.administration.policy_in_force()).unwrap();
    assert_eq!(in_force.policy.to_canonical_json(), stored.document);
    assert_eq!(in_force.policy.position_of("all").unwrap().line, 3);
    let event = world.last_event();
    assert_eq!(
        (event.event, event.before, event.after.as_deref()),
        (AuditKind::PolicySet, None, Some("2"))
    );
    assert_eq!(event.detail.as_deref(), Some("because"));

    // The same in JSON.
    let json = NewPolicy {
        form: PolicyForm::Json,
        ..new(&stored.document, MadeFrom::Version(Some(2)))
    };
    world.pass(1);
    let again = done(world.administration.set_policy(&alice(), &json)).unwrap();
    assert_eq!((again.version.version, &again.version.document), (3, &stored.document));
    assert_eq!(world.last_event().before.as_deref(), Some("2"));
    let versions = done(world.administration.policies(None, 10)).unwrap();
    assert_eq!(
        versions.items.iter().map(|version| version.version).collect::<Vec<_>>(),
        [3, 2]
    );
}

#[test]
fn every_mistake_leaves_the_old_policy_in_force() {
    let world = World::new();
    done(world.administration.set_policy(&alice(), &new(RULE, MadeFrom::Any))).unwrap();
    let (state, events) = (world.state(), world.events());
    let unreadable = " ".repeat(Policy::MAX_BYTES + 1);
    // Instances could not load its canonical JSON, which is longer.
    let rule = |number| format!("{{name='{number:064}',who=['users'],repositories=['a'],actions=['pull']}}");
    let dense = format!(
        "syntax=1\nallow=[{}]\n",
        (0..499).map(rule).collect::<Vec<_>>().join(",")
    );
    assert!(dense.len() <= Policy::MAX_BYTES, "{}", dense.len());
    for (source, line) in [
        ("syntax = 2\n".to_owned(), 1),
        (format!("{RULE}color = 1\n"), 8),
        (RULE.replace("'pull'", "'read'"), 7),
        (RULE.replace("'**'", "'**/a'"), 6),
        (format!("{RULE}[[allow"), 8),
        (unreadable, 1),
        (dense, 1),
    ] {
        let error = done(world.administration.set_policy(&alice(), &new(&source, MadeFrom::Any))).unwrap_err();
        let AdministrationError::Mistakes(mistakes) = error else {
            panic!("{error}")
        };
        assert_eq!(mistakes[0].at.line, line, "{mistakes:?}");
    }
    let issuer = "[[issuer]]\nname = 'x'\nurl = 'https://x.example'\naudience = ['a']\n";
    let error = done(
        world
            .administration
            .set_policy(&alice(), &new(&format!("{RULE}{issuer}"), MadeFrom::Any)),
    );
    assert!(matches!(error, Err(AdministrationError::Workloads)), "{error:?}");
    assert_eq!((world.state(), world.events()), (state, events));
}

#[test]
fn a_policy_that_was_made_from_another_version_is_refused() {
    let world = World::new();
    let set = |made_from| done(world.administration.set_policy(&alice(), &new(RULE, made_from)));
    assert!(matches!(
        set(MadeFrom::Version(Some(1))),
        Err(AdministrationError::PolicyConflict {
            made_from: Some(1),
            in_force: None
        })
    ));
    assert_eq!(set(MadeFrom::Version(None)).unwrap().version.version, 1);
    let error = set(MadeFrom::Version(None)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("version 1 is in force now, and yours was made from the default policy")
    );
    // Other changes do not matter.
    world.user("zoe", &[]);
    assert_eq!(set(MadeFrom::Version(Some(1))).unwrap().version.version, 3);
    assert_eq!(world.state().policy, Some(3));
}

#[test]
fn warnings_know_the_accounts() {
    let world = World::new();
    world.user("zoe", &["payments"]);
    let source = RULE.replace(
        "'users'",
        "'user:zoe', 'group:payments', 'user:bob', 'robot:zoe', 'group:none'",
    );
    let set = done(world.administration.set_policy(&alice(), &new(&source, MadeFrom::Any))).unwrap();
    let messages: Vec<_> = set.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    for missing in ["user:bob", "robot:zoe", "group:none"] {
        assert!(messages.iter().any(|message| message.contains(missing)), "{messages:?}");
    }
}

#[test]
fn a_subject_has_the_groups_of_its_account() {
    let world = World::new();
    world.user("zoe", &["payments"]);
    let subject = |text: &str| {
        let principal: Principal = text.parse().unwrap();
        done(world.administration.subject(&principal))
    };
    let (zoe, condition) = subject("zoe").unwrap();
    assert_eq!(
        (zoe.groups, condition),
        ([group("payments")].into(), AccountCondition::Enabled)
    );
    let disable = AccountEdit {
        disabled: Some(true),
        ..AccountEdit::default()
    };
    done(
        world
            .administration
            .change(&alice(), (&name("zoe")).into(), &disable, LastAdmin::Stays),
    )
    .unwrap();
    assert_eq!(subject("zoe").unwrap().1, AccountCondition::Disabled);
    // Users may be in a htpasswd file, also with names that no account has.
    for text in ["bob", "Bob Smith", "workload:rule:name", ":anonymous"] {
        let principal: Principal = text.parse().unwrap();
        assert_eq!(
            subject(text).unwrap(),
            (Subject::new(principal), AccountCondition::None)
        );
    }
    assert!(matches!(
        subject("robot:ci"),
        Err(AdministrationError::NoAccount { .. })
    ));
    assert!(matches!(
        subject("robot:zoe"),
        Err(AdministrationError::OtherKind { .. })
    ));
}
