//! `roadstead user`.

use std::collections::BTreeSet;

use auth::administration::accounts::NewAccount;
use auth::administration::{AdministrationError, Author};
use auth::password::{Parameters, PasswordHasher};
use registry::auth::{AccountName, GroupName};
use registry::store::access::{Account, AccountKind, PasswordHash};
use shell::clock::SystemEnvironment;

use super::accounts::{
    administer, administer_or_create, administration_of, last_admin, list, of_kind, remove, report, set, set_disabled,
    show,
};
use super::prompt::{is_typed, new_password};
use super::store::{self, records_if_present};
use crate::cli::{PasswdArgs, UserAddArgs, UserCommand};
use crate::failure::Failure;

const KIND: AccountKind = AccountKind::User;

/// Runs a command.
pub(super) fn run(command: &UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => add(args),
        UserCommand::List(read) => list(KIND, read),
        UserCommand::Show(args) => show(KIND, &args.name, &args.read),
        UserCommand::Set(args) => set(KIND, &args.account, (&[], &[]), &args.groups),
        UserCommand::Disable(args) => set_disabled(KIND, &args.account, true, last_admin(args.force)),
        UserCommand::Enable(args) => set_disabled(KIND, args, false, last_admin(false)),
        UserCommand::Remove(args) => remove(KIND, args),
        UserCommand::Passwd(args) => passwd(args),
    }
}

fn add(args: &UserAddArgs) -> Result<(), Failure> {
    let mut groups: BTreeSet<_> = args.group.iter().cloned().collect();
    if args.admin {
        groups.insert(GroupName::ADMINS.parse().expect("the name of a group"));
    }
    let password = if args.no_password {
        None
    } else {
        if is_typed(args.password_stdin) {
            require_new(args)?;
        }
        // Before the stores are opened: the user may take a while to type.
        Some(hashed(&args.name, args.password_stdin)?)
    };
    administer_or_create(&args.stores, async |administration| {
        let new = NewAccount {
            groups,
            password,
            ..NewAccount::new(args.name.clone(), KIND)
        };
        let created = administration.create(&Author::operator(), new).await?;
        report(args.json, &created.account, "added")
    })
}

/// Fails if there is an account of this name, before anybody types a password for nothing. Makes no registry.
fn require_new(args: &UserAddArgs) -> Result<(), Failure> {
    args.stores.check(false).map_err(Failure::Usage)?;
    store::run(async {
        let Some(records) = records_if_present(&args.stores).await? else {
            return Ok(());
        };
        match administration_of(&records).account((&args.name).into()).await {
            Ok(Account { name, kind, .. }) => Err(AdministrationError::Exists { name, kind }.into()),
            Err(AdministrationError::NoAccount { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
}

fn passwd(args: &PasswdArgs) -> Result<(), Failure> {
    let (account, piped) = (&args.account, args.password_stdin);
    if is_typed(piped) {
        administer(&account.stores, async |administration| {
            administration.account(of_kind(&account.name, KIND)).await?;
            Ok(())
        })?;
    }
    let password = hashed(&account.name, piped)?;
    administer(&account.stores, async |administration| {
        let changed = administration
            .set_password(&Author::operator(), &account.name, password)
            .await?;
        report(account.json, &changed, "set the password of")
    })
}

/// Reads a new password, and hashes it.
fn hashed(name: &AccountName, piped: bool) -> Result<PasswordHash, Failure> {
    let password = new_password(name.as_str(), piped)?;
    PasswordHasher::new(Parameters::DEFAULT)
        .and_then(|hasher| hasher.hash(&password, &SystemEnvironment))
        .map_err(|error| Failure::Failed(error.to_string()))
}
