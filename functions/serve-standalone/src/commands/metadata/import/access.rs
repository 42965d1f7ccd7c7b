//! Imports accounts, versions of the policy, and the audit trail.
//!
//! Each record is one change of administration, made from the state that the registry has then. A record that the registry
//! has already is left as it is, so an import that was interrupted is made again from its start.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use registry::auth::AccountName;
use registry::environment::random_u64;
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, AccountChange, Applied, AuditEvent, AuditKind, PolicyVersion,
};
use registry::store::{StoreError, Uid};
use shell::clock::{SystemEnvironment, now};

use super::super::super::store::{PAGE, cx};
use super::super::access_record::AccessRecord;
use super::super::format::{ExportLine, FormatError, Lines};
use super::refused;
use crate::failure::Failure;

/// The principal of the events that an import records.
const OPERATOR: &str = ":operator";

/// How often a change is made again that another change came before.
const MAX_ATTEMPTS: usize = 10;

fn failed(error: StoreError) -> Failure {
    Failure::failed("cannot write the accounts", error)
}

fn unreadable(error: StoreError) -> Failure {
    Failure::failed("cannot read the accounts", error)
}

/// Fails if the registry has an account that is not in the file. A file without accounts leaves them as they are.
pub(super) async fn require_no_others(store: &dyn AccessStore, ours: &BTreeSet<AccountName>) -> Result<(), Failure> {
    let mut after = None::<String>;
    while !ours.is_empty() {
        let page = store.accounts(cx(), after.as_deref(), PAGE).await;
        let page = page.map_err(unreadable)?;
        if let Some(other) = page.items.iter().find(|account| !ours.contains(&account.name)) {
            return Err(Failure::Failed(format!(
                "the registry has the account {}, which is not in the file: import into an empty registry, or merge the \
                 two with --force (an account that is in both becomes that of the file)",
                other.name
            )));
        }
        after = page.items.last().map(|account| account.name.to_string());
        if !page.more {
            break;
        }
    }
    Ok(())
}

/// Fails if the registry has an account that differs from that of the file, or another policy in force: an import would
/// replace it. What an interrupted import of the file has written is the same.
pub(super) async fn require_no_replacements(path: &Path, offset: u64, store: &dyn AccessStore) -> Result<(), Failure> {
    let mut records = AccessRecords::open(path, offset)?;
    let state = store.state(cx()).await.map_err(unreadable)?;
    let mut replaced = None;
    while let Some(record) = records.next()? {
        match record {
            AccessRecord::Account(account) => {
                let present = store.account(cx(), &account.name).await.map_err(unreadable)?;
                if present.is_some_and(|present| !is_same(&present, &account)) {
                    replaced = Some(format!("account {}", account.name));
                }
            }
            AccessRecord::Policy { in_force: true, policy } => {
                let present = state.policy;
                if present.is_some() && present != find_policy(store, &policy).await.map_err(unreadable)? {
                    replaced = Some("policy in force".to_owned());
                }
            }
            AccessRecord::Policy { .. } | AccessRecord::Audit(_) => {}
        }
        if let Some(what) = replaced {
            return Err(Failure::Failed(format!(
                "the {what} of the registry differs from that of the file: import into an empty registry, or replace it by \
                 that of the file with --force"
            )));
        }
    }
    Ok(())
}

/// Writes the records of the file about accounts, which are after `offset`.
pub(super) async fn write(path: &Path, offset: u64, store: &dyn AccessStore) -> Result<(), Failure> {
    let mut records = AccessRecords::open(path, offset)?;
    let mut importer = AccessImporter::new(store).await?;
    while let Some(record) = records.next()? {
        match record {
            AccessRecord::Policy { in_force, policy } => importer.policy(&policy, in_force).await?,
            AccessRecord::Account(account) => importer.account(&account).await?,
            AccessRecord::Audit(event) => importer.event(&event).await?,
        }
    }
    Ok(())
}

/// The records of a file about accounts.
struct AccessRecords<'a> {
    path: &'a Path,
    lines: Lines<BufReader<File>>,
}

impl<'a> AccessRecords<'a> {
    /// The records from `offset` on, which is the end of a line.
    fn open(path: &'a Path, offset: u64) -> Result<Self, Failure> {
        let open = || -> io::Result<File> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        };
        let file = open().map_err(|error| refused(path, &error.into()))?;
        let lines = Lines::new(BufReader::new(file), offset);
        Ok(Self { path, lines })
    }

    fn next(&mut self) -> Result<Option<AccessRecord>, Failure> {
        let refused = |error: FormatError| refused(self.path, &error);
        while let Some(line) = self.lines.next().map_err(refused)? {
            if let ExportLine::Access(record) = line {
                return record.read().map(Some).map_err(refused);
            }
        }
        Ok(None)
    }
}

/// Whether two records of an account differ in nothing but the generation, which each registry counts by itself.
fn is_same(one: &Account, other: &Account) -> bool {
    let generation = other.generation;
    Account {
        generation,
        ..one.clone()
    } == *other
}

struct AccessImporter<'a> {
    store: &'a dyn AccessStore,
    /// The state after the last change.
    state: AccessState,
}

