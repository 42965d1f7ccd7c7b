//! `roadstead tag`.

use oci::{Digest, RepositoryName, Tag};
use registry::store::metadata::{HistoryRecord, MetadataStore};
use serde_json::json;

use super::output::{Form, Output};
use super::store::{PAGE, cx, pages, read};
use crate::cli::ReadArgs;
use crate::failure::Failure;
use shell::timestamp::seconds;

const LIST: &[(&str, usize)] = &[("TAG", 24), ("DIGEST", 71), ("SIZE", 8), ("UPDATED", 0)];
const HISTORY: &[(&str, usize)] = &[("AT", 20), ("BY", 12), ("BEFORE", 71), ("AFTER", 0)];

/// Lists the tags of a repository. In a pipe these are names alone: what a script wants to go through.
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
            let record = record.map_err(|error| Failure::failed("cannot read", error))?;
            // One that was deleted since its page was read is not there.
            let Some(record) = record else { return Ok(()) };
            let (digest, updated) = (record.digest.to_string(), seconds(record.at));
            if output.form() == Form::Json {
                output.json(&json!({
                    "repository": name.to_string(),
                    "tag": tag.to_string(),
                    "digest": digest,
                    "mediaType": record.media_type.to_string(),
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

/// Lists what a tag has named.
pub(super) fn history(repository: &str, tag: &str, args: &ReadArgs) -> Result<(), Failure> {
    let name = parse_repository(repository)?;
    let tag: Tag = tag
        .parse()
        .map_err(|error| Failure::Usage(format!("{tag:?} is not the name of a tag: {error}")))?;
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
            if output.form() == Form::Json {
                output.json(&json!({
                    "repository": name.to_string(),
                    "tag": tag.to_string(),
                    "version": record.version,
                    "at": at,
                    "who": record.who,
                    "before": before,
                    "after": after,
                }))?;
            } else {
                let or_none = |digest: Option<String>| digest.unwrap_or_else(|| "-".into());
                output.columns(&[at, printable(&record.who), or_none(before), or_none(after)])?;
            }
            Ok(())
        })
        .await?;
        output.finish()?;
        if seen {
            return Ok(());
        }
        Err(Failure::NotFound(format!(
            "the tag {tag} has never been in {name}; `roadstead tag list {name}` shows those that are"
        )))
    })
}

fn parse_repository(text: &str) -> Result<RepositoryName, Failure> {
    text.parse()
        .map_err(|error| Failure::Usage(format!("{text:?} is not the name of a repository: {error}")))
}

/// Fails when the repository never held anything.
async fn require(metadata: &dyn MetadataStore, name: &RepositoryName) -> Result<(), Failure> {
    match metadata.repository(cx(), name).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::NotFound(format!(
            "there is no repository {name}; `roadstead repo list` shows those that there are"
        ))),
        Err(error) => Err(Failure::failed("cannot read", error)),
    }
}

/// A user's name as a terminal may see it.
fn printable(who: &str) -> String {
    who.escape_debug().to_string()
}
