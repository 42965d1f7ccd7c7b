//! Exports accounts, versions of the policy, and the audit trail.

use std::io::Write;

use registry::store::access::{AccessStore, AuditQuery};
use registry::store::{Cursor, StoreError};

use super::super::super::store::{PAGE, cx};
use super::super::access_record::AccessRecord;
use super::super::format::write_line;
use crate::failure::Failure;

/// Versions of the policy that are read in one call. Each may have 128 KiB.
const POLICIES: usize = 50;

/// Writes all records about accounts, with the audit trail if `with_audit`, and returns their number.
pub(in super::super) async fn write(
    store: &dyn AccessStore,
    with_audit: bool,
    writer: &mut impl Write,
) -> Result<u64, Failure> {
    let mut records = write_policies(store, writer).await?;
    records += write_accounts(store, writer).await?;
    if with_audit {
        records += write_events(store, writer).await?;
    }
    Ok(records)
}

fn unread(error: StoreError) -> Failure {
    Failure::failed("cannot read the accounts", error)
}

/// Oldest first, so that an import puts them in force in the order in which they were.
async fn write_policies(store: &dyn AccessStore, writer: &mut impl Write) -> Result<u64, Failure> {
    let in_force = store.state(cx()).await.map_err(unread)?.policy;
    let mut versions = Vec::new();
    loop {
        let page = store.policies(cx(), versions.last().copied(), POLICIES).await;
        let page = page.map_err(unread)?;
        versions.extend(page.items.iter().map(|policy| policy.version));
        if !page.more {
            break;
        }
    }
    let mut records = 0;
    for version in versions.into_iter().rev() {
        let policy = store.policy(cx(), version).await.map_err(unread)?;
        let Some(policy) = policy else { continue };
        let record = AccessRecord::Policy {
            in_force: in_force == Some(version),
            policy: Box::new(policy),
        };
        write_line(writer, &record)?;
        records += 1;
    }
    Ok(records)
}

async fn write_accounts(store: &dyn AccessStore, writer: &mut impl Write) -> Result<u64, Failure> {
    let (mut records, mut after) = (0, None::<String>);
    loop {
        let page = store.accounts(cx(), after.as_deref(), PAGE).await.map_err(unread)?;
        after = page.items.last().map(|account| account.name.to_string());
        for account in page.items {
            write_line(writer, &AccessRecord::Account(Box::new(account)))?;
            records += 1;
        }
        if !page.more {
            return Ok(records);
        }
    }
}

async fn write_events(store: &dyn AccessStore, writer: &mut impl Write) -> Result<u64, Failure> {
    let (mut records, mut after) = (0, None::<Cursor>);
    loop {
        let slice = store.audit(cx(), &AuditQuery::default(), after.as_ref(), PAGE).await;
        let slice = slice.map_err(unread)?;
        for event in slice.items {
            write_line(writer, &AccessRecord::Audit(Box::new(event)))?;
            records += 1;
        }
        match slice.next {
            None => return Ok(records),
            next => after = next,
        }
    }
}
