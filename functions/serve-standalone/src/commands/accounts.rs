//! What the commands for users, robots, keys and groups share: how they open the stores, and how they print an account.

use std::future::Future;
use std::io::{self, Write as _};
use std::sync::Arc;

use auth::administration::accounts::AccountEdit;
use auth::administration::keys::IssuedKey;
use auth::administration::{AccountRef, Administration, AdministrationError, Author, LastAdmin};
use auth::grant;
use registry::auth::{AccountName, CredentialId, RepositoryGrant};
use registry::store::Timestamp;
use registry::store::access::{Account, AccountKey, AccountKind};
use serde_json::{Value, json};
use shell::clock::{self, SystemEnvironment};
use shell::stores::{Absent, Records};
use shell::text::count;
use shell::timestamp::seconds;

use super::output::{Form, Output};
use super::store::{OPERATION_TIMEOUT_MS, PAGE, with_records};
use crate::cli::{Expiry, ForcedArgs, GroupArgs, NameArgs, ReadArgs, StoreArgs};
use crate::failure::Failure;

const LIST: &[(&str, usize)] = &[("NAME", 24), ("STATUS", 8), ("KEYS", 4), ("CREATED", 20), ("GROUPS", 0)];
const FIELDS: &[(&str, usize)] = &[("FIELD", 9), ("VALUE", 0)];
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl From<AdministrationError> for Failure {
    fn from(error: AdministrationError) -> Self {
        let text = match next_step(&error) {
            Some(step) => format!("{error}; {step}"),
            None => error.to_string(),
        };
        match error {
            AdministrationError::NoAccount { .. }
            | AdministrationError::NoKey { .. }
            | AdministrationError::NoPolicy(_) => Self::NotFound(text),
            _ => Self::Failed(text),
        }
    }
}

/// What an operator can do about a change that is not made. `None`: the error says it.
fn next_step(error: &AdministrationError) -> Option<String> {
    Some(match error {
        AdministrationError::NoAccount { kind: Some(kind), .. } => {
            format!("`roadstead {} list` lists those that there are", kind.as_str())
        }
        AdministrationError::NoAccount { kind: None, .. } => {
            "`roadstead user list` and `roadstead robot list` list those that there are".to_owned()
        }
        AdministrationError::NoKey { name, .. } => format!("`roadstead key list {name}` lists its keys"),
        AdministrationError::NoPolicy(_) => "`roadstead policy versions` lists those that there are".to_owned(),
        AdministrationError::OtherKind { name, kind } => format!("use `roadstead {} …` for {name}", kind.as_str()),
        AdministrationError::Exists { name, kind } => format!(
            "choose another name, or change it with `roadstead {} set {name}`",
            kind.as_str()
        ),
        AdministrationError::NoGrant { name, .. } => format!("`roadstead robot show {name}` shows its grants"),
        AdministrationError::NotInGroup { .. } => "`roadstead group list` lists the members of groups".to_owned(),
        AdministrationError::LastAdmin(_) => "add another one first, or use --force".to_owned(),
        AdministrationError::TooMany { name, what: "keys", .. } => format!(
            "remove one with `roadstead key remove {name} ID`, or replace one at once with `roadstead key rotate {name} ID \
             --overlap 0`"
        ),
        AdministrationError::PolicyConflict { .. } => {
            "make your change in what `roadstead policy show` prints now, or set yours in its place with --if-version any"
                .to_owned()
        }
        AdministrationError::TooManySigningKeys { .. } => "`roadstead signing-key rotate --now` does that".to_owned(),
        AdministrationError::UnreadablePolicy(_) => {
            "use the version of this program that has set it, or set another policy".to_owned()
        }
        _ => return None,
    })
}

/// Runs `work` on the accounts, policy and signing keys of a registry.
pub(super) fn administer<R, F>(args: &StoreArgs, work: R) -> Result<(), Failure>
where
    R: FnOnce(Administration) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    with_records(args, Absent::Refuse, |records| work(administration_of(&records)))
}

/// The same for a command that may come before the first server. If there is no registry, it makes one.
pub(super) fn administer_or_create<R, F>(args: &StoreArgs, work: R) -> Result<(), Failure>
where
    R: FnOnce(Administration) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    with_records(args, Absent::Create, |records| work(administration_of(&records)))
}

/// The accounts, policy and signing keys among the records of a registry.
pub(super) fn administration_of(records: &Records) -> Administration {
    Administration::new(
        records.access.clone(),
        Arc::new(SystemEnvironment),
        OPERATION_TIMEOUT_MS,
    )
}

/// An account that must be of a kind.
pub(super) fn of_kind(name: &AccountName, kind: AccountKind) -> AccountRef<'_> {
    AccountRef { name, kind: Some(kind) }
}

/// Whether a command may remove the last administrator.
pub(super) const fn last_admin(force: bool) -> LastAdmin {
    if force { LastAdmin::MayGo } else { LastAdmin::Stays }
}

