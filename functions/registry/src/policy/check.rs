//! Checks a [tree](super::tree), and makes the [document](super::document) of it.
//!
//! All mistakes are collected: an entry with a mistake is left out, and the check goes on with the next one.

mod fields;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;

use self::fields::{Fields, Wrong};
use super::Policy;
use super::document::{
    AccessEntry, Document, ImmutableEntry, IssuerEntry, RepositoryEntry, SYNTAX, WorkloadEntry, creation_word,
};
use super::mistake::{Mistake, Mistakes, quoted};
use super::tree::{Node, NodeValue, Position};
use super::units::{parse_duration, parse_size};
use super::who::Who;
use crate::auth::{Actions, Creation, GroupName, Principal};

/// The longest name of a rule, in bytes.
const MAX_NAME: usize = 100;

/// The longest session of a workload, in milliseconds.
const MAX_SESSION_MS: u64 = 12 * 3_600_000;

/// The document that a tree describes, or all its mistakes.
pub fn document(tree: &Node) -> Result<Document, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let document = Checker::new(&mut mistakes).document(tree);
    mistakes.result(document)
}

struct Checker<'m> {
    mistakes: &'m mut Mistakes,
    /// The names of rules so far: of `allow`, `deny` and `immutable` together, since refusals name them.
    rules: BTreeSet<String>,
    /// The names of issuers and workloads, also of those with mistakes.
    issuers: BTreeSet<String>,
    workloads: BTreeSet<String>,
}

impl<'m> Checker<'m> {
    fn new(mistakes: &'m mut Mistakes) -> Self {
        Self {
            mistakes,
            rules: BTreeSet::new(),
            issuers: BTreeSet::new(),
            workloads: BTreeSet::new(),
        }
    }

    fn document(&mut self, tree: &Node) -> Option<Document> {
        const MEMBERS: &[&str] = &[
            "syntax",
            "issuer",
            "workload",
            "allow",
            "deny",
            "immutable",
            "repository",
        ];
        // The members of another syntax are not known, so nothing else is said of it.
        self.syntax(tree)?;
        let fields = Fields::open(tree, "the document", MEMBERS, self.mistakes)?;
        let entries = |name: &str, mistakes: &mut Mistakes| fields.nodes(name, mistakes);
        let issuer_nodes = entries("issuer", self.mistakes);
        let workload_nodes = entries("workload", self.mistakes);
        let allow_nodes = entries("allow", self.mistakes);
        let deny_nodes = entries("deny", self.mistakes);
        let immutable_nodes = entries("immutable", self.mistakes);
        let repository_nodes = entries("repository", self.mistakes);
        self.bound(issuer_nodes.len(), Policy::MAX_ISSUERS, "issuers", tree.at)?;
        self.bound(
            workload_nodes.len(),
            Policy::MAX_WORKLOADS,
            "rules for workloads",
            tree.at,
        )?;
        let rules = allow_nodes.len() + deny_nodes.len() + immutable_nodes.len() + repository_nodes.len();
        self.bound(rules, Policy::MAX_RULES, "rules", tree.at)?;
        Some(Document {
            syntax: SYNTAX,
            issuers: issuer_nodes.iter().filter_map(|node| self.issuer(node)).collect(),
            workloads: workload_nodes.iter().filter_map(|node| self.workload(node)).collect(),
            allow: allow_nodes
                .iter()
                .filter_map(|node| self.access(node, "[[allow]]"))
                .collect(),
            deny: deny_nodes
                .iter()
                .filter_map(|node| self.access(node, "[[deny]]"))
                .collect(),
            immutable: immutable_nodes.iter().filter_map(|node| self.immutable(node)).collect(),
            repositories: repository_nodes
                .iter()
                .filter_map(|node| self.repository(node))
                .collect(),
        })
    }

