//! Says which rule of a policy decides about a request, and where it is written.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use oci::{RepositoryName, Tag};
use registry::auth::{ActionKind, Creation, Decision, GroupName, Principal, PrincipalKind, Rules, Subject};
use registry::policy::units::format_size;
use registry::policy::{ANONYMOUS_PULL, Policy};
use registry::store::metadata::{HistoryRecord, MetadataStore};
use registry::store::{Context, StoreError, Timestamp};

/// What a principal wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Read content and lists.
    Pull,
    /// Push content, and tags that do not exist.
    Create,
    /// Push to a tag that exists.
    Move,
    /// Push content, new tags, and other manifests to tags that exist.
    Push,
    /// Delete a tag, a manifest or a blob.
    Delete,
}

/// The text is no action.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an action: expected pull, create, move, push or delete")]
pub struct WishError;

impl Wish {
    /// Every action.
    pub const ALL: [Self; 5] = [Self::Pull, Self::Create, Self::Move, Self::Push, Self::Delete];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Create => "create",
            Self::Move => "move",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// The permissions that it needs. Whether a push moves its tag depends on whether the tag exists.
    fn needs(self, tag: TagCondition) -> &'static [ActionKind] {
        match (self, tag) {
            (Self::Pull, _) => &[ActionKind::Read],
            (Self::Delete, _) => &[ActionKind::Delete],
            (Self::Create, TagCondition::Unknown)
            | (Self::Create | Self::Push, TagCondition::Absent | TagCondition::Deleted { .. }) => &[ActionKind::Write],
            (Self::Move, _)
            | (Self::Push, TagCondition::Unknown)
            | (Self::Create | Self::Push, TagCondition::Since(_)) => &[ActionKind::Write, ActionKind::Move],
        }
    }

    /// Whether it is a push.
    const fn is_push(self) -> bool {
        matches!(self, Self::Create | Self::Move | Self::Push)
    }
}

impl FromStr for Wish {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        Self::ALL
            .into_iter()
            .find(|wish| wish.as_str() == text)
            .ok_or(WishError)
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of the tag of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagCondition {
    /// Nothing, or the question has no tag.
    Unknown,
    /// It never existed.
    Absent,
    /// It was deleted.
    Deleted {
        /// Since when it had named the same manifest.
        since: Timestamp,
        /// When it was deleted.
        at: Timestamp,
    },
    /// It has named the same manifest since this time.
    Since(Timestamp),
}

/// Whether the repository of a question exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RepositoryCondition {
    /// Not known.
    Unknown,
    /// It does not exist.
    Absent,
    /// It exists.
    Exists,
}

/// Reads what a question is about, a repository and a tag in it. At most three reads.
pub async fn look_up(
    metadata: &dyn MetadataStore,
    cx: Context,
    repository: &RepositoryName,
    tag: Option<&Tag>,
) -> Result<(RepositoryCondition, TagCondition), StoreError> {
    let existence = if metadata.repository(cx, repository).await?.is_some() {
        RepositoryCondition::Exists
    } else {
        RepositoryCondition::Absent
    };
    let Some(tag) = tag else {
        return Ok((existence, TagCondition::Unknown));
    };
    let condition = if let Some(row) = metadata.tag(cx, repository, tag).await? {
        TagCondition::Since(row.at)
    } else {
        let changes = metadata.history(cx, repository, tag, None, 1).await?.items;
        match changes.first().and_then(HistoryRecord::deletion) {
            // A deletion that does not record since when the tag stood counts as one of a tag that stood for long.
            Some(deletion) => TagCondition::Deleted {
                since: deletion.since.unwrap_or(Timestamp(0)),
                at: deletion.at,
            },
            None => TagCondition::Absent,
        }
    };
    Ok((existence, condition))
}

/// A question about one request.
#[derive(Clone, Debug)]
pub struct Question {
    /// What.
    pub wish: Wish,
    /// Where.
    pub repository: RepositoryName,
    /// Whether the repository exists.
    pub existence: RepositoryCondition,
    /// The tag, and what is known of it.
    pub tag: Option<(Tag, TagCondition)>,
    /// When.
    pub now: Timestamp,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// The rule that decides. `None`: no rule allows it, or the settings of the repository forbid it.
    pub rule: Option<Arc<str>>,
    /// The line of the rule or of the settings. `None`: no document has them. The rule is built in, or a grant of an account.
    pub line: Option<u32>,
    /// The reason, as a sentence. If a push is allowed, it ends with the conditions that the pushed content has to meet.
    pub reason: String,
}