/// The time at which a key ends.
pub(super) fn ends(expiry: Expiry) -> Option<Timestamp> {
    match expiry {
        Expiry::Never => None,
        Expiry::After(span) => {
            let millis = u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
            Some(clock::now().plus_millis(millis))
        }
    }
}

/// Lists the accounts of a kind. In a pipe, it prints only their names, for scripts.
pub(super) fn list(kind: AccountKind, args: &ReadArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let mut output = Output::new(args.json, LIST)?;
        let mut last: Option<AccountName> = None;
        loop {
            let after = last.as_ref().map(AccountName::as_str);
            let page = administration.accounts(after, PAGE).await?;
            for account in page.items.iter().filter(|account| account.kind == kind) {
                list_one(&mut output, account)?;
            }
            last = page.items.last().map(|account| account.name.clone());
            if !page.more || last.is_none() {
                return Ok(output.finish()?);
            }
        }
    })
}

fn list_one(output: &mut Output, account: &Account) -> io::Result<()> {
    match output.form() {
        Form::Json => output.json(&account_json(account)),
        Form::Lines => output.columns(&[account.name.to_string()]),
        Form::Table => {
            let status = if account.disabled { "disabled" } else { "enabled" };
            output.columns(&[
                account.name.to_string(),
                status.to_owned(),
                account.keys.len().to_string(),
                seconds(account.created),
                joined(&account.groups),
            ])
        }
    }
}

/// Shows one account.
pub(super) fn show(kind: AccountKind, name: &AccountName, args: &ReadArgs) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let account = administration.account(of_kind(name, kind)).await?;
        let mut output = Output::new(args.json, FIELDS)?;
        if output.form() == Form::Json {
            output.json(&account_json(&account))?;
            return Ok(output.finish()?);
        }
        let uses = administration.last_uses(name).await?;
        let status = if account.disabled { "disabled" } else { "enabled" };
        let mut field = |name: &str, value: String| output.columns(&[name.to_owned(), value]);
        field("name", account.name.to_string())?;
        field("kind", kind.as_str().to_owned())?;
        field("status", status.to_owned())?;
        field("groups", joined(&account.groups))?;
        match kind {
            AccountKind::Robot => field("grants", grants_text(&account.grants))?,
            AccountKind::User => field(
                "password",
                if account.password.is_some() { "set" } else { "-" }.to_owned(),
            )?,
        }
        field(
            "created",
            format!("{} by {}", seconds(account.created), account.by.escape_debug()),
        )?;
        for (id, key) in &account.keys {
            field("key", key_line(*id, key, uses.get(id).copied()))?;
        }
        Ok(output.finish()?)
    })
}

/// Disables or enables an account.
pub(super) fn set_disabled(
    kind: AccountKind,
    args: &NameArgs,
    disabled: bool,
    last_admin: LastAdmin,
) -> Result<(), Failure> {
    let edit = AccountEdit {
        disabled: Some(disabled),
        ..AccountEdit::default()
    };
    let done = if disabled { "disabled" } else { "enabled" };
    apply(kind, args, &edit, last_admin, done)
}

/// Changes an account.
pub(super) fn set(
    kind: AccountKind,
    args: &NameArgs,
    grants: (&[RepositoryGrant], &[RepositoryGrant]),
    groups: &GroupArgs,
) -> Result<(), Failure> {
    let edit = AccountEdit {
        add_groups: groups.add_group.iter().cloned().collect(),
        remove_groups: groups.remove_group.iter().cloned().collect(),
        add_grants: grants.0.to_vec(),
        remove_grants: grants.1.to_vec(),
        disabled: None,
    };
    if edit == AccountEdit::default() {
        return Err(Failure::Usage(format!(
            "nothing to change; `roadstead {} set --help` lists what can be changed",
            kind.as_str()
        )));
    }
    apply(kind, args, &edit, last_admin(groups.force), "changed")
}

fn apply(
    kind: AccountKind,
    args: &NameArgs,
    edit: &AccountEdit,
    last_admin: LastAdmin,
    done: &str,
) -> Result<(), Failure> {
    administer(&args.stores, async |administration| {
        let account = of_kind(&args.name, kind);
        let changed = administration
            .change(&Author::operator(), account, edit, last_admin)
            .await?;
        let word = if changed.is_changed() { done } else { "unchanged:" };
        let changed = changed.into_inner();
        if !edit.add_grants.is_empty() || !edit.remove_grants.is_empty() {
            warn_of_grants(&changed.grants);
        }
        report(args.json, &changed, word)
    })
}

