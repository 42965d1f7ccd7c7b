//! Another administrator changes something between the read and the write of a request.

use futures_util::FutureExt as _;
use registry::api_endpoint::ApiOperation;
use registry::store::access::{AccountKind, PolicyForm};
use serde_json::json;

use super::support::{PASSWORD, POLICY, World, name};
use crate::administration::accounts::{AccountEdit, NewAccount};
use crate::administration::policies::{MadeFrom, NewPolicy};
use crate::administration::{Author, LastAdmin};
use crate::password::{Parameters, PasswordHasher};

/// The operations that say which version they change.
const CONDITIONAL: [ApiOperation; 5] = [
    ApiOperation::ChangeAccount,
    ApiOperation::SetPassword,
    ApiOperation::RemoveAccount,
    ApiOperation::ChangeKey,
    ApiOperation::SetPolicy,
];

/// A change of `alice`, which joins a group.
fn alice_changes(world: &World, number: usize) {
    let administration = world.administration.clone();
    world.rival.comes_first(move || {
        let edit = AccountEdit {
            add_groups: [format!("rival{number}").parse().unwrap()].into(),
            ..AccountEdit::default()
        };
        let (author, alice) = (Author::operator(), name("alice"));
        let change = administration.change(&author, (&alice).into(), &edit, LastAdmin::Stays);
        assert!(change.now_or_never().unwrap().unwrap().is_changed());
    });
}

/// Another policy.
fn policy_changes(world: &World) {
    let administration = world.administration.clone();
    world.rival.comes_first(move || {
        let policy = NewPolicy {
            form: PolicyForm::Json,
            source: POLICY.to_owned(),
            note: Some("rival".to_owned()),
            made_from: MadeFrom::Any,
        };
        let author = Author::operator();
        administration
            .set_policy(&author, &policy)
            .now_or_never()
            .unwrap()
            .unwrap();
    });
}

/// A change of something that no request of these tests is about.
fn another_changes(world: &World, number: usize) {
    let administration = world.administration.clone();
    world.rival.comes_first(move || {
        let (author, robot) = (Author::operator(), name(&format!("robot{number}")));
        let create = administration.create(&author, NewAccount::new(robot, AccountKind::Robot));
        create.now_or_never().unwrap().unwrap();
    });
}

/// A change of what the operation changes.
fn same_changes(world: &World, operation: ApiOperation, number: usize) {
    if operation == ApiOperation::SetPolicy {
        policy_changes(world);
    } else {
        alice_changes(world, number);
    }
}

async fn version_of_state(world: &World) -> u64 {
    world.administration.state().await.unwrap().version
}

/// The status of the success of a conditional operation.
fn success(operation: ApiOperation) -> u16 {
    if operation == ApiOperation::RemoveAccount {
        204
    } else {
        200
    }
}

/// `If-Match` holds until the change is written, and is about what is changed alone.
#[tokio::test]
async fn of_changes_of_one_version_at_the_same_time_one_is_made() {
    for operation in CONDITIONAL {
        for is_same in [true, false] {
            let world = World::new().await;
            let version = if operation == ApiOperation::SetPolicy {
                world.policy.to_string()
            } else {
                world.version("alice").await
            };
            let before = version_of_state(&world).await;
            if is_same {
                same_changes(&world, operation, 0);
            } else {
                another_changes(&world, 0);
            }
            let call = world.example(operation).user("root").if_match(&version);
            let reply = call.send().await;
            assert_eq!(world.rival.left(), 0, "{operation:?}");
            let (status, changes) = if is_same { (412, 1) } else { (success(operation), 2) };
            assert_eq!(reply.status, status, "{operation:?} {is_same}: {reply:?}");
            assert_eq!(
                version_of_state(&world).await,
                before + changes,
                "{operation:?} {is_same}"
            );
        }
    }
}

/// `*` accepts any version: the change is made of the one that is there then.
#[tokio::test]
async fn a_change_of_any_version_is_made_after_the_other_one() {
    for operation in CONDITIONAL {
        let world = World::new().await;
        let before = version_of_state(&world).await;
        for number in 0..9 {
            same_changes(&world, operation, number);
        }
        let reply = world.example(operation).user("root").send().await;
        assert_eq!(reply.status, success(operation), "{operation:?}: {reply:?}");
        assert_eq!(version_of_state(&world).await, before + 10, "{operation:?}");
        if operation == ApiOperation::ChangeAccount {
            // The groups are what was asked for, also without those that came in between.
            assert_eq!(world.groups("alice").await, ["ops".to_owned()].into());
        }
        // And after ten lost races the response does not mean that the client's version is old.
        let world = World::new().await;
        for number in 0..10 {
            same_changes(&world, operation, number);
        }
        let reply = world.example(operation).user("root").send().await;
        assert_eq!(reply.status, 409, "{operation:?}: {reply:?}");
        assert!(reply.text.contains("nothing was changed"), "{reply:?}");
    }
}

/// A change without a condition, too, comes after others.
#[tokio::test]
async fn a_change_that_comes_too_late_is_made_again() {
    let operations = [
        (ApiOperation::CreateAccount, 201),
        (ApiOperation::CreateKey, 201),
        (ApiOperation::RotateKey, 201),
        (ApiOperation::RemoveKey, 204),
        (ApiOperation::RotateSigningKeys, 201),
    ];
    for (operation, done) in operations {
        for (rivals, status) in [(9, done), (10, 409)] {
            let world = World::new().await;
            for number in 0..rivals {
                another_changes(&world, number);
            }
            let reply = world.example(operation).user("root").send().await;
            assert_eq!(reply.status, status, "{operation:?}: {reply:?}");
            assert_eq!(world.rival.left(), 0, "{operation:?}");
        }
    }
}

#[tokio::test]
async fn a_new_password_is_hashed_once_however_many_races_it_loses() {
    for rivals in [0, 9] {
        let world = World::new().await;
        world.get("whoami").user("root").send().await.expect(200);
        assert_eq!(world.hashes.take(), 1);
        for number in 0..rivals {
            alice_changes(&world, number);
        }
        let call = world.example(ApiOperation::SetPassword).user("root");
        call.send().await.expect(200);
        assert_eq!((world.rival.left(), world.hashes.take()), (0, 1), "{rivals}");
    }
}

/// The old password is that of the version that is changed.
#[tokio::test]
async fn the_old_password_is_checked_again_after_a_lost_race() {
    let world = World::new().await;
    let administration = world.administration.clone();
    let hasher = PasswordHasher::new(Parameters::CHEAPEST).unwrap();
    let hash = hasher.hash("set by an administrator", &*world.clock).unwrap();
    world.rival.comes_first(move || {
        let (author, alice) = (Author::operator(), name("alice"));
        let set = administration.set_password(&author, &alice, hash);
        set.now_or_never().unwrap().unwrap();
    });
    let own = world.call("PUT", "accounts/alice/password").user("alice");
    let body = json!({ "password": "another long password", "old_password": PASSWORD });
    own.header("if-match", "*").json(&body).send().await.expect(403);
    world.clock.pass(10_000);
    for (password, status) in [
        (PASSWORD, 401),
        ("another long password", 401),
        ("set by an administrator", 200),
    ] {
        world.get("whoami").basic("alice", password).send().await.expect(status);
    }
}
