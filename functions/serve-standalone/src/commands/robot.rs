//! `roadstead robot`.

use auth::administration::Author;
use auth::administration::accounts::NewAccount;
use auth::administration::keys::NewKey;
use registry::store::access::AccountKind;
use serde_json::json;

use super::accounts::{
    account_json, administer, ends, last_admin, list, remove, report_key, set, set_disabled, show, warn_of_grants,
};
use crate::cli::{RobotAddArgs, RobotCommand, RobotSetArgs};
use crate::failure::Failure;

const KIND: AccountKind = AccountKind::Robot;

/// Runs a command.
pub(super) fn run(command: &RobotCommand) -> Result<(), Failure> {
    match command {
        RobotCommand::Add(args) => add(args),
        RobotCommand::List(read) => list(KIND, read),
        RobotCommand::Show(args) => show(KIND, &args.name, &args.read),
        RobotCommand::Set(args) => change(args),
        RobotCommand::Disable(args) => set_disabled(KIND, &args.account, true, last_admin(args.force)),
        RobotCommand::Enable(args) => set_disabled(KIND, args, false, last_admin(false)),
        RobotCommand::Remove(args) => remove(KIND, args),
    }
}

fn add(args: &RobotAddArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let new = NewAccount {
            groups: args.group.iter().cloned().collect(),
            grants: args.allow.clone(),
            key: Some(NewKey {
                scope: None,
                expires: ends(args.expires),
            }),
            ..NewAccount::new(args.name.clone(), KIND)
        };
        let created = administration.create(&Author::operator(), new).await?;
        warn_of_grants(&created.account.grants);
        let Some(key) = &created.key else { return Ok(()) };
        let json = args.json.then(|| {
            let mut value = account_json(&created.account);
            value["key"] = json!(key.key.expose());
            value
        });
        report_key(json, &args.name, key, &format!("added the robot {}", args.name))
    })
}

fn change(args: &RobotSetArgs) -> Result<(), Failure> {
    set(KIND, &args.account, (&args.allow, &args.disallow), &args.groups)
}
