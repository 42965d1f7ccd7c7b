//! The policy and its versions.

use registry::api_endpoint::{ApiBody, ApiRefusal, ApiRequest, ApiResponse, ApiSuccess};
use registry::policy::Policy;
use registry::store::access::PolicyForm;

use super::query::ListQuery;
use super::refusal::invalid;
use super::types::{Finding, Listed, PolicyCheckView, PolicySetView, PolicyVersionView, PolicyView};
use super::{Api, answer, author, shown};
use crate::administration::policies::{MadeFrom, NewPolicy, parse};

/// The version of the default policy, which nobody has set.
const DEFAULT: u64 = 0;

/// Versions that are read at once for a list. Each has its document, and the list has none.
const VERSIONS_AT_ONCE: usize = 10;

impl Api {
    /// `GET policy`
    pub(super) async fn get_policy(&self) -> Result<ApiResponse, ApiRefusal> {
        let view = match self.administration.state().await?.policy {
            Some(version) => PolicyView::from(self.administration.policy(version).await?),
            None => PolicyView {
                version: DEFAULT,
                form: PolicyForm::Json,
                source: Policy::default_policy().to_canonical_json(),
                principal: None,
                at: None,
                note: None,
            },
        };
        Ok(answer(ApiSuccess::Done, &view, Some(view.version.to_string())))
    }

    /// `PUT policy`
    pub(super) async fn set_policy(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let (form, source) = document(request)?;
        let present = self.administration.state().await?.policy;
        let version = present.unwrap_or(DEFAULT).to_string();
        if !request.condition.is_some_and(|condition| condition.allows(&version)) {
            return Err(ApiRefusal::Changed);
        }
        let new = NewPolicy {
            form,
            source,
            note: ListQuery::of(request).text("note"),
            made_from: MadeFrom::Version(present),
        };
        let set = self.administration.set_policy(&author(request), &new).await?;
        self.authenticator.follow(None).await;
        let body = PolicySetView {
            version: set.version.version,
            warnings: set.warnings.iter().map(Finding::from).collect(),
        };
        Ok(answer(ApiSuccess::Done, &body, Some(body.version.to_string())))
    }

    /// `POST policy/check`
    pub(super) async fn check_policy(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let (form, source) = document(request)?;
        let body = match parse(form, &source) {
            Ok(policy) => PolicyCheckView {
                mistakes: Vec::new(),
                warnings: policy
                    .warnings(&self.administration.known_names().await?)
                    .iter()
                    .map(Finding::from)
                    .collect(),
            },
            Err(mistakes) => PolicyCheckView {
                mistakes: mistakes.iter().map(Finding::from).collect(),
                warnings: Vec::new(),
            },
        };
        Ok(shown(&body))
    }

    /// `GET policy/versions`: newest first.
    pub(super) async fn list_policy_versions(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let query = ListQuery::of(request);
        let mut before = query.value("after")?;
        let limit = query.limit()?;
        let mut items: Vec<PolicyVersionView> = Vec::new();
        loop {
            let left = limit - items.len();
            let page = self.administration.policies(before, left.min(VERSIONS_AT_ONCE)).await?;
            before = page.items.last().map(|last| last.version).filter(|_| page.more);
            items.extend(page.items.into_iter().map(PolicyVersionView::from));
            if before.is_none() || items.len() >= limit {
                break;
            }
        }
        Ok(shown(&Listed {
            next: before.map(|version| version.to_string()),
            items,
        }))
    }

    /// `GET policy/versions/{version}`
    pub(super) async fn get_policy_version(&self, version: u64) -> Result<ApiResponse, ApiRefusal> {
        let found = self.administration.policy(version).await?;
        Ok(shown(&PolicyView::from(found)))
    }
}

/// The policy in the body of a request.
fn document(request: &ApiRequest<'_>) -> Result<(PolicyForm, String), ApiRefusal> {
    let (form, bytes) = match &request.body {
        ApiBody::Json(bytes) => (PolicyForm::Json, bytes),
        ApiBody::Toml(bytes) => (PolicyForm::Toml, bytes),
        ApiBody::None => return Err(invalid("the request needs a policy")),
    };
    let source = std::str::from_utf8(bytes).map_err(|_| invalid("the policy is not UTF-8"))?;
    Ok((form, source.to_owned()))
}