    fn syntax(&mut self, tree: &Node) -> Option<()> {
        let NodeValue::Table(members) = &tree.value else {
            self.mistakes
                .add(tree.at, format!("expected a table, found {}", tree.value.kind()));
            return None;
        };
        let Some(member) = members.iter().find(|member| member.name == "syntax") else {
            self.mistakes
                .add(tree.at, format!("the member `syntax` is missing: expected {SYNTAX}"));
            return None;
        };
        match member.node.value {
            NodeValue::Integer(SYNTAX) => Some(()),
            NodeValue::Integer(other) => {
                let text = format!("this program reads syntax {SYNTAX}, and not {other}");
                self.mistakes.add(member.node.at, text);
                None
            }
            ref other => {
                let text = format!("`syntax`: expected {SYNTAX}, found {}", other.kind());
                self.mistakes.add(member.node.at, text);
                None
            }
        }
    }

    fn bound(&mut self, number: usize, max: usize, what: &str, at: Position) -> Option<()> {
        if number > max {
            self.mistakes
                .add(at, format!("{number} {what}: at most {max} are allowed"));
            return None;
        }
        Some(())
    }

    fn issuer(&mut self, node: &Node) -> Option<IssuerEntry> {
        const MEMBERS: &[&str] = &["name", "url", "audience", "jwks", "ca", "private"];
        let fields = Fields::open(node, "[[issuer]]", MEMBERS, self.mistakes)?;
        let name = fields.text("name", self.mistakes);
        let name = name.and_then(|(at, name)| self.new_name(at, name, |checker| &mut checker.issuers));
        let url = fields.text("url", self.mistakes).and_then(|(at, url)| {
            let is_url = is_https(url);
            if !is_url {
                self.mistakes.add(
                    at,
                    format!("`url`: expected an https URL without a query, found {}", quoted(url)),
                );
            }
            is_url.then(|| url.to_owned())
        });
        let audience = fields.texts("audience", self.mistakes);
        let jwks = fields.optional_text("jwks", self.mistakes);
        let ca = fields.optional_text("ca", self.mistakes);
        let private = fields.boolean("private", false, self.mistakes);
        Some(IssuerEntry {
            at: node.at,
            name: name?,
            url: url?,
            audience: audience?.into_iter().map(|(_, text)| text.to_owned()).collect(),
            jwks: jwks.ok()?.map(|(_, text)| text.to_owned()),
            ca: ca.ok()?.map(|(_, text)| text.to_owned()),
            private: private?,
        })
    }

    fn workload(&mut self, node: &Node) -> Option<WorkloadEntry> {
        const MEMBERS: &[&str] = &["name", "issuer", "claims", "as", "groups", "session"];
        let fields = Fields::open(node, "[[workload]]", MEMBERS, self.mistakes)?;
        let name = fields.text("name", self.mistakes).and_then(|(at, name)| {
            // The name is a part of a principal's text.
            if Principal::workload(name, "name").is_err() {
                self.mistakes.add(
                    at,
                    format!("`name`: a name for workloads has no colon: {}", quoted(name)),
                );
                return None;
            }
            self.new_name(at, name, |checker| &mut checker.workloads)
        });
        let issuer = fields.text("issuer", self.mistakes).and_then(|(at, issuer)| {
            let is_known = self.issuers.contains(issuer);
            if !is_known {
                self.mistakes
                    .add(at, format!("`issuer`: there is no issuer {}", quoted(issuer)));
            }
            is_known.then(|| issuer.to_owned())
        });
        let claims = self.claims(&fields);
        let name_template = fields.optional_text("as", self.mistakes).and_then(|text| match text {
            Some((at, text)) if !is_name_template(text) => {
                self.mistakes.add(
                    at,
                    format!(
                        "`as`: expected the name of a repository, with claims in braces, found {}",
                        quoted(text)
                    ),
                );
                Err(Wrong)
            }
            text => Ok(text.map(|(_, text)| text.to_owned())),
        });
        let groups = if fields.has("groups") {
            fields.parsed("groups", self.mistakes)
        } else {
            Some(Vec::new())
        };
        let session_ms = self.duration(&fields, "session", Some(MAX_SESSION_MS));
        Some(WorkloadEntry {
            at: node.at,
            name: name?,
            issuer: issuer?,
            claims: claims?,
            name_template: name_template.ok()?,
            groups: groups?,
            session_ms: session_ms.ok()?,
        })
    }

