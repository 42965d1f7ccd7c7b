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
            if output.form() == Form::Json {
                output.json(&json!({
                    "repository": name.to_string(),
                    "tag": tag.to_string(),
                    "version": record.version,
                    "at": at,
                    "principal": record.principal,
                    "before": before,
                    "after": after,
                }))?;
            } else {
                let or_none = |digest: Option<String>| digest.unwrap_or_else(|| "-".into());
                output.columns(&[at, printable(&record.principal), or_none(before), or_none(after)])?;
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

fn parse_repository(text: &str) -> Result<RepositoryName, Failure> {
    text.parse()
        .map_err(|error| Failure::Usage(format!("{text:?} is not a valid name of a repository: {error}")))
}

/// Fails if the repository does not exist.
async fn require(metadata: &dyn MetadataStore, name: &RepositoryName) -> Result<(), Failure> {
    match metadata.repository(cx(), name).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::NotFound(format!(
            "there is no repository {name}; `roadstead repo list` lists all repositories"
        ))),
        Err(error) => Err(Failure::failed("cannot read the metadata", error)),
    }
}

/// A principal's name, escaped for a terminal.
fn printable(principal: &str) -> String {
    principal.escape_debug().to_string()
}
