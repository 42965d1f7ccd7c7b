//! The steps of every request: route, authorize, dispatch, respond.

use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::FutureExt as _;
use http::{Method, Request, Response};
use oci::{Reference, RepositoryName, Tag};

use crate::access::{Access, Caller};
use crate::api_endpoint::ApiRoute;
use crate::auth::{
    AuthenticationError, CredentialId, Credentials, Identity, Origin, Principal, RepositorySettings, Rules, Scope,
};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::deadline::with_deadline;
use crate::delivery::Client;
use crate::denial::DenialReason;
use crate::error::Error;
use crate::operations::home;
use crate::operations::session::{FinalSession, OpenSession};
use crate::registry::Registry;
use crate::request_id::RequestId;
use crate::response;
use crate::route::{Endpoint, OptionalParts, Route};
use crate::store::StoreError;

/// What the core knows about a request, for the log and the metrics of a shell. It is an extension of every response.
#[derive(Clone, Debug, Default)]
pub struct RequestRecord {
    /// The id of the request, which its response has too. `None`: the request only reads, and has not met a fault.
    pub id: Option<RequestId>,
    /// The endpoint. `None`: the request line matches no endpoint.
    pub endpoint: Option<Endpoint>,
    /// The principal, if authentication succeeded; at the token endpoint, the principal of the token.
    pub principal: Option<Principal>,
    /// The key that proved the principal, or for which its token was granted.
    pub credential: Option<CredentialId>,
    /// Why the request was denied. `None`: it was not, or failed for another reason.
    pub denial: Option<DenialReason>,
}

impl Registry {
    /// Answers one request.
    ///
    /// A shell runs this future to its end, also when the client disconnects. Dropping it during an upload, a
    /// publication or a deletion has the effect of a crash: it leaves garbage for collection.
    pub async fn handle(&self, request: Request<RequestBody>) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        let call = Call::new(self, &head);
        let mut record = RequestRecord {
            id: call.request_id(),
            ..RequestRecord::default()
        };
        // A panic is answered like any other fault. The other requests of the connection go on.
        let answered = {
            let answering = pin!(AssertUnwindSafe(call.answer(&head, body, &mut record)).catch_unwind());
            with_deadline(head.extensions.get().copied(), answering).await
        };
        let answered = answered.unwrap_or_else(|_| Err(StoreError::failed("the operation panicked").into()));
        let answered = answered.unwrap_or_else(|error| {
            record.denial = error.denial();
            self.log_denial(&error, &head, &record);
            let id = &mut record.id;
            error.into_response(|| *id.get_or_insert_with(|| RequestId::random(&*self.environment)))
        });
        let mut response = response::complete(answered);
        if head.method == Method::HEAD {
            *response.body_mut() = ResponseBody::empty();
        }
        if let Some(id) = record.id {
            id.write(response.headers_mut());
        }
        response.extensions_mut().insert(record);
        response
    }

    /// The parts of this registry that have routes of their own.
    fn optional_parts(&self) -> OptionalParts {
        OptionalParts {
            tokens: self.token_endpoint.is_some(),
            api: self.api_endpoint.is_some(),
        }
    }

    /// Logs that a client was identified and is refused what it asks for. Every text in the line was parsed, or is one of
    /// the registry.
    fn log_denial(&self, error: &Error, head: &http::request::Parts, record: &RequestRecord) {
        let Some(reason) = record.denial.filter(|reason| reason.is_after_login()) else {
            return;
        };
        let route = Route::parse(&head.method, &head.uri, &self.settings.limits, self.optional_parts());
        let (repository, reference) = match route.as_ref().ok().and_then(Route::subject) {
            Some((repository, reference)) => (Some(repository.as_str()), reference),
            None => (None, None),
        };
        let tag = error.protected_tag().map(|tag| tag.as_str().to_owned());
        let detail = match reason {
            DenialReason::InsufficientScope => reason.to_string(),
            _ if matches!(error, Error::ApiHidden) => {
                format!("{reason}: the client may not see this account, and the answer says that it does not exist")
            }
            _ => format!("{reason}: {error}"),
        };
        tracing::info!(
            target: "audit",
            event = "request.denied",
            principal = record.principal.as_ref().map(Principal::as_str),
            credential = record.credential.map(tracing::field::display),
            address = head.extensions.get::<Client>().map(|client| tracing::field::display(client.0)),
            repository,
            reference = tag.or(reference),
            request = record.id.map(tracing::field::display),
            detail
        );
    }
}