impl<'a> AccessImporter<'a> {
    async fn new(store: &'a dyn AccessStore) -> Result<Self, Failure> {
        let state = store.state(cx()).await.map_err(failed)?;
        Ok(Self { store, state })
    }

    /// The state after the next change, as far as it is the same whatever the change.
    fn next_state(&self) -> AccessState {
        AccessState {
            version: self.state.version + 1,
            ..self.state.clone()
        }
    }

    /// Makes a change of the present state. `false`: another process has changed the state, which is read anew, and nothing
    /// was written.
    async fn try_apply(&mut self, change: AccessChange) -> Result<bool, Failure> {
        match self.store.apply(cx(), &change).await.map_err(failed)? {
            Applied::Applied => {
                // If an event of this id was there already, the state is not this one. The next change finds that out.
                self.state = change.state;
                Ok(true)
            }
            Applied::Conflict => {
                self.state = self.store.state(cx()).await.map_err(failed)?;
                Ok(false)
            }
        }
    }

    /// Writes a version of the policy under a new number, if none of the same content, author and time is there.
    async fn policy(&mut self, policy: &PolicyVersion, in_force: bool) -> Result<(), Failure> {
        for _ in 0..MAX_ATTEMPTS {
            let present = find_policy(self.store, policy).await.map_err(failed)?;
            if present.is_some() && (!in_force || self.state.policy == present) {
                return Ok(());
            }
            let mut state = self.next_state();
            let version = present.unwrap_or(state.version);
            if in_force {
                state.policy = Some(version);
            }
            let added = PolicyVersion {
                version,
                ..policy.clone()
            };
            let change = AccessChange {
                state,
                account: None,
                policy: present.is_none().then_some(added),
                event: Some(imported(AuditKind::PolicySet, version.to_string())),
            };
            if self.try_apply(change).await? {
                return Ok(());
            }
        }
        Err(disturbed())
    }

    /// Writes an account. One of the same name that differs is replaced, and its tokens are withdrawn.
    async fn account(&mut self, account: &Account) -> Result<(), Failure> {
        for _ in 0..MAX_ATTEMPTS {
            let present = self.store.account(cx(), &account.name).await.map_err(failed)?;
            let mut account = account.clone();
            let mut state = self.next_state();
            let mut kind = AuditKind::AccountCreated;
            if let Some(present) = present {
                if is_same(&present, &account) {
                    return Ok(());
                }
                kind = AuditKind::AccountChanged;
                let generation = Account::next_generation(Some(present.generation.max(account.generation)), now());
                account.generation = generation;
                state
                    .withdrawn
                    .withdraw_principal(&present.principal(), generation, now());
                state.admins = state.admins.saturating_sub(present.is_active_admin().into());
            } else {
                // The tokens of an earlier account of this name stay withdrawn, and those of this one are good.
                let withdrawn = state.withdrawn.principals.get(account.principal().as_str());
                account.generation = account.generation.max(withdrawn.map_or(0, |entry| entry.generation));
                state.accounts += 1;
            }
            state.admins += u64::from(account.is_active_admin());
            state.had_admin |= account.is_active_admin();
            let event = imported(kind, account.name.to_string());
            let change = AccessChange {
                state,
                account: Some(AccountChange::Put(Box::new(account))),
                policy: None,
                event: Some(event),
            };
            if self.try_apply(change).await? {
                return Ok(());
            }
        }
        Err(disturbed())
    }

    /// Writes an event under its id, if it is not there.
    async fn event(&mut self, event: &AuditEvent) -> Result<(), Failure> {
        for _ in 0..MAX_ATTEMPTS {
            let change = AccessChange {
                state: self.next_state(),
                account: None,
                policy: None,
                event: Some(event.clone()),
            };
            if self.try_apply(change).await? {
                return Ok(());
            }
        }
        Err(disturbed())
    }
}

/// The version of the registry that is the same but for its number.
async fn find_policy(store: &dyn AccessStore, policy: &PolicyVersion) -> Result<Option<u64>, StoreError> {
    let is_same = |present: &&PolicyVersion| {
        let version = policy.version;
        let present = (*present).clone();
        PolicyVersion { version, ..present } == *policy
    };
    let mut before = None;
    loop {
        let page = store.policies(cx(), before, 10).await?;
        if let Some(same) = page.items.iter().find(is_same) {
            return Ok(Some(same.version));
        }
        before = page.items.last().map(|last| last.version);
        if !page.more {
            return Ok(None);
        }
    }
}

fn disturbed() -> Failure {
    Failure::Failed(
        "others change the accounts of the registry during the import: let no server and no command use the registry, and \
         run the same command again"
            .to_owned(),
    )
}

/// The event of a change that an import makes.
fn imported(kind: AuditKind, reference: String) -> AuditEvent {
    let id = Uid(random_u64(&SystemEnvironment));
    let mut event = AuditEvent::new(kind, OPERATOR.to_owned(), now(), id);
    event.reference = Some(reference);
    event.detail = Some("imported".to_owned());
    event
}

#[cfg(test)]
mod tests;
