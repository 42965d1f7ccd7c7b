//! The version of the tables' layout, and why tables cannot be used.

use registry::store::{Cause, Reason};

/// The version of the table layout that this program writes. It also works with tables of the version before and of the one
/// after.
pub const VERSION: u64 = 2;

/// The layout version of a table that has an account or a policy. The change that makes the first one raises the version to
/// this one, so that programs before version 2, which know neither and would let every client in, do not use the table.
pub const WITH_ACCOUNTS: u64 = 3;

/// Why the tables cannot be used. The texts are for the operator and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No AWS region is configured.
    #[error(
        "no AWS region is set: give the setting aws-region, or set AWS_REGION (with a custom endpoint, any region works)"
    )]
    NoRegion,
    /// The table does not exist.
    #[error("there is no table {0}: create it with `roadstead metadata init`")]
    NoTable(String),
    /// The table exists, but has no row with a layout version.
    #[error("the table {0} was never initialised: run `roadstead metadata init`")]
    NotInitialised(String),
    /// The table has other key attributes than this program uses, so that another program owns it.
    #[error("the table {0} does not have the keys `pk` and `sk`: it belongs to another program, choose another name")]
    OtherKeys(String),
    /// A new table did not become active within the maximum time.
    #[error("the table {0} is not active yet: try again in a minute")]
    NotActive(String),
    /// The layout version of the table is too new for this program.
    #[error("the table {table} has layout {found}, this version supports layouts up to {}: install a newer version", VERSION + 1)]
    TooNew {
        /// The name of the table.
        table: String,
        /// The layout version of the table.
        found: u64,
    },
    /// The layout version of the table is too old for this program.
    #[error("the table {table} has layout {found}, this version needs layout {} or later: run `roadstead metadata init` with every version in between", VERSION - 1)]
    TooOld {
        /// The name of the table.
        table: String,
        /// The layout version of the table.
        found: u64,
    },
    /// DynamoDB did not answer, or refused the request.
    #[error("the table {table} cannot be used: {cause}")]
    Table {
        /// The name of the table.
        table: String,
        /// The class of the failure: it says whether waiting may help.
        reason: Reason,
        /// The error of the request.
        #[source]
        cause: Cause,
    },
}

impl OpenError {
    /// Whether a later try may succeed without a change by the operator, because the service did not answer.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Table {
                reason: Reason::MetadataUnreachable | Reason::Throttled | Reason::ClockOff,
                ..
            }
        )
    }
}
