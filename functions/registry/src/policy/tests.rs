#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod documents;
mod example;
mod mistakes;
mod properties;
mod reference;
mod warnings;

use super::*;

/// Documents have one text, and the text is read as the same document.
#[test]
fn the_canonical_text() {
    let policy = Policy::from_json(
        r#" {"repository": [{"foreign-layers": false, "match": ["a"], "max-blob": "2048KiB", "create": "listed"},
                            {"match": ["**"], "create": "on-push", "foreign-layers": true}],
             "deny": [], "immutable": [{"grace": "600s", "tags": ["*"], "name": "i", "repositories": ["**"], "delete": true,
                                        "except": ["\u0061"]}],
             "issuer": [{"name": "g", "url": "https://g.example/", "audience": ["r"], "private": true, "jwks": "{}", "ca": "P"}],
             "workload": [{"as": "x/{b}", "claims": {"b": "*", "a": "1"}, "issuer": "g", "name": "w", "groups": ["ci"],
                           "session": "120m"}],
             "allow": [{"name": "\ud83e\udd80", "who": ["users", "workload:w"], "repositories": ["{name}/**"],
                        "actions": ["delete", "move", "create", "pull"]}],
             "syntax": 1} "#,
    )
    .unwrap();
    let text = policy.to_canonical_json();
    assert_eq!(
        text,
        concat!(
            r#"{"syntax":1,"issuer":[{"name":"g","url":"https://g.example/","audience":["r"],"jwks":"{}","ca":"P","#,
            r#""private":true}],"workload":[{"name":"w","issuer":"g","claims":{"a":"1","b":"*"},"as":"x/{b}","#,
            r#""groups":["ci"],"session":"2h"}],"allow":[{"name":"🦀","who":["users","workload:w"],"#,
            r#""repositories":["{name}/**"],"actions":["pull","push","delete"]}],"immutable":[{"name":"i","#,
            r#""repositories":["**"],"tags":["*"],"except":["a"],"grace":"10m","delete":true}],"repository":["#,
            r#"{"match":["a"],"create":"listed","max-blob":"2MiB","foreign-layers":false},{"match":["**"]}]}"#,
        )
    );
    assert_eq!(Policy::from_json(&text).unwrap().to_canonical_json(), text);
    assert_eq!(policy.position_of("i"), Some(Position { line: 3, column: 40 }));
    assert_eq!(policy.position_of("w"), None, "no rule that a refusal names");
}

#[test]
fn without_a_policy_users_may_do_everything() {
    use crate::auth::ActionKind::{Read, Write};
    use crate::auth::Principal;

    let policy = Policy::default_policy();
    assert_eq!(
        policy.to_canonical_json(),
        r#"{"syntax":1,"allow":[{"name":"default","who":["users"],"repositories":["**"],"actions":["pull","push","delete"]}]}"#
    );
    let open = policy.clone().allowing_anonymous_pull();
    assert_eq!(open.clone().allowing_anonymous_pull(), open, "one such rule is enough");
    let a = "a".parse().unwrap();
    for (principal, expected) in [
        (Principal::ANONYMOUS, [false, false, true, false]),
        (Principal::user("\u{c9}").unwrap(), [true; 4]),
        (Principal::robot("ci").unwrap(), [false, false, true, false]),
        (Principal::workload("w", "n").unwrap(), [false; 4]),
    ] {
        let subject = Subject::new(principal);
        let may = |policy: &Policy, action| policy.rules(&subject).allow(action, &a);
        let found = [
            may(&policy, Read),
            may(&policy, Write),
            may(&open, Read),
            may(&open, Write),
        ];
        assert_eq!(found, expected, "{subject:?}");
    }
    let users = policy.rules(&Subject::new(Principal::user("alice").unwrap()));
    assert!(users.is_everything(), "no name is compared");
    assert!(policy.shared().freeze_nothing());
}
