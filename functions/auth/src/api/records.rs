//! Who asks, what the policy says, the audit trail, and the keys that sign tokens.

use oci::{RepositoryName, Tag};
use registry::api_endpoint::{ApiRefusal, ApiRequest, ApiResponse, ApiSuccess};
use registry::auth::{Principal, Pull, Subject};
use registry::store::access::AuditQuery;
use registry::store::{Cursor, StoreError};

use super::query::ListQuery;
use super::refusal::invalid;
use super::time::Time;
use super::types::{AuditEventView, ExplainBody, ExplainView, Listed, RotateSigningKeysBody, SigningKeyView, WhoAmI};
use super::{Api, answer, author, persist, read, shown};
use crate::administration::policies::AccountCondition;
use crate::administration::signing_keys::Rotation;
use crate::explain::{Question, TagCondition, Wish, explain};

/// What a question calls a client without credentials.
const ANONYMOUS: &str = "anonymous";

/// `GET whoami`
pub(super) fn identity(request: &ApiRequest<'_>) -> ApiResponse {
    let caller = request.caller;
    shown(&WhoAmI {
        principal: caller.identity.principal().to_string(),
        account: caller.account.clone(),
        groups: caller.groups.iter().cloned().collect(),
        credential: caller.identity.credential(),
    })
}

impl Api {
    /// `POST explain`
    pub(super) async fn explain(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let body: ExplainBody = read(request)?;
        let wish: Wish = body
            .action
            .parse()
            .map_err(|_| invalid("the action must be pull, create, move, push or delete"))?;
        let repository: RepositoryName = body
            .repository
            .parse()
            .map_err(|_| invalid("the repository does not have a valid name"))?;
        let tag = match body.tag {
            None => None,
            Some(tag) => Some(
                tag.parse::<Tag>()
                    .map_err(|_| invalid("the tag does not have a valid name"))?,
            ),
        };
        let (subject, condition) = self.subject(request, body.principal.as_deref()).await?;
        let tag = match tag {
            None => None,
            Some(tag) => {
                let condition = self.tag_condition(request, &repository, &tag).await?;
                Some((tag, condition))
            }
        };
        let in_force = self.administration.policy_in_force().await?;
        let is_default = in_force.version.is_none();
        let policy = self.authenticator.as_decided(in_force.policy);
        let question = Question {
            wish,
            repository,
            tag,
            now: self.environment.now(),
        };
        let answer = if condition == AccountCondition::Disabled {
            ExplainView {
                decision: decision(false),
                rule: None,
                line: None,
                reason: format!("the account {} is disabled", subject.principal),
            }
        } else {
            let found = explain(&policy, &subject, &question);
            ExplainView {
                decision: decision(found.allowed),
                rule: found.rule.map(|rule| rule.to_string()),
                // Nobody has written the default policy.
                line: found.line.filter(|_| !is_default),
                reason: found.reason,
            }
        };
        Ok(shown(&answer))
    }

    /// Whom a question is about.
    async fn subject(
        &self,
        request: &ApiRequest<'_>,
        asked: Option<&str>,
    ) -> Result<(Subject, AccountCondition), ApiRefusal> {
        let own = request.caller.identity.principal();
        let principal = match asked {
            None => own.clone(),
            Some(ANONYMOUS) => Principal::ANONYMOUS,
            Some(text) => text
                .parse()
                .map_err(|_| invalid("the principal must be a user, a robot, a workload or anonymous"))?,
        };
        if principal != *own && !request.caller.is_auditor() {
            return Err(ApiRefusal::Denied(
                "only members of the groups admins and auditors may ask about others".into(),
            ));
        }
        Ok(self.administration.subject(&principal).await?)
    }

    /// What is known of a tag: nothing for a caller that may neither pull the repository nor audit the registry.
    async fn tag_condition(
        &self,
        request: &ApiRequest<'_>,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<TagCondition, ApiRefusal> {
        let caller = request.caller;
        if !caller.is_auditor() && !caller.identity.may::<Pull>(repository) {
            return Ok(TagCondition::Unknown);
        }
        let found = self.metadata.tag(self.cx(), repository, tag).await?;
        Ok(found.map_or(TagCondition::Absent, |tag| TagCondition::Since(tag.at)))
    }

    /// `GET audit`: oldest first. A page may be empty before the end.
    pub(super) async fn list_audit_events(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let query = ListQuery::of(request);
        let time = |name: &str| query.read(name, |text| Time::parse(text).map(|Time(at)| at));
        let asked = AuditQuery {
            from: time("from")?,
            to: time("to")?,
            principal: query.text("principal"),
            repository: query.value("repository")?,
            event: query.value("event")?,
        };
        let (after, limit) = (query.text("after").map(Cursor), query.limit()?);
        let slice = self.access.audit(self.cx(), &asked, after.as_ref(), limit).await;
        let slice = slice.map_err(|error| match error {
            // The position is the client's.
            StoreError::Failed(_) if after.is_some() => invalid("the parameter after cannot be read"),
            error => error.into(),
        })?;
        Ok(shown(&Listed {
            items: slice.items.into_iter().map(AuditEventView::from).collect(),
            next: slice.next.map(|Cursor(text)| text),
        }))
    }

    /// `GET signing-keys`
    pub(super) async fn list_signing_keys(&self) -> Result<ApiResponse, ApiRefusal> {
        let keys = self.administration.signing_keys().await?;
        Ok(shown(&Listed {
            items: keys.iter().map(SigningKeyView::from).collect(),
            next: None,
        }))
    }

    /// `POST signing-keys/rotate`
    pub(super) async fn rotate_signing_keys(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let body: RotateSigningKeysBody = read(request)?;
        let rotation = if body.now.unwrap_or_default() {
            Rotation::Now
        } else {
            Rotation::Published(Rotation::PUBLISHED_MS)
        };
        let author = author(request);
        let entry = persist(|| self.administration.rotate_signing_keys(&author, rotation)).await?;
        self.authenticator.follow(None).await;
        Ok(answer(ApiSuccess::Created, &SigningKeyView::from(&entry), None))
    }
}

fn decision(is_allowed: bool) -> String {
    if is_allowed { "allowed" } else { "denied" }.to_owned()
}
