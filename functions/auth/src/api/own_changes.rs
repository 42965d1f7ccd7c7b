//! How often an account may change itself: its keys and its password.
//!
//! All changes of administration share one version, and each is a row of the audit trail. An account that changes itself without
//! end would keep administrators from their changes, and fill the trail.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use registry::api_endpoint::{ApiRefusal, ApiRequest, ApiRoute};
use registry::auth::AccountName;
use registry::store::Timestamp;

/// At this number of accounts, entries whose time has ended are dropped.
const CLEAN_AT: usize = 1024;

/// Counts the requests for changes that accounts make of themselves through this API, also those that are refused.
#[derive(Default)]
pub(super) struct OwnChanges(Mutex<HashMap<AccountName, RecentChanges>>);

/// The requests of one account.
#[derive(Clone, Copy)]
struct RecentChanges {
    /// The time of the first one.
    since: Timestamp,
    count: u32,
}

impl RecentChanges {
    /// How long they still count, in milliseconds; `None`: they count no more.
    fn left(self, now: Timestamp) -> Option<u64> {
        // Nor after a clock was set back.
        if now < self.since {
            return None;
        }
        let left = OwnChanges::WINDOW_MS.checked_sub(now.millis_since(self.since));
        left.filter(|left| *left > 0)
    }
}

impl OwnChanges {
    /// The maximum number of requests by which an account may change itself within [`OwnChanges::WINDOW_MS`].
    pub(super) const MAX: u32 = 30;
    /// The time in which they are counted, from the first one on, in milliseconds.
    pub(super) const WINDOW_MS: u64 = 10 * 60 * 1000;

    /// Counts a request, if its caller changes itself by it and is no administrator.
    pub(super) fn count(&self, request: &ApiRequest<'_>, now: Timestamp) -> Result<(), ApiRefusal> {
        let (ApiRoute::SetPassword { account }
        | ApiRoute::CreateKey { account }
        | ApiRoute::ChangeKey { account, .. }
        | ApiRoute::RemoveKey { account, .. }
        | ApiRoute::RotateKey { account, .. }) = request.route
        else {
            return Ok(());
        };
        if request.caller.is_admin() || !request.caller.owns(account) {
            return Ok(());
        }
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= CLEAN_AT {
            accounts.retain(|_, recent| recent.left(now).is_some());
        }
        let none = RecentChanges { since: now, count: 0 };
        let recent = accounts.entry(account.clone()).or_insert(none);
        if recent.left(now).is_none() {
            *recent = none;
        }
        if recent.count >= Self::MAX {
            let left = recent.left(now).unwrap_or(Self::WINDOW_MS);
            return Err(ApiRefusal::TooManyChanges {
                retry_after: left.div_ceil(1000),
            });
        }
        recent.count += 1;
        Ok(())
    }
}
