//! `roadstead tag`.

use std::io::{self, Write as _};
use std::sync::Arc;

use auth::administration::Author;
use oci::{Digest, Reference, RepositoryName, Tag};
use registry::auth::{Denied, Rules, TagPermit};
use registry::releases::{Promotion, ReleaseError};
use registry::store::metadata::{HistoryRecord, MetadataStore};
use registry::{Anonymous, Identity, Limits, Principal, Registry, Settings, Sparse};
use serde_json::json;
use shell::admission::Admission;
use shell::clock::SystemEnvironment;
use shell::opened::Opened;
use shell::stores::Absent;
use shell::text::count;
use shell::timestamp::seconds;

use super::accounts::administration_of;
use super::output::{Form, Output};
use super::store::{OPERATION_TIMEOUT_MS, PAGE, cx, pages, parse_repository, read, with};
use crate::cli::{ManifestName, ReadArgs, TagName, TagPromoteArgs, TagRollbackArgs, flag};
use crate::failure::Failure;

const LIST: &[(&str, usize)] = &[("TAG", 24), ("DIGEST", 71), ("SIZE", 8), ("UPDATED", 0)];
const HISTORY: &[(&str, usize)] = &[("AT", 20), ("BY", 12), ("BEFORE", 71), ("AFTER", 0)];

/// Lists the tags of a repository. In a pipe, it prints only their names, for scripts.
pub(super) fn list(repository: &str, args: &ReadArgs) -> Result<(), Failure> {
    let name = parse_repository(repository)?;
    read(args, async |metadata| {
        require(&*metadata, &name).await?;
        let mut output = Output::new(args.json, LIST)?;
        let page = |last: Option<Tag>| {
            let (metadata, name) = (metadata.clone(), name.clone());
            async move { metadata.tags(cx(), &name, last.as_ref().map(AsRef::as_ref), PAGE).await }
        };
        pages(page, async |tag: &Tag| {
            if output.form() == Form::Lines {
                return Ok(output.columns(&[tag.to_string()])?);
            }
            let record = metadata.tag(cx(), &name, tag).await;
            let record = record.map_err(|error| Failure::failed("cannot read the metadata", error))?;
            // The tag may have been deleted since its page was read.
            let Some(record) = record else { return Ok(()) };
            let (digest, updated) = (record.digest.to_string(), seconds(record.at));
            if output.form() == Form::Json {
                output.json(&json!({
                    "repository": name.to_string(),
                    "tag": tag.to_string(),
                    "digest": digest,
                    "media_type": record.media_type.to_string(),
                    "size": record.size,
                    "version": record.version,
                    "updated": updated,
                }))?;
            } else {
                output.columns(&[tag.to_string(), digest, record.size.to_string(), updated])?;
            }
            Ok(())
        })
        .await?;
        Ok(output.finish()?)
    })
}

/// Lists the changes of a tag.
pub(super) fn history(repository: &str, tag: &str, args: &ReadArgs) -> Result<(), Failure> {
    let name = parse_repository(repository)?;
    let tag: Tag = tag
        .parse()
        .map_err(|error| Failure::Usage(format!("{tag:?} is not a valid name of a tag: {error}")))?;
    read(args, async |metadata| {
        require(&*metadata, &name).await?;
        let mut output = Output::new(args.json, HISTORY)?;
        let mut seen = false;
        let page = |last: Option<HistoryRecord>| {
            let (metadata, name, tag) = (metadata.clone(), name.clone(), tag.clone());
            async move {
                metadata
                    .history(cx(), &name, &tag, last.map(|record| record.version), PAGE)
                    .await
            }
        };
        pages(page, async |record: &HistoryRecord| {
            seen = true;
            let text = |digest: &Option<Digest>| digest.as_ref().map(ToString::to_string);
            let (before, after, at) = (text(&record.before), text(&record.after), seconds(record.at));
            let (principal, promoted) = (&record.principal, record.promoted_from.as_deref());
            if output.form() == Form::Json {
                let mut change = json!({
                    "repository": name.to_string(),
                    "tag": tag.to_string(),
                    "version": record.version,
                    "at": at,
                    "principal": principal,
                    "before": before,
                    "after": after,
                });
                if let Some(source) = promoted {
                    change["promoted_from"] = json!(source);
                }
                output.json(&change)?;
            } else {
                let or_none = |digest: Option<String>| digest.unwrap_or_else(|| "-".into());
                let by = match promoted {
                    Some(source) => format!("{} from {}", printable(principal), printable(source)),
                    None => printable(principal),
                };
                output.columns(&[at, by, or_none(before), or_none(after)])?;
            }
            Ok(())
        })
        .await?;
        output.finish()?;
        if seen {
            return Ok(());
        }
        Err(Failure::NotFound(format!(
            "the repository {name} has never had a tag {tag}; `roadstead tag list {name}` lists its tags"
        )))
    })
}