    /// The claims of a workload: at least one.
    fn claims(&mut self, fields: &Fields) -> Option<BTreeMap<String, String>> {
        let node = fields.required("claims", self.mistakes)?;
        let NodeValue::Table(members) = &node.value else {
            self.mistakes.add(
                node.at,
                format!("`claims`: expected a table, found {}", node.value.kind()),
            );
            return None;
        };
        if members.is_empty() {
            self.mistakes
                .add(node.at, "`claims` is empty: every token of the issuer would match");
            return None;
        }
        let mut claims = Some(BTreeMap::new());
        for member in members {
            match &member.node.value {
                NodeValue::Text(text) => {
                    if let Some(claims) = &mut claims {
                        claims.insert(member.name.clone(), text.clone());
                    }
                }
                other => {
                    let text = format!(
                        "the claim {}: expected a text, found {}",
                        quoted(&member.name),
                        other.kind()
                    );
                    self.mistakes.add(member.node.at, text);
                    claims = None;
                }
            }
        }
        claims
    }

    fn access(&mut self, node: &Node, kind: &'static str) -> Option<AccessEntry> {
        let fields = Fields::open(node, kind, &["name", "who", "repositories", "actions"], self.mistakes)?;
        let name = self.rule_name(&fields);
        let who: Option<Vec<Who>> = fields.parsed("who", self.mistakes);
        if let Some(texts) = fields.at_each("who") {
            for (at, who) in texts.into_iter().zip(who.iter().flatten()) {
                if let Who::Workload(rule) = who
                    && !self.workloads.contains(rule)
                {
                    self.mistakes
                        .add(at, format!("`who`: there is no [[workload]] {}", quoted(rule)));
                }
            }
        }
        let repositories = fields.parsed("repositories", self.mistakes);
        let actions: Option<Vec<Actions>> = fields.parsed("actions", self.mistakes);
        Some(AccessEntry {
            at: node.at,
            name: name?,
            who: who?,
            repositories: repositories?,
            actions: actions?.into_iter().fold(Actions::NONE, Actions::union),
        })
    }

    fn immutable(&mut self, node: &Node) -> Option<ImmutableEntry> {
        const MEMBERS: &[&str] = &["name", "repositories", "tags", "except", "grace", "delete"];
        let fields = Fields::open(node, "[[immutable]]", MEMBERS, self.mistakes)?;
        let name = self.rule_name(&fields);
        let repositories = fields.parsed("repositories", self.mistakes);
        let tags = fields.parsed("tags", self.mistakes);
        let except = if fields.has("except") {
            fields.parsed("except", self.mistakes)
        } else {
            Some(Vec::new())
        };
        let grace = self.duration(&fields, "grace", None);
        let delete = fields.boolean("delete", false, self.mistakes);
        Some(ImmutableEntry {
            at: node.at,
            name: name?,
            repositories: repositories?,
            tags: tags?,
            except: except?,
            grace_ms: grace.ok()?.unwrap_or_default(),
            delete: delete?,
        })
    }

    fn repository(&mut self, node: &Node) -> Option<RepositoryEntry> {
        const MEMBERS: &[&str] = &["match", "create", "max-blob", "foreign-layers"];
        let fields = Fields::open(node, "[[repository]]", MEMBERS, self.mistakes)?;
        let repositories = fields.parsed("match", self.mistakes);
        let create = fields.optional_text("create", self.mistakes).and_then(|text| {
            let Some((at, word)) = text else {
                return Ok(Creation::default());
            };
            let all = [Creation::OnPush, Creation::Listed];
            let found = all.into_iter().find(|creation| creation_word(*creation) == word);
            if found.is_none() {
                self.mistakes.add(
                    at,
                    format!("`create`: expected `on-push` or `listed`, found {}", quoted(word)),
                );
            }
            found.ok_or(Wrong)
        });
        let max_blob = fields.optional_text("max-blob", self.mistakes).and_then(|text| {
            let Some((at, text)) = text else { return Ok(None) };
            let size = parse_size(text).filter(|size| *size > 0);
            if size.is_none() {
                self.mistakes.add(
                    at,
                    format!(
                        "`max-blob`: expected a size such as 500MiB or 20GiB, found {}",
                        quoted(text)
                    ),
                );
            }
            size.map(Some).ok_or(Wrong)
        });
        let foreign_layers = fields.boolean("foreign-layers", true, self.mistakes);
        Some(RepositoryEntry {
            at: node.at,
            repositories: repositories?,
            create: create.ok()?,
            max_blob: max_blob.ok()?,
            foreign_layers: foreign_layers?,
        })
    }

