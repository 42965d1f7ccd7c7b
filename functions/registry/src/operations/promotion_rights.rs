//! By which rights a promotion changes tags. It may take minutes, and what is taken away meanwhile has no effect any more.

use std::sync::Arc;

use super::tag_guard;
use crate::access::Access;
use crate::auth::{Permit, Pull, Push};
use crate::error::Error;
use crate::releases::{Promotion, ReleaseError};
use crate::store::StoreError;
use crate::store::metadata::TagGuard;

/// Why a promotion has ended early.
pub(crate) enum PromotionError {
    /// The promotion is not possible.
    Release(Box<ReleaseError>),
    /// The caller has lost a right since the promotion began, or it is not known whether it has.
    Rights(Box<Error>),
}

impl PromotionError {
    /// The error of a promotion without a caller, which loses no right.
    pub(super) fn without_caller(self) -> ReleaseError {
        match self {
            Self::Release(error) => *error,
            Self::Rights(error) => StoreError::failed(error.to_string()).into(),
        }
    }
}

impl From<ReleaseError> for PromotionError {
    fn from(error: ReleaseError) -> Self {
        Self::Release(Box::new(error))
    }
}

impl From<StoreError> for PromotionError {
    fn from(error: StoreError) -> Self {
        ReleaseError::from(error).into()
    }
}

/// The rights of the caller of a promotion.
pub(super) struct PromotionRights<'a> {
    /// That of the caller's request, since the last authorization. `None`: an operator's command.
    access: Option<Access<'a>>,
    /// What the caller could do when the promotion began.
    first: (&'a Permit<Pull>, &'a Permit<Push>),
    /// What it could do when it was authorized again.
    renewed: Option<(Permit<Pull>, Permit<Push>)>,
    guard: Arc<dyn TagGuard>,
}

impl<'a> PromotionRights<'a> {
    pub(super) fn new(promotion: &Promotion<'a>, access: Option<&Access<'a>>) -> Self {
        Self {
            access: access.copied(),
            first: (promotion.source, promotion.target.push()),
            renewed: None,
            guard: tag_guard::of_push(promotion.target),
        }
    }

    /// The guard of the tags, by the rights that were read last.
    pub(super) fn guard(&self) -> Arc<dyn TagGuard> {
        Arc::clone(&self.guard)
    }

    /// The guard for a change of tags that is made next. If the authorization is old, the caller is authorized again: it has to
    /// have both rights still, and the present rules make the guard. Without a caller nothing is asked.
    pub(super) async fn renewed_guard(&mut self) -> Result<Arc<dyn TagGuard>, PromotionError> {
        if let Some(access) = self.access {
            let (source, target) = match &self.renewed {
                Some((source, target)) => (source, target),
                None => self.first,
            };
            let again = access.again();
            let renewed = access.renewed_both(source, target).await;
            if let Some((source, target)) = renewed.map_err(|error| PromotionError::Rights(Box::new(error)))? {
                self.guard = tag_guard::of_renewed_push(&target);
                self.renewed = Some((source, target));
                self.access = Some(again);
            }
        }
        Ok(self.guard())
    }
}
