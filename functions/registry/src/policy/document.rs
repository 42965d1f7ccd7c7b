//! The document of a policy, as it was written.
//!
//! Written with serde, it is the [canonical JSON](super::Policy::to_canonical_json): the members in one order, and none that
//! has its default.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::template::RepositoryTemplate;
use super::tree::Position;
use super::units;
use super::who::Who;
use crate::auth::{Actions, Creation, GroupName, RepositoryPattern, TagPattern};

/// The version of the syntax that this program reads.
pub const SYNTAX: i64 = 1;

/// A whole document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Document {
    /// The version of the syntax: [`SYNTAX`].
    pub syntax: i64,
    /// `[[issuer]]`: who issues ID tokens to workloads.
    #[serde(rename = "issuer", skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<IssuerEntry>,
    /// `[[workload]]`: which ID tokens are accepted, in the order in which they are tried.
    #[serde(rename = "workload", skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadEntry>,
    /// `[[allow]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AccessEntry>,
    /// `[[deny]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<AccessEntry>,
    /// `[[immutable]]`: which tags never change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub immutable: Vec<ImmutableEntry>,
    /// `[[repository]]`: settings, of which the first ones that match a repository count.
    #[serde(rename = "repository", skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<RepositoryEntry>,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            syntax: SYNTAX,
            issuers: Vec::new(),
            workloads: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            immutable: Vec::new(),
            repositories: Vec::new(),
        }
    }
}

impl Document {
    /// The rule for workloads with this name.
    #[must_use]
    pub fn workload(&self, name: &str) -> Option<&WorkloadEntry> {
        self.workloads.iter().find(|workload| workload.name == name)
    }

    /// Where the rule with this name begins: one of `allow`, `deny` and `immutable`, whose names are all different. `None` also
    /// if the rule is built in.
    #[must_use]
    pub fn position_of(&self, rule: &str) -> Option<Position> {
        let access = self.allow.iter().chain(&self.deny).map(|entry| (&entry.name, entry.at));
        let immutable = self.immutable.iter().map(|entry| (&entry.name, entry.at));
        let mut all = access.chain(immutable);
        let at = all.find_map(|(name, at)| (**name == *rule).then_some(at))?;
        (at != Position::NONE).then_some(at)
    }
}

/// `[[issuer]]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IssuerEntry {
    /// Where it begins.
    #[serde(skip)]
    pub at: Position,
    /// Its name, by which workloads refer to it.
    pub name: String,
    /// The `iss` of its tokens, an `https` URL.
    pub url: String,
    /// The audiences, one of which its tokens have to name.
    pub audience: Vec<String>,
    /// Its keys, as the text of a JSON Web Key Set; `None`: they are fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// The certificates of its authority, in PEM; `None`: the well-known ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Whether it may have a private address.
    #[serde(skip_serializing_if = "is_false")]
    pub private: bool,
}

/// `[[workload]]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WorkloadEntry {
    /// Where it begins.
    #[serde(skip)]
    pub at: Position,
    /// Its name.
    pub name: String,
    /// The name of the issuer.
    pub issuer: String,
    /// What the claims of a token have to be: texts in which `*` stands for any text.
    pub claims: BTreeMap<String, String>,
    /// How the name of the workload is made of claims, each in braces; `None`: it is the `sub`, and `{name}` has no value.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub name_template: Option<String>,
    /// The groups of the workload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
    /// For how long a session token is good, in milliseconds.
    #[serde(
        rename = "session",
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_duration"
    )]
    pub session_ms: Option<u64>,
}

/// `[[allow]]` or `[[deny]]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AccessEntry {
    /// Where it begins.
    #[serde(skip)]
    pub at: Position,
    /// Its name.
    #[serde(serialize_with = "shared_text")]
    pub name: Arc<str>,
    /// The principals.
    pub who: Vec<Who>,
    /// The repositories.
    pub repositories: Vec<RepositoryTemplate>,
    /// The actions.
    pub actions: Actions,
}

/// `[[immutable]]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ImmutableEntry {
    /// Where it begins.
    #[serde(skip)]
    pub at: Position,
    /// Its name.
    #[serde(serialize_with = "shared_text")]
    pub name: Arc<str>,
    /// The repositories.
    pub repositories: Vec<RepositoryPattern>,
    /// The tags.
    #[serde(serialize_with = "tag_patterns")]
    pub tags: Vec<TagPattern>,
    /// Tags that it does not freeze.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "tag_patterns")]
    pub except: Vec<TagPattern>,
    /// For how long a tag may still change, in milliseconds.
    #[serde(rename = "grace", skip_serializing_if = "is_zero", serialize_with = "duration")]
    pub grace_ms: u64,
    /// Whether a frozen tag may be deleted.
    #[serde(skip_serializing_if = "is_false")]
    pub delete: bool,
}

/// `[[repository]]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RepositoryEntry {
    /// Where it begins.
    #[serde(skip)]
    pub at: Position,
    /// The repositories.
    #[serde(rename = "match")]
    pub repositories: Vec<RepositoryPattern>,
    /// How they come to exist.
    #[serde(skip_serializing_if = "is_on_push", serialize_with = "creation")]
    pub create: Creation,
    /// The largest blob, in bytes.
    #[serde(
        rename = "max-blob",
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_size"
    )]
    pub max_blob: Option<u64>,
    /// Whether manifests may refer to layers that are stored elsewhere.
    #[serde(rename = "foreign-layers", skip_serializing_if = "is_true")]
    pub foreign_layers: bool,
}

/// The word for a value of `create`.
pub(super) const fn creation_word(creation: Creation) -> &'static str {
    match creation {
        Creation::OnPush => "on-push",
        Creation::Listed => "listed",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_on_push(value: &Creation) -> bool {
    *value == Creation::OnPush
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn duration<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&units::format_duration(*ms))
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference")]
fn optional_duration<S: Serializer>(ms: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    ms.map(units::format_duration).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference")]
fn optional_size<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.map(units::format_size).serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn creation<S: Serializer>(creation: &Creation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(creation_word(*creation))
}

fn shared_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn tag_patterns<S: Serializer>(patterns: &[TagPattern], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(patterns.iter().map(TagPattern::as_str))
}
