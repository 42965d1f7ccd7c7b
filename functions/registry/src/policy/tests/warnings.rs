//! Every warning, by an example.

use crate::policy::{KnownNames, Policy};

fn warnings(members: &str) -> Vec<String> {
    let policy = Policy::from_json(&format!("{{\"syntax\":1,\n{members}}}")).unwrap();
    let known = KnownNames {
        users: ["alice".to_owned()].into(),
        robots: ["ci".to_owned()].into(),
        groups: ["team".parse().unwrap()].into(),
    };
    policy.warnings(&known).iter().map(ToString::to_string).collect()
}

fn allow(who: &str, repositories: &str, actions: &str) -> String {
    format!(r#""allow":[{}]"#, rule("r", who, repositories, actions))
}

fn rule(name: &str, who: &str, repositories: &str, actions: &str) -> String {
    let list = |words: &str| {
        let words: Vec<_> = words.split_whitespace().map(|word| format!("{word:?}")).collect();
        words.join(",")
    };
    format!(
        r#"{{"name":"{name}","who":[{}],"repositories":[{}],"actions":[{}]}}"#,
        list(who),
        list(repositories),
        list(actions)
    )
}

#[test]
fn names_without_an_account() {
    for (who, missing) in [
        (
            "user:alice robot:ci group:team group:admins group:auditors anyone",
            None,
        ),
        (
            "user:bob",
            Some("account yet: user:bob, unless it is a user of the htpasswd file"),
        ),
        ("robot:alice", Some("robot yet: robot:alice")),
        ("group:teams", Some("group yet: group:teams")),
    ] {
        let expected: Vec<_> = missing
            .map(|missing| format!("line 2, column 10: the rule \"r\": there is no such {missing}"))
            .into_iter()
            .collect();
        assert_eq!(warnings(&allow(who, "**", "pull")), expected, "{who}");
    }
    // A group of workloads is known.
    let workload = r#""issuer":[{"name":"g","url":"https://g.example","audience":["r"]}],
        "workload":[{"name":"w","issuer":"g","claims":{"repository":"b"},"groups":["ci"]}],"#;
    assert_eq!(
        warnings(&format!("{workload}{}", allow("group:ci", "**", "pull"))),
        [""; 0]
    );
}

#[test]
fn pushes_without_pull() {
    let text = |actions: &str| {
        vec![format!(
            "line 2, column 10: the rule \"r\" allows {actions} without pull: most clients look for what is there before they \
             push"
        )]
    };
    for (other, actions, expected) in [
        (None, "push", text("push")),
        (None, "create delete", text("create")),
        (None, "delete", vec![]),
        (None, "pull create", vec![]),
        // Another rule lets them pull.
        (Some(("anyone", "**", "pull")), "push", vec![]),
        (Some(("users", "team/**", "pull")), "push", vec![]),
        (Some(("users", "team/a", "pull")), "push", text("push")),
        (Some(("robots", "**", "pull")), "push", text("push")),
    ] {
        let mut rules = rule("r", "user:alice", "team/**", actions);
        if let Some((who, repositories, actions)) = other {
            rules = format!("{rules},{}", rule("other", who, repositories, actions));
        }
        assert_eq!(
            warnings(&format!(r#""allow":[{rules}]"#)),
            expected,
            "{other:?} {actions}"
        );
    }
}

#[test]
fn denials_without_effect() {
    let text =
        "the rule \"d\" takes away what no rule allows: it concerns only administrators and the grants of robots";
    let allow = rule("r", "users", "team/** one home/{name}/**", "pull push");
    for (who, repositories, actions, has_effect) in [
        ("anyone", "team/x", "pull", true),
        ("anyone", "**", "move", true),
        ("user:alice", "one", "create", true),
        ("group:team", "team/a-*", "pull", true),
        ("anyone", "home/alice/x", "pull", true),
        ("anyone", "team/x", "delete", false),
        ("anyone", "other/**", "pull", false),
        ("anyone", "one/x", "pull", false),
        ("anyone", "tea", "pull", false),
        ("robots", "team/x", "pull", false),
        ("robot:ci", "team/x", "pull", false),
    ] {
        let deny = rule("d", who, repositories, actions);
        let found = warnings(&format!("\"allow\":[{allow}],\n\"deny\":[{deny}]"));
        let expected = (!has_effect).then(|| format!("line 3, column 9: {text}"));
        assert_eq!(found, Vec::from_iter(expected), "{who} {repositories} {actions}");
    }
}

#[test]
fn patterns_that_lists_cannot_seek() {
    for (pattern, is_slow) in [
        ("**", false),
        ("*", true),
        ("*/app", true),
        ("*a/**", true),
        ("a*/**", false),
        ("{name}/*", false),
    ] {
        let found = warnings(&allow("users", pattern, "pull"));
        assert_eq!(found.len(), usize::from(is_slow), "{pattern}: {found:?}");
        assert!(
            !is_slow || found[0].contains("has to read all names to find those of"),
            "{found:?}"
        );
        assert_eq!(warnings(&allow("users", pattern, "delete")), [""; 0]);
    }
}

#[test]
fn names_at_github() {
    for (url, claims, has_warning) in [
        (
            "https://token.actions.githubusercontent.com",
            r#""repository":"a/*""#,
            true,
        ),
        (
            "https://token.actions.githubusercontent.com/",
            r#""sub":"repo:a/b:*""#,
            true,
        ),
        (
            "https://token.actions.githubusercontent.com",
            r#""repository":"a/*","repository_owner_id":"65""#,
            false,
        ),
        (
            "https://token.actions.githubusercontent.com",
            r#""ref":"refs/heads/main""#,
            false,
        ),
        ("https://gitlab.example", r#""repository":"a/*""#, false),
    ] {
        let found = warnings(&format!(
            r#""issuer":[{{"name":"g","url":"{url}","audience":["r"]}}],
            "workload":[{{"name":"w","issuer":"g","claims":{{{claims}}}}}]"#
        ));
        assert_eq!(found.len(), usize::from(has_warning), "{url} {claims}: {found:?}");
        assert!(
            !has_warning || found[0].contains("match repository_owner_id or repository_id too"),
            "{found:?}"
        );
    }
}
