//! Every mistake, by an example.

use crate::policy::Policy;
use crate::policy::mistake::MAX_MISTAKES;

/// The mistakes of a document, as texts.
fn mistakes(text: &str) -> Vec<String> {
    match Policy::from_json(text) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

/// The mistakes of a document with one entry.
fn of_entry(kind: &str, entry: &str) -> Vec<String> {
    let issuer = r#"{"name":"g","url":"https://g.example","audience":["r"]}"#;
    let others = if kind == "issuer" {
        String::new()
    } else {
        format!(r#""issuer":[{issuer}],"#)
    };
    mistakes(&format!("{{\"syntax\":1,{others}\"{kind}\":[\n{entry}]}}"))
}

#[test]
fn mistakes_of_documents() {
    for (text, expected) in [
        ("{\"syntax\":1}", &[] as &[&str]),
        ("[]", &["line 1, column 1: expected a table, found a list"]),
        ("{}", &["line 1, column 1: the member `syntax` is missing: expected 1"]),
        (
            "{\"syntax\":\"1\"}",
            &["line 1, column 11: `syntax`: expected 1, found a text"],
        ),
        // Nothing else is said of a document that another program can read.
        (
            "{\"syntax\":2,\"new\":[]}",
            &["line 1, column 11: this program reads syntax 1, and not 2"],
        ),
        (
            "{\"syntax\":1,\"alow\":[],\n \"deny\":{},\"allow\":[1]}",
            &[
                "line 1, column 13: the document has no member \"alow\": expected one of syntax, issuer, workload, allow, \
                 deny, immutable, repository",
                "line 2, column 9: `deny`: expected a list of tables, found a table",
                "line 2, column 21: [[allow]]: expected a table, found a number",
            ],
        ),
        (
            "{\"syntax\":1,\"syntax\":1}",
            &["line 1, column 13: the table has the member \"syntax\" twice"],
        ),
        (
            "{\"syntax\":1,",
            &["line 1, column 13: expected the name of a member, found the end of the document"],
        ),
    ] {
        assert_eq!(mistakes(text), expected, "{text}");
    }
}

#[test]
fn mistakes_of_entries() {
    let who = "expected `anyone`, `signed-in`, `users`, `robots`, `workloads`, or `user:`, `robot:`, `group:` or \
               `workload:` with a name";
    let actions = "not an action: expected `pull`, `create`, `move`, `push` or `delete`";
    let pattern = "not a pattern for repositories such as team/app, team/* or team/** (`**` stands at the end), at most \
                   255 bytes long";
    for (kind, entry, expected) in [
        (
            "allow",
            r#"{"name":"a","who":["anyone"],"repositories":["**"],"actions":["pull"]}"#,
            &[] as &[&str],
        ),
        (
            "allow",
            r#"{"extra":1}"#,
            &[
                "column 1: the member `name` is missing",
                "column 1: the member `who` is missing",
                "column 1: the member `repositories` is missing",
                "column 1: the member `actions` is missing",
                "column 2: [[allow]] has no member \"extra\": expected one of name, who, repositories, actions",
            ],
        ),
        (
            "deny",
            r#"{"name":"","who":[],"repositories":[],"actions":[]}"#,
            &[
                "column 9: `name`: the text is empty",
                "column 18: `who` is empty",
                "column 36: `repositories` is empty",
                "column 49: `actions` is empty",
            ],
        ),
        (
            "allow",
            r#"{"name":"a","who":["everyone",1],"repositories":["a**","b"],"actions":["read"]}"#,
            &[
                &format!("column 20: `who`: \"everyone\": {who}"),
                "column 31: `who`: expected a text, found a number",
                &format!("column 50: `repositories`: \"a**\": {pattern}"),
                &format!("column 72: `actions`: \"read\": {actions}"),
            ],
        ),
        (
            "allow",
            r#"{"name":"a","who":["everyone","workload:w"],"repositories":"**","actions":[null]}"#,
            &[
                &format!("column 20: `who`: \"everyone\": {who}"),
                "column 60: `repositories`: expected a list of texts, found a text",
                "column 76: `actions`: expected a text, found null",
            ],
        ),
        (
            "allow",
            r#"{"name":"a","who":["workload:w"],"repositories":["**"],"actions":["pull"]}"#,
            &["column 20: `who`: there is no [[workload]] \"w\""],
        ),
        (
            "allow",
            "{\"name\":\"a\\nb\",\"who\":[\"anyone\"],\"repositories\":[\"**\"],\"actions\":[\"pull\"]}",
            &["column 9: `name`: at most 100 bytes, and no control characters: \"a\\nb\""],
        ),
        // It would look like the rule of a flag, and switch the flag off.
        (
            "allow",
            r#"{"name":"--allow-anonymous pull","who":["users"],"repositories":["a"],"actions":["pull"]}"#,
            &["column 9: `name`: only the rules of flags have names that begin with `--`: \"--allow-anonymous pull\""],
        ),
        (
            "immutable",
            r#"{"name":"--x","repositories":["a"],"tags":["*"]}"#,
            &["column 9: `name`: only the rules of flags have names that begin with `--`: \"--x\""],
        ),
        (
            "allow",
            r#"{"name":"-x --","who":["users"],"repositories":["a"],"actions":["pull"]}"#,
            &[],
        ),
        // Explanations would give its line to the rule of administrators, or to a grant.
        (
            "deny",
            r#"{"name":"admins","who":["users"],"repositories":["a"],"actions":["pull"]}"#,
            &["column 9: `name`: only the rule that lets administrators do everything has this name: \"admins\""],
        ),
        (
            "allow",
            r#"{"name":"robot:ci#1","who":["users"],"repositories":["a"],"actions":["pull"]}"#,
            &["column 9: `name`: only the grants of robots have names with `#`: \"robot:ci#1\""],
        ),
        (
            "immutable",
            r##"{"name":"#","repositories":["a"],"tags":["*"]}"##,
            &["column 9: `name`: only the grants of robots have names with `#`: \"#\""],
        ),
        (
            "allow",
            r#"{"name":"admins and auditors","who":["users"],"repositories":["a"],"actions":["pull"]}"#,
            &[],
        ),
        (
            "immutable",
            r#"{"name":"a","repositories":["{name}"],"tags":["a/b"],"except":[],"grace":"10","delete":1}"#,
            &[
                &format!("column 29: `repositories`: \"{{name}}\": {pattern}"),
                "column 47: `tags`: \"a/b\": not a pattern for tags such as latest, release-* or the word semver",
                "column 63: `except` is empty",
                "column 74: `grace`: expected a duration such as 90s, 10m, 12h or 30d, found \"10\"",
                "column 88: `delete`: expected true or false, found a number",
            ],
        ),
        (
            "repository",
            r#"{"match":[],"create":"never","max-blob":"0B","foreign-layers":"no"}"#,
            &[
                "column 10: `match` is empty",
                "column 22: `create`: expected `on-push` or `listed`, found \"never\"",
                "column 41: `max-blob`: expected a size such as 500MiB or 20GiB, found \"0B\"",
                "column 63: `foreign-layers`: expected true or false, found a text",
            ],
        ),
        (
            "issuer",
            r#"{"name":"g","url":"http://g.example"}"#,
            &[
                "column 1: the member `audience` is missing",
                "column 19: `url`: expected an https URL without a query, found \"http://g.example\"",
            ],
        ),
        (
            "issuer",
            r#"{"name":"g","url":"https://u@g.example","audience":[],"jwks":{},"private":0}"#,
            &[
                "column 19: `url`: expected an https URL without a query, found \"https://u@g.example\"",
                "column 52: `audience` is empty",
                "column 62: `jwks`: expected a text, found a table",
                "column 75: `private`: expected true or false, found a number",
            ],
        ),
        (
            "workload",
            r#"{"name":"a:b","issuer":"h","claims":{},"as":"{a","groups":["A"],"session":"13h"}"#,
            &[
                "column 9: `name`: a name for workloads has no colon: \"a:b\"",
                "column 24: `issuer`: there is no issuer \"h\"",
                "column 37: `claims` is empty: every token of the issuer would match",
                "column 45: `as`: expected the name of a repository, with claims in braces, found \"{a\"",
                "column 60: `groups`: \"A\": not the name of a group: expected at most 64 lower-case letters and digits, with \
                 single `.`, `_` or `-` between them",
                "column 75: `session`: expected more than 0s, and at most 12h",
            ],
        ),
        (
            "workload",
            r#"{"name":"w","issuer":"g","claims":{"a":1,"b":"x","c":["y"]}}"#,
            &[
                "column 40: the claim \"a\": expected a text, found a number",
                "column 54: the claim \"c\": expected a text, found a list",
            ],
        ),
        (
            "workload",
            r#"{"name":"w","issuer":"g"}"#,
            &["column 1: the member `claims` is missing"],
        ),
    ] {
        let expected: Vec<_> = expected.iter().map(|text| format!("line 2, {text}")).collect();
        assert_eq!(of_entry(kind, entry), expected, "{kind} {entry}");
    }
}

#[test]
fn names_are_used_once() {
    let access =
        |name: &str| format!(r#"{{"name":"{name}","who":["anyone"],"repositories":["**"],"actions":["pull"]}}"#);
    let issuer = r#"{"name":"g","url":"https://g.example","audience":["r"]}"#;
    let workload = r#"{"name":"g","issuer":"g","claims":{"a":"b"}}"#;
    let immutable = r#"{"name":"b","repositories":["**"],"tags":["*"]}"#;
    let text = format!(
        "{{\"syntax\":1,\"allow\":[{},\n{}],\"deny\":[\n{}],\"immutable\":[\n{immutable}],\"issuer\":[{issuer},\n{issuer}],\
         \"workload\":[{workload},\n{workload}]}}",
        access("a"),
        access("b"),
        access("a"),
    );
    assert_eq!(
        mistakes(&text),
        [
            "line 3, column 9: `name`: \"a\" is used twice",
            "line 4, column 9: `name`: \"b\" is used twice",
            "line 5, column 9: `name`: \"g\" is used twice",
            "line 6, column 9: `name`: \"g\" is used twice",
        ]
    );
}

/// Each limit, at its value and one past it.
#[test]
fn limits() {
    let list = |number: usize, entry: &dyn Fn(usize) -> String| (0..number).map(entry).collect::<Vec<_>>().join(",");
    let access = |index| format!(r#"{{"name":"{index}","who":["users"],"repositories":["**"],"actions":["pull"]}}"#);
    let issuer = |index| format!(r#"{{"name":"g{index}","url":"https://g.example","audience":["r"]}}"#);
    let workload = |index| format!(r#"{{"name":"w{index}","issuer":"g0","claims":{{"a":"b"}}}}"#);
    for (past, expected) in [
        (0, &[] as &[&str]),
        (1, &["line 1, column 1: 501 rules: at most 500 are allowed"]),
    ] {
        let repository = r#"{"match":["a"]}"#;
        let text = format!(
            r#"{{"syntax":1,"allow":[{}],"repository":[{repository}]}}"#,
            list(499 + past, &access)
        );
        assert_eq!(mistakes(&text), expected);
    }
    for (issuers, workloads, expected) in [
        (10, 100, &[] as &[&str]),
        (11, 100, &["line 1, column 1: 11 issuers: at most 10 are allowed"]),
        (
            10,
            101,
            &["line 1, column 1: 101 rules for workloads: at most 100 are allowed"],
        ),
    ] {
        let (issuers, workloads) = (list(issuers, &issuer), list(workloads, &workload));
        let text = format!(r#"{{"syntax":1,"issuer":[{issuers}],"workload":[{workloads}]}}"#);
        assert_eq!(mistakes(&text), expected);
    }
    for (length, expected) in [
        (65_536, &[] as &[&str]),
        (65_537, &["line 1, column 1: the document exceeds 65536 bytes"]),
    ] {
        let document = r#"{"syntax":1}"#;
        let text = format!("{document}{}", " ".repeat(length - document.len()));
        assert_eq!(mistakes(&text), expected);
    }
    let names = |length: usize| {
        of_entry(
            "allow",
            &access(0).replace("\"0\"", &format!("\"{}\"", "x".repeat(length))),
        )
    };
    assert_eq!((names(100).len(), names(101).len()), (0, 1));
    assert!(
        names(101)[0].ends_with("xxx\"..."),
        "a long text is cut: {}",
        names(101)[0]
    );
    // Not only the first mistake is reported, and not a million either.
    let text = format!(r#"{{"syntax":1,"allow":[{}]}}"#, list(400, &|_| "1".to_owned()));
    assert_eq!(mistakes(&text).len(), MAX_MISTAKES);
}
