//! Reads a policy that is written in TOML, with line and column of every mistake.
//!
//! The reader fills the same [tree](registry::policy::tree) as the core's reader for JSON, so the same checker finds the same
//! mistakes in both.

use registry::policy::tree::{Member, Node, NodeValue, Position};
use registry::policy::{Mistake, Policy};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue, Error};

/// Reads a policy. Fails with all mistakes, like [`Policy::from_json`].
///
/// ```
/// let mistakes = auth::toml::policy("syntax = 1\n[[allow]]\nname = 'x'\n").unwrap_err();
/// assert_eq!(mistakes[0].at.line, 2, "the rule does not say who, where and what");
/// ```
pub fn policy(text: &str) -> Result<Policy, Vec<Mistake>> {
    Policy::check_length(text)?;
    Policy::from_tree(&read(text)?)
}

/// Reads a document into a tree. Fails with the mistakes of its grammar.
pub fn read(text: &str) -> Result<Node, Vec<Mistake>> {
    let positions = Positions::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let members = positions.members(document.get_ref());
        return Ok(Node {
            at: Position::START,
            value: NodeValue::Table(members),
        });
    }
    let mut mistakes: Vec<_> = errors.iter().map(|error| positions.mistake(error)).collect();
    mistakes.sort_by_key(|mistake| mistake.at);
    Err(mistakes)
}

/// Finds the position of a byte of a text.
struct Positions {
    /// Of every byte, and of the end: the number of characters before it.
    characters: Vec<u32>,
    /// Where lines begin.
    lines: Vec<usize>,
}

impl Positions {
    fn of(text: &str) -> Self {
        let mut characters = Vec::with_capacity(text.len() + 1);
        let mut lines = vec![0];
        let mut count = 0;
        for (at, byte) in text.bytes().enumerate() {
            characters.push(count);
            // The first byte of a character.
            if byte & 0xc0 != 0x80 {
                count += 1;
            }
            if byte == b'\n' {
                lines.push(at + 1);
            }
        }
        characters.push(count);
        Self { characters, lines }
    }

    fn at(&self, byte: usize) -> Position {
        let byte = byte.min(self.characters.len() - 1);
        let line = self.lines.partition_point(|start| *start <= byte);
        let start = self.lines[line - 1];
        Position {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: self.characters[byte] - self.characters[start] + 1,
        }
    }

    fn mistake(&self, error: &Error) -> Mistake {
        let at = error.span().map_or(Position::START, |span| self.at(span.start));
        // The message may have several lines.
        let message: Vec<_> = error.message().lines().map(str::trim).collect();
        Mistake::new(at, message.join(", "))
    }

    /// The members of a table, in the order of the text.
    fn members(&self, table: &DeTable<'_>) -> Vec<Member> {
        let mut members: Vec<_> = table
            .iter()
            .map(|(name, value)| Member {
                at: self.at(name.span().start),
                name: name.get_ref().to_string(),
                node: self.node(value),
            })
            .collect();
        members.sort_by_key(|member| member.at);
        members
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let kind = match value.get_ref() {
            DeValue::String(text) => NodeValue::Text(text.to_string()),
            DeValue::Integer(number) => {
                integer(number).map_or(NodeValue::Other("a number that is too large"), NodeValue::Integer)
            }
            DeValue::Float(_) => NodeValue::Other("a number with a fraction"),
            DeValue::Boolean(value) => NodeValue::Boolean(*value),
            DeValue::Datetime(_) => NodeValue::Other("a date or time"),
            DeValue::Array(items) => NodeValue::List(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => NodeValue::Table(self.members(table)),
        };
        Node {
            at: self.at(value.span().start),
            value: kind,
        }
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;
    use registry::auth::Subject;
    use registry::policy::json;

    use super::*;

    fn at(line: u32, column: u32) -> Position {
        Position { line, column }
    }

    /// A tree without its positions, as JSON.
    fn plain(node: &Node) -> serde_json::Value {
        match &node.value {
            NodeValue::Text(text) => text.clone().into(),
            NodeValue::Integer(number) => (*number).into(),
            NodeValue::Boolean(value) => (*value).into(),
            NodeValue::List(items) => items.iter().map(plain).collect(),
            NodeValue::Table(members) => members
                .iter()
                .map(|member| (member.name.clone(), plain(&member.node)))
                .collect(),
            NodeValue::Other(kind) => serde_json::json!({ "other": kind }),
        }
    }

    fn member<'a>(node: &'a Node, name: &str) -> &'a Member {
        let NodeValue::Table(members) = &node.value else {
            panic!("{node:?}")
        };
        members.iter().find(|member| member.name == name).unwrap()
    }

