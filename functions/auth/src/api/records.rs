//! Who asks, what the policy says, the audit trail, and the keys that sign tokens.

use oci::{RepositoryName, Tag};
use registry::api_endpoint::{ApiRefusal, ApiRequest, ApiResponse, ApiSuccess};
use registry::auth::{Principal, Pull, Push, Subject};
use registry::store::access::AuditQuery;
use registry::store::{Cursor, Reason, Timestamp};

use super::query::ListQuery;
use super::refusal::invalid;
use super::time::Time;
use super::types::{AuditEventView, ExplainBody, ExplainView, Listed, RotateSigningKeysBody, SigningKeyView, WhoAmI};
use super::{Api, answer, author, read, shown};
use crate::administration::policies::AccountCondition;
use crate::administration::signing_keys::{Rotation, SigningKeyCondition, SigningKeyEntry};
use crate::explain::{Explanation, Question, RepositoryCondition, TagCondition, Wish, explain, look_up};
use crate::signing_key::TokenSigner;

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
        let (subject, account) = self.subject(request, body.principal.as_deref()).await?;
        let (existence, condition) = self.known_to(request, &repository, tag.as_ref()).await?;
        let in_force = self.administration.policy_in_force().await?;
        let policy = self.authenticator.as_decided(in_force.policy);
        let question = Question {
            wish,
            repository,
            existence,
            tag: tag.map(|tag| (tag, condition)),
            now: self.environment.now(),
        };
        let found = match account {
            AccountCondition::Disabled => Explanation::of_disabled(&subject.principal),
            AccountCondition::Enabled => explain(&policy, &subject, &question),
            AccountCondition::None => explain(&policy, &subject, &question).without_account(&subject.principal),
        };
        Ok(shown(&ExplainView {
            decision: if found.allowed { "allowed" } else { "denied" }.to_owned(),
            rule: found.rule.map(|rule| rule.to_string()),
            line: found.line,
            reason: found.reason,
        }))
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

    /// What a caller may know of a repository and a tag: nothing if it may neither pull there nor audit the registry. A caller
    /// that may push there may know whether the repository exists, since a push would say so.
    async fn known_to(
        &self,
        request: &ApiRequest<'_>,
        repository: &RepositoryName,
        tag: Option<&Tag>,
    ) -> Result<(RepositoryCondition, TagCondition), ApiRefusal> {
        let caller = request.caller;
        let may_know_tags = caller.is_auditor() || caller.identity.may::<Pull>(repository);
        if !may_know_tags && !caller.identity.may::<Push>(repository) {
            return Ok((RepositoryCondition::Unknown, TagCondition::Unknown));
        }
        let tag = tag.filter(|_| may_know_tags);
        let (existence, condition) = look_up(&*self.metadata, self.cx(), repository, tag).await?;
        let condition = if may_know_tags {
            condition
        } else {
            TagCondition::Unknown
        };
        Ok((existence, condition))
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
        let slice = match self.access.audit(self.cx(), &asked, after.as_ref(), limit).await {
            Ok(slice) => slice,
            // The position is the client's. It is at fault if the store answers without it.
            Err(error) if after.is_some() && error.reason() == Reason::Failed => {
                self.access.audit(self.cx(), &asked, None, 1).await?;
                return Err(invalid("the parameter after cannot be read"));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(shown(&Listed {
            items: slice.items.into_iter().map(AuditEventView::from).collect(),
            next: slice.next.map(|Cursor(text)| text),
        }))
    }

    /// `GET signing-keys`: those of the file, if the server has one.
    pub(super) async fn list_signing_keys(&self) -> Result<ApiResponse, ApiRefusal> {
        let keys = match self.authenticator.keys_of_file() {
            Some(keys) => keys.iter().enumerate().map(key_of_file).collect(),
            None => self.administration.signing_keys().await?,
        };
        Ok(shown(&Listed {
            items: keys.iter().map(SigningKeyView::from).collect(),
            next: None,
        }))
    }

    /// `POST signing-keys/rotate`
    pub(super) async fn rotate_signing_keys(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let body: RotateSigningKeysBody = read(request)?;
        if self.authenticator.keys_of_file().is_some() {
            return Err(ApiRefusal::Conflict(
                "the keys of this server are in the file of --token-key-file, which only its operator can change"
                    .into(),
            ));
        }
        let rotation = if body.now.unwrap_or_default() {
            Rotation::Now
        } else {
            Rotation::Published(Rotation::PUBLISHED_MS)
        };
        let entry = self
            .administration
            .rotate_signing_keys(&author(request), rotation)
            .await?;
        self.authenticator.follow(None).await;
        Ok(answer(ApiSuccess::Created, &SigningKeyView::from(&entry), None))
    }
}

/// A key of the file. The file does not say since when it is there.
fn key_of_file((index, key): (usize, &TokenSigner)) -> SigningKeyEntry {
    SigningKeyEntry {
        key: key.public(Timestamp(0)),
        condition: if index == 0 {
            SigningKeyCondition::Signing
        } else {
            SigningKeyCondition::Verifying
        },
    }
}
