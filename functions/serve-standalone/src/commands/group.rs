//! `roadstead group`.

use serde_json::json;

use super::accounts::administer;
use super::output::{Form, Output};
use crate::cli::ReadArgs;
use crate::failure::Failure;

const LIST: &[(&str, usize)] = &[("GROUP", 24), ("MEMBERS", 0)];

/// Lists the groups of all accounts.
pub(super) fn list(args: &ReadArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let mut output = Output::new(args.json, LIST)?;
        for (group, members) in administration.groups().await? {
            if output.form() == Form::Json {
                output.json(&json!({ "group": group, "members": members }))?;
            } else {
                let members: Vec<_> = members.iter().map(ToString::to_string).collect();
                output.columns(&[group.to_string(), members.join(",")])?;
            }
        }
        Ok(output.finish()?)
    })
}