    #[test]
    fn every_value_has_its_position() {
        let text = "syntax = 1\n\n[[allow]]\nname = \"\u{e9}\u{1f980}\" # x\nwho = [\n  'anyone', \"users\"]\r\n\
                    [[allow]]\nname = 'b'\n[x]\ny.z = { a = true, b = 0x1F, c = 1_000 }\n";
        let tree = read(text).unwrap();
        assert_eq!(
            plain(&tree),
            serde_json::json!({
                "syntax": 1,
                "allow": [{ "name": "\u{e9}\u{1f980}", "who": ["anyone", "users"] }, { "name": "b" }],
                "x": { "y": { "z": { "a": true, "b": 31, "c": 1000 } } },
            })
        );
        let syntax = member(&tree, "syntax");
        assert_eq!((syntax.at, syntax.node.at), (at(1, 1), at(1, 10)));
        let NodeValue::List(rules) = &member(&tree, "allow").node.value else {
            panic!("{tree:?}")
        };
        assert_eq!((rules[0].at, rules[1].at), (at(3, 1), at(7, 1)));
        let who = member(&rules[0], "who");
        let NodeValue::List(who) = &who.node.value else {
            panic!("{who:?}")
        };
        assert_eq!((who[0].at, who[1].at), (at(6, 3), at(6, 13)));
        assert_eq!(member(&rules[0], "name").node.at, at(4, 8));
        let z = member(&member(&member(&tree, "x").node, "y").node, "z");
        assert_eq!((z.at, member(&z.node, "b").node.at), (at(10, 3), at(10, 23)));
    }

    #[test]
    fn columns_are_characters() {
        let text = "'\u{e9}\u{1f980}' = 2020-01-01\na = 1.5\nb = 99999999999999999999\n";
        let tree = read(text).unwrap();
        let date = member(&tree, "\u{e9}\u{1f980}");
        assert_eq!(date.node.at, at(1, 8));
        assert_eq!(date.node.value, NodeValue::Other("a date or time"));
        assert_eq!(
            member(&tree, "a").node.value,
            NodeValue::Other("a number with a fraction")
        );
        assert_eq!(
            member(&tree, "b").node.value,
            NodeValue::Other("a number that is too large")
        );
    }

