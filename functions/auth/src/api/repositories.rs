//! Repositories and their tags. The operations are the core's: it asks for the permissions of the caller.

use registry::api_endpoint::{ApiPage, ApiPromotion, ApiRefusal, ApiRequest, ApiResponse, ApiSuccess};
use serde::Serialize;

use super::names::{EarlierText, ManifestName, TagName};
use super::query::ListQuery;
use super::refusal::invalid;
use super::types::{
    Listed, PromoteBody, PromotedView, RepositoryView, RollBackBody, RolledBackView, TagChangeView, TagView,
};
use super::{answer, read, shown};

/// `GET repositories`
pub(super) async fn search(request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
    let query = ListQuery::of(request);
    let prefix = query.text("prefix").unwrap_or_default();
    let is_in_names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
    if !prefix.bytes().all(is_in_names) {
        return Err(invalid("no name of a repository begins with the parameter prefix"));
    }
    let after = query.text("after");
    let page = request.repositories.search(&prefix, after.as_deref(), query.limit()?);
    Ok(listed(page.await?, |name| RepositoryView { name }))
}

/// `PUT repositories`
pub(super) async fn create(request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
    let name = ListQuery::of(request).required("name")?;
    let success = if request.repositories.create(&name).await? {
        ApiSuccess::Created
    } else {
        ApiSuccess::Done
    };
    Ok(answer(success, &RepositoryView { name }, None))
}

/// `GET tags`
pub(super) async fn tags(request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
    let query = ListQuery::of(request);
    let repository = query.required("repository")?;
    let after = query.text("after");
    let page = request.repositories.tags(&repository, after.as_deref(), query.limit()?);
    Ok(listed(page.await?, TagView::from))
}

/// `GET tags/history`: newest first.
pub(super) async fn history(request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
    let query = ListQuery::of(request);
    let (repository, tag) = (query.required("repository")?, query.required("tag")?);
    let (before, limit) = (query.value("after")?, query.limit()?);
    let page = request.repositories.history(&repository, &tag, before, limit).await?;
    Ok(listed(page, TagChangeView::from))
}

/// `POST tags/rollback`
pub(super) async fn roll_back(request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
    let RollBackBody { repository, tag, to } = read(request)?;
    let EarlierText(earlier) = to;
    let rolled_back = request.repositories.roll_back(&repository, &tag, earlier).await?;
    Ok(shown(&RolledBackView {
        repository,
        tag,
        digest: rolled_back.digest,
        moved: rolled_back.moved,
    }))
}

/// `POST tags/promote`
pub(super) async fn promote(request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
    let PromoteBody { from, to, referrers } = read(request)?;
    let ManifestName {
        repository: source,
        reference,
    } = from;
    let TagName { repository, tag } = to;
    let promotion = ApiPromotion {
        source,
        reference,
        target: repository.clone(),
        tag: tag.clone(),
        with_referrers: referrers.unwrap_or(true),
    };
    let promoted = request.repositories.promote(&promotion).await?;
    Ok(shown(&PromotedView {
        repository,
        tag,
        digest: promoted.digest,
        moved: promoted.moved,
        manifests: promoted.manifests as u64,
        referrers: promoted.referrers as u64,
        kept: promoted.kept,
        copied_bytes: promoted.copied_bytes,
    }))
}

/// The answer with a page.
fn listed<T, V: Serialize>(page: ApiPage<T>, view: impl FnMut(T) -> V) -> ApiResponse {
    ApiResponse {
        is_incomplete: page.is_incomplete,
        ..shown(&Listed {
            items: page.items.into_iter().map(view).collect(),
            next: page.next,
        })
    }
}