/// Removes an account.
pub(super) fn remove(kind: AccountKind, args: &ForcedArgs) -> Result<(), Failure> {
    let ForcedArgs { account: args, force } = args;
    administer(&args.stores, async |administration| {
        let account = of_kind(&args.name, kind);
        let removed = administration
            .remove(&Author::operator(), account, last_admin(*force))
            .await?;
        let keys = count(removed.keys.len() as u64, "key", "keys");
        if args.json {
            return report(true, &removed, "removed");
        }
        writeln!(
            io::stdout(),
            "removed the {} {} with {keys}",
            kind.as_str(),
            removed.name
        )?;
        Ok(())
    })
}

/// Warns of grants with which most clients cannot push. The policy may allow what they lack.
pub(super) fn warn_of_grants(grants: &[RepositoryGrant]) {
    for grant in grant::pushes_without_pull(grants) {
        eprintln!(
            "warning: the grant {} has no pull: most clients look for what is there before they push. Unless the policy \
             allows the pull, add it: --allow pull:{}",
            grant::text(grant),
            grant.repositories
        );
    }
}

/// Prints what was done with an account.
pub(super) fn report(json: bool, account: &Account, done: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    if json {
        writeln!(stdout, "{}", account_json(account))?;
        return Ok(());
    }
    let kind = account.kind.as_str();
    write!(stdout, "{done} the {kind} {}", account.name)?;
    if !account.groups.is_empty() {
        write!(stdout, ", groups: {}", joined(&account.groups))?;
    }
    if !account.grants.is_empty() {
        write!(stdout, ", grants: {}", grants_text(&account.grants))?;
    }
    writeln!(stdout)?;
    Ok(())
}

/// Prints a new key: alone on standard output, so that it can be piped, or as `json`. What it is goes to standard error.
pub(super) fn report_key(
    json: Option<Value>,
    account: &AccountName,
    key: &IssuedKey,
    note: &str,
) -> Result<(), Failure> {
    let text = json.map_or_else(|| key.key.expose().to_owned(), |json| json.to_string());
    // The key first: if it cannot be printed, the operator must learn of it.
    let mut stdout = io::stdout();
    let printed = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    let ends = key
        .record
        .expires
        .map_or("never ends".to_owned(), |at| format!("ends at {}", seconds(at)));
    eprintln!("{note}; the key {} of {account} {ends} and is not shown again", key.id);
    // Also if the reader has closed standard output: the key exists, and nobody has it.
    printed.map_err(|error| {
        Failure::Failed(format!(
            "cannot print the key: {error}; nobody has it, so remove it with `roadstead key remove {account} {}`",
            key.id
        ))
    })
}

/// A new key as JSON, with the key itself.
pub(super) fn new_key_json(account: &AccountName, key: &IssuedKey) -> Value {
    let mut value = key_json(key.id, &key.record, None);
    value["account"] = json!(account);
    value["key"] = json!(key.key.expose());
    value
}

/// An account as JSON, without anything secret. The members are called as in the API.
pub(super) fn account_json(account: &Account) -> Value {
    let keys: Vec<_> = account.keys.keys().collect();
    json!({
        "name": account.name,
        "kind": account.kind,
        "disabled": account.disabled,
        "groups": account.groups,
        "grants": account.grants,
        "has_password": account.password.is_some(),
        "keys": keys,
        "created": seconds(account.created),
        "by": account.by,
    })
}

/// A key as JSON, without its hash. The members are called as in the API.
pub(super) fn key_json(id: CredentialId, key: &AccountKey, last_use: Option<u32>) -> Value {
    json!({
        "id": id,
        "scope": key.scope,
        "created": seconds(key.created),
        "by": key.by,
        "expires": key.expires.map_or_else(|| "never".to_owned(), seconds),
        "last_used": last_use.map(day),
    })
}

/// A key in one line.
fn key_line(id: CredentialId, key: &AccountKey, last_use: Option<u32>) -> String {
    let [scope, created, expires, used] = key_columns(key, last_use);
    format!("{id}, {scope}, created {created}, ends {expires}, last used {used}")
}

/// The scope, creation, end and last use of a key.
pub(super) fn key_columns(key: &AccountKey, last_use: Option<u32>) -> [String; 4] {
    let expires = match key.expires {
        None => "never".to_owned(),
        Some(at) if at <= clock::now() => format!("{} (ended)", seconds(at)),
        Some(at) => seconds(at),
    };
    [
        key.scope
            .as_ref()
            .map_or("everything".to_owned(), |scope| grants_text(scope)),
        seconds(key.created),
        expires,
        last_use.map_or("-".to_owned(), day),
    ]
}

/// A day since the Unix epoch as a date.
fn day(day: u32) -> String {
    let mut text = seconds(Timestamp(u64::from(day) * DAY_MS));
    text.truncate("9999-12-31".len());
    text
}

fn grants_text(grants: &[RepositoryGrant]) -> String {
    match grants {
        [] => "-".to_owned(),
        grants => grants.iter().map(grant::text).collect::<Vec<_>>().join(" "),
    }
}

fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(",")
    }
}
