//! `roadstead repo`.

use serde_json::json;

use super::output::{Form, Output};
use super::store::{PAGE, cx, pages, read};
use crate::cli::ReadArgs;
use crate::failure::Failure;

/// Lists the repositories.
pub(super) fn list(args: &ReadArgs) -> Result<(), Failure> {
    read(args, async |metadata| {
        let mut output = Output::new(args.json, &[("REPOSITORY", 0)])?;
        let page = |last: Option<oci::RepositoryName>| {
            let metadata = metadata.clone();
            async move {
                metadata
                    .repositories(cx(), last.as_ref().map(AsRef::as_ref), PAGE)
                    .await
            }
        };
        pages(page, async |repository| {
            match output.form() {
                Form::Json => output.json(&json!({ "repository": repository.to_string() }))?,
                Form::Table | Form::Lines => output.columns(&[repository.to_string()])?,
            }
            Ok(())
        })
        .await?;
        Ok(output.finish()?)
    })
}
