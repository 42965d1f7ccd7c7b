//! `roadstead repo`.

use std::sync::Arc;

use registry::store::access::Author;
use serde_json::json;
use shell::admission::Admission;
use shell::clock::SystemEnvironment;
use shell::stores::Absent;

use super::output::{Form, Output};
use super::store::{PAGE, cx, pages, parse_repository, read, with};
use crate::cli::{ReadArgs, flag};
use crate::failure::Failure;

const CREATED: &[(&str, usize)] = &[("REPOSITORY", 24), ("OUTCOME", 0)];

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

/// Creates an empty repository, which stays in the catalog.
pub(super) fn create(repository: &str, args: &ReadArgs) -> Result<(), Failure> {
    let name = parse_repository(repository)?;
    with(&args.stores, Absent::Refuse, async |opened| {
        Admission::of(&opened, Arc::new(SystemEnvironment), false, flag)
            .run()
            .await?;
        opened.condition.admit();
        opened.condition.look();
        let created = opened
            .stores
            .metadata
            .create_repository(cx(), &name, &Author::operator())
            .await;
        let created = created.map_err(|error| Failure::failed("cannot create the repository", error))?;
        let mut output = Output::new(args.json, CREATED)?;
        match output.form() {
            Form::Json => output.json(&json!({ "repository": name.to_string(), "created": created }))?,
            Form::Table | Form::Lines => {
                let outcome = if created { "created" } else { "exists" };
                output.columns(&[name.to_string(), outcome.to_owned()])?;
            }
        }
        Ok(output.finish()?)
    })
}