    #[test]
    fn mistakes_of_the_grammar_have_positions() {
        for (text, expected) in [
            ("a = 1\na = 2\n", at(2, 1)),
            ("a = \n", at(1, 5)),
            ("a = 1\n[a]\n", at(2, 2)),
            ("syntax = 1\n\n[[allow]\n", at(3, 9)),
            ("a = 'x\nb = 1\n", at(1, 7)),
            ("a = [1,\n", at(1, 8)),
            ("\u{e9} = 1\n", at(1, 1)),
            ("a = \"\\q\"\n", at(1, 7)),
        ] {
            let mistakes = read(text).unwrap_err();
            assert_eq!(mistakes[0].at, expected, "{text:?}: {mistakes:?}");
            assert!(!mistakes[0].message.is_empty() && !mistakes[0].message.contains('\n'));
        }
        // Reading goes on after a mistake.
        let lines: Vec<_> = read("a = \nb = 1\nc = \n").unwrap_err();
        assert_eq!(lines.iter().map(|mistake| mistake.at.line).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn mistakes_of_entries_have_positions() {
        let mistakes = policy(
            "syntax = 1

[[allow]]
name = \"team\"
whom = [\"anyone\"]
repositories = [\"**\", \"A\"]
actions = [\"pull\", \"read\"]

[[immutable]]
name = \"team\"
repositories = [\"**\"]
tags = [\"semver\", \"[\"]
grace = \"10 minutes\"

[[repository]]
match = [\"**\"]
max-blob = \"one\"
",
        )
        .unwrap_err();
        let found: Vec<_> = mistakes.iter().map(|mistake| mistake.at).collect();
        for (expected, part) in [
            (at(5, 1), "whom"),
            (at(6, 23), "\"A\""),
            (at(7, 20), "\"read\""),
            (at(10, 8), "team"),
            (at(12, 19), "\"[\""),
            (at(13, 9), "10 minutes"),
            (at(17, 12), "one"),
        ] {
            let mistake = mistakes.iter().find(|mistake| mistake.at == expected);
            assert!(
                mistake.is_some_and(|mistake| mistake.message.contains(part)),
                "{part}: {found:?} {mistakes:?}"
            );
        }
    }

    /// The document with every kind of entry.
    const EXAMPLE: &str = include_str!("toml/example.toml");

    /// In both syntaxes it is one document with the same rules for everyone, so the table of answers of the one in JSON is that of
    /// this one too.
    #[test]
    fn the_example_is_the_same_document_in_json() {
        let json = include_str!("../../registry/src/policy/tests/example.json");
        let (toml, json) = (policy(EXAMPLE).unwrap(), Policy::from_json(json).unwrap());
        assert_eq!(toml.to_canonical_json(), json.to_canonical_json());
        assert_eq!(toml.shared(), json.shared());
        for principal in [
            ":anonymous",
            "alice",
            "zoe",
            "robot:ci",
            "workload:acme-main:acme/app",
            "workload:acme-old:acme/app",
        ] {
            for groups in [&[][..], &["payments"], &["admins"]] {
                let subject = Subject {
                    groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
                    ..Subject::new(principal.parse().unwrap())
                };
                assert_eq!(toml.rules(&subject), json.rules(&subject), "{subject:?}");
            }
        }
    }

    #[test]
    fn the_rules_of_the_example_have_lines() {
        let policy = policy(EXAMPLE).unwrap();
        let line = |rule| policy.position_of(rule).map(|at| at.line);
        assert_eq!((line("public images"), line("releases")), (Some(12), Some(37)));
    }

    /// Instances load the canonical JSON, which is longer than the text of dense rules in TOML.
    #[test]
    fn a_document_whose_canonical_json_is_too_long_is_refused() {
        // The names of the rules have so many bytes more.
        let document = |more: usize| {
            let rules = (0..499).map(|number| {
                let padding = "x".repeat(more.saturating_sub(number * 90).min(90));
                format!("{{name='{number:03}{padding}',who=['users'],repositories=['a'],actions=['pull']}}")
            });
            format!("syntax=1\nallow=[{}]\n", rules.collect::<Vec<_>>().join(","))
        };
        let length = |text: &str| policy(text).map(|policy| policy.to_canonical_json().len());
        let left = Policy::MAX_BYTES - length(&document(0)).unwrap();
        assert_eq!(length(&document(left)), Ok(Policy::MAX_BYTES));
        let too_long = document(left + 1);
        assert!(
            too_long.len() < Policy::MAX_BYTES - 3000,
            "the text itself is not too long"
        );
        assert_eq!(
            length(&too_long).unwrap_err()[0].to_string(),
            "line 1, column 1: the document has 65537 bytes as JSON without spaces, and at most 65536 are allowed"
        );
    }

    #[test]
    fn deep_and_long_documents_end() {
        let deep = format!("a = {}{}", "[".repeat(30_000), "]".repeat(30_000));
        assert!(read(&deep).is_err());
        let dotted = format!("{}b = 1", "a.".repeat(30_000));
        assert!(read(&dotted).is_err());
        let long = format!("a = [{}]", "1,".repeat(30_000));
        assert!(read(&long).is_ok());
        let too_long = " ".repeat(Policy::MAX_BYTES + 1);
        assert!(policy(&too_long).is_err());
    }

    /// A JSON document as TOML: every table inline.
    fn inline(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
            serde_json::Value::Object(members) => {
                let members = members
                    .iter()
                    .map(|(name, value)| format!("{name:?} = {}", inline(value)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
            }
            other => other.to_string(),
        }
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Into::into),
            any::<bool>().prop_map(Into::into),
            "[a-z \\\\\"\u{e9}]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[a-z-]{1,5}", inner, 0..5)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Words, which are usually legal ones.
    fn words(
        legal: &'static [&'static str],
        illegal: &'static [&'static str],
    ) -> impl Strategy<Value = serde_json::Value> {
        let some = |words: &'static [&'static str]| prop::sample::subsequence(words, 0..=words.len().min(3));
        prop_oneof![30 => some(legal), 1 => some(illegal)]
            .prop_map(|words| words.iter().copied().collect::<serde_json::Value>())
    }

    /// An issuer that workloads name, with its optional members or without them.
    fn issuer() -> impl Strategy<Value = serde_json::Value> {
        let url = prop_oneof![30 => Just("https://g.example/x"), 1 => Just("g.example")];
        let audience = prop::sample::subsequence(vec!["a", "https://r.example"], 1..=2);
        let text = || prop::option::of("[a-z \\\\\"\u{e9}]{1,9}");
        (url, audience, text(), text(), prop::option::of(any::<bool>())).prop_map(
            |(url, audience, jwks, ca, private)| {
                let mut issuer = serde_json::json!({ "name": "g", "url": url, "audience": audience });
                for (member, text) in [("jwks", jwks), ("ca", ca)] {
                    if let Some(text) = text {
                        issuer[member] = text.into();
                    }
                }
                if let Some(private) = private {
                    issuer["private"] = private.into();
                }
                issuer
            },
        )
    }

    /// A workload, which usually names an issuer that exists.
    fn workload() -> impl Strategy<Value = serde_json::Value> {
        let issuer = prop_oneof![30 => Just("g"), 1 => Just("h")];
        let claims = prop::collection::btree_map("[a-z_]{1,5}", "[ a-z\\\\\"\u{e9}]{0,8}[!-~]", 1..4);
        let template = prop::option::of(prop::sample::select(vec!["{a}", "x/{a}-{b}", "fixed"]));
        let groups = prop::option::of(prop::sample::subsequence(vec!["ci", "dev", "a.b-c"], 1..=3));
        let session = prop::option::of(prop::sample::select(vec!["1m", "90m", "12h", "10"]));
        ("[a-z]{1,6}", issuer, claims, template, groups, session).prop_map(
            |(name, issuer, claims, template, groups, session)| {
                let mut workload = serde_json::json!({ "name": name, "issuer": issuer, "claims": claims });
                for (member, text) in [("as", template), ("session", session)] {
                    if let Some(text) = text {
                        workload[member] = text.into();
                    }
                }
                if let Some(groups) = groups {
                    workload["groups"] = groups.into();
                }
                workload
            },
        )
    }

    /// A document that may be a policy.
    fn documents() -> impl Strategy<Value = serde_json::Value> {
        let who = || {
            words(
                &["anyone", "users", "robots", "user:alice", "robot:ci", "group:ops"],
                &["everyone", "user:", ""],
            )
        };
        let patterns = || {
            words(
                &["**", "a/*", "a/b", "home/{name}/**", "*/b", "public/**"],
                &["A", "a//b", "{x}", "a/**/b"],
            )
        };
        let actions = || words(&["pull", "create", "move", "push", "delete"], &["read", "*", "Pull"]);
        let name = || "[a-z \\\\\"\u{e9}]{1,6}";
        let rule = || (name(), who(), patterns(), actions());
        let rules = || {
            let rule = rule().prop_map(|(name, who, repositories, actions)| {
                serde_json::json!({ "name": name, "who": who, "repositories": repositories, "actions": actions })
            });
            prop::collection::vec(rule, 0..3)
        };
        let tags = || words(&["semver", "release-*", "*", "v1"], &["a b", "/"]);
        let grace = prop::sample::select(vec!["0s", "10m", "1h", "2d", "10", "m"]);
        let immutable = (name(), words(&["**", "a/*"], &["A"]), tags(), tags(), grace, any::<bool>()).prop_map(
            |(name, repositories, tags, except, grace, delete)| {
                serde_json::json!({
                    "name": name, "repositories": repositories, "tags": tags, "except": except, "grace": grace, "delete": delete,
                })
            },
        );
        let size = prop::sample::select(vec!["1B", "20GiB", "5MiB", "x"]);
        let create = prop::sample::select(vec!["on-push", "listed", "never"]);
        let settings = (words(&["**", "prod/**"], &["A"]), create, any::<bool>(), size).prop_map(
            |(patterns, create, foreign, size)| {
                serde_json::json!({ "match": patterns, "create": create, "foreign-layers": foreign, "max-blob": size })
            },
        );
        let syntax = prop_oneof![30 => Just(1), 1 => 0..3];
        let parts = (
            syntax,
            rules(),
            rules(),
            prop::collection::vec(immutable, 0..2),
            prop::collection::vec(settings, 0..2),
            prop::option::weighted(0.9, issuer()),
            prop::collection::vec(workload(), 0..2),
            prop::option::weighted(0.05, "[a-z-]{1,9}"),
        );
        parts.prop_map(|(syntax, allow, deny, immutable, settings, issuer, workload, other)| {
            let mut document = serde_json::json!({
                "syntax": syntax, "allow": allow, "deny": deny, "immutable": immutable, "repository": settings,
                "issuer": issuer.into_iter().collect::<serde_json::Value>(), "workload": workload,
            });
            if let Some(other) = other {
                document[&other] = true.into();
            }
            document
        })
    }

    fn messages(mistakes: &[Mistake]) -> Vec<String> {
        let mut messages: Vec<_> = mistakes.iter().map(|mistake| mistake.message.clone()).collect();
        messages.sort();
        messages
    }

    proptest! {
        /// A document is the same policy in both syntaxes, or has the same mistakes; and a policy has one canonical text.
        #[test]
        fn a_document_means_the_same_in_both_syntaxes(document in documents()) {
            let members = document.as_object().unwrap();
            let lines = members.iter().map(|(name, value)| format!("{name:?} = {}\n", inline(value)));
            match (policy(&lines.collect::<String>()), Policy::from_json(&document.to_string())) {
                (Ok(policy), Ok(other)) => {
                    let canonical = policy.to_canonical_json();
                    prop_assert_eq!(&canonical, &other.to_canonical_json());
                    prop_assert_eq!(Policy::from_json(&canonical).unwrap().to_canonical_json(), canonical);
                }
                (Err(mistakes), Err(others)) => prop_assert_eq!(messages(&mistakes), messages(&others)),
                (one, other) => return Err(TestCaseError::fail(format!("{one:?} {other:?}"))),
            }
        }

        /// A text of which one character is another one, or is missing, is read without a panic: as a policy that has a canonical
        /// text, or with mistakes in the text.
        #[test]
        fn one_changed_character(document in documents(), at in any::<prop::sample::Index>(), other in prop::option::of("[ -~\n]")) {
            let members = document.as_object().unwrap();
            let lines = members.iter().map(|(name, value)| format!("{name:?} = {}\n", inline(value)));
            let mut characters: Vec<String> = lines.collect::<String>().chars().map(String::from).collect();
            let at = at.index(characters.len());
            characters[at] = other.unwrap_or_default();
            let text = characters.concat();
            let lines = u32::try_from(text.split('\n').count()).unwrap();
            match policy(&text) {
                Ok(policy) => {
                    let canonical = policy.to_canonical_json();
                    prop_assert_eq!(Policy::from_json(&canonical).unwrap().to_canonical_json(), canonical);
                }
                Err(mistakes) => {
                    prop_assert!(!mistakes.is_empty());
                    prop_assert!(mistakes.iter().all(|mistake| (1..=lines).contains(&mistake.at.line)), "{:?}", mistakes);
                }
            }
        }
    }

    proptest! {
        /// No text makes the reader panic, and every position is in the text.
        #[test]
        fn any_text(text in "(\\[{0,2}[a-z.'\"]{0,4}\\]{0,2}|[a-z]{1,2} = [\\[{'\"a1.,= \\]}]{0,8}|\\PC{0,5}|\n|\r\n|#){0,12}") {
            let lines = u32::try_from(text.split('\n').count()).unwrap();
            match read(&text) {
                Ok(_) => {}
                Err(mistakes) => prop_assert!(mistakes.iter().all(|mistake| mistake.at.line <= lines)),
            }
        }

        /// Both readers make the same tree of the same document, but for positions.
        #[test]
        fn json_and_toml_are_one_tree(members in prop::collection::btree_map("[a-z-]{1,5}", values(), 0..6)) {
            let document = serde_json::Value::Object(members.clone().into_iter().collect());
            let lines = members.iter().map(|(name, value)| format!("{name:?} = {}\n", inline(value)));
            let from_toml = read(&lines.collect::<String>());
            let from_json = json::read(&document.to_string());
            prop_assert_eq!(plain(&from_toml.unwrap()), plain(&from_json.unwrap()));
        }
    }
}