impl Explanation {
    /// The answer about a principal whose account is disabled.
    #[must_use]
    pub fn of_disabled(principal: &Principal) -> Self {
        Self {
            allowed: false,
            rule: None,
            line: None,
            reason: format!("the account {principal} is disabled"),
        }
    }

    /// The answer about a principal without an account. If that is a user, the answer says for whom it holds: the name may be
    /// mistyped.
    #[must_use]
    pub fn without_account(mut self, principal: &Principal) -> Self {
        if principal.kind() == PrincipalKind::User {
            self.reason = format!(
                "{}; there is no account {principal}: this is the answer for a user of a htpasswd file",
                self.reason
            );
        }
        self
    }
}

/// Answers a question about a principal.
///
/// The answer is what a server says to a request of this principal, if its token contains the action. For a push to a tag
/// that exists, it is the answer to a push of another manifest; the same manifest may always be pushed again.
#[must_use]
pub fn explain(policy: &Policy, subject: &Subject, question: &Question) -> Explanation {
    let rules = policy.rules(subject);
    let condition = question
        .tag
        .as_ref()
        .map_or(TagCondition::Unknown, |(_, condition)| *condition);
    let refused = || not_created(policy, question).or_else(|| frozen(policy, question));
    let mut allowed_by = None;
    for kind in question.wish.needs(condition) {
        // Whether a push moves its tag turns out when the tag is looked up, and nobody moves one that is frozen.
        if *kind == ActionKind::Move
            && let Some(refused) = refused()
        {
            return refused;
        }
        match rules.decide(*kind, &question.repository) {
            Decision::Allowed { rule } => allowed_by = rule,
            Decision::Denied { rule } => return denied(policy, &rules, subject, question, *kind, rule),
        }
    }
    if let Some(refused) = refused() {
        return refused;
    }
    let line = line_of(policy, allowed_by.as_deref());
    let mut reason = vec![allowance(subject, allowed_by.as_deref(), line)];
    if question.wish.is_push() {
        reason.extend(freezes_later(policy, question));
        reason.extend(conditions(policy, question));
    }
    Explanation {
        allowed: true,
        line,
        rule: allowed_by,
        reason: reason.join("; "),
    }
}

/// Why a rule allows the request.
fn allowance(subject: &Subject, rule: Option<&str>, line: Option<u32>) -> String {
    let Some(rule) = rule else {
        return format!("{} may do everything here", subject.principal);
    };
    let is_grant = || {
        rule.strip_prefix(subject.principal.as_str())
            .is_some_and(|rest| rest.starts_with('#'))
    };
    match line {
        Some(_) => format!("the rule {rule:?}{} allows it", line_text(line)),
        None if rule == ANONYMOUS_PULL => format!("the servers run with {ANONYMOUS_PULL}: everyone may pull"),
        None if is_grant() => format!("the grant {rule} allows it"),
        None if subject.is_admin() && rule == GroupName::ADMINS => {
            "members of the group admins may do everything".to_owned()
        }
        None => "no policy was set, and by the default policy users may do everything".to_owned(),
    }
}

fn denied(
    policy: &Policy,
    rules: &Rules,
    subject: &Subject,
    question: &Question,
    kind: ActionKind,
    rule: Option<Arc<str>>,
) -> Explanation {
    let (wish, repository) = (question.wish, &question.repository);
    // What was asked for may need two permissions, of which one is there.
    let part = match (kind, question.wish) {
        (ActionKind::Move, Wish::Create | Wish::Push) if rules.allow(ActionKind::Write, repository) => {
            match &question.tag {
                Some((tag, TagCondition::Since(_))) => {
                    format!(": the tag {tag} exists, and another manifest needs the action move")
                }
                _ => ": it may create tags, and not move existing ones".to_owned(),
            }
        }
        _ => String::new(),
    };
    let line = line_of(policy, rule.as_deref());
    let reason = match &rule {
        Some(rule) => format!("the rule {rule:?}{} denies it{part}", line_text(line)),
        None => format!("no rule allows {} to {wish} in {repository}{part}", subject.principal),
    };
    Explanation {
        allowed: false,
        line,
        rule,
        reason,
    }
}

