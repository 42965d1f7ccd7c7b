//! What an account may have.

use registry::store::access::{Account, AccountKind};

use super::AdministrationError;

/// Whether the account has only what its kind may have, and no more of it than the limits allow. Every change of an account is
/// checked, and every account that is imported.
pub fn check(account: &Account) -> Result<(), AdministrationError> {
    match account.kind {
        AccountKind::User if !account.grants.is_empty() => return Err(AdministrationError::UserGrants),
        AccountKind::Robot if account.password.is_some() => {
            return Err(AdministrationError::RobotPassword(account.name.clone()));
        }
        _ => {}
    }
    if account.grants.iter().any(|grant| grant.actions.is_empty()) {
        return Err(AdministrationError::EmptyGrant);
    }
    for (what, found, maximum) in [
        ("groups", account.groups.len(), Account::MAX_GROUPS),
        ("grants", account.grants.len(), Account::MAX_GRANTS),
        ("keys", account.keys.len(), Account::MAX_KEYS),
    ] {
        if found > maximum {
            return Err(AdministrationError::TooMany {
                name: account.name.clone(),
                what,
                found,
                maximum,
            });
        }
    }
    for key in account.keys.values() {
        let scope = key.scope.as_deref().unwrap_or_default();
        if scope.len() > Account::MAX_GRANTS {
            return Err(AdministrationError::TooMany {
                name: account.name.clone(),
                what: "grants in the scope of a key",
                found: scope.len(),
                maximum: Account::MAX_GRANTS,
            });
        }
    }
    Ok(())
}