/// Makes a tag name an earlier manifest again.
pub(super) fn roll_back(args: &TagRollbackArgs) -> Result<(), Failure> {
    let TagRollbackArgs { repository, tag, .. } = args;
    with(&args.stores, Absent::Refuse, async |opened| {
        require(&*opened.stores.metadata, repository).await?;
        let operator = Operator::admit(&opened, Sparse::default()).await?;
        let permit = operator.permit_tag(repository, tag)?;
        let rolled_back = operator.registry.roll_back(&permit, args.to, Author::OPERATOR).await?;
        let mut stdout = io::stdout();
        if args.json {
            let value = json!({
                "repository": repository.as_str(),
                "tag": tag.as_str(),
                "digest": rolled_back.digest.to_string(),
                "moved": rolled_back.moved,
            });
            writeln!(stdout, "{value}")?;
        } else {
            let names = names(rolled_back.moved);
            writeln!(stdout, "{repository}:{tag} {names} {}", rolled_back.digest)?;
        }
        Ok(())
    })
}

/// Gives a manifest to another repository, and names it there.
pub(super) fn promote(args: &TagPromoteArgs) -> Result<(), Failure> {
    let (
        ManifestName { repository, reference },
        TagName {
            repository: target,
            tag,
        },
    ) = (&args.from, &args.to);
    with(&args.stores, Absent::Refuse, async |opened| {
        require(&*opened.stores.metadata, repository).await?;
        let operator = Operator::admit(&opened, args.sparse.policy()).await?;
        let promotion = Promotion {
            source: &operator
                .identity
                .permit(repository)
                .map_err(|denied| refused(&denied))?,
            reference,
            target: &operator.permit_tag(target, tag)?,
            principal: Author::OPERATOR,
            with_referrers: !args.without_referrers,
        };
        let promoted = operator.registry.promote(&promotion).await?;
        for tag in &promoted.kept {
            eprintln!(
                "{target}:{tag} stays as it is: it lists more there than in {repository}, for instance signatures that \
                 were made there"
            );
        }
        let mut stdout = io::stdout();
        if args.json {
            let kept: Vec<_> = promoted.kept.iter().map(Tag::as_str).collect();
            let value = json!({
                "repository": target.as_str(),
                "tag": tag.as_str(),
                "digest": promoted.digest.to_string(),
                "moved": promoted.moved,
                "from": match reference {
                    Reference::Tag(tag) => format!("{repository}:{tag}"),
                    Reference::Digest(digest) => format!("{repository}@{digest}"),
                },
                "manifests": promoted.manifests,
                "referrers": promoted.referrers,
                "kept": kept,
                "copied_bytes": promoted.copied_bytes,
            });
            writeln!(stdout, "{value}")?;
            return Ok(());
        }
        let number = |value: usize| value as u64;
        writeln!(
            stdout,
            "{target}:{tag} {} {} ({}, {})",
            names(promoted.moved),
            promoted.digest,
            count(number(promoted.manifests), "manifest", "manifests"),
            count(number(promoted.referrers), "referrer", "referrers"),
        )?;
        Ok(())
    })
}

/// Whether a tag was changed, in words before its digest.
const fn names(moved: bool) -> &'static str {
    if moved { "names now" } else { "named already" }
}

/// An operator who changes tags on the stores: everything is allowed but what the guard of tags refuses to everyone.
struct Operator {
    registry: Registry,
    identity: Identity,
}

impl Operator {
    /// Checks that the stores may be written, and reads the policy in force.
    async fn admit(opened: &Opened, sparse: Sparse) -> Result<Self, Failure> {
        let environment = Arc::new(SystemEnvironment);
        Admission::of(opened, environment.clone(), false, flag).run().await?;
        opened.condition.admit();
        opened.condition.look();
        let policy = administration_of(&opened.into()).policy_in_force().await?.policy;
        let settings = Settings {
            limits: Limits {
                store_ms: OPERATION_TIMEOUT_MS,
                ..Limits::default()
            },
            sparse,
            ..Settings::default()
        };
        // It answers no requests, so it authenticates nobody, and its memory is that of one operation.
        let registry = Registry::new(
            opened.stores.clone(),
            Arc::new(Anonymous::pull()),
            environment,
            Arc::new(()),
            settings,
        );
        let identity = Identity::new(Principal::ANONYMOUS, Rules::everything().with_shared(policy.shared()));
        Ok(Self { registry, identity })
    }

    fn permit_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<TagPermit, Failure> {
        let permit = self.identity.permit_tags(repository, vec![tag.clone()]);
        permit.map_err(|denied| refused(&denied))
    }
}

/// An operator may do everything, so this does not happen.
fn refused(denied: &Denied) -> Failure {
    Failure::Failed(format!("the operator may not do this: {denied:?}"))
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::NoTag { .. }
            | ReleaseError::NoManifest { .. }
            | ReleaseError::NoRepository(_)
            | ReleaseError::NoVersion { .. }
            | ReleaseError::Deletion { .. }
            | ReleaseError::NeverNamed { .. }
            | ReleaseError::ManifestDeleted { .. } => Self::NotFound(error.to_string()),
            ReleaseError::TooManyReferrers => Self::Failed(format!("{error}: --without-referrers")),
            ReleaseError::Store(error) => Self::failed("cannot change the metadata", error),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Fails if the repository does not exist.
async fn require(metadata: &dyn MetadataStore, name: &RepositoryName) -> Result<(), Failure> {
    match metadata.repository(cx(), name).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Failure::NotFound(format!(
            "there is no repository {name}; `roadstead repo list` lists all repositories"
        ))),
        Err(error) => Err(Failure::failed("cannot read the metadata", error)),
    }
}

/// A principal's name, escaped for a terminal.
fn printable(principal: &str) -> String {
    principal.escape_debug().to_string()
}
