//! How many items a list has.

use registry::store::access::{AccountKind, PolicyForm};

use super::support::{POLICY, World, name};
use crate::administration::Author;
use crate::administration::accounts::NewAccount;
use crate::administration::policies::{MadeFrom, NewPolicy};

/// More than a page may have.
const MANY: usize = 1_003;

/// Asks as an administrator, by a token if there is one.
async fn count(world: &World, list: &str, n: &str, token: Option<&str>) -> Result<(usize, bool), u16> {
    let separator = if list.contains('?') { '&' } else { '?' };
    let path = format!("{list}{separator}n={n}");
    let call = world.get(&path);
    let reply = match token {
        Some(token) => call.bearer(token),
        None => call.user("root"),
    };
    let reply = reply.send().await;
    if reply.status != 200 {
        return Err(reply.status);
    }
    let page = reply.json();
    Ok((page["items"].as_array().unwrap().len(), page["next"].is_string()))
}

/// A list of more than a thousand items has the page that is asked for, and at most a thousand.
pub(super) async fn has_at_most_a_thousand(world: &World, list: &str, token: Option<&str>) {
    for (n, expected) in [
        ("", Ok((100, true))),
        ("1", Ok((1, true))),
        ("999", Ok((999, true))),
        ("1000", Ok((1000, true))),
        ("1001", Ok((1000, true))),
        ("1000000000", Ok((1000, true))),
        ("9223372036854775808", Ok((1000, true))),
        ("18446744073709551616", Err(400)),
        ("0", Err(400)),
        ("-1", Err(400)),
        ("x", Err(400)),
        ("1x", Err(400)),
    ] {
        assert_eq!(count(world, list, n, token).await, expected, "{list} {n}");
    }
}

/// No client gets more than 1,000 items at once, whatever it asks for.
#[tokio::test]
async fn s06_no_page_has_more_than_a_thousand_items() {
    let world = World::new().await;
    let author = Author::operator();
    for _ in 0..MANY {
        let new = NewPolicy {
            form: PolicyForm::Json,
            source: POLICY.to_owned(),
            note: None,
            made_from: MadeFrom::Any,
        };
        world.administration.set_policy(&author, &new).await.unwrap();
    }
    for number in 0..MANY {
        let new = NewAccount::new(name(&format!("robot{number}")), AccountKind::Robot);
        world.administration.create(&author, new).await.unwrap();
    }
    for number in 0..MANY {
        world.put(&format!("r/x{number}"), &["latest"], 1).await;
        world.put("t/x", &[&format!("t{number}")], 1).await;
    }
    let token = world.token_of("root", "registry:api:*").await;
    for list in [
        "accounts",
        "audit",
        "policy/versions",
        "repositories",
        "tags?repository=t/x",
    ] {
        for token in [None, Some(token.as_str())] {
            has_at_most_a_thousand(&world, list, token).await;
        }
    }
    let history = "tags/history?repository=t/x&tag=t0";
    for (n, expected) in [
        ("1000", Ok((1, false))),
        ("1001", Ok((1, false))),
        ("0", Err(400)),
        ("x", Err(400)),
    ] {
        for token in [None, Some(token.as_str())] {
            assert_eq!(count(&world, history, n, token).await, expected, "{n}");
        }
    }
}

/// Pages continue each other wherever they end.
#[tokio::test]
async fn versions_are_listed_without_a_gap() {
    let world = World::new().await;
    for _ in 0..40 {
        let new = NewPolicy {
            form: PolicyForm::Json,
            source: POLICY.to_owned(),
            note: None,
            made_from: MadeFrom::Any,
        };
        world
            .administration
            .set_policy(&Author::operator(), &new)
            .await
            .unwrap();
    }
    let newest = world.administration.state().await.unwrap().policy.unwrap();
    for n in [9, 10, 11, 20, 25] {
        let mut after = String::new();
        for page in 0..40 / n {
            let path = format!("policy/versions?n={n}{after}");
            let listed = world.get(&path).user("root").send().await.expect(200).json();
            let versions: Vec<_> = listed["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["version"].as_u64().unwrap())
                .collect();
            let first = newest - page * n;
            assert_eq!(versions, (first + 1 - n..=first).rev().collect::<Vec<_>>(), "{path}");
            let next = listed["next"].as_str().unwrap();
            assert_eq!(next, versions.last().unwrap().to_string());
            after = format!("&after={next}");
        }
    }
}
