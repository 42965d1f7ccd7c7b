//! `roadstead key`.

use std::io::{self, Write as _};

use auth::administration::keys::NewKey;
use auth::administration::{Administration, Author};
use registry::auth::{AccountName, CredentialId};
use registry::store::access::Account;
use serde_json::json;
use shell::clock;
use shell::timestamp::seconds;

use super::accounts::{administer, ends, key_columns, key_json, new_key_json, report_key};
use super::output::{Form, Output};
use crate::cli::{KeyAddArgs, KeyCommand, KeyRemoveArgs, KeyRotateArgs, ReadArgs};
use crate::failure::Failure;

const LIST: &[(&str, usize)] = &[
    ("ID", 8),
    ("CREATED", 20),
    ("ENDS", 28),
    ("LAST USED", 10),
    ("SCOPE", 0),
];

/// Runs a command.
pub(super) fn run(command: &KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Add(args) => add(args),
        KeyCommand::List(args) => list(&args.name, &args.read),
        KeyCommand::Rotate(args) => rotate(args),
        KeyCommand::Remove(args) => remove(args),
    }
}

fn add(args: &KeyAddArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let new = NewKey {
            scope: (!args.scope.is_empty()).then(|| args.scope.clone()),
            expires: ends(args.expires),
        };
        let key = administration
            .add_key(&Author::operator(), (&args.account).into(), &new)
            .await?;
        let json = args.json.then(|| new_key_json(&args.account, &key));
        report_key(json, &args.account, &key, "added a key")
    })
}

fn list(name: &AccountName, args: &ReadArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let account = administration.account(name.into()).await?;
        let days = administration.last_uses(name).await?;
        let mut output = Output::new(args.json, LIST)?;
        for (id, key) in &account.keys {
            let used = days.get(id).copied();
            if output.form() == Form::Json {
                output.json(&key_json(*id, key, used))?;
            } else {
                let [scope, created, expires, used] = key_columns(key, used);
                output.columns(&[id.to_string(), created, expires, used, scope])?;
            }
        }
        Ok(output.finish()?)
    })
}

fn rotate(args: &KeyRotateArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let id = match args.id {
            Some(id) => id,
            None => only_key(&administration, &args.account).await?,
        };
        let rotated = administration
            .rotate_key(
                &Author::operator(),
                (&args.account).into(),
                id,
                args.overlap.millis,
                ends(args.expires),
            )
            .await?;
        let note = match rotated.old_ends {
            Some(at) => format!("the old key {id} ends at {}", seconds(at)),
            None => format!("removed the old key {id}"),
        };
        let json = args.json.then(|| {
            let mut value = new_key_json(&args.account, &rotated.new);
            value["old_id"] = json!(id);
            value["old_ends"] = json!(rotated.old_ends.map(seconds));
            value
        });
        report_key(json, &args.account, &rotated.new, &note)
    })
}

/// The key of an account that has one key that has not ended.
async fn only_key(administration: &Administration, name: &AccountName) -> Result<CredentialId, Failure> {
    let Account { keys, .. } = administration.account(name.into()).await?;
    let now = clock::now();
    let mut current = keys
        .iter()
        .filter(|(_, key)| key.expires.is_none_or(|expires| expires > now));
    match (current.next(), current.next()) {
        (Some((id, _)), None) => Ok(*id),
        (None, _) => Err(Failure::NotFound(format!(
            "{name} has no key; `roadstead key add {name}` makes one"
        ))),
        (Some(_), Some(_)) => Err(Failure::Usage(format!(
            "{name} has several keys; name the one to replace (`roadstead key list {name}` lists them)"
        ))),
    }
}

fn remove(args: &KeyRemoveArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let removed = administration
            .remove_key(&Author::operator(), (&args.account).into(), args.id)
            .await?;
        let mut stdout = io::stdout();
        if args.json {
            writeln!(stdout, "{}", key_json(args.id, &removed, None))?;
        } else {
            writeln!(stdout, "removed the key {} of {}", args.id, args.account)?;
        }
        Ok(())
    })
}