impl Call<'_> {
    /// Answers the request.
    pub(crate) async fn answer(
        &self,
        head: &http::request::Parts,
        body: RequestBody,
        record: &mut RequestRecord,
    ) -> Result<Response<ResponseBody>, Error> {
        let host = self.settings.hosts.check(head)?;
        let route = Route::parse(&head.method, &head.uri, &self.settings.limits, self.optional_parts())?;
        record.endpoint = Some(route.endpoint());
        let origin = Origin::new(head, host);
        let access = Access::new(self, head, &origin);
        let caller = match route {
            // These need no identity. The token endpoint checks the credentials of the header and the form itself, and the
            // API finds out what else than an identity they prove.
            Route::IssueToken | Route::GetKeySet | Route::Api(_) => Err(AuthenticationError::Unauthenticated),
            _ => {
                let credentials = Credentials::from_headers(&head.headers);
                self.authenticator.authenticate(&origin, &credentials).await
            }
        };
        if let Ok(identity) = &caller {
            record.principal = Some(identity.principal().clone());
            record.credential = identity.credential();
        }
        self.dispatch(route, caller, &access, head, body, record).await
    }

    /// Maps each route to its operation. The type of an operation's permit states the action that must be allowed.
    ///
    /// The larger operations are boxed. A future is moved several times before it runs, so without boxes every request
    /// would pay for the size of the largest operation.
    async fn dispatch(
        &self,
        route: Route,
        caller: Caller,
        access: &Access<'_>,
        head: &http::request::Parts,
        body: RequestBody,
        record: &mut RequestRecord,
    ) -> Result<Response<ResponseBody>, Error> {
        let headers = &head.headers;
        let head_only = head.method == Method::HEAD;
        match route {
            // The page is the same for every client, and reveals nothing about the content of the registry.
            Route::Home => Ok(home::page(headers)),
            Route::IssueToken => {
                let (granted, response) = Box::pin(self.issue_token(access.origin(), head, body)).await?;
                record.principal = Some(granted.principal);
                record.credential = granted.credential;
                Ok(response)
            }
            Route::GetKeySet => self.get_key_set().await,
            Route::Api(ApiRoute::GetApiDocument) => self.get_api_document(),
            Route::Api(route) => {
                let caller = Box::pin(self.api_caller(&route, access.origin(), headers)).await;
                if let Ok(caller) = &caller {
                    record.principal = Some(caller.identity.principal().clone());
                    record.credential = caller.identity.credential();
                }
                let caller = access.check_api(caller, &route)?;
                Box::pin(self.perform_api(&caller, &route, access, head, body)).await
            }
            // end-1
            Route::Base => {
                access.check_base(caller)?;
                Ok(response::json("application/json", "{}".into()))
            }
            Route::ListRepositories { page } => {
                let identity = access.check_catalog(caller)?;
                Box::pin(self.list_repositories(&identity, page)).await
            }
            Route::GetBlob { repository, digest } => {
                self.get_blob(access.permit(caller, &repository)?, digest, head).await
            }
            Route::DeleteBlob { repository, digest } => {
                Box::pin(self.delete_blob(access.permit(caller, &repository)?, digest)).await
            }
            Route::GetManifest { repository, reference } => {
                let permit = access.permit(caller, &repository)?;
                Box::pin(self.get_manifest(permit, reference, headers, head_only)).await
            }
            Route::PutManifest {
                repository,
                reference,
                tags,
            } => {
                let permit = access.permit_tags(caller, &repository, all_tags(&reference, &tags))?;
                Box::pin(self.put_manifest(permit, reference, tags, access, headers, body)).await
            }
            Route::DeleteManifest { repository, reference } => {
                Box::pin(self.delete_manifest(access.permit(caller, &repository)?, reference)).await
            }
            Route::ListTags { repository, page } => {
                Box::pin(self.list_tags(access.permit(caller, &repository)?, page)).await
            }
            Route::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
            } => {
                let permit = access.permit(caller, &repository)?;
                Box::pin(self.list_referrers(permit, subject, artifact_type, page)).await
            }
            Route::OpenUpload { repository, open } => {
                let permit = access.permit_to_open(caller, &repository, &open)?;
                Box::pin(self.open_upload(permit, open, access, headers, body)).await
            }
            Route::PatchUpload { repository, token } => {
                let session = Box::pin(self.session(caller, &repository, &token)).await?;
                Box::pin(self.patch_upload(session, headers, body)).await
            }
            Route::FinishUpload {
                repository,
                token,
                digest,
            } => {
                let session = Box::pin(self.session(caller, &repository, &token)).await?;
                let session = Box::pin(self.reauthorize(session, access)).await?;
                Box::pin(self.finish_upload(session, digest, access, headers, body)).await
            }
            Route::GetUpload { repository, token } => {
                let session = Box::pin(self.session(caller, &repository, &token)).await?;
                Box::pin(self.get_upload(session)).await
            }
            Route::CancelUpload { repository, token } => {
                let session = Box::pin(self.session(caller, &repository, &token)).await?;
                Box::pin(self.cancel_upload(session)).await
            }
        }
    }

    /// Opens the session of an upload's path. The token authorizes the request, because some clients send no
    /// credentials to that path. Absent and invalid credentials are ignored. Valid credentials of another principal are
    /// refused. If the policy is not known now, only the last request of the upload asks for the settings of its repository.
    async fn session(&self, caller: Caller, repository: &RepositoryName, text: &str) -> Result<OpenSession, Error> {
        let token = self
            .tokens()
            .await?
            .verify(repository, text, self.environment.now())
            .ok_or(Error::UploadUnknown)?;
        if let Ok(identity) = &caller
            && !identity.principal().is_anonymous()
            && *identity.principal() != token.principal
        {
            return Err(Error::Denied { refusal: None });
        }
        let shared = self.authenticator.shared_rules();
        let settings = shared.map_or_else(RepositorySettings::default, |shared| shared.settings(repository));
        // A verified token grants uploads to its repository, and nothing else.
        let identity =
            Identity::new(token.principal.clone(), Rules::everything()).with_token_scope(Scope::upload(repository));
        let permit = identity
            .permit(repository)
            .map_err(|_| Error::Denied { refusal: None })?;
        OpenSession::new(permit, settings, token, text)
    }

    /// Authorizes the principal of an upload again, with the key by which it opened the upload: if the permission or the key
    /// was revoked after that, the blob must not be published.
    async fn reauthorize(&self, session: OpenSession, access: &Access<'_>) -> Result<FinalSession, Error> {
        let reauthorized = self
            .authenticator
            .reauthorize(session.principal(), session.credential());
        let identity = access.identify(reauthorized.await)?;
        let session = session.reauthorized(&identity);
        session.map_err(|denied| access.refusal(&identity, denied))
    }
}

/// The tags that a push of a manifest publishes: those of its query, then that of its path.
fn all_tags(reference: &Reference, queried: &[Tag]) -> Vec<Tag> {
    let mut tags = queried.to_vec();
    if let Reference::Tag(tag) = reference
        && !tags.contains(tag)
    {
        tags.push(tag.clone());
    }
    tags
}
