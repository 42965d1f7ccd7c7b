//! The steps of every request: route, authorize, dispatch, respond.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use http::{Method, Request, Response};
use oci::{Reference, RepositoryName};

use crate::auth::{Action, AuthenticationError, Credentials, Identity, Move, Origin, Permit, Principal, Push, Scope};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::environment::random_u64;
use crate::error::Error;
use crate::operations::home;
use crate::operations::session::OpenSession;
use crate::overload::Overload;
use crate::registry::Registry;
use crate::response;
use crate::route::{Endpoint, Route};
use crate::store::{Reason, StoreError};

/// What the core knows about a request, for the log and the metrics of a shell. It is an extension of every response.
#[derive(Clone, Debug, Default)]
pub struct RequestRecord {
    /// The endpoint. `None`: the request line matches no endpoint.
    pub endpoint: Option<Endpoint>,
    /// The principal, if authentication succeeded.
    pub principal: Option<Principal>,
}

impl Registry {
    /// Answers one request.
    ///
    /// A shell runs this future to its end, also when the client disconnects. Dropping it during an upload, a
    /// publication or a deletion has the effect of a crash: it leaves garbage for collection.
    pub async fn handle(&self, request: Request<RequestBody>) -> Response<ResponseBody> {
        let mut record = RequestRecord::default();
        let (head, body) = request.into_parts();
        // A panic is answered like any other fault. The other requests of the connection go on.
        let answered = AssertUnwindSafe(Call::new(self, &head).answer(&head, body, &mut record))
            .catch_unwind()
            .await;
        let answered = answered.unwrap_or_else(|_| Err(StoreError::failed("the operation panicked").into()));
        let answered = answered.unwrap_or_else(|error| error.into_response(|| random_u64(&*self.environment)));
        let mut response = response::complete(answered);
        if head.method == Method::HEAD {
            *response.body_mut() = ResponseBody::empty();
        }
        response.extensions_mut().insert(record);
        response
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
        self.settings.hosts.check(head)?;
        let route = Route::parse(&head.method, &head.uri, &self.settings.limits)?;
        record.endpoint = Some(route.endpoint());
        let caller = self
            .authenticator
            .authenticate(
                Origin { client: self.client() },
                &Credentials::from_headers(&head.headers),
            )
            .await;
        record.principal = caller.as_ref().ok().map(|identity| identity.principal().clone());
        self.dispatch(route, caller, head, body).await
    }