    fn rule_name(&mut self, fields: &Fields) -> Option<Arc<str>> {
        let (at, name) = fields.text("name", self.mistakes)?;
        if let Some(reason) = reserved(name) {
            self.mistakes.add(at, format!("`name`: {reason}: {}", quoted(name)));
            return None;
        }
        let name = self.new_name(at, name, |checker| &mut checker.rules)?;
        Some(name.into())
    }

    /// A name that no other entry has.
    fn new_name(&mut self, at: Position, name: &str, names: fn(&mut Self) -> &mut BTreeSet<String>) -> Option<String> {
        if name.len() > MAX_NAME || name.contains(char::is_control) {
            let text = format!(
                "`name`: at most {MAX_NAME} bytes, and no control characters: {}",
                quoted(name)
            );
            self.mistakes.add(at, text);
            return None;
        }
        if !names(self).insert(name.to_owned()) {
            self.mistakes.add(at, format!("`name`: {} is used twice", quoted(name)));
            return None;
        }
        Some(name.to_owned())
    }

    /// `None`: there is no such member.
    fn duration(&mut self, fields: &Fields, name: &str, max: Option<u64>) -> Result<Option<u64>, Wrong> {
        let Some((at, text)) = fields.optional_text(name, self.mistakes)? else {
            return Ok(None);
        };
        let Some(duration) = parse_duration(text) else {
            let text = format!(
                "`{name}`: expected a duration such as 90s, 10m, 12h or 30d, found {}",
                quoted(text)
            );
            self.mistakes.add(at, text);
            return Err(Wrong);
        };
        if let Some(max) = max.filter(|max| duration == 0 || duration > *max) {
            let text = format!("`{name}`: expected more than 0s, and at most {}h", max / 3_600_000);
            self.mistakes.add(at, text);
            return Err(Wrong);
        }
        Ok(Some(duration))
    }
}

/// Why no rule of a document may have this name. An explanation would say that a rule which is not in the document stands there.
fn reserved(name: &str) -> Option<&'static str> {
    if name.starts_with("--") {
        Some("only the rules of flags have names that begin with `--`")
    } else if name == GroupName::ADMINS {
        Some("only the rule that lets administrators do everything has this name")
    } else if name.contains('#') {
        Some("only the grants of robots have names with `#`")
    } else {
        None
    }
}

/// Whether the text is the URL of an issuer.
fn is_https(text: &str) -> bool {
    let Ok(uri) = Uri::from_str(text) else { return false };
    let has_host = uri
        .authority()
        .is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    uri.scheme_str() == Some("https") && has_host && uri.query().is_none() && !text.contains(['#', '?'])
}

/// Whether the text is made of characters of repository names, and of claims in braces.
fn is_name_template(text: &str) -> bool {
    let is_legal = |next: char| next.is_ascii_lowercase() || next.is_ascii_digit() || "._-/".contains(next);
    let mut pieces = text.split('{');
    let begins_well = pieces.next().is_some_and(|literal| literal.chars().all(is_legal));
    begins_well
        && pieces.all(|piece| {
            let claim = piece.split_once('}');
            claim.is_some_and(|(claim, literal)| !claim.is_empty() && literal.chars().all(is_legal))
        })
}
