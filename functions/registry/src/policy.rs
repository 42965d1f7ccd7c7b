//! The policy: one document that says who may do what, and which tags never change.
//!
//! A document is written in TOML or JSON, with the same names. Either reader fills one tree ([`tree`]) of values with their positions;
//! the reader for JSON ([`json`]) is here, so that a registry needs no other to load a policy. One checker ([`check`]) turns a tree
//! into a document ([`document`]), or into all its mistakes ([`mistake`]). Of a document, each principal gets the
//! [`Rules`] that concern it, and all principals share the [`SharedRules`].
//!
//! ```
//! use registry::auth::{ActionKind, Principal, Subject};
//! use registry::policy::Policy;
//!
//! let policy = Policy::from_json(
//!     r#"{"syntax": 1, "allow": [{
//!         "name": "homes", "who": ["users"], "repositories": ["home/{name}/**"], "actions": ["pull", "push"]
//!     }]}"#,
//! )
//! .unwrap();
//! let rules = policy.rules(&Subject::new(Principal::user("alice").unwrap()));
//! assert!(rules.allow(ActionKind::Write, &"home/alice/app".parse().unwrap()));
//! assert!(!rules.allow(ActionKind::Write, &"home/bob/app".parse().unwrap()));
//! ```

pub mod check;
pub mod compile;
pub mod document;
pub mod json;
pub mod mistake;
pub mod template;
pub mod tree;
pub mod units;
pub mod warnings;
pub mod who;

use std::sync::Arc;

use self::document::{AccessEntry, Document};
pub use self::mistake::Mistake;
use self::template::RepositoryTemplate;
use self::tree::{Node, Position};
pub use self::warnings::{KnownNames, Warning};
use self::who::Who;
use crate::auth::{Actions, RepositoryPattern, Rules, SharedRules, Subject};

/// The name of the rule that [`Policy::allowing_anonymous_pull`] adds.
pub const ANONYMOUS_PULL: &str = "--allow-anonymous pull";

/// A checked policy. Cloning is cheap enough for one clone per version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    document: Document,
    shared: Arc<SharedRules>,
}

impl Policy {
    /// The largest document in bytes, as it is written in either syntax and as canonical JSON.
    pub const MAX_BYTES: usize = 64 << 10;
    /// The maximum number of rules: to allow, to deny, immutable ones, and settings of repositories, together.
    pub const MAX_RULES: usize = 500;
    /// The maximum number of issuers.
    pub const MAX_ISSUERS: usize = 10;
    /// The maximum number of rules for workloads.
    pub const MAX_WORKLOADS: usize = 100;

    /// The policy while none was set: users may do everything.
    #[must_use]
    pub fn default_policy() -> Self {
        let users = rule("default", Who::Users, Actions::ALL);
        Self::of(Document {
            allow: vec![users],
            ..Document::default()
        })
    }

    /// Reads a document in JSON. Fails with all mistakes, at most [`mistake::MAX_MISTAKES`] of them.
    pub fn from_json(text: &str) -> Result<Self, Vec<Mistake>> {
        Self::check_length(text)?;
        Self::from_tree(&json::read(text)?)
    }

    /// Checks that a document, in either syntax, is not too long.
    pub fn check_length(text: &str) -> Result<(), Vec<Mistake>> {
        if text.len() <= Self::MAX_BYTES {
            return Ok(());
        }
        let text = format!("the document exceeds {} bytes", Self::MAX_BYTES);
        Err(vec![Mistake::new(Position::START, text)])
    }

    /// Checks a document that a reader of some syntax has made a tree of. Fails with all mistakes, as
    /// [`Policy::from_json`] does.
    ///
    /// Its canonical JSON may be longer than its text in another syntax. It must not be too long either: instances load it.
    pub fn from_tree(tree: &Node) -> Result<Self, Vec<Mistake>> {
        let policy = Self::of(check::document(tree)?);
        let length = policy.to_canonical_json().len();
        if length > Self::MAX_BYTES {
            let text = format!(
                "the document has {length} bytes as JSON without spaces, and at most {} are allowed",
                Self::MAX_BYTES
            );
            return Err(vec![Mistake::new(Position::START, text)]);
        }
        Ok(policy)
    }

    fn of(document: Document) -> Self {
        let shared = Arc::new(compile::shared(&document));
        Self { document, shared }
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The document as JSON in one form: equal documents have equal texts, whatever syntax and spaces they were written with.
    /// [`Policy::from_json`] reads it.
    #[must_use]
    pub fn to_canonical_json(&self) -> String {
        // Texts, lists of texts and numbers can always be written.
        serde_json::to_string(&self.document).unwrap_or_default()
    }

    /// What the author of the policy may not have meant. `known` are the names that exist.
    #[must_use]
    pub fn warnings(&self, known: &KnownNames) -> Vec<Warning> {
        warnings::of(&self.document, known)
    }

    /// The same policy, and everyone may pull everything.
    #[must_use]
    pub fn allowing_anonymous_pull(self) -> Self {
        let mut document = self.document;
        if document.allow.iter().all(|rule| &*rule.name != ANONYMOUS_PULL) {
            document.allow.push(rule(ANONYMOUS_PULL, Who::Anyone, Actions::PULL));
        }
        Self::of(document)
    }

    /// The rules that concern a principal, and those that concern every principal.
    #[must_use]
    pub fn rules(&self, subject: &Subject) -> Rules {
        compile::rules(&self.document, subject).with_shared(self.shared())
    }

    /// The rules that concern every principal.
    #[must_use]
    pub fn shared(&self) -> Arc<SharedRules> {
        self.shared.clone()
    }

    /// Where the rule with this name begins, in the text that was read: a rule to allow or deny, or an immutable one. `None`: the
    /// text does not have it.
    #[must_use]
    pub fn position_of(&self, rule: &str) -> Option<Position> {
        self.document.position_of(rule)
    }
}

/// A rule for all repositories, which no text has.
fn rule(name: &str, who: Who, actions: Actions) -> AccessEntry {
    AccessEntry {
        at: Position::NONE,
        name: name.into(),
        who: vec![who],
        repositories: vec![RepositoryTemplate::Pattern(RepositoryPattern::everything())],
        actions,
    }
}

#[cfg(test)]
mod tests;