    /// Maps each route to its operation. The type of an operation's permit states the action that must be allowed.
    ///
    /// The larger operations are boxed. A future is moved several times before it runs, so without boxes every request
    /// would pay for the size of the largest operation.
    async fn dispatch(
        &self,
        route: Route,
        caller: Result<Identity, AuthenticationError>,
        head: &http::request::Parts,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let headers = &head.headers;
        let head_only = head.method == Method::HEAD;
        match route {
            // The page is the same for every client, and reveals nothing about the content of the registry.
            Route::Home => Ok(home::page(headers)),
            Route::Base => self.base(&self.identify(caller)?),
            Route::ListRepositories { page } => self.list_repositories(&self.identify(caller)?, page).await,
            Route::GetBlob { repository, digest } => {
                self.get_blob(self.authorize(caller, &repository)?, digest, head).await
            }
            Route::DeleteBlob { repository, digest } => {
                self.delete_blob(self.authorize(caller, &repository)?, digest).await
            }
            Route::GetManifest { repository, reference } => {
                self.get_manifest(self.authorize(caller, &repository)?, reference, headers, head_only)
                    .await
            }
            Route::PutManifest {
                repository,
                reference,
                tags,
            } => {
                let has_tags = matches!(reference, Reference::Tag(_)) || !tags.is_empty();
                let permit = self.authorize_manifest(caller, &repository, has_tags)?;
                Box::pin(self.put_manifest(permit, reference, tags, headers, body)).await
            }
            Route::DeleteManifest { repository, reference } => {
                self.delete_manifest(self.authorize(caller, &repository)?, reference)
                    .await
            }
            Route::ListTags { repository, page } => self.list_tags(self.authorize(caller, &repository)?, page).await,
            Route::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
            } => {
                let permit = self.authorize(caller, &repository)?;
                Box::pin(self.list_referrers(permit, subject, artifact_type, page)).await
            }
            Route::OpenUpload { repository, open } => {
                let permit = self.authorize(caller, &repository)?;
                Box::pin(self.open_upload(permit, open, headers, body)).await
            }
            Route::PatchUpload { repository, token } => {
                let session = self.session(caller, &repository, &token).await?;
                Box::pin(self.patch_upload(session, headers, body)).await
            }
            Route::FinishUpload {
                repository,
                token,
                digest,
            } => {
                let session = self.session(caller, &repository, &token).await?;
                // Authorize again: if the permission was revoked after the upload was opened, the blob must not be
                // published.
                let caller = self.authenticator.reauthorize(session.principal()).await;
                let permit = self.authorize(caller, &repository)?;
                Box::pin(self.finish_upload(permit, session, digest, headers, body)).await
            }
            Route::GetUpload { repository, token } => {
                self.get_upload(self.session(caller, &repository, &token).await?).await
            }
            Route::CancelUpload { repository, token } => {
                let session = self.session(caller, &repository, &token).await?;
                Box::pin(self.cancel_upload(session)).await
            }
        }
    }

    fn identify(&self, caller: Result<Identity, AuthenticationError>) -> Result<Identity, Error> {
        caller.map_err(|error| match error {
            AuthenticationError::Unauthenticated => Error::Unauthenticated(self.authenticator.challenge(None)),
            AuthenticationError::Token(error) => Error::Unauthenticated(self.authenticator.challenge(Some(error))),
            AuthenticationError::TooManyAttempts { retry_after } => Error::TooManyAttempts { retry_after },
            AuthenticationError::TooManyRequests => Error::TooManyRequests(Overload::Passwords),
            AuthenticationError::Unavailable(cause) => Error::Store(StoreError::because(Reason::Credentials, cause)),
        })
    }

    fn permit<A: Action>(&self, identity: &Identity, repository: &RepositoryName) -> Result<Permit<A>, Error> {
        identity.permit(repository).map_err(|_| self.refusal(identity))
    }

    /// The error for an identity that lacks a permission. An anonymous client is asked for credentials if credentials
    /// can help.
    fn refusal(&self, identity: &Identity) -> Error {
        match self.authenticator.challenge(None) {
            Some(challenge) if identity.principal().is_anonymous() => Error::Unauthenticated(Some(challenge)),
            _ => Error::Denied,
        }
    }

    fn authorize<A: Action>(
        &self,
        caller: Result<Identity, AuthenticationError>,
        repository: &RepositoryName,
    ) -> Result<Permit<A>, Error> {
        self.permit(&self.identify(caller)?, repository)
    }

    /// Authorizes the push of a manifest. It is not known yet whether its tags exist, so a push of tags needs the permission
    /// to move them.
    fn authorize_manifest(
        &self,
        caller: Result<Identity, AuthenticationError>,
        repository: &RepositoryName,
        has_tags: bool,
    ) -> Result<Permit<Push>, Error> {
        let identity = self.identify(caller)?;
        if has_tags {
            self.permit::<Move>(&identity, repository)?;
        }
        self.permit(&identity, repository)
    }

    /// Opens the session of an upload's path. The token authorizes the request, because some clients send no
    /// credentials to that path. Absent and invalid credentials are ignored. Valid credentials of another principal are
    /// refused.
    async fn session(
        &self,
        caller: Result<Identity, AuthenticationError>,
        repository: &RepositoryName,
        text: &str,
    ) -> Result<OpenSession, Error> {
        let token = self
            .tokens()
            .await?
            .verify(repository, text, self.environment.now())
            .ok_or(Error::UploadUnknown)?;
        match caller {
            Ok(identity) if !identity.principal().is_anonymous() && *identity.principal() != token.principal => {
                Err(Error::Denied)
            }
            _ => {
                // A verified token grants uploads to its repository, and nothing else.
                let scope = Scope::upload(repository);
                let permit = self.permit(&Identity::new(token.principal.clone(), scope), repository)?;
                OpenSession::new(&permit, token, text)
            }
        }
    }

    /// end-1. `docker login` checks credentials here, so the registry asks an anonymous client for credentials if they
    /// would change what it may do.
    fn base(&self, identity: &Identity) -> Result<Response<ResponseBody>, Error> {
        match self.authenticator.challenge(None) {
            Some(challenge) if identity.principal().is_anonymous() && !identity.is_unrestricted() => {
                Err(Error::Unauthenticated(Some(challenge)))
            }
            _ => Ok(response::json("application/json", "{}".into())),
        }
    }
}