/// The answer to a push if the repository does not exist, and its settings do not let a push create it.
fn not_created(policy: &Policy, question: &Question) -> Option<Explanation> {
    let repository = &question.repository;
    let is_listed = policy.shared().settings(repository).create == Creation::Listed;
    if !question.wish.is_push() || question.existence != RepositoryCondition::Absent || !is_listed {
        return None;
    }
    let line = settings_line(policy, repository);
    Some(Explanation {
        allowed: false,
        rule: None,
        line,
        reason: format!(
            "the repository {repository} does not exist, and its settings{} do not let a push create it: `roadstead repo \
             create {repository}` does",
            line_text(line)
        ),
    })
}

/// The answer if an immutable rule forbids the request.
fn frozen(policy: &Policy, question: &Question) -> Option<Explanation> {
    let (tag, condition) = question.tag.as_ref()?;
    let shared = policy.shared();
    let (repository, now) = (&question.repository, question.now);
    let (rule, verb, consequence) = match (question.wish, *condition) {
        // A rule without a grace freezes the tag before it could be moved.
        (Wish::Move, TagCondition::Absent) => {
            let rule = shared.frozen(repository, tag, now, now)?;
            (rule, "freezes at once the new tag", "is not moved")
        }
        (Wish::Pull, _)
        | (_, TagCondition::Unknown | TagCondition::Absent)
        | (Wish::Delete, TagCondition::Deleted { .. }) => return None,
        (Wish::Delete, TagCondition::Since(since)) => {
            let rule = shared.kept(repository, tag, since, now)?;
            (rule, "freezes the tag", "is not deleted")
        }
        (_, TagCondition::Since(since)) => (
            shared.frozen(repository, tag, since, now)?,
            "freezes the tag",
            "is not moved; the manifest that it names may be pushed again",
        ),
        (_, TagCondition::Deleted { since, at }) => (
            shared.frozen(repository, tag, since, at)?,
            "keeps frozen the deleted tag",
            "comes back only with the manifest that it named",
        ),
    };
    let line = line_of(policy, Some(&rule.name));
    Some(Explanation {
        allowed: false,
        line,
        rule: Some(rule.name.clone()),
        reason: format!(
            "the rule {:?}{} {verb} {tag}: it {consequence}",
            &*rule.name,
            line_text(line)
        ),
    })
}

/// That the tag of a push will be frozen, if it will.
fn freezes_later(policy: &Policy, question: &Question) -> Option<String> {
    let (tag, condition) = question.tag.as_ref()?;
    // Later than any grace.
    let later = Timestamp(u64::MAX);
    let shared = policy.shared();
    let rule = shared.frozen(&question.repository, tag, Timestamp(0), later)?;
    let at = line_text(line_of(policy, Some(&rule.name)));
    (*condition != TagCondition::Unknown).then(|| format!("the rule {:?}{at} freezes the tag {tag} later", &*rule.name))
}

/// What the settings of the repository demand of a push, if they demand something.
fn conditions(policy: &Policy, question: &Question) -> Option<String> {
    let settings = policy.shared().settings(&question.repository);
    let mut demanded = Vec::new();
    if settings.create == Creation::Listed && question.existence == RepositoryCondition::Unknown {
        demanded.push("it exists before the push".to_owned());
    }
    if let Some(max_blob) = settings.max_blob {
        demanded.push(format!("blobs have at most {}", format_size(max_blob)));
    }
    if !settings.foreign_layers {
        demanded.push("no layer is stored elsewhere".to_owned());
    }
    let at = line_text(settings_line(policy, &question.repository));
    (!demanded.is_empty()).then(|| format!("the settings of the repository{at} demand: {}", demanded.join(", ")))
}

/// The line of a rule.
fn line_of(policy: &Policy, rule: Option<&str>) -> Option<u32> {
    policy.position_of(rule?).map(|at| at.line)
}

/// The line of the settings of a repository.
fn settings_line(policy: &Policy, repository: &RepositoryName) -> Option<u32> {
    let mut entries = policy.document().repositories.iter();
    let entry = entries.find(|entry| entry.repositories.iter().any(|pattern| pattern.matches(repository)))?;
    Some(entry.at.line)
}

fn line_text(line: Option<u32>) -> String {
    line.map_or_else(String::new, |line| format!(" (line {line})"))
}
